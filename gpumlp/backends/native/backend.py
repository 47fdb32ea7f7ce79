"""The native CPU executor: kernels compiled by the machine's C++ compiler, plans replayed by one C call.

`text.py` writes the code, `build.py` compiles it, `cache.py` keeps it; `call.py` packs the arguments
and `plan.py` the operations of a plan, `replay.cpp` runs.
"""

from __future__ import annotations

import ctypes
import functools
import os
import struct
import sys
import warnings
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpumlp.backends.base import Plan, Steps
from gpumlp.backends.contract import check_elementwise
from gpumlp.backends.lane import here
from gpumlp.backends.native import build, cache
from gpumlp.backends.native.call import (
    Function,
    function_of,
    pack,
    pack_segments,
    real_dtype,
)
from gpumlp.backends.native.plan import Batch, DividedPlan, NativePlan, runtime
from gpumlp.backends.native.text import HEADER_WORDS
from gpumlp.backends.numpy import HostBackend, address_of
from gpumlp.backends.operations import AllReduce, Launch, Op
from gpumlp.errors import DeviceError
from gpumlp.kernels.kernel import Kernel

__all__ = ["NativeBackend"]

_C_ALIGNED, _F_ALIGNED, _WRITEABLE = 0x101, 0x102, 0x400  # bits of ndarray.flags.num


class _Bound:
    """See `Backend.bind`."""

    around = None

    def __init__(
        self, run: Any, function: Function, arrays: dict[str, Any], scalars: dict[str, Any], free: str
    ) -> None:
        self._run, self.dtype, self.shape = run, function.dtype, arrays[free].shape
        names = [name for name, *_ in function.arrays]
        places = [part for name in names for part in (address_of(arrays[name]), 0)]
        size = arrays[free].size
        head = (*function.head, 0, function.serial_below, function.values_at, 1, size)
        words = function.words.pack(*head, *places, *[scalars[n] for n in function.scalars], *function.tail)
        self.packed = bytearray(words + bytes(function.with_values.size - len(words)))
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.packed))
        self.pack_place = struct.Struct("=q").pack_into
        self.place_at = 8 * (HEADER_WORDS + 2 * names.index(free))
        self.pack_values = struct.Struct(f"={len(function.stepped)}{function.dtype.char}").pack_into
        self.values_at = function.values_at
        self.bytes = size * function.dtype.itemsize
        self.last: Any = lambda: None
        self.last_place = self.packed_place = 0
        self.others = [place for name, place in zip(names, places[::2], strict=True) if name != free]

    def apart(self) -> bool:
        """Whether the arrays that stay do not overlap."""
        ordered = sorted(self.others)
        return all(b - a >= self.bytes for a, b in zip(ordered, ordered[1:], strict=False))

    def place(self, array: Any, written: Any) -> int | None:
        if type(array) is not np.ndarray or array.dtype is not self.dtype or array.shape != self.shape:
            return None
        if not written.flags.writeable:
            return None
        if self.last() is array:  # an array with a weak reference cannot be moved by resize()
            return self.last_place
        if not array.flags.c_contiguous:
            return None
        place = address_of(array)
        for other in self.others:
            if -self.bytes < place - other < self.bytes and place != other:
                return None
        self.last, self.last_place = weakref.ref(array), place
        return place

    def __call__(self, place: int, values: Sequence[float]) -> None:
        if place != self.packed_place:
            self.pack_place(self.packed, self.place_at, place)
            self.packed_place = place
        self.pack_values(self.packed, self.values_at, *values)
        self._run(self.address)


