"""Which operations of a plan may run side by side, and on how many threads.

A plan is cut into phases.  Inside a phase thread i takes share i of every operation without waiting for the
others: of a matrix product or kernel over rows the same range of rows each time.  So the forward pass of a
batch, its loss and the gradients with respect to the activations are one phase, in which rows stay in the
caches of one core.  Between phases all threads wait for each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gpumlp.backends.base import Gemm, Op
from gpumlp.backends.native.text import cost

__all__ = ["by_rows", "phases"]

ROW_UNIT = 8  # as in replay.cpp
FLOPS_PER_NS, ELEMENTS_PER_NS = 100.0, 6.5  # of one core, for the choice of the number of threads only
LEAST_NS = 2500.0  # smallest share that is worth handing to another thread
# a thread gets several shares of a long phase, so that a quicker one can take over some of them; every share
# of a product packs one factor anew, which costs little for that many rows
FINE_NS, FINE_ROWS, FINE_SHARES, MOST_SHARES = 50e3, 128, 4, 32

# first byte, the one after the last; address and stride of the rows and their number if each row is touched
# by its own share only; whether it is written
_Access = tuple[int, int, tuple[int, int, int] | None, bool]


def by_rows(op: Op) -> bool:
    """Whether shares of `op` are ranges of rows (else columns, or what a product's shape suggests)."""
    if isinstance(op, Gemm):
        return not op.trans_a
    return op.kernel.rowwise or op.rows >= ROW_UNIT


def phases(ops: Sequence[Op], threads: int) -> np.ndarray:
    """int64 (n, 3): first operation, one after the last, number of shares."""
    found: list[list[int]] = []
    touched: list[_Access] = []
    for i, op in enumerate(ops):
        accesses = list(_accesses(op))
        if i == 0 or any(_conflict(a, b) for a in accesses for b in touched):
            found.append([i, i])
            touched = []
        found[-1][1] = i + 1
        touched += accesses
    return np.array([(*span, _shares(ops[slice(*span)], threads)) for span in found], np.int64).reshape(-1, 3)


def _shares(ops: Sequence[Op], threads: int) -> int:
    most = max(_units(op) for op in ops)
    work = sum(_nanoseconds(op) for op in ops)
    shares = max(1, min(threads, most, int(work / LEAST_NS)))
    if shares < threads or threads == 1:
        return shares
    rows = min((len(op.c) for op in ops if isinstance(op, Gemm) and not op.trans_a), default=most * FINE_ROWS)
    each = min(FINE_SHARES, int(work / threads / FINE_NS), most // threads, rows // FINE_ROWS // threads)
    return min(threads * max(1, each), MOST_SHARES)


def _units(op: Op) -> int:
    if isinstance(op, Gemm):
        return -(-max(op.c.shape) // ROW_UNIT) if op.trans_a else -(-len(op.c) // ROW_UNIT)
    return -(-op.rows // ROW_UNIT) if by_rows(op) else -(-op.cols // 64)


def _nanoseconds(op: Op) -> float:
    if isinstance(op, Gemm):
        inner = op.a.shape[0 if op.trans_a else 1]
        return 2.0 * op.c.size * inner / FLOPS_PER_NS
    return op.rows * op.cols * cost(op.kernel) / ELEMENTS_PER_NS


def _accesses(op: Op) -> Iterator[_Access]:
    if isinstance(op, Gemm):
        own = None if op.trans_a else len(op.c)
        yield _access(op.a, own, False)
        yield _access(op.b, None, False)
        yield _access(op.c, own, True)
        return
    rows = op.rows if by_rows(op) and op.rows > 1 else None
    for spec in op.kernel.arrays:
        raw = spec.role.startswith("raw")
        yield _access(op.arrays[spec.name], None if raw else rows, spec.role not in ("in", "raw"))


def _access(array: Any, rows: int | None, written: bool) -> _Access:
    low = high = array.ctypes.data
    for n, stride in zip(array.shape, array.strides, strict=True):
        if n == 0:
            return low, low, None, written
        low, high = low + min(0, (n - 1) * stride), high + max(0, (n - 1) * stride)
    own = None if rows is None or array.ndim != 2 else (array.ctypes.data, array.strides[0], rows)
    return low, high + array.itemsize, own, written


def _conflict(a: _Access, b: _Access) -> bool:
    if not (a[3] or b[3]) or a[1] <= b[0] or b[1] <= a[0]:
        return False
    return a[2] is None or a[2] != b[2]
