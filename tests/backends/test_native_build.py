"""The native executor's compiler: why it cannot be used, and what happens then."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpumlp.kernels.kernel import Kernel

import gpumlp
from gpumlp.backends.native import build as native_build
from gpumlp.backends.native.backend import NativeBackend
from gpumlp.errors import DeviceError

needs_compiler = pytest.mark.skipif(
    NativeBackend.why_not() is not None, reason=f"no native executor: {NativeBackend.why_not()}"
)
pytestmark = pytest.mark.usefixtures("fresh")
Compiler = Callable[[str], str]
SOURCE = 'extern "C" int answer() { return %d; }\n'


def test_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUMLP_NATIVE", "0")
    assert "GPUMLP_NATIVE=0" in (NativeBackend.why_not() or "")
    with pytest.raises(DeviceError, match="GPUMLP_NATIVE=0"):
        NativeBackend()


def test_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no C++ compiler" in (NativeBackend.why_not() or "")


def test_broken_compiler(compiler: Compiler, fresh: Path) -> None:
    compiler('echo "cannot find cc1plus" >&2; exit 1')
    assert "cannot find cc1plus" in (NativeBackend.why_not() or "")
    assert list(fresh.iterdir()) == []


def test_compiler_whose_libraries_cannot_be_loaded(compiler: Compiler) -> None:
    compiler('while [ $# -gt 0 ]; do [ "$1" = -o ] && echo no library > "$2"; shift; done')
    assert "cannot be loaded" in (NativeBackend.why_not() or "")


def test_compiler_that_says_what_is_not_text(compiler: Compiler) -> None:
    compiler("printf 'Fehler: \\344\\n' >&2; exit 1")
    assert "Fehler: \ufffd" in (NativeBackend.why_not() or "")


def test_compiler_that_makes_nothing(compiler: Compiler) -> None:
    compiler("exit 0")
    assert "could not be used" in (NativeBackend.why_not() or "")


def test_compiler_that_hangs(
    compiler: Compiler, fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It and what it has started are ended; it is not tried again."""
    monkeypatch.setattr(native_build, "COMPILE_SECONDS", 0.5)
    compiler(f"echo $$ >> {tmp_path}/pids; sleep 600 & echo $! >> {tmp_path}/pids; trap '' INT TERM; wait")
    with pytest.warns(RuntimeWarning, match="timed out") as caught:
        model = gpumlp.MLP([2, 3, 1], device="cpu")
        trainer = gpumlp.Trainer(model, loss="squared_error", optimizer="sgd")
        trainer.fit(np.ones((4, 2)), np.ones(4), epochs=1, progress=False)
    assert model.backend.name == "numpy" and len(caught) == 1
    with pytest.raises(DeviceError, match="timed out"):
        native_build.load(SOURCE % 1)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2 and not any(_runs(pid) for pid in pids)
    assert list(fresh.iterdir()) == []


def test_ctrl_c_ends_a_compiler_that_hangs(compiler: Compiler, fresh: Path, tmp_path: Path) -> None:
    compiler(f"echo $$ >> {tmp_path}/pids; trap '' INT TERM; while :; do sleep 1; done")
    previous = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(KeyboardInterrupt):
            native_build.load_all([SOURCE % i for i in range(3)])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert pids and not any(_runs(pid) for pid in pids)
    assert list(fresh.iterdir()) == []


def _runs(pid: int) -> bool:
    """Whether the process is there and not merely waiting to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_an_open_quote_in_cxx_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = native_build.find_compiler()
    native_build.find_compiler.cache_clear()
    monkeypatch.setenv("CXX", "g++ 'x")
    assert native_build.find_compiler() == usual


@needs_compiler
def test_unusable_cxx_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/no/such/compiler -O9")
    assert NativeBackend.why_not() is None


@needs_compiler
def test_other_flags_are_another_library(fresh: Path) -> None:
    found = native_build.find_compiler()
    assert found is not None
    other = native_build.Compiler(found.command, found.version, (*found.flags, "-DX"))
    assert len({found.key(SOURCE), other.key(SOURCE), found.key(SOURCE + " ")}) == 3


@needs_compiler
def test_many_at_once(fresh: Path) -> None:
    sources = [SOURCE % (i % 3) for i in range(12)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda source: native_build.load(source).answer(), sources))
    assert answers == [i % 3 for i in range(12)]
    assert [lib.answer() for lib in native_build.load_all(sources)] == answers
    assert len(list(fresh.iterdir())) == 3


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


FULL = """
import resource, sys, warnings
import numpy as np, gpumlp
warnings.simplefilter("always")
model = gpumlp.MLP([8, 16, 3], device=sys.argv[1], seed=0)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # a longer file cannot be written, as on a full disk
trainer = gpumlp.Trainer(model, loss="softmax_cross_entropy", optimizer="adam")
trainer.fit(np.eye(8), np.arange(8) % 3, epochs=3, progress=False)
step = gpumlp.Adam()
step.update(np.ones(4), np.ones(4))
print(model.backend.to_numpy(model.flat).tobytes().hex())
"""


@needs_compiler
def test_a_full_disk_ends_in_numpy_with_one_warning_or_in_an_error() -> None:
    """The former on device "cpu", the latter on "native"; the runtime was compiled while there was space."""

    def run(device: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-c", FULL, device]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    numpy, cpu, native = run("numpy"), run("cpu"), run("native")
    assert numpy.returncode == cpu.returncode == 0, cpu.stderr
    # without a device of its own, `update` needs the compiled runtime, which "numpy" has not loaded
    assert cpu.stdout == numpy.stdout and cpu.stderr.count("RuntimeWarning") == 1
    assert native.returncode == 1 and "DeviceError" in native.stderr


def test_a_workshop_that_another_maker_clears_away(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its making and its locking it looks like one whose maker is dead."""
    made: list[Path] = []
    make = native_build.cache.tempfile.mkdtemp

    def cleared(**options: Any) -> str:
        folder = make(**options)
        if not made:
            Path(folder).rmdir()
        made.append(Path(folder))
        return folder

    monkeypatch.setattr(native_build.cache.tempfile, "mkdtemp", cleared)
    assert native_build.load(SOURCE % 5).answer() == 5
    assert len(made) == 2 and {folder.parent for folder in made} == {fresh}
    assert [file.suffix for file in fresh.iterdir()] == [".so"]
