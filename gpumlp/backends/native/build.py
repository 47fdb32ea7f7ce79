"""From a `Kernel` to a loaded machine-code function: C++ text, compiler, cache on disk.

One shared library per kernel and data type.  Its file name is a hash of its text, the compiler, the flags and
the processor, so nothing stale is loaded; it is written under another name and renamed, so nothing
half-written is.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import re
import shlex
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpumlp.errors import DeviceError
from gpumlp.kernels.kernel import FIXED, Kernel

__all__ = [
    "Compiler",
    "cache_dir",
    "cost",
    "find_compiler",
    "kernel_source",
    "load",
    "load_all",
    "runtime_source",
    "slots",
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
HERE = Path(__file__).parent
NARROW = 10  # most columns of a row kernel that is made for its number of columns
HEADER_WORDS = 7  # of an operation, before its slots: see LaunchWord in runtime.cpp
_COSTLY = re.compile(r"\b(?:exp|expm1|log|log1p|tanh|erf|for)\b")
_CALLED = re.compile(r"(\w+)\s*\(")
_SLOW = re.compile(r"\br?sqrt\b|/")
#: what vectors cannot do: choices, comparisons, loops, bits, other types, casts, places
_SINGLE = re.compile(
    r"[?<>!&|%~#]|==|\+\+|--|\(\s*C\s*\)"
    r"|\b(?:if|for|while|do|goto|switch|bool|char|short|int|long|float|double|T|r|c|k)\b"
)


# ---- text ----------------------------------------------------------------------------------------------
def slots(kernel: Kernel) -> list[str]:
    """Names of an operation's words after its header.

    Address and row stride of each array, scalars, columns of the step table, and if masked the segments.
    """
    names = [part for a in kernel.arrays for part in (a.name, f"ld_{a.name}")]
    names += [s.name for s in kernel.constants] + list(kernel.stepped)
    return names + (["gpumlp_segments", "gpumlp_n_segments"] if kernel.masked else [])


def cost(kernel: Kernel) -> int:
    """How much work an element is, in units of about 0.15 ns."""
    return 1 + 3 * len(_COSTLY.findall(kernel.body)) + len(_SLOW.findall(kernel.body))


def serial_below(kernel: Kernel) -> int:
    """Number of elements from which a launch of its own is split over threads (about 10 us of work)."""
    return max(4096, 65536 // cost(kernel))


@functools.cache
def _math_text() -> str:
    return (HERE / "math.h").read_text(encoding="utf-8")


def kernel_source(kernel: Kernel, dtype: np.dtype, narrow: int = 0) -> str:
    """C++ text of `kernel` for arrays of `dtype` (float32 or float64).

    It defines ``gpumlp_kernel(op, values, k, r0, r1, c0, c1)``, for rows [r0, r1) and columns [c0, c1).
    With `narrow`, a row kernel is made for exactly that many columns: its loops over columns are unrolled and
    many rows are computed at a time, one per vector lane.
    """
    real = "float" if dtype == np.float32 else "double"
    prefix = "" if kernel.rowwise else "gpumlp_"
    return "\n".join(
        [
            "namespace gpumlp {",
            _math_text(),
            f"typedef {real} T;\ntypedef {real} C;",
            "union Word { long long i; double d; void *p; };",
            "struct Segment { long long start, stop; double decay; };",
            *([_ROW_MACROS, *(_NARROW if narrow else _WIDE)] if kernel.rowwise else []),
            'extern "C" void gpumlp_kernel(const Word *gpumlp_op, const C *gpumlp_values, const long long k,',
            "    const long long gpumlp_r0, const long long gpumlp_r1,",
            "    const long long gpumlp_c0, const long long gpumlp_c1) {",
            f"const long long rows = gpumlp_op[5].i, cols = {narrow or 'gpumlp_op[6].i'};",
            *_unpack(kernel),
            "#pragma omp simd" if narrow else "",
            "for (long long r = gpumlp_r0; r < gpumlp_r1; ++r) {",
            *(
                f"{_pointer(a.ctype, a.role)} {prefix}{a.name} = gpumlp_base_{a.name} + r * ld_{a.name};"
                for a in kernel.arrays
                if not a.role.startswith("raw")
            ),
            kernel.body if kernel.rowwise else _map_loop(kernel),
            "}\n}\n}\n",
        ]
    )


_ROW_MACROS = """\
#define GPUMLP_PRAGMA(text) _Pragma(#text)
#define GPUMLP_COLUMNS for (long long c = 0; c < cols; ++c)
#define ROW_SUM(name, ...) C name = C(0); GPUMLP_SUM(name) GPUMLP_COLUMNS name += (__VA_ARGS__);
#define ROW_MAX(name, ...) C name = -C(__builtin_inf()); GPUMLP_MAX(name) \\
    GPUMLP_COLUMNS { const C gpumlp_x = (__VA_ARGS__); name = gpumlp_x > name ? gpumlp_x : name; }
