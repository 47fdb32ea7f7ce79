"""A rank that fails ends the job: others would wait for it for ever."""

from __future__ import annotations

import atexit
import os
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any

from gpumlp.distributed.communicator import Communicator
from gpumlp.errors import DeviceError

__all__ = ["RankError", "agree", "end_job", "guard"]

_TURN = 0.1  # seconds between two ranks that have the same to say
_guarding: list[Callable[[], Communicator]] = []


class RankError(RuntimeError):
    """Another rank has failed; the message says which, and why."""


def guard(find: Callable[[], Communicator]) -> None:
    """From now on an exception that nobody catches ends the processes of all ranks, with one message; so does
    the end of this process if others wait for it.

    `find` gives the communicator, and makes it if need be: others may be waiting for this rank to come.
    """
    if not _guarding:
        sys.excepthook = _end
        atexit.register(_leave, os.getpid())
    _guarding[:] = [find]


def _end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    communicator = _in_turn(error)
    traceback.print_exception(kind, error, trace)
    communicator.abort(f"{kind.__name__}: {error}" if str(error) else kind.__name__)


def end_job(error: BaseException, reason: str) -> None:
    """End the processes of all ranks because of an `error` on this one; `reason` goes to standard error."""
    _in_turn(error).abort(reason)


def _in_turn(error: BaseException) -> Communicator:
    """The communicator, when it is this rank's turn to speak."""
    communicator = _guarding[0]()
    # whoever failed first speaks first; where all have the same exception it is rank 0
    wait = min(communicator.rank, 10) * _TURN + (3 * _TURN if isinstance(error, RankError) else 0)
    time.sleep(wait)
    return communicator


def _leave(process: int) -> None:
    if os.getpid() == process:  # a fork is no rank
        with suppress(DeviceError):  # without MPI nobody waits
            _guarding[0]().leave()


def agree(communicator: Communicator, error: BaseException | None, value: Any = None) -> list[Any]:
    """The `value` of each rank, if none has an error; else that error here, and on the others a `RankError`
    that tells of it."""
    told = None if error is None else f"{type(error).__name__}: {error}"
    answers = communicator.gather([told, value])
    if error is not None:
        raise error
    for rank, (failed, _) in enumerate(answers):
        if failed is not None:
            raise RankError(f"rank {rank} of {communicator.size}: {failed}")
    return [value for _, value in answers]
