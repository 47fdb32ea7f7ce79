"""Fixtures for tests that need a CUDA device; a simulated one will do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp.backends import cuda_problem
from gpumlp.datasets import load_digits


@pytest.fixture
def cuda() -> Any:
    """The CuPy executor."""
    if cuda_problem():
        pytest.skip(f"no CUDA device: {cuda_problem()}")
    return gpumlp.get_backend("cuda")


@pytest.fixture
def simgpu() -> Any:
    """The simulated device's counters."""
    return pytest.importorskip("simgpu", reason="counting needs the simulated device")


@pytest.fixture(scope="session")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """8 x 8 images (1797, 64) in 0..1 and their digits."""
    X, y = load_digits()
    return (X / 16).astype(np.float32), y
