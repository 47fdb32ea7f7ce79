"""Which operations of a plan may run side by side, and on how many threads.

A plan is cut into phases.  Inside a phase thread i takes share i of every operation without waiting for the
others: of a matrix product or kernel over rows the same range of rows each time.  So the forward pass of a
batch, its loss and the gradients with respect to the activations are one phase, in which rows stay in the
caches of one core.  Between phases all threads wait for each other.

Of an operation with members a share is whole members, so that a step in which all have them is one phase.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gpumlp.backends.accesses import member_extents, touched
from gpumlp.backends.native.text import cost
from gpumlp.backends.numpy import address_of
from gpumlp.backends.operations import Computation, Gemm

__all__ = ["by_rows", "phases", "useful_threads"]

ROW_UNIT = 8  # as in replay.cpp
FLOPS_PER_NS, ELEMENTS_PER_NS = 100.0, 6.5  # of one core, for the choice of the number of threads only
LEAST_NS = 2500.0  # smallest share that is worth handing to another thread
# a thread gets several shares of a long phase, so that a quicker one can take over some of them; every share
# of a product packs one factor anew, which costs little for that many rows
FINE_NS, FINE_ROWS, FINE_SHARES, MOST_SHARES = 50e3, 128, 4, 32

# whose it is, if each share touches its own only, else None: address and stride of an array's rows and their
# number, or the numbers of the member and of all members
_Own = tuple[int, ...] | None
# first byte, the one after the last, whose rows they are, whether they are written
_Access = tuple[int, int, _Own, bool]


def by_rows(op: Computation) -> bool:
    """Whether shares of `op` are ranges of rows (else columns, or what a product's shape suggests)."""
    if isinstance(op, Gemm):
        return not op.trans_a
    return op.kernel.rowwise or op.rows >= ROW_UNIT


def useful_threads(ops: Sequence[Computation], threads: int) -> int:
    """For how many of `threads` all of `ops` together have work."""
    return max(1, min(threads, int(sum(map(_nanoseconds, ops)) / LEAST_NS)))


def phases(ops: Sequence[Computation], threads: int) -> np.ndarray:
    """int64 (n, 3): first operation, one after the last, number of shares; one thread needs one phase."""
    if threads == 1:
        return np.array([(0, len(ops), 1)], np.int64)
    found: list[list[int]] = []
    touched = _Touched()
    for i, op in enumerate(ops):
        accesses = list(_accesses(op))
        if i == 0 or any(touched.forbids(access) for access in accesses):
            found.append([i, i])
            touched = _Touched()
        found[-1][1] = i + 1
        for access in accesses:
            touched.add(access)
    return np.array([(*span, _shares(ops[slice(*span)], threads)) for span in found], np.int64).reshape(-1, 3)


def _shares(ops: Sequence[Computation], threads: int) -> int:
    most = max(_units(op) for op in ops)
    work = sum(_nanoseconds(op) for op in ops)
    shares = max(1, min(threads, most, int(work / LEAST_NS)))
    if shares < threads or threads == 1:
        return shares
    if any(op.members for op in ops):
        return min(most, FINE_SHARES * threads, MOST_SHARES)
    rows = min((len(op.c) for op in ops if isinstance(op, Gemm) and not op.trans_a), default=most * FINE_ROWS)
    each = min(FINE_SHARES, int(work / threads / FINE_NS), most // threads, rows // FINE_ROWS // threads)
    return min(threads * max(1, each), MOST_SHARES)


def _units(op: Computation) -> int:
    if op.members:
        return op.members
    if isinstance(op, Gemm):
        return -(-max(op.c.shape) // ROW_UNIT) if op.trans_a else -(-len(op.c) // ROW_UNIT)
    return -(-op.rows // ROW_UNIT) if by_rows(op) else -(-op.cols // 64)


def _nanoseconds(op: Computation) -> float:
    if isinstance(op, Gemm):
        inner = op.a.shape[-2 if op.trans_a else -1]
        return 2.0 * op.c.size * inner / FLOPS_PER_NS
    return (op.members or 1) * op.rows * op.cols * cost(op.kernel) / ELEMENTS_PER_NS


def _accesses(op: Computation) -> Iterator[_Access]:
    if op.members:
        for array, axis, written in touched(op):
            for j, (low, high) in enumerate(member_extents(array, axis)):
                yield low, high, (j, op.members) if axis and array.strides[0] else None, written
        return
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
    place = low = high = address_of(array)
    for n, stride in zip(array.shape, array.strides, strict=True):
        if n == 0:
            return low, low, None, written
        low, high = low + min(0, (n - 1) * stride), high + max(0, (n - 1) * stride)
    own = None if rows is None or array.ndim != 2 else (place, array.strides[0], rows)
    return low, high + array.itemsize, own, written


class _Touched:
    """What the operations of a phase touch: disjoint ranges of bytes in order, found by bisection.

    Each range knows whether all accesses, and whether all writes, are to the same own rows.
    """

    def __init__(self) -> None:
        self.starts: list[int] = []
        # end, own rows of all accesses, own rows of all writes; these are () where nothing is written
        self.ranges: list[tuple[int, _Own, _Own | tuple[()]]] = []

    def _overlapping(self, low: int, high: int) -> slice:
        first = max(0, bisect_right(self.starts, low) - 1)
        if first < len(self.starts) and self.ranges[first][0] <= low:
            first += 1
        return slice(first, max(first, bisect_left(self.starts, high)))

    def forbids(self, access: _Access) -> bool:
        """Whether a share of `access` meets what another share touches, and one of the two writes."""
        low, high, own, written = access
        return any(
            other != () and (own is None or other != own)
            for _, of_all, of_writes in self.ranges[self._overlapping(low, high)]
            for other in ([of_all] if written else [of_writes])
        )

    def add(self, access: _Access) -> None:
        low, high, own, written = access
        if low == high:
            return
        where = self._overlapping(low, high)
        pieces: list[tuple[int, int, _Own, _Own | tuple[()]]] = []
        at = low
        for start, (end, of_all, of_writes) in zip(self.starts[where], self.ranges[where], strict=True):
            if start < low:
                pieces.append((start, low, of_all, of_writes))
            elif at < start:
                pieces.append((at, start, own, own if written else ()))
            at = min(end, high)
            both = own if own == of_all else None
            writes = of_writes if not written else own if of_writes in ((), own) else None
            pieces.append((max(start, low), at, both, writes))
            if high < end:
                pieces.append((high, end, of_all, of_writes))
        if at < high:
            pieces.append((at, high, own, own if written else ()))
        joined = [pieces[0]]
        for piece in pieces[1:]:
            if piece[2:] == joined[-1][2:]:
                joined[-1] = (joined[-1][0], *piece[1:])
            else:
                joined.append(piece)
        self.starts[where] = [piece[0] for piece in joined]
        self.ranges[where] = [piece[1:] for piece in joined]
