"""Many processes that train one network, or one set of networks: see docs/distributed.md.

Nothing here imports MPI or NCCL before a communicator is made.
"""

from __future__ import annotations

import os

from gpumlp.distributed.communicator import Alone, Communicator
from gpumlp.distributed.failure import RankError, agree, end_job, guard
from gpumlp.distributed.launcher import Launched, launched
from gpumlp.errors import DeviceError

__all__ = [
    "Alone",
    "Communicator",
    "Launched",
    "RankError",
    "agree",
    "end_job",
    "get_communicator",
    "guard",
    "launched",
    "rank",
    "size",
]

_made: list[Communicator] = []


def rank() -> int:
    """This process's number, from 0; 0 for a process on its own.

    As the launcher's environment says: it may be asked before anything else, and costs nothing.
    """
    return _made[0].rank if _made else _here().rank


def size() -> int:
    """How many processes there are; 1 for a process on its own."""
    return _made[0].size if _made else _here().size


def _here() -> Launched:
    """What the launcher says; of several ranks, this one will tell the others if it fails."""
    here = launched()
    if here.size > 1:
        guard(get_communicator)
    return here


def get_communicator(which: str | Communicator | None = "auto") -> Communicator:
    """The communicator of this job; the same object at every call.

    Parameters
    ----------
    which : "auto", "mpi", or a Communicator
        "auto" looks at the environment: what `mpiexec` (Open MPI, MPICH) and `srun` have started talks over
        MPI, what torchrun has started over TCP and NCCL, and a process on its own with nobody.  "mpi" is MPI
        whatever the environment says.  A communicator is returned as it is.

    Raises
    ------
    gpumlp.DeviceError
        There is a launcher, but its library is missing.
    """
    if isinstance(which, Communicator):
        if which.size > 1 and which.ends_processes:
            guard(lambda: which)
        return which
    if which not in ("auto", "mpi"):
        raise ValueError(f"communicator={which!r}; expected None, 'auto', 'mpi', or a Communicator")
    if not _made:
        _made.append(_make(launched(), which == "mpi"))
        if _made[0].size > 1:
            guard(get_communicator)
    return _made[0]


def _make(here: Launched, mpi: bool) -> Communicator:
    if here.launcher == "torchrun" and not mpi:
        from gpumlp.distributed.tcp import TCPCommunicator

        # torchrun itself listens on the port that it names
        port = int(os.environ.get("MASTER_PORT", "29500")) + ("TORCHELASTIC_RUN_ID" in os.environ)
        address = os.environ["MASTER_ADDR"]
        return TCPCommunicator(here.rank, here.size, here.local_rank, address, port)
    if here.size == 1 and not mpi:
        return Alone()
    from gpumlp.distributed.mpi import MPICommunicator

    made = MPICommunicator()
    if made.size == 1 and here.size > 1:
        raise DeviceError(
            f"{here.launcher} has started {here.size} processes, but mpi4py's MPI library sees one: it "
            "belongs to another MPI; install mpi4py for this launcher, or use the mpiexec of that library"
        )
    return made