#define ROW_EACH GPUMLP_EACH GPUMLP_COLUMNS
#define ROW_ONE if (true)"""
_WIDE = (
    "#define GPUMLP_SUM(name) GPUMLP_PRAGMA(omp simd reduction(+:name))",
    "#define GPUMLP_MAX(name) GPUMLP_PRAGMA(omp simd reduction(max:name))",
    "#define GPUMLP_EACH GPUMLP_PRAGMA(omp simd)",
)
_NARROW = tuple(
    f"#define {name} GPUMLP_PRAGMA(GCC unroll {NARROW})"
    for name in ("GPUMLP_SUM(name)", "GPUMLP_MAX(name)", "GPUMLP_EACH")
)


def _pointer(ctype: str, role: str) -> str:
    const = "const " if role in ("in", "raw") else ""
    return f"{const}{FIXED.get(ctype, ctype)} *const" + (" __restrict__" if role == "raw" else "")


def _unpack(kernel: Kernel) -> list[str]:
    word = {name: f"gpumlp_op[{HEADER_WORDS + i}]" for i, name in enumerate(slots(kernel))}
    lines = []
    for a in kernel.arrays:
        pointer = _pointer(a.ctype, a.role)
        name = a.name if a.role.startswith("raw") else f"gpumlp_base_{a.name}"
        lines.append(f"{pointer} {name} = ({pointer}){word[a.name]}.p;")
        lines.append(f"const long long ld_{a.name} = {word[f'ld_{a.name}']}.i;")
    for s in kernel.constants:
        lines.append(
            f"const C {s.name} = (C){word[s.name]}.d;"
            if s.ctype == "C"
            else f"const long long {s.name} = {word[s.name]}.i;"
        )
    return lines + [f"const C {name} = gpumlp_values[{word[name]}.i];" for name in kernel.stepped]


def _map_loop(kernel: Kernel) -> str:
    plain = [a for a in kernel.arrays if not a.role.startswith("raw")]
    loads = [f"C {a.name} = gpumlp_{a.name}[c];" if a.role != "out" else f"C {a.name};" for a in plain]
    stores = [f"gpumlp_{a.name}[c] = {a.name};" for a in plain if a.role != "in"]
    first, last, before, after = "gpumlp_c0", "gpumlp_c1", list[str](), list[str]()
    if kernel.masked:  # a loop per segment: `decay` is a constant inside each
        at = {name: HEADER_WORDS + i for i, name in enumerate(slots(kernel))}
        first, last = "gpumlp_first", "gpumlp_last"
        before = [
            f"const Segment *gpumlp__segment = (const Segment *)gpumlp_op[{at['gpumlp_segments']}].p;",
            f"long long gpumlp__left = gpumlp_op[{at['gpumlp_n_segments']}].i;",
            "for (; gpumlp__left > 0; --gpumlp__left, ++gpumlp__segment) {",
            "const C decay = (C)gpumlp__segment->decay;",
            "const long long gpumlp_s0 = gpumlp__segment->start, gpumlp_s1 = gpumlp__segment->stop;",
            "const long long gpumlp_first = gpumlp_s0 > gpumlp_c0 ? gpumlp_s0 : gpumlp_c0;",
            "const long long gpumlp_last = gpumlp_s1 < gpumlp_c1 ? gpumlp_s1 : gpumlp_c1;",
        ]
        after = ["}"]
    by_element = [
        "#pragma omp simd",
        f"for (long long c = {first}; c < {last}; ++c) {{",
        *loads,
        "{",
        kernel.body,
        "}",
        *stores,
        "}",
    ]
    called = set(_CALLED.findall(kernel.body))
    real = all(a.ctype in ("T", "C") for a in plain)
    if real and "rsqrt" in called and called <= {"rsqrt", "C"} and not _SINGLE.search(kernel.body):
        by_lanes = _lanes_loop(kernel, first, last)
        by_element = ["#ifdef GPUMLP_LANES", *by_lanes, "#else", *by_element, "#endif"]
    return "\n".join([*before, *by_element, *after])


def _lanes_loop(kernel: Kernel, first: str, last: str) -> list[str]:
    """The loop with a vector for each variable; the rest that fills no vector gets the same arithmetic."""
    arrays = [a for a in kernel.arrays if not a.role.startswith("raw")]
    copy = "__builtin_memcpy({}, {}, gpumlp__n * sizeof(T));"
    values = [f"C {a.name} = {{}};" for a in arrays]
    loads = [copy.format(f"&{a.name}", f"gpumlp_{a.name} + gpumlp__c") for a in arrays if a.role != "out"]
    stores = [copy.format(f"gpumlp_{a.name} + gpumlp__c", f"&{a.name}") for a in arrays if a.role != "in"]
    return [
        "const auto gpumlp__part = [&](const long long gpumlp__c, const long long gpumlp__n)",
        "__attribute__((always_inline)) {",
        "typedef Lanes<T> C;",
        *values,
        *loads,
        "{",
        kernel.body,
        "}",
        *stores,
        "};",
        "const long long gpumlp__lanes = 64 / sizeof(T);",
        f"long long gpumlp__c = {first};",
        f"for (; gpumlp__c + gpumlp__lanes <= {last}; gpumlp__c += gpumlp__lanes)",
        "gpumlp__part(gpumlp__c, gpumlp__lanes);",
        f"if (gpumlp__c < {last}) gpumlp__part(gpumlp__c, {last} - gpumlp__c);",
    ]


