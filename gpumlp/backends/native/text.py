"""C++ text: a kernel's body in its loops, and the runtime joined from its files."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import numpy as np

from gpumlp.kernels.kernel import FIXED, Kernel

__all__ = ["HEADER_WORDS", "NARROW", "cost", "kernel_source", "runtime_source", "serial_below", "slots"]

NARROW = 10  # most columns of a row kernel that is compiled for its number of columns
HEADER_WORDS = 7  # of an operation, before its slots: see LaunchWord in operations.h
_COSTLY = re.compile(r"\b(?:exp|expm1|log|log1p|tanh|erf|cospi|sinpi|for)\b")
_CALLED = re.compile(r"(\w+)\s*\(")
_SLOW = re.compile(r"\br?sqrt\b|/")
#: what vectors cannot do: choices, comparisons, loops, bits, other types, casts, places
_SINGLE = re.compile(
    r"[?<>!&|%~#]|==|\+\+|--|\(\s*C\s*\)"
    r"|\b(?:if|for|while|do|goto|switch|bool|char|short|int|long|float|double|T|r|c|k)\b"
)
_INCLUDE = re.compile(r'^#include "(\w+\.h)"\n', re.MULTILINE)


def slots(kernel: Kernel) -> list[str]:
    """Names of an operation's words after its header.

    Address and row stride of each array, scalars, columns of the step table, and if masked the segments.
    """
    names = [part for a in kernel.arrays for part in (a.name, f"ld_{a.name}")]
    names += [s.name for s in kernel.constants] + list(kernel.stepped)
    return names + (["gpumlp_segments", "gpumlp_n_segments"] if kernel.masked else [])


def cost(kernel: Kernel) -> int:
    """How much work an element is, in units of about 0.15 ns."""
    return _cost(kernel.body)


@functools.cache
def _cost(body: str) -> int:
    return 1 + 3 * len(_COSTLY.findall(body)) + len(_SLOW.findall(body))


def serial_below(kernel: Kernel) -> int:
    """Number of elements from which a launch of its own is split over threads (about 10 us of work)."""
    return max(4096, 65536 // cost(kernel))


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
            source_text("math.h"),
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
            kernel.body if kernel.rowwise else f"{kernel.per_row}\n{_map_loop(kernel)}",
            "}\n}\n}\n",
        ]
    )


_ROW_MACROS = """\
#define GPUMLP_PRAGMA(text) _Pragma(#text)
#define GPUMLP_COLUMNS for (long long c = 0; c < cols; ++c)
#define ROW_SUM(name, ...) C name = C(0); GPUMLP_SUM(name) GPUMLP_COLUMNS name += (__VA_ARGS__);
#define ROW_SUM2(name, first, other, second) C name = C(0), other = C(0); GPUMLP_SUM2(name, other) \\
    GPUMLP_COLUMNS { name += (first); other += (second); }
#define ROW_MAX(name, ...) C name = -C(__builtin_inf()); GPUMLP_MAX(name) \\
    GPUMLP_COLUMNS { const C gpumlp_x = (__VA_ARGS__); name = gpumlp_x > name ? gpumlp_x : name; }
#define ROW_EACH GPUMLP_EACH GPUMLP_COLUMNS
#define ROW_ONE if (true)"""
_WIDE = (
    "#define GPUMLP_SUM(name) GPUMLP_PRAGMA(omp simd reduction(+:name))",
    "#define GPUMLP_SUM2(name, other) GPUMLP_PRAGMA(omp simd reduction(+:name, other))",
    "#define GPUMLP_MAX(name) GPUMLP_PRAGMA(omp simd reduction(max:name))",
    "#define GPUMLP_EACH GPUMLP_PRAGMA(omp simd)",
)
_NARROW = tuple(
    f"#define {name} GPUMLP_PRAGMA(GCC unroll {NARROW})"
    for name in ("GPUMLP_SUM(name)", "GPUMLP_SUM2(name, other)", "GPUMLP_MAX(name)", "GPUMLP_EACH")
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
    """C++ text of the replay loop, the thread pool and the matrix products."""
    return source_text("replay.cpp")


@functools.cache
def source_text(name: str) -> str:
    """A file of this folder, with the files that it includes in their places, each once."""
    seen: set[str] = set()

    def joined(name: str) -> str:
        if name in seen:
            return ""
        seen.add(name)
        text = Path(__file__).with_name(name).read_text(encoding="utf-8")
        return _INCLUDE.sub(lambda found: joined(found[1]), text.replace("#pragma once\n", ""))

    return joined(name)
