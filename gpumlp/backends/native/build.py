"""From C++ text to a loaded shared library: the compiler, and what it made before.

One library per kernel and data type.  Its name in the cache is a hash of its text, the compiler, the flags
and the processor, so nothing stale is loaded; `cache.py` sees to it that nothing damaged or foreign is.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import re
import selectors
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpumlp.backends.native import cache
from gpumlp.backends.native.text import kernel_source
from gpumlp.distributed.launcher import launched
from gpumlp.errors import CompileError, DeviceError
from gpumlp.kernels.kernel import Kernel

__all__ = [
    "Compiler",
    "find_compiler",
    "forget",
    "load",
    "load_all",
    "load_kernels",
    "symbol",
    "thread_count",
]

# No errno and no traps: sqrt becomes one instruction.  NaN and infinity keep their meaning: no -ffast-math.
FLAGS = (
    "-O3",
    "-std=c++17",
    "-fopenmp-simd",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fPIC",
    "-shared",
    "-pthread",
    "-w",
)
#: after so long a compiler is taken to hang (longer where processes wait for cores); compiling takes 1 to 3
ANSWER_SECONDS, COMPILE_SECONDS = 10.0, 20.0
_MOST_SAID = 1 << 20  # bytes of messages after which a compiler is ended
_GLANCE = 0.05  # seconds after which a compiler that says nothing is looked at


# ---- compiler ------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Compiler:
    """A C++ compiler: its command, what it says of its version, and the flags it is called with."""

    command: tuple[str, ...]
    version: str
    flags: tuple[str, ...]

    def key(self, source: str) -> str:
        """Name of the library made from `source`."""
        text = "\0".join([source, *self.command, self.version, *self.flags, _processor()])
        return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:40]


@functools.cache
def _processor() -> str:
    """Model and instruction sets: -march=native depends on them, and the cache may lie on a shared disk."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        kept = {line for line in lines if re.match(r"(model name|flags|Features|CPU part|isa)\s*:", line)}
        if kept:
            return "\n".join(sorted(kept))
    return f"{platform.machine()} {platform.processor()}"


def _load() -> float:
    """How many processes there are for each core, at least 1."""
    with contextlib.suppress(OSError):
        return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    return 1.0


class _Run:
    """A compiler at work, in a process group of its own: with it end the programs that it has started."""

    def __init__(self, command: Sequence[str], seconds: float) -> None:
        self.command, self.seconds, self.start = command, seconds, time.monotonic()
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, "LC_ALL": "C"},  # messages in English
        )
        self._pipes = [pipe for pipe in (self.process.stdout, self.process.stderr) if pipe]
        self._said = [bytearray() for _ in self._pipes]
        self._open = selectors.PollSelector()
        for pipe, said in zip(self._pipes, self._said, strict=True):
            self._open.register(pipe, selectors.EVENT_READ, said)

    def done(self, wait: float) -> bool:
        """Whether it has ended, after at most `wait` seconds; TimeoutExpired if its time is over.

        Not `communicate`, which keeps all that is said, and waits for whoever has inherited the pipes.
        """
        until = time.monotonic() + wait
        while self.process.poll() is None:
            now = time.monotonic()
            if now >= self.start + self.seconds * _load():
                raise subprocess.TimeoutExpired(self.command, self.seconds)
            if now >= until:
                return False
            self._listen(min(until - now, _GLANCE))
        self._listen(0)
        return True

    def _listen(self, wait: float) -> None:
        if not self._open.get_map():  # it has closed its pipes: it is about to end
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(wait)
            return
        for key, _ in self._open.select(wait):
            part = os.read(key.fd, 1 << 16)
            if not part:
                self._open.unregister(key.fileobj)
            key.data.extend(part)
            if len(key.data) > _MOST_SAID:
                self._kill()

    def text(self) -> tuple[str, str]:
        """What it has written to its standard output and error."""
        answer, complaint = (bytes(said).decode("utf-8", errors="replace").strip() for said in self._said)
        return answer, complaint

    def _kill(self) -> None:
        if self.process.returncode is None:
            with contextlib.suppress(OSError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def stop(self) -> None:
        """End it, whatever it is doing."""
        self._kill()
        for pipe in self._pipes:
            pipe.close()


@functools.cache
def find_compiler() -> Compiler | None:
    """The first of $CXX, g++, c++ and clang++ that answers, or None."""
    for text in (os.environ.get("CXX", ""), "g++", "c++", "clang++"):
        with contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):
            command = shlex.split(text)  # ValueError: an open quote
            path = shutil.which(command[0]) if command else None
            if path is None:
                continue
            command[0] = path
            run = _Run([*command, "--version"], ANSWER_SECONDS)
            try:
                while not run.done(1.0):
                    pass
            finally:
                run.stop()
            if run.process.returncode == 0:
                return Compiler(tuple(command), run.text()[0].split("\n")[0], ("-march=native", *FLAGS))
    return None