def runtime_source() -> str:
    """C++ text of the replay loop."""
    return (HERE / "runtime.cpp").read_text(encoding="utf-8")


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
        return hashlib.sha256(text.encode()).hexdigest()[:40]


@functools.cache
def _processor() -> str:
    """Model and instruction sets: -march=native depends on them, and the cache may lie on a shared disk."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        kept = {line for line in lines if re.match(r"(model name|flags|Features|CPU part|isa)\s*:", line)}
        if kept:
            return "\n".join(sorted(kept))
    return f"{platform.machine()} {platform.processor()}"


@functools.cache
def find_compiler() -> Compiler | None:
    """The first of $CXX, g++, c++ and clang++ that answers, or None."""
    for text in (os.environ.get("CXX", ""), "g++", "c++", "clang++"):
        command = shlex.split(text)
        path = shutil.which(command[0]) if command else None
        if path is None:
            continue
        command[0] = path
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            said = subprocess.run(
                [*command, "--version"], capture_output=True, text=True, timeout=20, check=True
            )
            return Compiler(tuple(command), said.stdout.strip().split("\n")[0], ("-march=native", *FLAGS))
    return None


def thread_count() -> int:
    """Processors that this process may use, at most $OMP_NUM_THREADS."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return min(count, max(1, int(limit))) if limit.isdigit() else count


# ---- cache ---------------------------------------------------------------------------------------------
@functools.cache
def cache_dir() -> Path:
    """Where libraries are kept: private to the user, else a temporary directory that is gone at exit.

    $GPUMLP_CACHE_DIR, else gpumlp/ in $XDG_CACHE_HOME or ~/.cache.  A directory that others can write to or
    own is not used, since code is loaded from it.
    """
    given = os.environ.get("GPUMLP_CACHE_DIR")
    root = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    path = Path(given) if given else Path(root) / "gpumlp"
    with contextlib.suppress(OSError):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
        if (
            stat.S_ISDIR(found.st_mode)
            and found.st_uid == os.getuid()
            and not found.st_mode & 0o022
            and os.access(path, os.W_OK)
        ):
            return path.resolve()
    temporary = Path(tempfile.mkdtemp(prefix="gpumlp-"))
    owner = os.getpid()
    atexit.register(lambda: shutil.rmtree(temporary, ignore_errors=True) if os.getpid() == owner else None)
    return temporary


def _compile(compiler: Compiler, source: str, target: Path) -> None:
    handle, name = tempfile.mkstemp(suffix=".cpp", dir=target.parent)
    text, library = Path(name), Path(name).with_suffix(".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(source)
        command = [*compiler.command, *compiler.flags, "-o", str(library), str(text)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            raise DeviceError(
                f"the C++ compiler failed ({shlex.join(command)}):\n{done.stderr.strip()[-2000:]}\n"
                "Set CXX to another compiler, or GPUMLP_NATIVE=0 to do without one."
            )
        os.replace(library, target)
    except (OSError, subprocess.SubprocessError) as error:
        raise DeviceError(
            f"the C++ compiler {compiler.command[0]} could not be run in {target.parent}: {error}. "
            "Set GPUMLP_CACHE_DIR to a writable directory, or GPUMLP_NATIVE=0 to do without."
        ) from error
    finally:
        text.unlink(missing_ok=True)
        library.unlink(missing_ok=True)


_loaded: dict[str, ctypes.CDLL] = {}


def load(source: str) -> ctypes.CDLL:
    """The shared library made from `source`, compiled if need be.

    Raises
    ------
    DeviceError
        If there is no compiler, it fails, or the library cannot be loaded.
    """
    compiler = find_compiler()
    if compiler is None:
        raise DeviceError(
            "no C++ compiler found (tried $CXX, g++, c++, clang++); install one, or use device='numpy'"
        )
    key = compiler.key(source)
    if key not in _loaded:
        target = cache_dir() / f"{key}.so"
        if not target.exists():
            _compile(compiler, source, target)
        try:
            _loaded[key] = ctypes.CDLL(str(target))
        except OSError as error:
            raise DeviceError(
                f"{target} cannot be loaded: {error}. If programs may not run from that directory, set "
                "GPUMLP_CACHE_DIR to another one."
            ) from error
    return _loaded[key]


def load_all(sources: Sequence[str]) -> list[ctypes.CDLL]:
    """`load` for each; missing ones are compiled side by side."""
    compiler = find_compiler()
    missing = [
        source for source in dict.fromkeys(sources) if compiler and compiler.key(source) not in _loaded
    ]
    if len(missing) > 1:  # a pool costs more than looking up what is loaded
        with ThreadPoolExecutor(thread_count()) as workers:
            list(workers.map(load, missing))
    return [load(source) for source in sources]
