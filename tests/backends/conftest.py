"""What the tests of the native executor's compiler and cache share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from executors import DEVICES

import gpumlp
from gpumlp.backends.native import build
from gpumlp.backends.native.backend import NativeBackend


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Nothing remembered from other tests, and an empty cache in a directory of this test's own."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("GPUMLP_CACHE_DIR", str(cache))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    NativeBackend.forget()
    yield cache
    NativeBackend.forget()


@pytest.fixture
def new_process() -> Callable[[], None]:
    """Call it to go on as a new process would: nothing is loaded."""
    return build.forget


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], str]:
    """Makes a shell script the compiler; it answers to --version by itself."""

    def use(text: str) -> str:
        path = tmp_path / "compiler"
        path.write_text(f'#!/bin/sh\n[ "$1" = --version ] && {{ echo odd 1.0; exit; }}\n{text}\n')
        path.chmod(0o755)
        monkeypatch.setenv("CXX", str(path))
        return str(path)

    return use


EAGER = ["cuda eager"] if any(name.startswith("cuda") for name in DEVICES) else []


@pytest.fixture(params=[*DEVICES, *EAGER])
def backend(request: pytest.FixtureRequest) -> Any:
    """Each executor; CUDA with graphs and without."""
    if request.param not in EAGER:
        return gpumlp.get_backend(request.param)
    from gpumlp.backends.cuda.backend import CupyBackend

    return CupyBackend(0, graph=False)
