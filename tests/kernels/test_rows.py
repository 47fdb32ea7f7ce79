"""Gather, sums, clipping factor and the step counter."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from gpumlp.kernels.activations import forward_kernel
from gpumlp.kernels.kernel import FIXED
from gpumlp.kernels.rows import (
    CLIP,
    GATHER,
    RESET,
    STORE_SUM,
    SUM,
    SUM_SQUARES,
    WEIGHT_SQUARES,
    gather_kernel,
    partial_rows,
)
from launching import HOW, RECORDED_K, Flat, Padded, run, steps_with
from tolerances import close

from gpumlp.backends.operations import Launch
from gpumlp.plans import sum_ops

pytestmark = pytest.mark.memory
SIZES = [1, 3, 127, 512, 1023, 1024, 1025, 2**16 + 1]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("source", [None, *FIXED])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (4, 8), (33, 127), (2, 1000)])
def test_gather(backend: Any, dtype: Any, shape: tuple[int, int], source: str | None, how: str) -> None:
    rows, cols = shape
    rng = np.random.default_rng(cols)
    data = (100 * rng.normal(size=(17, cols))).astype(np.int64).astype(source or dtype)
    if data.dtype.kind == "f":
        data /= 7
        data[3] = [np.nan, np.inf, -np.inf, -0.0][cols % 4]
    else:
        limits = np.iinfo(data.dtype)
        data[3] = (limits.min, limits.max)[cols % 2]
    stride = rows + 2
    index = rng.integers(0, 17, (RECORDED_K + 1) * stride).astype(np.int32)
    index[::5] = 3
    x = Padded(backend, np.zeros(shape, dtype))
    arrays = {"x": x, "index": backend.asarray(index), "X": Padded(backend, data)}
    kernel = gather_kernel(source)
    k = run(backend, how, kernel, arrays, {"stride": stride}, rows=rows, cols=cols, dtype=dtype)
    close(x.read(), data[index[k * stride : k * stride + rows]].astype(dtype), "exact")


def test_long_sums_lose_few_digits(backend: Any) -> None:
    """Equal terms are rounded all in one direction: the error of a sum grows with its length."""
    n, term = 10**7, np.float32(0.1)
    assert max(partial_rows(n)) < 4000
    values, total = backend.asarray(np.full(n, term)), backend.zeros(1, np.float32)
    for op in sum_ops(backend, values, n, total):
        backend.launch(op.kernel, op.arrays, op.scalars, rows=op.rows, cols=op.cols)
    close(backend.to_numpy(total), [n * float(term)], "row sum", scale=0)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("squares", [False, True])
def test_sums(backend: Any, dtype: Any, n: int, squares: bool) -> None:
    """In two launches, as the plans do it; elements behind the last are not read."""
    values = np.random.default_rng(n).random(n).astype(dtype)
    rows, cols = partial_rows(n)
    assert rows * cols >= n and (rows - 1) * cols < n
    partial, total = Flat(backend, np.full(rows, np.nan, dtype)), Flat(backend, np.full(1, np.nan, dtype))
    arrays = {"values": Flat(backend, values), "partial": partial}
    kernel = SUM_SQUARES if squares else SUM
    run(backend, "launch", kernel, arrays, {"n": n, "chunk": cols}, rows=rows, cols=cols)
    terms = [float(v) ** 2 if squares else float(v) for v in values]
    expected = [math.fsum(terms[r * cols : (r + 1) * cols]) for r in range(rows)]
    close(partial.read(), expected, "long sum")
    again = {"values": partial, "partial": total}
    run(backend, "record", SUM, again, {"n": rows, "chunk": rows}, rows=1, cols=rows, dtype=dtype)
    close(total.read()[0], math.fsum(terms), "long sum")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_sum_keeps_what_is_not_finite(backend: Any, dtype: Any, bad: float) -> None:
    values = np.ones(40, dtype)
    values[33] = bad
    for kernel, expected in ((SUM, bad), (SUM_SQUARES, bad * bad)):
        partial = Flat(backend, np.zeros(1, dtype))
        arrays = {"values": Flat(backend, values), "partial": partial}
        run(backend, "launch", kernel, arrays, {"n": 40, "chunk": 40}, rows=1, cols=40)
        np.testing.assert_equal(partial.read()[0], dtype.type(expected))


@pytest.mark.parametrize("how", HOW)
def test_weight_squares(backend: Any, dtype: Any, how: str) -> None:
    n = 3000
    rng = np.random.default_rng(0)
    values, is_weight = rng.random(n).astype(dtype), (rng.random(n) < 0.5).astype(np.uint8)
    values[is_weight == 0] = 1e6  # counted, they would drown the rest
    rows, cols = partial_rows(n)
    partial, out = Flat(backend, np.zeros(rows, dtype)), Flat(backend, np.full(RECORDED_K + 1, -9, dtype))
    arrays = {"values": Flat(backend, values), "is_weight": backend.asarray(is_weight), "partial": partial}
    run(backend, how, WEIGHT_SQUARES, arrays, {"n": n, "chunk": cols}, rows=rows, cols=cols, dtype=dtype)
    k = run(backend, how, STORE_SUM, {"partial": partial, "out": out}, rows=1, cols=rows, dtype=dtype)
    close(out.read()[k], math.fsum(float(v) ** 2 for v in values[is_weight == 1]), "long sum")
    assert (np.delete(out.read(), k) == -9).all()


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(
    ("partial", "expected"),
    [
        ([9.0, 16.0], 2 / 5),
        ([1.0, 3.0], 1.0),  # exactly at the limit
        ([0.0], 1.0),
        ([1e-30], 1.0),
        ([np.inf, 1.0], 0.0),
        ([np.nan, 1.0], np.nan),
        ([0.01] * 512, 2 / math.sqrt(5.12)),
    ],
)
def test_clip(backend: Any, dtype: Any, partial: list, expected: float, how: str) -> None:
    scale = Flat(backend, np.zeros(1, dtype))
    arrays = {"partial": Flat(backend, np.array(partial, dtype)), "clip_scale": scale}
    run(backend, how, CLIP, arrays, {"limit": 2.0}, rows=1, cols=len(partial), dtype=dtype)
    close(scale.read()[0], expected, "row sum")


def test_counters_advance(backend: Any, dtype: Any) -> None:
    """Two kernels of a step see the same k, the next step sees the next one; RESET starts again."""
    data = np.arange(12, dtype=dtype).reshape(6, 2)
    index = backend.asarray(np.arange(6, dtype=np.int32)[::-1].copy())
    x, a = backend.zeros((2, 2), dtype), backend.zeros((2, 2), dtype)
    out = backend.zeros(3, dtype)
    steps = steps_with(backend, ("unused",), np.zeros((3, 1), dtype))
    shared = {"x": x, "index": index, "X": backend.asarray(data)}
    flat = a.reshape(4)
    ops = [
        Launch(GATHER, shared, {"stride": 2}, 2, 2, tick="first"),
        Launch(forward_kernel("relu"), {"z": x, "a": a}, {}, 2, 2),
        Launch(STORE_SUM, {"partial": flat, "out": out}, {}, 1, 4, tick="last"),
    ]
    plan = backend.record(ops, steps)
    reset = backend.record([Launch(RESET, {"step": steps.step}, {}, 1, 1)], steps)
    plan.run(2)
    plan.run()
    assert backend.to_numpy(out).tolist() == [38, 22, 6]
    assert backend.to_numpy(steps.step)[0] == 3
    reset.run()
    plan.run()
    assert backend.to_numpy(steps.step)[0] == 1
    assert backend.to_numpy(a).tolist() == [[10, 11], [8, 9]]
