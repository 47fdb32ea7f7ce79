"""The command line on several ranks, as ``mpiexec -n 4 gpumlp train`` starts them: rank 0 prints, writes."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TypeVar

from gpumlp import distributed
from gpumlp.plans import SHARDS

__all__ = ["join", "ranks_of", "silent", "together"]

_SHARED = ("train", "tune")
_Result = TypeVar("_Result")


def join(words: list[str], arguments: argparse.Namespace) -> bool:
    """Whether this rank has a part in the command; of those that are not for several, rank 0 does all.

    ``arguments.job`` becomes the communicator of the ranks that work together, if there are several.

    Raises
    ------
    gpumlp.DeviceError
        The ranks cannot talk.
    """
    if distributed.size() == 1:
        return True
    if not words or words[0] not in _SHARED:
        return distributed.rank() == 0
    arguments.job = distributed.get_communicator()  # now: a rank that fails must be able to tell the others
    return True


def together(arguments: argparse.Namespace, do: Callable[[], _Result]) -> _Result:
    """What `do` returns, if it raises nothing on any rank; it must not talk to others.

    Else all ranks have an error, and ``arguments.agreed`` is set: none waits for another one.
    """
    if arguments.job is None:
        return do()
    error: Exception | None = None
    try:
        result = do()
    except Exception as raised:
        error = raised
    try:
        distributed.agree(arguments.job, error)
    except Exception:
        arguments.agreed = True
        raise
    return result


@contextmanager
def silent() -> Iterator[None]:
    """Nothing is printed while the block runs, except by rank 0."""
    if not distributed.rank():
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as null, redirect_stdout(null), redirect_stderr(null):
        yield


def ranks_of(shared: bool) -> dict[str, Any]:
    """What a trainer is told of the ranks, if they train one network together."""
    return {"communicator": "auto", "reproducible": distributed.size() <= SHARDS} if shared else {}
