"""Training on several ranks of the CPU: the same bits on any number of them, the numbers of one process."""

from __future__ import annotations

from pathlib import Path

import pytest
from ranks import run

DEVICES = "numpy,native"


@pytest.fixture(scope="module")
def alone() -> dict[str, str]:
    """Digests by one process, started without a launcher."""
    return run(0, "bits", DEVICES)


@pytest.mark.parametrize("n", [2, 4])
def test_the_bits_are_those_of_one_process(alone: dict[str, str], n: int) -> None:
    assert run(n, "bits", DEVICES) == alone


@pytest.mark.parametrize("n", [3, 8])
def test_so_are_those_of_other_numbers_of_ranks(alone: dict[str, str], n: int) -> None:
    """Shards that are spread unevenly, and one for each rank."""
    names = "dropout, clipping, weights", "fewer rows than shards"
    found = run(n, "bits", "native", *names)
    assert found == {f"native: {name}": alone[f"native: {name}"] for name in names}


def test_the_numbers_are_those_of_a_trainer_without_ranks() -> None:
    run(2, "near", "native")


def test_sums_are_made_in_a_tree() -> None:
    run(4, "tree", "100001")


def test_rows_that_come_in_chunks() -> None:
    assert run(3, "streams", "native") == run(0, "streams", "native")


def test_a_source_that_ranks_read_together() -> None:
    assert run(3, "shared_source", "native") == run(0, "shared_source", "native")


def test_a_training_goes_on_with_fewer_ranks(tmp_path: Path) -> None:
    """Saved by four ranks, continued by two and by one: the bits of the whole run; one rank writes."""
    whole = run(4, "resume", str(tmp_path))
    assert [each.name for each in tmp_path.iterdir()] == ["rank0.npz"]
    assert [run(n, "resume", str(tmp_path)) for n in (2, 0)] == [whole, whole]


def test_networks_spread_over_ranks() -> None:
    assert run(3, "many", "cpu") == run(0, "many", "cpu")
