"""A call of compiled code as an array of 8-byte words for `replay.cpp`. The arrays were checked."""

from __future__ import annotations

import ctypes
import functools
import itertools
import struct
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpumlp.backends.native import build, text
from gpumlp.backends.numpy import address_of
from gpumlp.backends.operations import Gemm, Launch
from gpumlp.kernels.kernel import FIXED, Kernel

__all__ = [
    "REALS",
    "WHOLE",
    "Function",
    "function_of",
    "functions_of",
    "narrow_columns",
    "pack",
    "pack_gemm",
    "pack_members",
    "pack_segments",
    "real_dtype",
]

REALS = (np.dtype(np.float32), np.dtype(np.float64))
WHOLE = np.array([0, 2**62, np.float64(1).view(np.int64)], np.int64)  # one segment over all columns, decay 1
_GEMM, _MEMBERS = struct.Struct("=13q"), struct.Struct("=3q")


class Function:
    """A compiled kernel for one dtype, and the layout of its operations."""

    def __init__(self, kernel: Kernel, dtype: np.dtype, library: ctypes.CDLL) -> None:
        self.library = library
        self.address = ctypes.cast(build.symbol(library, "gpumlp_kernel"), ctypes.c_void_p).value or 0
        self.dtype = dtype
        self.rowwise, self.masked = kernel.rowwise, kernel.masked
        self.arrays: list[tuple[str, bool, bool, np.dtype]] = [
            (
                a.name,
                a.role.startswith("raw"),
                a.role not in ("in", "raw"),
                np.dtype(a.ctype) if a.ctype in FIXED else dtype,
            )
            for a in kernel.arrays
        ]
        self.scalars = [s.name for s in kernel.constants]
        self.stepped = kernel.stepped
        self.serial_below = text.serial_below(kernel)
        kinds = "q" * 2 * len(self.arrays) + "".join("d" if s.ctype == "C" else "q" for s in kernel.constants)
        kinds += "q" * len(self.stepped) + ("qq" if self.masked else "")
        words = text.HEADER_WORDS + len(kinds)
        self.words = struct.Struct(f"={text.HEADER_WORDS}q{kinds}")
        self.with_values = struct.Struct(f"={text.HEADER_WORDS}q{kinds}{len(self.stepped)}{dtype.char}")
        self.head = (0, self.address)
        self.values_at = 8 * words
        self.own_columns = tuple(range(len(self.stepped)))
        self.tail = (*self.own_columns, *((WHOLE.ctypes.data, 1) if self.masked else ()))


# by identity, weakly: a kernel's reference function may hold an optimiser and all its state
_functions: dict[tuple[int, str, int], tuple[weakref.ref, Function]] = {}


def function_of(kernel: Kernel, dtype: np.dtype, narrow: int = 0) -> Function:
    """`kernel` compiled for `dtype`, once."""
    found = _functions.get((id(kernel), dtype.char, narrow))
    return functions_of([(kernel, dtype, narrow)])[0] if found is None else found[1]


def functions_of(wanted: Sequence[tuple[Kernel, np.dtype, int]]) -> list[Function]:
    """`function_of` for several kernels; missing ones are compiled side by side."""
    keys = [(id(kernel), dtype.char, narrow) for kernel, dtype, narrow in wanted]
    missing = {key: each for key, each in zip(keys, wanted, strict=True) if key not in _functions}
    libraries = build.load_kernels(list(missing.values())) if missing else []
    for (key, (kernel, dtype, _)), library in zip(missing.items(), libraries, strict=True):
        forget = functools.partial(_forget, key)
        _functions[key] = weakref.ref(kernel, forget), Function(kernel, dtype, library)
    return [_functions[key][1] for key in keys]


def _forget(key: tuple[int, str, int], _: Any) -> None:
    _functions.pop(key, None)


def narrow_columns(op: Launch) -> int:
    """Number of columns for which a row kernel is compiled specially (many short rows), or 0."""
    return op.cols if op.kernel.rowwise and op.rows >= 32 and 0 < op.cols <= text.NARROW else 0


def real_dtype(kernel: Kernel, arrays: dict[str, Any], default: Any = np.float32) -> np.dtype:
    """The dtype that T and C stand for."""
    dtype = next((arrays[a.name].dtype for a in kernel.arrays if a.ctype not in FIXED), np.dtype(default))
    if dtype not in REALS:
        raise TypeError(f"{kernel.name}: arrays of {dtype}; the native executor takes float32 and float64")
    return np.dtype(dtype.type)


def _pitch(array: np.ndarray) -> int:
    """Row stride in elements."""
    return array.strides[0] // array.itemsize if array.ndim == 2 else array.size


def pack(
    function: Function,
    arrays: dict[str, Any],
    scalars: dict[str, Any],
    shape: tuple[int, int],
    columns: Sequence[int],
    segments: np.ndarray,
    *,
    by_rows: bool = False,
    values: Sequence[float] | None = None,
) -> bytes:
    """The words of a launch; with `values`, the per-step values follow."""
    rows, cols = shape
    places = []
    for name, *_ in function.arrays:
        array = arrays[name]
        places += [address_of(array), _pitch(array)]
    tail = [*columns, *((address_of(segments), segments.size // 3) if function.masked else ())]
    head = (*function.head, by_rows, function.serial_below, function.values_at, rows, cols)
    words = (*head, *places, *(scalars[name] for name in function.scalars), *tail)
    return function.words.pack(*words) if values is None else function.with_values.pack(*words, *values)


def pack_segments(given: Sequence[tuple[int, int, float]] | None) -> np.ndarray:
    """Rows of (start, stop, bits of decay); None is one segment over everything."""
    if given is None:
        return WHOLE
    table = np.empty((len(given), 3), np.int64)
    table[:, :2] = np.array([(start, stop) for start, stop, _ in given], np.int64).reshape(-1, 2)
    table[:, 2] = np.array([decay for _, _, decay in given], np.float64).view(np.int64)
    return table


def pack_gemm(op: Gemm) -> bytes:
    """The words of a matrix product."""
    a, b, c = op.a, op.b, op.c
    if c.dtype not in REALS:
        raise TypeError(f"gemm of arrays of {a.dtype}; the native executor takes float32 and float64")
    m, k = a.shape[::-1] if op.trans_a else a.shape
    n = c.shape[1]
    pitch = [max(_pitch(x), x.shape[1]) for x in (a, b, c)]  # that of a single row may be anything
    places = [part for x, ld in zip((a, b, c), pitch, strict=True) for part in (address_of(x), ld)]
    return _GEMM.pack(2, c.dtype == np.float64, m, n, k, *places, op.trans_a, op.trans_b)


def pack_together(operations: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """(the words of all of them in one block, the address of each in it)."""
    words = np.frombuffer(bytearray(b"".join(operations)), np.int64)
    starts = [0, *itertools.accumulate(map(len, operations))][:-1]
    return words, np.array(starts, np.int64) + address_of(words)


def pack_members(operations: Sequence[bytes]) -> tuple[bytes, np.ndarray, np.ndarray]:
    """The words of one operation that does these, each whole in a share; and the arrays it points to."""
    words, places = pack_together(operations)
    return _MEMBERS.pack(3, len(operations), address_of(places)), words, places
