"""The native CPU executor: kernels compiled by the machine's C++ compiler, plans replayed by one C call.

Operations are packed into arrays of 8-byte words that `native_runtime.cpp` reads; `native_build.py` makes the code.
"""

from __future__ import annotations

import ctypes
import functools
import os
import struct
import sys
import time
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpumlp.backends import native_build as build
from gpumlp.backends.base import Gemm, Launch, Op, Replay, Steps
from gpumlp.backends.blas import Blas, find_blas
from gpumlp.backends.numpy import HostBackend
from gpumlp.errors import DeviceError
from gpumlp.kernels.kernel import Kernel

__all__ = ["NativeBackend"]

_FIXED = {"int32": np.dtype(np.int32), "int64": np.dtype(np.int64), "uint8": np.dtype(np.uint8)}
_REALS = (np.dtype(np.float32), np.dtype(np.float64))
_TICKS = {"": 0, "first": 1, "last": 2}
_C_ALIGNED, _F_ALIGNED, _WRITEABLE = 0x101, 0x102, 0x400  # bits of ndarray.flags.num
_WHOLE = np.array([0, 2**62, np.float64(1).view(np.int64)], np.int64)  # one segment over all columns, decay 1
_BURST_SECONDS = 0.2  # longest time in C: Ctrl-C is noticed between bursts


class _Runtime:
    """The loaded replay loop and the matrix product that it calls."""

    def __init__(self) -> None:
        library = build.load(build.runtime_source())
        self.threads = build.thread_count()
        self.setup = library.gpumlp_setup
        self.setup.argtypes, self.setup.restype = [
            ctypes.c_longlong, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_longlong, ctypes.c_void_p, ctypes.c_void_p], None
        self.run = library.gpumlp_run
        self.run.argtypes, self.run.restype = [ctypes.c_char_p], None
        self.replay = library.gpumlp_replay
        self.replay.argtypes = [ctypes.c_void_p, ctypes.c_longlong, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_longlong,
                                ctypes.c_longlong]
        self.replay.restype = None
        self.blas = find_blas()
        self.use_blas(self.blas)
        if self.blas and not self.multiplies():  # of a kind that we do not know
            self.blas = None
            self.use_blas(None)

    def use_blas(self, blas: Blas | None) -> None:
        blas = blas or Blas("none", 0, 0)
        self.setup(self.threads, blas.sgemm, blas.dgemm, blas.fortran, blas.get_threads, blas.set_threads)

    def multiplies(self) -> bool:
        """Whether the library's products are right, on small integers."""
        a, b = np.arange(6.0).reshape(2, 3), np.arange(12.0).reshape(3, 4)
        for dtype in _REALS:
            for trans in range(4):
                left, right = (np.ascontiguousarray(x.T if trans & bit else x, dtype) for x, bit in ((a, 1), (b, 2)))
                c = np.zeros((2, 4), dtype)
                self.run(_pack_gemm(Gemm(left, right, c, bool(trans & 1), bool(trans & 2)), own=False).tobytes())
                if not np.array_equal(c, a @ b):
                    return False
        return True


@functools.cache
def _runtime() -> _Runtime:
    return _Runtime()


class _Function:
    """A compiled kernel for one dtype, and the layout of its operations."""

    def __init__(self, kernel: Kernel, dtype: np.dtype) -> None:
        self.library = build.load(build.kernel_source(kernel, dtype))
        self.address = ctypes.cast(self.library.gpumlp_kernel, ctypes.c_void_p).value or 0
        self.dtype = dtype
        self.rowwise, self.masked = kernel.rowwise, kernel.masked
        self.arrays = [(a.name, a.role.startswith("raw"), a.role not in ("in", "raw"), _FIXED.get(a.ctype, dtype))
                       for a in kernel.arrays]
        self.n_plain = sum(not raw for _, raw, _, _ in self.arrays)
        self.scalars = [s.name for s in kernel.constants]
        self.stepped = kernel.stepped
        self.serial_below = build.serial_below(kernel)
        kinds = "q" * 2 * len(self.arrays) + "".join("d" if s.ctype == "C" else "q" for s in kernel.constants)
        kinds += "q" * len(self.stepped) + ("qq" if self.masked else "")
        words = build.HEADER_WORDS + len(kinds)
        self.words = struct.Struct(f"={build.HEADER_WORDS}q{kinds}")
        self.with_values = struct.Struct(f"={build.HEADER_WORDS}q{kinds}{len(self.stepped)}{dtype.char}")
        self.head = (int(kernel.rowwise), self.address)
        self.values_at = 8 * words
        self.own_columns = tuple(range(len(self.stepped)))
        self.tail = (*self.own_columns, *((_WHOLE.ctypes.data, 1) if self.masked else ()))


