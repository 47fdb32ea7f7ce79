"""Kernels of embeddings against formulas in double precision, written another way: row by row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gpumlp.kernels.embeddings import (
    CATEGORIES,
    CATEGORIES_BACKWARD,
    COSINE,
    COSINE_BACKWARD,
    PERIODIC,
    PERIODIC_BACKWARD,
    PIECEWISE,
    columns_kernel,
)
from gpumlp.kernels.kernel import FIXED
from launching import HOW, RECORDED_K, Flat, Padded, run
from tolerances import close

pytestmark = pytest.mark.memory
#: numbers, outputs per number, rows of the batch
SHAPES = [(1, 1, 1), (2, 3, 5), (3, 4, 33), (2, 17, 300), (40, 2, 7)]
TURN = 2 * np.pi


def ints(backend: Any, values: Any) -> Any:
    return backend.asarray(np.asarray(values, np.int32))


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("source", [None, *FIXED])
def test_columns(backend: Any, dtype: Any, source: str | None, how: str) -> None:
    rng = np.random.default_rng(0)
    data = (100 * rng.normal(size=(17, 6))).astype(np.int64).astype(source or dtype)
    n, column = 9, np.array([4, 0, 1, 4])
    stride = n + 2
    index = rng.integers(0, 17, (RECORDED_K + 1) * stride).astype(np.int32)
    x = Padded(backend, np.zeros((4, n), dtype))
    arrays = {"x": x, "index": backend.asarray(index), "column": ints(backend, column)}
    arrays["X"] = Padded(backend, data)
    k = run(backend, how, columns_kernel(source), arrays, {"stride": stride}, rows=4, cols=n, dtype=dtype)
    close(x.read(), data[index[k * stride : k * stride + n]][:, column].T.astype(dtype), "exact")


def cosine_case(shape: tuple[int, int, int], dtype: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    numbers, per, n = shape
    rng = np.random.default_rng(n)
    x = rng.normal(size=(numbers, n)).astype(dtype)
    p = rng.normal(size=(4, numbers * per)).astype(dtype)
    p[:2, ::per] = np.nan  # those of the linear outputs are not read into anything
    p[:2, ::per] = 0.0
    return x, p, rng.normal(size=(numbers * per, n)).astype(dtype)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("shape", SHAPES)
def test_cosine(backend: Any, dtype: Any, shape: tuple[int, int, int], how: str) -> None:
    numbers, per, n = shape
    x, p, _ = cosine_case(shape, dtype)
    e = Padded(backend, np.zeros((numbers * per, n), dtype))
    arrays = {"e": e, "x": Padded(backend, x), "p": Padded(backend, p)}
    run(backend, how, COSINE, arrays, {"per": per}, rows=numbers * per, cols=n, dtype=dtype)
    expected = np.empty((numbers * per, n))
    for r in range(numbers * per):
        w, b, a, c = p[:, r].astype(np.float64)
        v = x[r // per].astype(np.float64)
        expected[r] = a * (v if r % per == 0 else np.cos(TURN * (w * v + b))) + c
    # an argument of size 4 turns is rounded before its cosine is taken
    close(e.read(), expected, "elementwise", scale=8)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("shape", SHAPES)
def test_cosine_backward(backend: Any, dtype: Any, shape: tuple[int, int, int], how: str) -> None:
    numbers, per, n = shape
    x, p, d = cosine_case(shape, dtype)
    g = Padded(backend, np.full(p.shape, 9.0, dtype))
    arrays = {"d": Padded(backend, d), "x": Padded(backend, x), "p": Padded(backend, p), "g": g}
    run(backend, how, COSINE_BACKWARD, arrays, {"per": per}, rows=numbers * per, cols=n, dtype=dtype)
    expected = np.zeros(p.shape)
    for r in range(numbers * per):
        w, b, a, _ = p[:, r].astype(np.float64)
        v, dr = x[r // per].astype(np.float64), d[r].astype(np.float64)
        t = TURN * (w * v + b)
        if r % per:
            expected[0, r], expected[1, r] = (-TURN * a * (dr * np.sin(t) * f).sum() for f in (v, 1.0))
        expected[2, r], expected[3, r] = (dr * (np.cos(t) if r % per else v)).sum(), dr.sum()
    close(g.read(), expected, "row sum", scale=4)


def periodic_case(shape: tuple[int, int, int], dtype: Any) -> tuple[Any, ...]:
    numbers, count, n = shape
    rng = np.random.default_rng(n)
    x, w = rng.normal(size=(numbers, n)).astype(dtype), rng.normal(size=(numbers, count)).astype(dtype)
    per = -(-(2 * count + 1) // 8) * 8
    t = TURN * w.astype(np.float64)[:, :, None] * x.astype(np.float64)[:, None, :]
    e = np.zeros((numbers, per, n))
    e[:, :count], e[:, count : 2 * count], e[:, 2 * count] = np.cos(t), np.sin(t), 1
    return x, w, per, e


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("shape", SHAPES)
def test_periodic(backend: Any, dtype: Any, shape: tuple[int, int, int], how: str) -> None:
    numbers, count, n = shape
    x, w, per, expected = periodic_case(shape, dtype)
    rows = numbers * per
    e = Padded(backend, np.full((rows, n), 9.0, dtype))
    arrays = {"e": e, "x": Padded(backend, x), "w": Flat(backend, w.ravel())}
    run(backend, how, PERIODIC, arrays, {"count": count, "per": per}, rows=rows, cols=n, dtype=dtype)
    close(e.read(), expected.reshape(rows, n), "elementwise", scale=8)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("shape", SHAPES)
def test_periodic_backward(backend: Any, dtype: Any, shape: tuple[int, int, int], how: str) -> None:
    numbers, count, n = shape
    x, _, per, e = periodic_case(shape, dtype)
    d = np.random.default_rng(1).normal(size=e.shape).astype(dtype)
    g = Flat(backend, np.full(numbers * count, 9.0, dtype))
    flat = {"e": e.astype(dtype), "d": d}
    arrays = {name: Padded(backend, values.reshape(numbers * per, n)) for name, values in flat.items()}
    arrays.update(x=Padded(backend, x), g=g)
    scalars = {"count": count, "per": per, "n": n}
    run(backend, how, PERIODIC_BACKWARD, arrays, scalars, rows=numbers * count, cols=n, dtype=dtype)
    slope = e[:, :count] * d[:, count : 2 * count] - e[:, count : 2 * count] * d[:, :count]
    close(g.read(), (TURN * slope * x[:, None, :]).sum(axis=2).ravel(), "row sum", scale=4)


@pytest.mark.parametrize("how", HOW)
def test_piecewise(backend: Any, dtype: Any, how: str) -> None:
    """Two numbers with three bins and two, rows of zeros and of ones; and a number as it is."""
    edges = [[-1.0, 0.0, 0.5, 2.0], [0.0, 1.0, 4.0]]
    x = np.array([[-3, -1, -0.25, 0.25, 0.5, 1.25, 2, 5], [-2, 0, 0.25, 1, 2.5, 4, 5, 9]], dtype)
    bins, expected = np.zeros((4, 2, 5)), np.zeros((2, 5, 8))
    for number, own in enumerate(edges):
        for t, (low, high) in enumerate(zip(own[:-1], own[1:], strict=True)):
            place = (x[number] - low) / (high - low)
            first, last = t == 0, t == len(own) - 2
            bins[:, number, t] = low, 1 / (high - low), -np.inf if first else 0, np.inf if last else 1
            expected[number, t] = np.interp(x[number], [low, high], [0, 1])
            beyond = (place < 0) & first | (place > 1) & last
            expected[number, t, beyond] = place[beyond]
    bins[2:, :, 4] = expected[:, 4] = 1
    e = Padded(backend, np.full((10, 8), 9.0, dtype))
    arrays = {"e": e, "x": Padded(backend, x), "bins": Padded(backend, bins.reshape(4, 10).astype(dtype))}
    run(backend, how, PIECEWISE, arrays, {"per": 5}, rows=10, cols=8, dtype=dtype)
    close(e.read(), expected.reshape(10, 8), "elementwise")
    same = np.repeat([[0.0], [1.0], [-np.inf], [np.inf]], 2, axis=1).astype(dtype)
    arrays = {"e": (e := Padded(backend, np.zeros((2, 8), dtype))), "x": Padded(backend, x)}
    run(
        backend,
        how,
        PIECEWISE,
        {**arrays, "bins": Padded(backend, same)},
        {"per": 1},
        rows=2,
        cols=8,
        dtype=dtype,
    )
    close(e.read(), x, "exact")


#: categories of each column, length of the vectors, rows of the batch
CODES = [([1], 1, 1), ([3, 2], 3, 5), ([5, 300, 1], 8, 33), ([4, 7], 2, 700)]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("case", CODES)
def test_categories(backend: Any, dtype: Any, case: tuple[list[int], int, int], how: str) -> None:
    counts, per, n = case
    rng = np.random.default_rng(n)
    codes = np.array([rng.integers(0, count, n) for count in counts])
    begin = np.cumsum([0, *counts])
    vectors = rng.normal(size=(begin[-1], per)).astype(dtype)
    rows = len(counts) * per
    e = Padded(backend, np.zeros((rows, n), dtype))
    arrays = {"e": e, "x": Padded(backend, codes.astype(dtype)), "vectors": Padded(backend, vectors)}
    arrays["begin"] = ints(backend, begin)
    run(backend, how, CATEGORIES, arrays, {"per": per}, rows=rows, cols=n, dtype=dtype)
    expected = np.concatenate([vectors[b + own].T for b, own in zip(begin[:-1], codes, strict=True)])
    close(e.read(), expected, "exact")


def test_codes_that_there_are_not_read_nothing_else(backend: Any, dtype: Any) -> None:
    vectors = np.arange(10.0, dtype=dtype).reshape(5, 2)
    x = np.array([[-1, np.nan, 2, 3, np.inf, -np.inf, 1e30, 0.9]], dtype)
    e = Padded(backend, np.zeros((2, 8), dtype))
    arrays = {"e": e, "x": Padded(backend, x), "vectors": backend.asarray(vectors)}
    arrays["begin"] = ints(backend, [0, 3])
    run(backend, "launch", CATEGORIES, arrays, {"per": 2}, rows=2, cols=8, dtype=dtype)
    close(e.read(), vectors[[0, 0, 2, 2, 2, 0, 2, 0]].T, "exact")


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("case", CODES)
def test_categories_backward(backend: Any, dtype: Any, case: tuple[list[int], int, int], how: str) -> None:
    """Sums over the rows that have a code; a code that no row has gets 0."""
    counts, per, n = case
    rng = np.random.default_rng(n)
    codes = np.array([rng.integers(0, max(1, count - 1), n) for count in counts])
    d = rng.normal(size=(len(counts) * per, n)).astype(dtype)
    begin = np.cumsum([0, *counts])
    g = Padded(backend, np.full((begin[-1], per), 9.0, dtype))
    arrays = {"x": Padded(backend, codes.astype(dtype)), "d": Padded(backend, d), "g": g}
    arrays["begin"] = ints(backend, begin)
    scalars = {"per": per, "n": n}
    run(backend, how, CATEGORIES_BACKWARD, arrays, scalars, rows=int(begin[-1]), cols=n, dtype=dtype)
    expected = np.zeros((begin[-1], per))
    for column, (start, own) in enumerate(zip(begin[:-1], codes, strict=True)):
        for row, code in enumerate(own):
            expected[start + code] += d[column * per : (column + 1) * per, row]
    close(g.read(), expected, "row sum")
