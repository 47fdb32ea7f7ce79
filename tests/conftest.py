"""Fixtures for all tests: the executors of this machine, and an environment that no test can change."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import gpumlp

#: variables that steer the package; tests start without them
_OURS = ("GPUMLP_DEVICE",)


def _devices() -> list[str]:
    """Executors named in GPUMLP_TEST_DEVICE (an unusable one then fails its tests), else all usable."""
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
    # ignored where a shell runs pytest in the background; the tests of Ctrl-C would wait for ever
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line(
        "markers", "memory: touches every kind of memory access; run also with checked device memory"
    )
    config.addinivalue_line(
        "markers",
        "cuda_sample(n): of the cases on a CUDA device only every n-th is run, because nearly each one "
        "compiles kernels of its own; GPUMLP_TEST_ALL=1 runs all",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Apply `cuda_sample`; n should share no divisor with the numbers of values that it runs over."""
    if os.environ.get("GPUMLP_TEST_ALL"):
        return
    seen: Counter[Any] = Counter()
    left_out = []
    for item in items:
        mark, call = item.get_closest_marker("cuda_sample"), getattr(item, "callspec", None)
        if mark is None or call is None or not str(call.params.get("device", "")).startswith("cuda"):
            continue
        test = getattr(item, "function", None)
        if seen[test] % mark.args[0]:
            left_out.append(item)
        seen[test] += 1
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        gone = set(left_out)
        items[:] = [item for item in items if item not in gone]


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
    """The same executor, which also updates bare arrays (NumPy ones else go to the CPU's default)."""
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