# by identity, weakly: a kernel's reference function may hold an optimiser and all its state
_functions: dict[tuple[int, str], tuple[weakref.ref, _Function]] = {}


def _function(kernel: Kernel, dtype: np.dtype) -> _Function:
    key = (id(kernel), dtype.char)
    found = _functions.get(key)
    if found is None:
        found = (weakref.ref(kernel, lambda _: _functions.pop(key, None)), _Function(kernel, dtype))
        _functions[key] = found
    return found[1]


def _real_dtype(kernel: Kernel, arrays: dict[str, Any], default: Any = np.float32) -> np.dtype:
    """The dtype that T and C stand for."""
    dtype = next((arrays[a.name].dtype for a in kernel.arrays if a.ctype not in _FIXED), np.dtype(default))
    if dtype not in _REALS:
        raise TypeError(f"{kernel.name}: arrays of {dtype}; the native executor takes float32 and float64")
    return np.dtype(dtype.type)


def _check_array(name: str, array: Any, dtype: np.dtype, raw: bool, written: bool, rows: int, cols: int) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != dtype:
        raise TypeError(f"array {name!r} is {getattr(array, 'dtype', type(array).__name__)}, expected a NumPy array of {dtype}")
    if written and not array.flags.writeable:
        raise ValueError(f"array {name!r} is read-only, but the kernel writes it")
    if array.size and array.shape[-1:] > (1,) and array.strides[-1] != dtype.itemsize:
        raise ValueError(f"array {name!r} has strides {array.strides}; expected unit stride in its last dimension")
    if raw:
        return
    if array.ndim not in (1, 2) or (array.ndim == 1 and rows > 1):
        raise ValueError(f"array {name!r} has shape {array.shape}; expected 2-D, or 1-D for one row")
    if array.shape[-1] < cols or (array.ndim == 2 and array.shape[0] < rows):
        raise ValueError(f"array {name!r} has shape {array.shape}, which is smaller than the index space ({rows}, {cols})")


def _address(array: np.ndarray) -> int:
    try:  # three times as fast as the other way, where it works
        return ctypes.addressof(ctypes.c_char.from_buffer(array))
    except (TypeError, ValueError, BufferError):  # read-only, not contiguous, empty
        return array.ctypes.data


def _pitch(array: np.ndarray) -> int:
    """Row stride in elements."""
    return array.strides[0] // array.itemsize if array.ndim == 2 else array.size


