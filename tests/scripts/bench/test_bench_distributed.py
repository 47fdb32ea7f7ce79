"""bench_distributed.py with one short turn."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


def test_prints_two_tables(script: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    if importlib.util.find_spec("mpi4py") is None or shutil.which("mpiexec", path=path) is None:
        pytest.skip("needs mpi4py and mpiexec")
    bench = script("bench.bench_distributed")
    assert bench.main(["--repeats", "1", "--steps", "1", "--rows", "512"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "all-reduce of 1,000,000 float32 between 2 ranks"
    assert [line.split("  ")[0] for line in lines[-3:]] == ["64-64-10", "784-256-128-10", "784-512-512-10"]
    assert all(line.count(" ms") + line.count(" us") == 4 for line in lines[-3:])
