"""Ranks with a CUDA device each, over NCCL; their ids travel over MPI, or over TCP as under torchrun."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from typing import Any

import pytest
from ranks import TIMEOUT, command, environment, run

from gpumlp.backends import cuda_problem

if "cuda" not in os.environ.get("GPUMLP_TEST_DEVICE", "cuda") or cuda_problem(1):
    pytest.skip("there are no two CUDA devices", allow_module_level=True)

NAMES = "dropout, clipping, weights", "own validation rows"


@pytest.fixture(scope="module")
def alone() -> Any:
    return run(0, "bits", "cuda", *NAMES)


def torchrun(n: int, function: str, *arguments: str) -> Any:
    """As torchrun starts ranks: what rank 0 prints."""
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
    answers = [rank.communicate(timeout=TIMEOUT + 30) for rank in ranks]
    assert not any(rank.returncode for rank in ranks), answers
    return json.loads(answers[0][0])


@pytest.mark.memory
def test_the_bits_are_those_of_one_process(alone: Any) -> None:
    assert run(2, "bits", "cuda", *NAMES) == alone


def test_without_mpi(alone: Any) -> None:
    assert torchrun(2, "bits", "cuda", *NAMES) == alone


def test_a_step_is_one_launch() -> None:
    """Five steps more are five launches more, with one call of NCCL inside of each, and none outside."""
    simgpu = pytest.importorskip("simgpu", reason="counting needs the simulated device")
    if not simgpu.active():
        pytest.skip("counting needs the simulated device")
    steps, outside, inside = run(2, "count", "cuda")
    assert (steps, outside, inside) == (5, [0, 0], 5)
