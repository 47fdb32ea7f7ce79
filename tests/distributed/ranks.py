"""Starting the ranks of a job; if they hang, the stacks of all are shown."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
TIMEOUT = 240  # seconds; the machine may be busy


def mpiexec() -> str:
    """The launcher that belongs to this Python's MPI; without one, the test is skipped."""
    if importlib.util.find_spec("mpi4py") is None:
        pytest.skip("mpi4py is not installed")
    found = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip("there is no mpiexec")
    return found


def environment(**more: str) -> dict[str, str]:
    """Of a rank: one thread each, so that ranks do not compete; nothing of a launcher that runs the tests."""
    path = os.pathsep.join(p for p in (str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")) if p)
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **more}


def command(function: str, *arguments: str, timeout: float = TIMEOUT) -> list[str]:
    """Of one rank."""
    return [sys.executable, str(HERE / "job.py"), str(timeout), function, *arguments]


def start(n: int, function: str, *arguments: str, **more: Any) -> subprocess.Popen[str]:
    """`n` ranks under mpiexec (0: one process without it)."""
    launcher = [mpiexec(), "-n", str(n)] if n else []
    return subprocess.Popen(
        [*launcher, *command(function, *arguments)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


def run(n: int, function: str, *arguments: str) -> Any:
    """What rank 0 of `n` printed, as JSON; None if it printed nothing."""
    process = start(n, function, *arguments)
    out, errors = process.communicate(timeout=TIMEOUT + 30)
    assert process.returncode == 0, f"{n} ranks, {function}{arguments}:\n{out}\n{errors}"
    return json.loads(out) if out.strip() else None


def torchrun(n: int, function: str, *arguments: str) -> list[tuple[str, str, int]]:
    """Standard output, errors and exit status of `n` ranks that are started as torchrun does it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ranks = []
    for rank in range(n):
        given = {
            "RANK": rank,
            "WORLD_SIZE": n,
            "LOCAL_RANK": rank,
            "LOCAL_WORLD_SIZE": n,
            "MASTER_PORT": port,
        }
        own = environment(MASTER_ADDR="127.0.0.1", **{name: str(value) for name, value in given.items()})
        pipe = subprocess.PIPE
        ranks.append(
            subprocess.Popen(command(function, *arguments), env=own, stdout=pipe, stderr=pipe, text=True)
        )
    return [(*rank.communicate(timeout=TIMEOUT + 30), rank.returncode) for rank in ranks]
