"""`MPICommunicator`: arrays of the CPU through MPI, by mpi4py."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpumlp.distributed.communicator import Communicator, add_into
from gpumlp.distributed.launcher import launched
from gpumlp.distributed.nccl import NCCLCommunicator
from gpumlp.errors import DeviceError

__all__ = ["MPICommunicator"]

_TAG = 7
_LOOK = 0.05  # seconds between two looks at the others
_open: list[MPICommunicator] = []


class MPICommunicator(Communicator):
    """The ranks of an MPI communicator; arrays on CUDA devices go over NCCL, see `on`.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm, optional
        By default a duplicate of COMM_WORLD.

    Raises
    ------
    gpumlp.DeviceError
        mpi4py or an MPI library is missing.
    """

    def __init__(self, comm: Any = None) -> None:
        try:
            from mpi4py import MPI
            from mpi4py.util import pkl5
        except (ImportError, RuntimeError) as error:
            raise DeviceError(
                f"ranks on the CPU need mpi4py and an MPI library ({error}): "
                "pip install 'gpumlp[distributed]'"
            ) from error
        self._mpi = MPI
        self.comm = MPI.COMM_WORLD.Dup() if comm is None else comm
        self._objects = pkl5.Intracomm(self.comm)  # does not pickle the contents of arrays
        self.rank, self.size = self.comm.Get_rank(), self.comm.Get_size()
        here = launched()
        self.local_rank = here.local_rank if here.size == self.size else self.rank
        self._on_devices: dict[str, NCCLCommunicator] = {}
        # for the others to see: how many calls this rank has begun, and whether it is about to end
        self._window = MPI.Win.Allocate(2 * 8, 8, comm=self.comm)
        memory: Any = self._window.tomemory()
        self._begun = np.frombuffer(memory, np.int64)
        self._begun[:] = 0
        self._window.Lock_all()
        self.comm.Barrier()
        _open.append(self)

    def begin(self) -> None:
        """See `Communicator`."""
        self._begun[0] += 1

    def leave(self) -> None:
        """See `Communicator`: waits until all are about to end, as MPI itself would, but looks at them."""
        if self._mpi.Is_finalized():
            return
        for each in _open:
            each._begun[1] = 1
        while not all([each._all_leave() for each in _open]):  # noqa: C419 - look at all
            time.sleep(_LOOK)
        while _open:
            window = _open.pop()._window
            window.Unlock_all()
            window.Free()

    def _all_leave(self) -> bool:
        """Whether all ranks are about to end; if another is in a call that this one will not make, the job
        ends."""
        found = np.zeros((self.size, 2), np.int64)
        self._window.Sync()
        for rank in range(self.size):
            self._window.Get(found[rank], rank)
        self._window.Flush_all()
        begun, leaves = found[:, 0], found[:, 1] == 1
        behind = leaves & (begun < np.max(begun, where=~leaves, initial=0))
        if behind.any() and np.argmax(behind) == self.rank:  # the first one speaks
            waiting = np.argmax(~leaves & (begun > begun[self.rank]))
            self.abort(
                f"its program has ended, by sys.exit or at the end of the script, and rank {waiting} "
                "waits for it"
            )
        return bool(leaves.all())

    def on(self, backend: Any) -> Communicator:
        """This one for the CPU; for a CUDA device one over NCCL, made by all ranks at the first call."""
        if backend.name != "cuda":
            return self
        if backend.device not in self._on_devices:
            self._on_devices[backend.device] = NCCLCommunicator(self, backend)
        return self._on_devices[backend.device]

    def gather(self, value: Any) -> list[Any]:
        """See `Communicator`; any value that can be pickled."""
        self.begin()
        return list(self._objects.allgather(value))

    def all_reduce(self, buffer: np.ndarray, into: Any = None) -> None:
        """See `Communicator`."""
        self.begin()
        if into is None:
            self.comm.Allreduce(self._mpi.IN_PLACE, buffer)
        else:
            self.comm.Allreduce(buffer, into)

    def all_gather(self, part: np.ndarray, out: np.ndarray) -> None:
        """See `Communicator`."""
        self.begin()
        self.comm.Allgather(part, out)

    def all_to_all(self, send: Sequence[np.ndarray], receive: Sequence[np.ndarray]) -> None:
        """See `Communicator`."""
        self.begin()
        receive[self.rank][...] = send[self.rank]
        waiting = []
        for step in range(1, self.size):
            to, source = (self.rank + step) % self.size, (self.rank - step) % self.size
            waiting.append(self.comm.Irecv(_bytes(receive[source]), source, _TAG))
            waiting.append(self.comm.Isend(_bytes(np.ascontiguousarray(send[to])), to, _TAG))
        self._mpi.Request.Waitall(waiting)

    def broadcast(self, buffer: np.ndarray, root: int = 0) -> None:
        """See `Communicator`."""
        self.begin()
        self.comm.Bcast(buffer, root)

    @property
    def doubles(self) -> bool:
        """See `Communicator`: for 2, 4, 8, ... ranks."""
        return self.size & (self.size - 1) == 0

    def add_doubling(self, buffer: np.ndarray, scratch: np.ndarray) -> None:
        """See `Communicator`: ranks exchange with neighbours 1, 2, 4, ... away, and add.

        a + b is b + a, so both of a pair have the bits of the tree.
        """
        self.begin()
        bit = 1
        while bit < self.size:
            partner = self.rank ^ bit
            self.comm.Sendrecv(buffer, partner, _TAG, scratch, partner, _TAG)
            add_into(buffer, scratch)
            bit *= 2

    def abort(self, reason: str) -> None:
        """See `Communicator`."""
        self._say(reason)
        self.comm.Abort(1)


def _bytes(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1).view(np.uint8)
