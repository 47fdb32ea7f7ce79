"""Which operations of a plan must wait for which, from what each of them reads and writes."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gpumlp.backends.base import Gemm, Op, Steps
from gpumlp.backends.numpy import address_of

__all__ = ["dependencies", "extent"]

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


def accesses(op: Op, steps: Steps) -> Iterator[Access]:
    """What `op` reads and writes; the counters among it, see `Launch.tick`."""
    if isinstance(op, Gemm):
        for array in (op.a, op.b, op.c):
            yield *extent(array), array is op.c
        return
    for spec in op.kernel.arrays:
        yield *extent(op.arrays[spec.name]), spec.role not in ("in", "raw")
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

    Of these only the last that writes a place, and those that read it since: others come before them.
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
