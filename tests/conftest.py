"""Fixtures for all tests: the executors of this machine, and an environment that no test can change."""

from __future__ import annotations

import os
import signal
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from executors import DEVICES

import gpumlp
from gpumlp.activations import ACTIVATIONS
from gpumlp.losses import LOSSES
from gpumlp.optimizers import OPTIMIZERS

HERE = Path(__file__).parent
#: not part of `-m fast`: they start other programs, run compilers, or try thousands of inputs
SLOW = (
    "backends/test_native_build.py",
    "backends/test_native_cache.py",
    "backends/test_native_math.py",
    "cli/test_cli_models.py::test_bench",
    "cli/test_cli_output.py::test_a_broken_output_of_other_commands_is_told",
    "cli/test_cli_plots.py",
    "dask",
    "estimators/test_check_estimator.py",
    "estimators/test_their_tests.py",
    "files/test_fuzz.py",
    "files/test_kill.py",
    "scripts/bench",
    "scripts/reports",
    "training/test_processes.py",
)
#: so many cases of a parametrised test are part of it
FAST_CASES = 4
#: variables that steer the package; tests start without them
_OURS = ("GPUMLP_DEVICE",)


def pytest_configure(config: pytest.Config) -> None:
    # ignored where a shell runs pytest in the background; the tests of Ctrl-C would wait for ever
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before `-m` is looked at
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    _leave_out(config, items)
    _mark_fast(items)


def _mark_fast(items: list[pytest.Item]) -> None:
    """Mark `FAST_CASES` cases of every test that is not in `SLOW`, the same ones in every run.

    Which ones is as good as drawn: a fixed stride would always meet the same values of a parameter.
    """
    cases: dict[Any, list[pytest.Item]] = {}
    for item in items:
        if not item.nodeid.partition("tests/")[2].startswith(SLOW):
            cases.setdefault((item.path, getattr(item, "originalname", item.name)), []).append(item)
    for several in cases.values():
        several.sort(key=lambda item: zlib.crc32(item.nodeid.encode()))
        for item in several[:FAST_CASES]:
            item.add_marker("fast")


def _leave_out(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Apply `cuda_sample`; n should share no divisor with the numbers of values that it runs over.

    With GPUMLP_TEST_SAMPLE=n:k about one in n cases of each test with more than n of them is kept, as good as
    drawn; runs with k from 0 to n - 1 together see all.
    """
    if os.environ.get("GPUMLP_TEST_ALL"):
        return
    n, k = map(int, os.environ.get("GPUMLP_TEST_SAMPLE", "1:0").split(":"))
    total = Counter(getattr(item, "function", None) for item in items)
    seen: Counter[Any] = Counter()
    left_out = []
    for item in items:
        mark, call = item.get_closest_marker("cuda_sample"), getattr(item, "callspec", None)
        if call is None:
            continue
        test = getattr(item, "function", None)
        on_cuda = str(call.params.get("device", "")).startswith("cuda")
        out = mark is not None and on_cuda and seen[test] % mark.args[0] > 0
        seen[test] += 1
        if out or (total[test] > n and zlib.crc32(item.nodeid.encode()) % n != k):
            left_out.append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        gone = set(left_out)
        items[:] = [item for item in items if item not in gone]


def pytest_report_header() -> str:
    return f"gpumlp executors: {', '.join(DEVICES)}"


@pytest.fixture(autouse=True)
def _registries() -> Iterator[None]:
    """What a test registers is forgotten after it."""
    before = [(known, dict(known)) for known in (ACTIVATIONS, LOSSES, OPTIMIZERS)]
    yield
    for known, names in before:
        if known != names:
            known.clear()
            known.update(names)


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
