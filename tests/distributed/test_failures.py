"""A rank that fails ends the job, with one message that says which and why; nobody is left behind."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from ranks import run, start, torchrun

REASONS = {
    "raises in a callback": "KeyError: 'something is missing'",
    "raises alone": "RuntimeError: the disk is full",
    "other settings": "rank 1 of 3 has seed 1, rank 0 has 0",
    "other shapes": "rank 1 of 3 has training rows 90 x 5 float32",
    "bad rows": "ValueError: X contains nan (row 15",
    "changes a setting": "rank 1 of 3 has batch_size 17, rank 0 has 32",
}


@pytest.mark.parametrize("how", REASONS)
def test_one_message_and_the_end(how: str, tmp_path: Path) -> None:
    process = start(3, "fail", how, str(tmp_path))
    _, errors = process.communicate(timeout=100)
    assert process.returncode != 0
    ends = [line for line in errors.splitlines() if line.startswith("gpumlp: rank ")]
    assert len(ends) == 1 and "of 3 ends the job: " in ends[0], errors
    assert "rank 1 of 3" in ends[0] and REASONS[how] in ends[0]


def test_an_exception_before_there_is_a_communicator() -> None:
    process = start(3, "end", "raises early")
    _, errors = process.communicate(timeout=100)
    assert process.returncode != 0
    assert "gpumlp: rank 1 of 3 ends the job: RuntimeError: the disk is full" in errors.splitlines()


@pytest.mark.parametrize("how", ["early", "late"])
def test_a_rank_that_leaves_while_others_wait(how: str) -> None:
    """By sys.exit, or at the end of its script."""
    process = start(3, "leave", how)
    _, errors = process.communicate(timeout=100)
    assert process.returncode != 0
    said = [line for line in errors.splitlines() if line.startswith("gpumlp: ")]
    assert len(said) == 1 and said[0].startswith("gpumlp: rank 1 of 3 ends the job: its program has ended"), (
        errors
    )


def test_a_rank_that_has_done_everything_may_leave() -> None:
    """However long another goes on with things of its own."""
    assert run(3, "leave", "in time") == "saved"


def test_a_killed_rank_takes_the_others_along(tmp_path: Path) -> None:
    process = start(3, "fail", "is killed", str(tmp_path))
    process.communicate(timeout=100)
    assert process.returncode != 0


def test_an_interrupt_of_the_launcher_ends_all(tmp_path: Path) -> None:
    process = start(3, "fail", "interrupted", str(tmp_path), start_new_session=True)
    while len(list(tmp_path.glob("begun*"))) < 3:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=60)  # all have closed their ends of the pipes
    assert process.returncode != 0


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("is killed", "rank 1 has died"),
        ("leaves", "rank 1 has ended, and rank 0 waits for it"),
        ("raises", "is full"),
        ("raises early", "is full"),
    ],
)
def test_without_mpi(how: str, reason: str) -> None:
    ends = torchrun(3, "end", how)
    assert all(code for *_, code in ends)
    said = [line for _, errors, _ in ends for line in errors.splitlines() if line.startswith("gpumlp: ")]
    assert len(said) == 1 and reason in said[0], ends
