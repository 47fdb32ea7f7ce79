"""Which operations of a plan must wait for which, from what each of them reads and writes."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gpumlp.backends.base import Steps
from gpumlp.backends.numpy import address_of
from gpumlp.backends.operations import AllReduce, Computation, Gemm, Op

__all__ = ["dependencies", "extent", "member_extents", "touched"]

#: first byte, the one after the last, and whether it is written
Access = tuple[int, int, bool]


def extent(array: Any) -> tuple[int, int]:
    """First byte of an array, and the one after the last; equal if it is empty."""
    low = high = address_of(array) if isinstance(array, np.ndarray) else array.data.ptr
    if array.size == 0:
        return low, low
    for n, stride in zip(array.shape, array.strides, strict=True):
        low, high = low + min(0, (n - 1) * stride), high + max(0, (n - 1) * stride)
    return low, high + array.itemsize


def member_extents(array: Any, apart: bool) -> list[tuple[int, int]]:
    """Extents of the items of `array`, one for each member, if they are `apart`; else of all of it.

    Members of several arrays may take turns in memory, as the layers of flat buffers do.
    """
    if not apart or array.size == 0 or array.strides[0] == 0:
        return [extent(array)]
    low, high = extent(array[0])
    return [(low + j * array.strides[0], high + j * array.strides[0]) for j in range(len(array))]


def touched(op: Computation) -> Iterator[tuple[Any, bool, bool]]:
    """The arrays of `op`: whether it has an axis of members, and whether it is written."""
    if isinstance(op, Gemm):
        for array in (op.a, op.b, op.c):
            yield array, array.ndim == 3, array is op.c
        return
    for spec in op.kernel.arrays:
        axis = op.members is not None and spec.name not in op.shared
        yield op.arrays[spec.name], axis, spec.role not in ("in", "raw")


def accesses(op: Op, steps: Steps) -> Iterator[Access]:
    """What `op` reads and writes; the counters among it, see `Launch.tick`."""
    if isinstance(op, AllReduce):
        for array in op.arrays.values():
            yield *extent(array), any(array is each for each in op.written)
        return
    for array, axis, written in touched(op):
        for low, high in member_extents(array, axis):
            yield low, high, written
    if isinstance(op, Gemm):
        return
    start, stop = extent(steps.step)
    middle = (start + stop) // 2
    done, running = (start, middle), (middle, stop)
    reads, writes = (done, running) if op.tick == "first" else (running, done)
    yield *reads, False
    if op.tick:
        yield *writes, True
    yield *extent(steps.table), False


def dependencies(ops: Sequence[Op], steps: Steps) -> list[set[int]]:
    """For each operation the earlier ones that it must come after.

    Only the last one that writes a place and those that have read it since: all others come before these.
    """
    found = [[a for a in accesses(op, steps) if a[0] < a[1]] for op in ops]
    # memory in pieces between any two bounds, so that the work grows with the number of accesses
    bounds = sorted({bound for each in found for low, high, _ in each for bound in (low, high)})
    writer: list[int | None] = [None] * len(bounds)
    readers: list[list[int]] = [[] for _ in bounds]
    needs: list[set[int]] = []
    for number, each in enumerate(found):
        pieces = [
            (piece, written)
            for low, high, written in each
            for piece in range(bisect.bisect_left(bounds, low), bisect.bisect_left(bounds, high))
        ]
        before: set[int | None] = {writer[piece] for piece, _ in pieces}
        before.update(reader for piece, written in pieces if written for reader in readers[piece])
        needs.append({n for n in before if n is not None and n != number})
        for piece, written in pieces:
            if written:
                writer[piece], readers[piece] = number, []
        for piece, written in pieces:
            if not written and writer[piece] != number:
                readers[piece].append(number)
    return needs
