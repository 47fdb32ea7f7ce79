"""A killed rank ends the job, and the training goes on; scripts/kill_ranks.py does this many times."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from ranks import mpiexec


def test_a_killed_rank_costs_no_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mpiexec()
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    job = importlib.import_module("scripts.kill_ranks").Job(tmp_path, seed=3, epochs=25)
    job.run(2)
    assert sum(job.ends.values()) > 2
