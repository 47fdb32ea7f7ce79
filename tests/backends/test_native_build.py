"""The native executor's compiler and cache: why it cannot be used; code is loaded from safe places only."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from gpumlp.kernels.kernel import Kernel

from gpumlp.backends.native import backend as native
from gpumlp.backends.native import build as native_build
from gpumlp.backends.native.backend import NativeBackend
from gpumlp.errors import DeviceError

needs_compiler = pytest.mark.skipif(
    NativeBackend.why_not() is not None, reason=f"no native executor: {NativeBackend.why_not()}"
)
SOURCE = 'extern "C" int answer() { return %d; }\n'


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Nothing remembered from other tests, and an empty cache in a directory of this test's own."""
    remembered = (native_build.find_compiler, native_build.cache_dir, native._runtime, native._load_failure)
    cache = tmp_path / "cache"
    monkeypatch.setenv("GPUMLP_CACHE_DIR", str(cache))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(native_build, "_loaded", {})
    for function in remembered:
        function.cache_clear()
    yield cache
    for function in remembered:
        function.cache_clear()


def _script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUMLP_NATIVE", "0")
    assert "GPUMLP_NATIVE=0" in (NativeBackend.why_not() or "")
    with pytest.raises(DeviceError, match="GPUMLP_NATIVE=0"):
        NativeBackend()


def test_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no C++ compiler" in (NativeBackend.why_not() or "")


def test_broken_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fresh: Path) -> None:
    text = 'case "$1" in --version) echo broken 1.0;; *) echo "cannot find cc1plus" >&2; exit 1;; esac'
    monkeypatch.setenv("CXX", _script(tmp_path / "broken", text))
    assert "cannot find cc1plus" in (NativeBackend.why_not() or "")
    assert list(fresh.iterdir()) == []


def test_compiler_whose_libraries_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = (
        '[ "$1" = --version ] && { echo odd 1.0; exit; }\n'
        'while [ $# -gt 0 ]; do [ "$1" = -o ] && echo no library > "$2"; shift; done'
    )
    monkeypatch.setenv("CXX", _script(tmp_path / "odd", text))
    assert "cannot be loaded" in (NativeBackend.why_not() or "")


@needs_compiler
def test_unusable_cxx_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/no/such/compiler -O9")
    assert NativeBackend.why_not() is None


@needs_compiler
def test_cache_is_private_and_used(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert native_build.load(SOURCE % 1).answer() == 1
    assert native_build.load(SOURCE % 2).answer() == 2
    assert stat.S_IMODE(fresh.stat().st_mode) == 0o700
    files = sorted(fresh.iterdir())
    assert len(files) == 2 and all(f.suffix == ".so" for f in files)
    monkeypatch.setattr(native_build, "_loaded", {})
    monkeypatch.setattr(native_build, "_compile", lambda *_: pytest.fail("compiled again"))
    assert native_build.load(SOURCE % 1).answer() == 1


@needs_compiler
def test_other_flags_are_another_library(fresh: Path) -> None:
    compiler = native_build.find_compiler()
    assert compiler is not None
    other = native_build.Compiler(compiler.command, compiler.version, (*compiler.flags, "-DX"))
    assert len({compiler.key(SOURCE), other.key(SOURCE), compiler.key(SOURCE + " ")}) == 3


@needs_compiler
def test_many_at_once(fresh: Path) -> None:
    sources = [SOURCE % (i % 3) for i in range(12)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda source: native_build.load(source).answer(), sources))
    assert answers == [i % 3 for i in range(12)]
    assert [lib.answer() for lib in native_build.load_all(sources)] == answers
    assert len(list(fresh.iterdir())) == 3


@pytest.mark.parametrize("problem", ["others can write", "a file", "a link"])
def test_unsafe_cache_is_not_used(fresh: Path, problem: str) -> None:
    if problem == "others can write":
        fresh.mkdir()
        fresh.chmod(0o777)
    elif problem == "a file":
        fresh.write_text("")
    else:
        (fresh.parent / "elsewhere").mkdir()
        fresh.symlink_to(fresh.parent / "elsewhere")
    used = native_build.cache_dir()
    assert used != fresh and used.resolve() != fresh.resolve()
    assert stat.S_IMODE(used.stat().st_mode) == 0o700
    used.rmdir()


def test_cache_directory_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GPUMLP_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert native_build.cache_dir() == (tmp_path / "xdg" / "gpumlp").resolve()


@pytest.mark.parametrize(
    "given,most", [("1", 1), ("1,4", 1), ("1000000", os.cpu_count()), ("many", os.cpu_count())]
)
def test_threads(monkeypatch: pytest.MonkeyPatch, given: str, most: int) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert 1 <= native_build.thread_count() <= most


@needs_compiler
def test_text_that_is_not_cpp_shows_the_compiler_message() -> None:
    kernel = Kernel(
        name="gpumlp_test_wrong",
        inputs="T x",
        outputs="T y",
        body="y = no_such_thing;",
        reference=lambda **_: None,
    )
    with pytest.raises(DeviceError, match="no_such_thing"):
        NativeBackend().launch(kernel, {"x": np.ones(3), "y": np.ones(3)}, {}, rows=1, cols=3)