def thread_count() -> int:
    """Processors that this process may use, at most $OMP_NUM_THREADS; ranks on one machine share them, unless
    their launcher has bound each to its own."""
    everything = os.cpu_count() or 1
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else everything
    if count == everything:
        count = max(1, count // launched().local_size)
    limit = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return min(count, max(1, int(limit))) if limit.isdigit() else count


def _compile(compiler: Compiler, sources: dict[str, str], place: Path) -> None:
    """Put the libraries made from `sources` (key -> text) into `place`, compiled side by side."""
    waiting, at_once, running = list(sources), thread_count(), dict[str, _Run]()
    with cache.workshop(place) as folder:
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    key = waiting.pop()
                    (folder / f"{key}.cpp").write_text(sources[key], encoding="utf-8")
                    files = ["-o", str(folder / key), str(folder / f"{key}.cpp")]
                    running[key] = _Run([*compiler.command, *compiler.flags, *files], COMPILE_SECONDS)
                for key in [key for key, run in running.items() if run.done(0.01 / len(running))]:
                    run = running[key]
                    run.stop()
                    if run.process.returncode:
                        said = run.text()[1]
                        raise CompileError(
                            f"the C++ compiler failed ({shlex.join(run.command)}):\n{said[-2000:]}\n"
                            "Set CXX to another compiler, or GPUMLP_NATIVE=0 to do without one.",
                            sources[key],
                            said,
                        )
                    cache.store(place, key, folder / key)
                    del running[key]
        finally:
            for run in running.values():
                run.stop()


# ---- libraries -----------------------------------------------------------------------------------------
_loaded: dict[str, ctypes.CDLL] = {}
#: what went wrong for which libraries, or with which compiler; it is not tried again, which takes time
_failed: dict[tuple[str, ...], DeviceError] = {}


def forget() -> None:
    """Go on as a new process would: no compiler is known, nothing is loaded, and nothing has failed."""
    find_compiler.cache_clear()
    _loaded.clear()
    _failed.clear()
    cache.forget()


def load_all(sources: Sequence[str]) -> list[ctypes.CDLL]:
    """The shared libraries made from `sources`; missing ones are compiled, side by side.

    Raises
    ------
    DeviceError
        If there is no compiler, it fails or hangs, or a library cannot be loaded.
    """
    compiler = find_compiler()
    if compiler is None:
        raise DeviceError(
            "no C++ compiler found (tried $CXX, g++, c++, clang++); install one, or use device='numpy'"
        )
    keys = [compiler.key(source) for source in sources]
    missing = {key: source for key, source in zip(keys, sources, strict=True) if key not in _loaded}
    if missing:
        before = _failed.get(compiler.command) or _failed.get(tuple(missing))
        if before:
            raise before.with_traceback(None)
        try:
            _loaded.update(_obtain(compiler, missing))
        except DeviceError as error:
            _failed[tuple(missing)] = error
            raise
    return [_loaded[key] for key in keys]


def load(source: str) -> ctypes.CDLL:
    """`load_all` for one."""
    return load_all([source])[0]


def symbol(library: ctypes.CDLL, name: str) -> Any:
    """A function of a loaded library; DeviceError if it is not in there: not every compiler compiles."""
    try:
        return getattr(library, name)
    except AttributeError as error:
        raise DeviceError(
            f"what the C++ compiler made lacks a function ({error}). Set CXX to another compiler, or "
            "GPUMLP_NATIVE=0 to do without."
        ) from None


def load_kernels(wanted: Sequence[tuple[Kernel, np.dtype, int]]) -> list[ctypes.CDLL]:
    """`load_all` for kernels, with the arguments of `kernel_source`."""
    return load_all([kernel_source(*each) for each in wanted])


def _obtain(compiler: Compiler, sources: dict[str, str]) -> dict[str, ctypes.CDLL]:
    """Libraries by their keys, from the first place where that works."""
    problem: Exception | None = None
    try:
        for place in cache.places():
            try:
                return _obtain_in(place, compiler, sources)
            except (OSError, DeviceError) as error:  # a full disk, or one that programs may not run from
                problem = problem or error
    except (OSError, subprocess.TimeoutExpired) as error:  # no temporary directory; a compiler that hangs
        problem = problem or error
    if isinstance(problem, DeviceError):
        raise problem
    failure = DeviceError(
        f"the C++ compiler {compiler.command[0]} could not be used: {problem}. Set CXX to another compiler, "
        "GPUMLP_CACHE_DIR to a directory with space, or GPUMLP_NATIVE=0 to do without."
    )
    if isinstance(problem, subprocess.TimeoutExpired):
        _failed[compiler.command] = failure
    raise failure from problem


def _obtain_in(place: Path, compiler: Compiler, sources: dict[str, str]) -> dict[str, ctypes.CDLL]:
    found = {}
    for key in sources:
        with contextlib.suppress(OSError):  # missing or damaged
            found[key] = cache.load(place, key)
    missing = {key: source for key, source in sources.items() if key not in found}
    if missing:
        _compile(compiler, missing, place)
    for key in missing:
        try:
            found[key] = cache.load(place, key)
        except OSError as error:
            raise DeviceError(
                f"{place / key}.so cannot be loaded: {error}. If programs may not run from that directory, "
                "set GPUMLP_CACHE_DIR to another one."
            ) from error
    return found
