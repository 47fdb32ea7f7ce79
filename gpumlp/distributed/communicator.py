"""`Communicator`: what the processes of a job tell each other; and the one of a process on its own."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["Alone", "Communicator"]


class Communicator(ABC):
    """A group of processes, its *ranks*, that run the same program.

    All methods but `abort`, `begin` and `leave` are collective: every rank calls them, in the same order.

    Attributes
    ----------
    rank, size : int
        This process's number, from 0, and how many there are.
    local_rank : int
        Its number among those on this machine: its device is ``cuda:<local_rank>``.
    ends_processes : bool
        Whether a rank's failure ends the processes of all; else their calls raise a `RankError`.
    """

    rank: int
    size: int
    local_rank: int
    ends_processes = True

    def on(self, backend: Any) -> Communicator:
        """The communicator of the same ranks that moves arrays of `backend`; usually this one."""
        return self

    @abstractmethod
    def gather(self, value: Any) -> list[Any]:
        """The `value` of each rank, on every rank.

        None, numbers, strings, bytes, NumPy arrays, and lists and dicts of them.
        """

    @abstractmethod
    def all_reduce(self, buffer: Any, into: Any = None) -> None:
        """`into`, or `buffer` itself, = the sum of `buffer` over the ranks, in the library's order."""

    @abstractmethod
    def all_gather(self, part: Any, out: Any) -> None:
        """out[r] = the `part` of rank r; `out` has the shape (size, *part.shape)."""

    @abstractmethod
    def all_to_all(self, send: Sequence[Any], receive: Sequence[Any]) -> None:
        """receive[r] = what rank r has in its ``send[<this rank>]``, an array of the same length."""

    @abstractmethod
    def broadcast(self, buffer: Any, root: int = 0) -> None:
        """buffer = that of rank `root`, in place."""

    @property
    def doubles(self) -> bool:
        """Whether `add_doubling` is there, and the better way."""
        return False

    def add_doubling(self, buffer: Any, scratch: Any) -> None:
        """buffer = its sum over the ranks, added in a balanced tree of neighbours, in place; `scratch` is an
        array like it."""
        raise NotImplementedError

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.gather(None)

    def begin(self) -> None:  # noqa: B027
        """This rank begins a call that waits for all ranks; see `leave`."""

    def leave(self) -> None:  # noqa: B027
        """This process is about to end: if a rank waits for it, or will, all end, with a message."""

    @abstractmethod
    def abort(self, reason: str) -> None:
        """End the processes of all ranks, at once; `reason` goes to standard error."""

    def _say(self, reason: str) -> None:
        print(f"gpumlp: rank {self.rank} of {self.size} ends the job: {reason}", file=sys.stderr, flush=True)


class Alone(Communicator):
    """One process: rank 0 of 1."""

    rank, size, local_rank = 0, 1, 0

    def gather(self, value: Any) -> list[Any]:
        """See `Communicator`."""
        return [value]

    def all_reduce(self, buffer: Any, into: Any = None) -> None:
        """See `Communicator`."""
        if into is not None:
            into[...] = buffer

    def all_gather(self, part: Any, out: Any) -> None:
        """See `Communicator`."""
        out[0] = part

    def all_to_all(self, send: Sequence[Any], receive: Sequence[Any]) -> None:
        """See `Communicator`."""
        receive[0][...] = send[0]

    def broadcast(self, buffer: Any, root: int = 0) -> None:
        """See `Communicator`."""

    def abort(self, reason: str) -> None:
        """See `Communicator`."""
        self._say(reason)
        os._exit(1)


def add_into(buffer: np.ndarray, other: np.ndarray) -> None:
    """buffer += other, where infinities and NaN are results."""
    with np.errstate(all="ignore"):
        np.add(buffer, other, out=buffer)
