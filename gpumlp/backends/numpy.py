"""The NumPy executor: a plan is a Python loop over the kernels' reference functions."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpumlp.backends.base import Backend, Plan, Steps
from gpumlp.backends.contract import check_elementwise
from gpumlp.backends.lane import do_what_waits, here
from gpumlp.backends.operations import AllReduce, Gemm, Launch, Op
from gpumlp.kernels.kernel import Kernel

__all__ = ["HostBackend", "NumpyBackend", "address_of", "aligned_empty"]


def address_of(array: np.ndarray) -> int:
    """Where the array's first element lies."""
    # several times as fast as `ctypes.data`, where it works: not for read-only and empty arrays
    first = array if array.flags.c_contiguous else array[(slice(1),) * array.ndim]
    try:
        return ctypes.addressof(ctypes.c_char.from_buffer(first))  # type: ignore[arg-type]
    except (TypeError, ValueError, BufferError):
        return array.ctypes.data


def aligned_empty(shape: int | tuple[int, ...], dtype: Any, alignment: int = 64) -> np.ndarray:
    """Uninitialised C-contiguous array that starts at a multiple of `alignment` bytes."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) if isinstance(shape, tuple) else int(shape)
    raw = np.empty(size * dtype.itemsize + alignment, np.uint8)
    return np.ndarray(shape, dtype, raw, -address_of(raw) % alignment)


class HostBackend(Backend):
    """Arrays in host memory: what the NumPy and the native executor share."""

    device = "cpu"
    xp = np

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> np.ndarray:
        return aligned_empty(shape, dtype)

    def zeros(self, shape: int | tuple[int, ...], dtype: Any) -> np.ndarray:
        array = aligned_empty(shape, dtype)
        array.fill(0)
        return array

    def _check_home(self, what: str, arrays: dict[str, Any]) -> None:
        for array in arrays.values():
            if type(array) is not np.ndarray:  # seldom
                super()._check_home(what, arrays)

    def asarray(self, x: Any, dtype: Any = None) -> np.ndarray:
        return np.ascontiguousarray(x, dtype).reshape(np.shape(x))

    def to_numpy(self, x: Any) -> np.ndarray:
        return np.array(x)

    def copy(self, dst: Any, src: Any) -> None:
        do_what_waits()
        dst[...] = src

    def synchronize(self) -> None:
        return


def _apply(
    kernel: Kernel,
    arrays: dict[str, Any],
    values: dict[str, Any],
    rows: int,
    cols: int,
    k: int,
    segments: Sequence[tuple[int, int, float]] | None,
) -> None:
    views = {
        a.name: arrays[a.name] if a.role.startswith("raw") else _window(arrays[a.name], rows, cols)
        for a in kernel.arrays
    }
    if not kernel.masked:
        kernel.reference(**views, **values, k=k)
        return
    for start, stop, decay in segments or ((0, cols, 1.0),):
        part = {n: v if _is_raw(kernel, n) else v[..., start:stop] for n, v in views.items()}
        kernel.reference(**part, **values, k=k, decay=decay)


def _is_raw(kernel: Kernel, name: str) -> bool:
    return any(a.name == name and a.role.startswith("raw") for a in kernel.arrays)


def _window(array: np.ndarray, rows: int, cols: int) -> np.ndarray:
    return array[:cols] if array.ndim == 1 else array[:rows, :cols]


def _alone(op: Op) -> list[tuple[Op, tuple[int, ...]]]:
    """`op` of each member, and where in a row of the step table the member's values are."""
    if isinstance(op, AllReduce) or op.members is None:
        return [(op, ())]
    return [(op.member(j), (j,)) for j in range(op.members)]


class NumpyPlan(Plan):
    def __init__(self, ops: Sequence[Op], steps: Steps) -> None:
        self.ops = [each for op in ops for each in _alone(op)]
        self.steps = steps
        self.column = {name: j for j, name in enumerate(steps.columns)}

    def run(self, n: int = 1) -> None:
        with np.errstate(all="ignore"):  # inf and NaN are results here, as on the other executors
            self._run(n)

    def _run(self, n: int) -> None:
        lane = here.lane
        do_what_waits()
        for _ in range(n):
            for op, member in self.ops:
                if lane is not None:
                    lane.check()
                if isinstance(op, AllReduce):
                    op.run()
                elif isinstance(op, Gemm):
                    np.matmul(op.a.T if op.trans_a else op.a, op.b.T if op.trans_b else op.b, out=op.c)
                else:
                    self._launch(op, member)

    def _launch(self, op: Launch, member: tuple[int, ...]) -> None:
        step = self.steps.step  # where members tick one after the other, the later ones change nothing
        k = int(step[0]) if op.tick == "first" else int(step[1]) - 1
        values = dict(op.scalars)
        values.update((name, self.steps.table[(k, *member, self.column[name])]) for name in op.kernel.stepped)
        _apply(op.kernel, op.arrays, values, op.rows, op.cols, k, op.segments)
        if op.tick == "first":
            step[1] = k + 1
        elif op.tick == "last":
            step[0] = step[1]


class NumpyBackend(HostBackend):
    """Runs the references; needs nothing but NumPy."""

    name = "numpy"

    def _launch(self, op: Launch, stepped: dict[str, float]) -> None:
        do_what_waits()
        with np.errstate(all="ignore"):
            _apply(op.kernel, op.arrays, {**op.scalars, **stepped}, op.rows, op.cols, 0, op.segments)

    def elementwise(
        self, kernel: Kernel, arrays: dict[str, Any], scalars: dict[str, Any], stepped: dict[str, float]
    ) -> None:
        check_elementwise(kernel, arrays, scalars, stepped)
        self._check_home(kernel.name, arrays)
        decay = {"decay": 1.0} if kernel.masked else {}
        with np.errstate(all="ignore"):
            kernel.reference(**arrays, **scalars, **stepped, k=0, **decay)

    def _record(self, ops: Sequence[Op], steps: Steps) -> Plan:
        return NumpyPlan(ops, steps)
