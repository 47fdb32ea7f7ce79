"""Fixtures for all tests: the executors of this machine, and an environment that no test can leak into the next."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import gpumlp

#: variables that steer the package; tests start without them
_OURS = ("GPUMLP_DEVICE",)


def _devices() -> list[str]:
    """Executors to test: those named in GPUMLP_TEST_DEVICE (an unusable one then fails its tests), else all usable."""
    wanted = [name.strip() for name in os.environ.get("GPUMLP_TEST_DEVICE", "").split(",") if name.strip()]
    if wanted:
        return wanted
    usable = []
    for name in ("numpy", "native", "cuda"):
        try:
            gpumlp.get_backend(name)
        except gpumlp.DeviceError:
            continue
        usable.append(name)
    return usable


DEVICES = _devices()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "memory: touches every kind of memory access; run also with checked device memory"
    )


def pytest_report_header() -> str:
    return f"gpumlp executors: {', '.join(DEVICES)}"


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    """Name of an executor."""
    return request.param


@pytest.fixture
def backend(device: str) -> Any:
    """Executor; an error, not a skip, if it was asked for and cannot be used."""
    return gpumlp.get_backend(device)


@pytest.fixture
def on(backend: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The same executor, and bare arrays of its kind are updated by it (else NumPy arrays go to the CPU's default)."""
    usual = gpumlp.backends.backend_of

    def backend_of(array: Any) -> Any:
        return backend if isinstance(array, np.ndarray) and backend.xp is np else usual(array)

    monkeypatch.setattr(gpumlp.backends, "backend_of", backend_of)
    return backend


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> np.dtype:
    """Type of stored data."""
    return np.dtype(request.param)


@pytest.fixture(autouse=True)
def _own_environment() -> Iterator[None]:
    before = dict(os.environ)
    for name in _OURS:
        os.environ.pop(name, None)
    where = os.getcwd()
    try:
        yield
    finally:
        os.chdir(where)
        for name in set(os.environ) - set(before):
            if name != "PYTEST_CURRENT_TEST":
                del os.environ[name]
        os.environ.update({name: value for name, value in before.items() if os.environ.get(name) != value})


@pytest.fixture(autouse=True)
def _own_numpy_state() -> Iterator[None]:
    with np.errstate():
        yield