class NativeBackend(HostBackend):
    """Runs kernels as machine code on the CPU.

    Parameters
    ----------
    instead : Backend, optional
        Runs, after one warning, what cannot be compiled (the disk is full, the compiler gone); without it
        that raises DeviceError.

    Raises
    ------
    DeviceError
        If `why_not` gives a reason.
    """

    name = "native"

    def __init__(self, instead: HostBackend | None = None) -> None:
        self._instead, self._warned = instead, False
        reason = self.why_not()
        if reason:
            raise DeviceError(f"the native CPU executor cannot be used: {reason}")
        self._run = runtime().run

    @property
    def lanes(self) -> int:
        return runtime().threads

    def batch(self) -> Any:
        return Batch() if runtime().threads > 1 else None

    @staticmethod
    def forget() -> None:
        """Go on as a new process would: see `build.forget`."""
        build.forget()
        runtime.cache_clear()
        _load_failure.cache_clear()

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

    def _launch(self, op: Launch, stepped: dict[str, float]) -> None:
        try:
            function = function_of(op.kernel, real_dtype(op.kernel, op.arrays))
        except DeviceError as error:
            self._other(error)._launch(op, stepped)
            return
        values = [stepped[name] for name in function.stepped]
        shape, table = (op.rows, op.cols), pack_segments(op.segments)
        by_rows = op.kernel.rowwise  # a share of columns would be all rows over again
        columns = function.own_columns
        words = pack(function, op.arrays, op.scalars, shape, columns, table, by_rows=by_rows, values=values)
        later = here.lane.later if here.lane is not None else None
        if later is None:
            self._run(words)
        else:
            later.add_launch((op, function, table), words, function.values_at)

    def elementwise(
        self, kernel: Kernel, arrays: dict[str, Any], scalars: dict[str, Any], stepped: dict[str, float]
    ) -> None:
        if len(arrays) != len(kernel.arrays) or len(scalars) != len(kernel.constants):
            check_elementwise(kernel, arrays, scalars, stepped)
        try:
            function = function_of(kernel, real_dtype(kernel, arrays))
        except DeviceError as error:
            self._other(error).elementwise(kernel, arrays, scalars, stepped)
            return
        places: list[int] = []
        shape, size, layout, addresses = None, 1, _C_ALIGNED | _F_ALIGNED, []
        for name, raw, written, dtype in function.arrays:
            array = arrays[name]
            if type(array) is not np.ndarray:
                check_elementwise(kernel, arrays, scalars, stepped)
                self._check_home(kernel.name, arrays)
            flags = array.flags.num
            if shape is None and not raw:
                shape, size = array.shape, array.size
            if raw or array.dtype != dtype or array.shape != shape or (written and not flags & _WRITEABLE):
                check_elementwise(kernel, arrays, scalars, stepped)
            address = address_of(array)
            places += (address, 0)
            if raw:
                continue
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
        self._run(
            function.with_values.pack(
                *function.head,
                0,
                function.serial_below,
                function.values_at,
                1,
                size,
                *places,
                *[scalars[name] for name in function.scalars],
                *function.tail,
                *[stepped[name] for name in function.stepped],
            )
        )

    def _elementwise_strided(
        self,
        kernel: Kernel,
        function: Function,
        arrays: dict[str, Any],
        scalars: dict[str, Any],
        stepped: dict[str, float],
    ) -> None:
        """Through contiguous copies: every element is read before any is written, whatever overlaps."""
        copies = {
            name: arrays[name] if raw else np.array(arrays[name], order="C").reshape(-1)
            for name, raw, _, _ in function.arrays
        }
        self.elementwise(kernel, copies, scalars, stepped)
        for name, raw, written, _ in function.arrays:
            if written and not raw:
                arrays[name][...] = copies[name].reshape(arrays[name].shape)

    def bind(self, kernel: Kernel, arrays: dict[str, Any], scalars: dict[str, Any], free: str) -> Any:
        if any(a.role.startswith("raw") for a in kernel.arrays) or arrays[free].size == 0:
            return None
        if any(type(a) is not np.ndarray or not a.flags.c_contiguous for a in arrays.values()):
            return None
        try:
            function = function_of(kernel, real_dtype(kernel, arrays))
        except DeviceError:
            return None
        run = _Bound(self._run, function, arrays, scalars, free)
        return run if run.place(arrays[free], arrays["p"]) is not None and run.apart() else None

    def _record(self, ops: Sequence[Op], steps: Steps) -> Plan:
        try:
            own = [op for op in ops if not isinstance(op, AllReduce)]
            return NativePlan(own, steps) if len(own) == len(ops) else DividedPlan(ops, steps)
        except DeviceError as error:
            return self._other(error)._record(ops, steps)

    @property
    def wanted(self) -> str:
        """ "cpu" may be another executor where a pickle is read."""
        return "native" if self._instead is None else "cpu"

    def _other(self, error: DeviceError) -> HostBackend:
        """The backend that runs what cannot be compiled; without one, the error is raised."""
        if self._instead is None:
            raise error
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"NumPy code runs in place of kernels that could not be compiled: {error}",
                RuntimeWarning,
                stacklevel=3,
            )
        return self._instead

    def info(self) -> dict[str, str]:
        compiler = build.find_compiler()
        return {
            **super().info(),
            "compiler": f"{' '.join(compiler.command)} ({compiler.version})" if compiler else "none",
            "flags": " ".join(compiler.flags) if compiler else "",
            "cache": str(cache.directory()),
            "gemm": "own",
            "threads": str(runtime().threads),
        }


@functools.cache
def _load_failure() -> str | None:
    try:
        runtime()
    except (DeviceError, OSError) as error:
        return str(error)
    return None
