"""Who started this process: rank and size from the environment that a launcher makes, without MPI."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Launched", "launched"]


@dataclass(frozen=True)
class Launched:
    """One of the processes that a launcher has started together.

    Attributes
    ----------
    launcher : str
        "torchrun", "Open MPI", "MPICH" (and relatives, such as Intel MPI), "Slurm", or "" for a process on
        its own.
    rank, size : int
        Its number, from 0, and how many there are.
    local_rank, local_size : int
        The same among the processes on this machine.
    """

    launcher: str = ""
    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1


#: launcher -> names of the variables for rank, size, local rank and local size
_NAMES = {
    "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    "Open MPI": (
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
    "MPICH": ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    # only `srun` counts its step's tasks: a batch script has a rank as well, but is alone
    "Slurm": ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE"),
}


def launched(environment: Mapping[str, str] | None = None) -> Launched:
    """What the environment says of this process.

    Examples
    --------
    >>> launched({"PMI_RANK": "2", "PMI_SIZE": "4", "MPI_LOCALRANKID": "2", "MPI_LOCALNRANKS": "4"})
    Launched(launcher='MPICH', rank=2, size=4, local_rank=2, local_size=4)
    >>> launched({}).size
    1
    """
    given = os.environ if environment is None else environment
    for launcher, names in _NAMES.items():
        if launcher == "torchrun" and "MASTER_ADDR" not in given:
            continue
        rank, size, local_rank, local_size = (_whole(given.get(name)) for name in names)
        if rank is not None and size is not None and 0 <= rank < size and size > 1:
            return Launched(launcher, rank, size, rank if local_rank is None else local_rank, local_size or 1)
    return Launched()


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and text.strip().isdigit() else None