def _pack(function: _Function, arrays: dict[str, Any], scalars: dict[str, Any], shape: tuple[int, int], columns: Sequence[int],
          segments: np.ndarray, *, tick: int = 0, values: Sequence[float] | None = None) -> bytes:
    """The words of a launch; with `values`, the per-step values follow."""
    rows, cols = shape
    places = []
    for name, raw, written, dtype in function.arrays:
        array = arrays[name]
        _check_array(name, array, dtype, raw, written, rows, cols)
        places += [_address(array), _pitch(array)]
    tail = [*columns, *((segments.ctypes.data, segments.size // 3) if function.masked else ())]
    words = (*function.head, tick, function.serial_below, function.values_at, rows, cols, *places,
             *(scalars[name] for name in function.scalars), *tail)
    return function.words.pack(*words) if values is None else function.with_values.pack(*words, *values)


def _segments(given: Sequence[tuple[int, int, float]] | None) -> np.ndarray:
    if given is None:
        return _WHOLE
    table = np.empty((len(given), 3), np.int64)
    table[:, :2] = [(start, stop) for start, stop, _ in given]
    table[:, 2] = np.array([decay for _, _, decay in given], np.float64).view(np.int64)
    return table


def _pack_gemm(op: Gemm, own: bool | None = None) -> np.ndarray:
    """The words of a matrix product; `own` None: by size."""
    a, b, c = op.a, op.b, op.c
    if c.dtype not in _REALS or any(x.ndim != 2 for x in (a, b, c)):
        raise TypeError(f"gemm of {a.dtype}{a.shape}, {b.dtype}{b.shape}: expected 2-D arrays of float32 or float64")
    m, k = a.shape[::-1] if op.trans_a else a.shape
    k2, n = b.shape[::-1] if op.trans_b else b.shape
    if k != k2 or c.shape != (m, n):
        raise ValueError(f"gemm of shapes {(m, k)} and {(k2, n)} into {c.shape}")
    for name, x in (("a", a), ("b", b), ("c", c)):
        _check_array(name, x, c.dtype, True, name == "c", 0, 0)
    # what cblas calls a leading dimension must be at least the row length, also where there is only one row
    pitch = [max(_pitch(x), x.shape[1], 1) for x in (a, b, c)]
    own = _is_small(m, n, k) if own is None else own
    return np.array([2, c.dtype == np.float64, m, n, k, a.ctypes.data, pitch[0], b.ctypes.data, pitch[1], c.ctypes.data,
                     pitch[2], op.trans_a, op.trans_b, own], np.int64)


def _is_small(m: int, n: int, k: int) -> bool:
    """Whether our own product is faster than a BLAS (measured against OpenBLAS), or a BLAS cannot be asked."""
    return max(m, n, k) >= 2**31


class _NativeReplay(Replay):
    def __init__(self, ops: Sequence[Op], steps: Steps) -> None:
        self.ops, self.steps = list(ops), steps
        self.runtime = _runtime()
        table, step = steps.table, steps.step
        if step.dtype != np.int64 or not step.flags.c_contiguous or not table.flags.c_contiguous:
            raise TypeError("steps.step must be contiguous int64, steps.table contiguous")
        self.reads_table = False
        launches = [op for op in ops if isinstance(op, Launch)]
        dtypes = [_real_dtype(op.kernel, op.arrays, table.dtype) for op in launches]
        build.load_all([build.kernel_source(op.kernel, dtype) for op, dtype in zip(launches, dtypes, strict=True)])
        functions = iter([_function(op.kernel, dtype) for op, dtype in zip(launches, dtypes, strict=True)])
        self.held: list[Any] = []
        words = [_pack_gemm(op) if isinstance(op, Gemm) else self._pack_launch(op, next(functions)) for op in ops]
        self.held.append(words)
        self.addresses = np.array([w.ctypes.data for w in words], np.int64)
        self.arguments = (self.addresses.ctypes.data, len(words), step.ctypes.data, table.ctypes.data,
                          table.strides[0] if table.ndim == 2 else 0)
        ticks = {op.tick for op in launches}
        self.advances = {"first", "last"} <= ticks
        self.burst = 1

    def _pack_launch(self, op: Launch, function: _Function) -> np.ndarray:
        if function.stepped and self.steps.table.dtype != function.dtype:
            raise TypeError(f"the step table is {self.steps.table.dtype}, but {op.kernel.name} computes in {function.dtype}")
        self.reads_table |= bool(function.stepped)
        segments = _segments(op.segments)
        self.held += [function, segments]
        columns = [self.steps.columns.index(name) for name in function.stepped]
        packed = _pack(function, op.arrays, op.scalars, (op.rows, op.cols), columns, segments, tick=_TICKS[op.tick])
        return np.frombuffer(packed, np.int64).copy()

    def run(self, n: int = 1) -> None:
        if self.reads_table:
            last = int(self.steps.step[0]) + (n if self.advances else min(n, 1))
            if last > len(self.steps.table):
                raise IndexError(f"{n} steps from step {int(self.steps.step[0])}, but the step table has "
                                 f"{len(self.steps.table)} rows")
        while n > 0:
            count = min(n, self.burst)
            start = time.perf_counter()
            self.runtime.replay(*self.arguments, count)
            each = (time.perf_counter() - start) / count
            self.burst = max(1, min(16 * count, int(_BURST_SECONDS / max(each, 1e-7))))
            n -= count


class NativeBackend(HostBackend):
    """Runs kernels as machine code on the CPU.

    Raises
    ------
    DeviceError
        If `why_not` gives a reason.
    """

    name = "native"

    def __init__(self) -> None:
        reason = self.why_not()
        if reason:
            raise DeviceError(f"the native CPU executor cannot be used: {reason}")
        self._run = _runtime().run

    @staticmethod
    def why_not() -> str | None:
        """Why this executor cannot be used here, or None if it can.

        The first call on a machine compiles the runtime (about a second); later ones load it.
        """
        if os.environ.get("GPUMLP_NATIVE", "") == "0":
            return "GPUMLP_NATIVE=0 forbids it"
        if os.name != "posix" or sys.byteorder != "little" or sys.maxsize < 2**32:
            return "it needs a 64-bit little-endian POSIX system"
        return _load_failure()

    def launch(self, kernel: Kernel, arrays: dict[str, Any], scalars: dict[str, Any],
               stepped: dict[str, float] | None = None, *, rows: int, cols: int,
               segments: Sequence[tuple[int, int, float]] | None = None) -> None:
        kernel.check(arrays, scalars)
        function = _function(kernel, _real_dtype(kernel, arrays))
        values = [(stepped or {})[name] for name in function.stepped]
        table = _segments(segments)
        self._run(_pack(function, arrays, scalars, (rows, cols), function.own_columns, table, values=values))

    def elementwise(self, kernel: Kernel, arrays: dict[str, Any], scalars: dict[str, Any],
                    stepped: dict[str, float]) -> None:
        if len(arrays) != len(kernel.arrays) or len(scalars) != len(kernel.constants):
            kernel.check(arrays, scalars)
        function = _function(kernel, _real_dtype(kernel, arrays))
        places: list[int] = []
        shape, size, layout, addresses = None, 1, _C_ALIGNED | _F_ALIGNED, []
        for name, raw, written, dtype in function.arrays:
            array = arrays[name]
            if array.dtype != dtype:
                _check_array(name, array, dtype, True, written, 0, 0)
            flags = array.flags.num
            if written and not flags & _WRITEABLE:
                raise ValueError(f"array {name!r} is read-only, but the kernel writes it")
            address = _address(array)
            places += (address, 0)
            if raw:
                continue
            if shape is None:
                shape, size = array.shape, array.size
            elif array.shape != shape:
                raise ValueError(f"array {name!r} has shape {array.shape}, another one {shape}")
            layout &= flags
            addresses.append(address)
        if size == 0:
            return
        direct = layout & _C_ALIGNED == _C_ALIGNED or layout & _F_ALIGNED == _F_ALIGNED
        addresses.sort()
        low, bytes_each = addresses[0], size * function.dtype.itemsize
        for high in addresses:
            direct &= not 0 < high - low < bytes_each  # neither the same array nor apart: they overlap
            low = high
        if not direct:
            self._elementwise_strided(kernel, function, arrays, scalars, stepped)
            return
        self._run(function.with_values.pack(
            *function.head, 0, function.serial_below, function.values_at, 1, size, *places,
            *[scalars[name] for name in function.scalars], *function.tail, *[stepped[name] for name in function.stepped]))

    def _elementwise_strided(self, kernel: Kernel, function: _Function, arrays: dict[str, Any], scalars: dict[str, Any],
                             stepped: dict[str, float]) -> None:
        """Through contiguous copies: every element is read before any is written, whatever overlaps."""
        copies = {name: arrays[name] if raw else np.array(arrays[name], order="C").reshape(-1)
                  for name, raw, _, _ in function.arrays}
        self.elementwise(kernel, copies, scalars, stepped)
        for name, raw, written, _ in function.arrays:
            if written and not raw:
                arrays[name][...] = copies[name].reshape(arrays[name].shape)

    def record(self, ops: Sequence[Op], steps: Steps) -> Replay:
        return _NativeReplay(ops, steps)

    def info(self) -> dict[str, str]:
        compiler, blas = build.find_compiler(), _runtime().blas
        return {**super().info(),
                "compiler": f"{' '.join(compiler.command)} ({compiler.version})" if compiler else "none",
                "flags": " ".join(compiler.flags) if compiler else "",
                "cache": str(build.cache_dir()),
                "gemm": blas.name if blas else "own",
                "threads": str(_runtime().threads)}


@functools.cache
def _load_failure() -> str | None:
    try:
        _runtime()
    except DeviceError as error:
        return str(error)
    return None
