"""`NCCLCommunicator`: arrays of CUDA devices through NCCL, by CuPy; calls go to the current stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from gpumlp.distributed.communicator import Communicator
from gpumlp.errors import DeviceError

__all__ = ["NCCLCommunicator"]

#: dtype -> NCCL's number for it
_TYPES = {"int8": 0, "uint8": 1, "int32": 2, "int64": 4, "float16": 6, "float32": 7, "float64": 8}
_SUM = 0


class NCCLCommunicator(Communicator):
    """Ranks with a CUDA device each; nothing waits on the host, and graphs can capture all but `gather`.

    Parameters
    ----------
    host : Communicator
        Of the same ranks: it carries the unique id, objects, and the end of a job.
    backend : Backend
        Of this rank's device.

    Raises
    ------
    gpumlp.DeviceError
        NCCL is missing, or two ranks have the same device.
    """

    def __init__(self, host: Communicator, backend: Any) -> None:
        self.host, self.backend = host, backend
        self.rank, self.size, self.local_rank = host.rank, host.size, host.local_rank
        try:
            from cupy.cuda import nccl

            unique: Any = nccl.get_unique_id() if self.rank == 0 else None
            problem = None
        except Exception as error:
            unique, problem = None, f"NCCL cannot be used ({error}): pip install nvidia-nccl-cu12"
        self._agree(problem)
        given = host.gather(unique)[0]
        unique = tuple(given) if isinstance(given, list) else given  # bytes since CuPy 14
        with backend.work():
            try:
                self._nccl, self._comm = nccl, nccl.NcclCommunicator(self.size, unique, self.rank)
            except Exception as error:
                problem = (
                    f"NCCL found no way to {backend.device}, or another rank has the same device ({error})"
                )
        self._agree(problem)
        self.all_reduce(
            backend.zeros(1, np.float32)
        )  # connections are made now, not while a graph is captured
        backend.synchronize()

    def _agree(self, problem: str | None) -> None:
        for rank, found in enumerate(self.host.gather(problem)):
            if found:
                raise DeviceError(f"rank {rank} of {self.size}: {found}")

    @contextmanager
    def _stream(self) -> Iterator[Any]:
        """The current stream, behind the backend's earlier work; the graph that is being captured knows its
        own order."""
        current = self.backend.xp.cuda.get_current_stream()
        if current.is_capturing():
            yield current
        else:
            with self.backend.work() as stream:
                yield stream

    def gather(self, value: Any) -> list[Any]:
        """See `Communicator`."""
        return self.host.gather(value)

    def all_reduce(self, buffer: Any, into: Any = None) -> None:
        """See `Communicator`."""
        with self._stream() as stream:
            place, count, kind = _of(buffer)
            self._comm.allReduce(
                place, place if into is None else _of(into)[0], count, kind, _SUM, stream.ptr
            )

    def all_gather(self, part: Any, out: Any) -> None:
        """See `Communicator`."""
        with self._stream() as stream:
            place, count, kind = _of(part)
            self._comm.allGather(place, _of(out)[0], count, kind, stream.ptr)

    def all_to_all(self, send: Sequence[Any], receive: Sequence[Any]) -> None:
        """See `Communicator`."""
        with self._stream() as stream:
            receive[self.rank][...] = send[self.rank]
            self._nccl.groupStart()
            for step in range(1, self.size):
                to, source = (self.rank + step) % self.size, (self.rank - step) % self.size
                if send[to].size:
                    self._comm.send(*_of(send[to]), to, stream.ptr)
                if receive[source].size:
                    self._comm.recv(*_of(receive[source]), source, stream.ptr)
            self._nccl.groupEnd()

    def broadcast(self, buffer: Any, root: int = 0) -> None:
        """See `Communicator`."""
        with self._stream() as stream:
            place, count, kind = _of(buffer)
            self._comm.broadcast(place, place, count, kind, root, stream.ptr)

    def begin(self) -> None:
        """See `Communicator`; for calls that nothing on the host precedes."""
        self.host.begin()

    def abort(self, reason: str) -> None:
        """See `Communicator`."""
        self.host.abort(reason)

    def break_off(self) -> None:
        """End what waits for other ranks on the device, from any thread; nothing can be exchanged then."""
        self._comm.abort()


def _of(array: Any) -> tuple[int, int, int]:
    """Address, number of elements and type, for NCCL."""
    if not array.flags.c_contiguous:
        raise ValueError("NCCL moves contiguous arrays")
    if array.dtype.name in _TYPES:
        return array.data.ptr, array.size, _TYPES[array.dtype.name]
    return array.data.ptr, array.nbytes, _TYPES["uint8"]  # only moved, never added
