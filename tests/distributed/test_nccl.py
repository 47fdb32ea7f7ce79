"""Ranks with a CUDA device each, over NCCL; their ids travel over MPI, or over TCP as under torchrun."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from ranks import run, torchrun

from gpumlp.backends import cuda_problem

if "cuda" not in os.environ.get("GPUMLP_TEST_DEVICE", "cuda") or cuda_problem(1):
    pytest.skip("there are no two CUDA devices", allow_module_level=True)

NAMES = "dropout, clipping, weights", "own validation rows", "float16"


@pytest.fixture(scope="module")
def alone() -> Any:
    return run(0, "bits", "cuda", *NAMES)


@pytest.mark.memory
def test_the_bits_are_those_of_one_process(alone: Any) -> None:
    assert run(2, "bits", "cuda", *NAMES) == alone


def test_rows_that_come_in_chunks() -> None:
    assert run(2, "streams", "cuda") == run(0, "streams", "cuda")


def test_without_mpi(alone: Any) -> None:
    (out, errors, code), (_, others, other_code) = torchrun(2, "bits", "cuda", *NAMES)
    assert code == other_code == 0, errors + others
    assert json.loads(out) == alone


def test_a_step_is_one_launch() -> None:
    """Five steps more are five launches more, with one call of NCCL inside of each, and none outside."""
    simgpu = pytest.importorskip("simgpu", reason="counting needs the simulated device")
    if not simgpu.active():
        pytest.skip("counting needs the simulated device")
    steps, outside, inside = run(2, "count", "cuda")
    assert (steps, outside, inside) == (5, [0, 0], 5)
