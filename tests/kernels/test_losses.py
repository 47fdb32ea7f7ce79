"""Losses, their gradients, metrics and output links against loops over rows in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import oracles
import pytest
from gpumlp.kernels.losses import LOSSES, evaluation_kernel, output_kernel, training_kernel
from launching import HOW, RECORDED_K, Flat, Padded, run
from tolerances import close

NAMES = sorted(oracles.LOSSES)
DELTA = 0.75
WIDTHS = [1, 2, 3, 10, 33, 1000]
pytestmark = pytest.mark.memory


class Case:
    """Rows of a data set, a batch drawn from it by index, and the arrays that a loss kernel takes."""

    def __init__(
        self, backend: Any, name: str, rows: int, cols: int, dtype: Any, how: str, weighted: bool
    ) -> None:
        rng = np.random.default_rng([rows, cols])
        self.name, self.rows, self.cols, self.backend = name, rows, cols, backend
        loss, n, stride = LOSSES[name], rows + 5, rows + 2
        self.k = RECORDED_K if how == "record" else 0
        self.z = (rng.normal(0, 2, (rows, cols))).astype(dtype)
        self.start = self.k * stride
        self.index = rng.integers(0, n, (RECORDED_K + 1) * stride).astype(np.int32)
        if loss.classes:
            self.y = rng.integers(0, cols, n).astype(np.int32)
        elif loss.link == "sigmoid":
            self.y = rng.choice([0, 1, 0.25], (n, cols)).astype(dtype)
        elif loss.link == "exp":
            self.y = rng.poisson(2, (n, cols)).astype(dtype)
        else:
            self.y = rng.normal(0, 2, (n, loss.targets(cols))).astype(dtype)
            self.y[:, 0] = np.where(rng.random(n) < 0.3, 0, self.y[:, 0])
            self.z[:, 0] = np.where(rng.random(rows) < 0.5, 0, self.z[:, 0])  # errors that are exactly 0
        self.w = (rng.random(n) * (rng.random(n) < 0.8)).astype(dtype) if weighted else np.ones(n, dtype)
        self.arrays = {"z": Padded(backend, self.z), "index": backend.asarray(self.index)}
        self.arrays["y"] = Flat(backend, self.y) if loss.classes else Padded(backend, self.y)
        if weighted:
            self.arrays["w"] = Flat(backend, self.w)
        self.row_loss = Flat(backend, np.full((RECORDED_K + 1) * stride, -9, dtype))
        self.arrays["row_loss"] = self.row_loss
        self.scalars: dict[str, Any] = {"stride": stride}
        if not loss.classes:
            self.scalars["per_output"] = 1 / cols
        self.delta: Any = DELTA
        if loss.levels:
            self.delta = ((np.arange(cols) + 0.5) / cols).astype(dtype)
            self.arrays["delta"] = Flat(backend, self.delta)
        elif loss.delta is not None:
            self.scalars["delta"] = DELTA

    def evaluated(self) -> dict[str, Any]:
        """The scalars of an evaluation."""
        centre = {"centre": (self.cols - 1) // 2} if LOSSES[self.name].levels else {}
        return {**self.scalars, **centre}

    def expected(self, inv_weight: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        values, gradients, scores = [], [], []
        for r in range(self.rows):
            row = self.index[self.start + r]
            value, gradient = oracles.LOSSES[self.name](self.z[r].astype(float), self.y[row], self.delta)
            weight = float(self.w[row])
            values.append(weight * value)
            gradients.append([weight * inv_weight * g for g in gradient])
            scores.append(weight * oracles.score(self.name, self.z[r].astype(float), self.y[row]))
        return np.array(values), np.array(gradients).reshape(self.rows, self.cols), np.array(scores)

    def check_rows(self, written: Flat, expected: np.ndarray, scale: float) -> None:
        """The batch's rows hold `expected`, all others are as they were."""
        got = written.read()
        part = slice(self.start, self.start + self.rows)
        close(got[part], expected, "row sum", scale=scale)
        assert (np.delete(got, part) == -9).all()


def test_every_loss_has_an_oracle() -> None:
    assert set(oracles.LOSSES) == set(LOSSES)
    assert {loss.link for loss in LOSSES.values()} <= set(oracles.LINKS)


@pytest.mark.cuda_sample(11)
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("cols", WIDTHS)
@pytest.mark.parametrize("name", NAMES)
def test_training(backend: Any, dtype: Any, name: str, cols: int, weighted: bool, how: str) -> None:
    case = Case(backend, name, 7, cols, dtype, how, weighted)
    d = Padded(backend, np.zeros((7, cols), dtype))
    kernel = training_kernel(name, weighted)
    arrays = {**case.arrays, "d": d}
    run(backend, how, kernel, arrays, case.scalars, {"inv_weight": 0.125}, rows=7, cols=cols, dtype=dtype)
    values, gradients, _ = case.expected(0.125)
    case.check_rows(case.row_loss, values, scale=0.1)
    close(d.read(), gradients, "elementwise", scale=1 / cols)


@pytest.mark.cuda_sample(7)
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("cols", WIDTHS)
@pytest.mark.parametrize("name", NAMES)
def test_evaluation(backend: Any, dtype: Any, name: str, cols: int, weighted: bool) -> None:
    how = HOW[cols % 2]
    case = Case(backend, name, 9, cols, dtype, how, weighted)
    metric = Flat(backend, np.full(len(case.row_loss.read()), -9, dtype))
    arrays = {**case.arrays, "row_metric": metric}
    kernel = evaluation_kernel(name, weighted)
    run(backend, how, kernel, arrays, case.evaluated(), rows=9, cols=cols, dtype=dtype)
    if name == "quantile":
        case.z = np.sort(case.z, axis=1)
    values, _, scores = case.expected(1.0)
    case.check_rows(case.row_loss, values, scale=0.1)
    case.check_rows(metric, scores, scale=1)


def rows_of(
    backend: Any, name: str, z: Any, y: Any, dtype: Any, weights: Any = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(row losses, gradients, metrics) of given rows."""
    z, loss = np.asarray(z, dtype), LOSSES[name]
    rows, cols = z.shape
    index = backend.asarray(np.arange(rows, dtype=np.int32))
    target = backend.asarray(np.asarray(y, np.int32 if loss.classes else dtype))
    d, out, metric = Padded(backend, np.zeros_like(z)), *(Flat(backend, np.zeros(rows, dtype)) for _ in "ab")
    arrays = {"z": Padded(backend, z), "index": index, "y": target, "row_loss": out}
    scalars: dict[str, Any] = {"stride": rows}
    scalars.update({} if loss.classes else {"per_output": 1 / cols})
    if loss.levels:
        arrays["delta"] = backend.asarray(((np.arange(cols) + 0.5) / cols).astype(dtype))
    elif loss.delta is not None:
        scalars["delta"] = loss.delta
    weighted = weights is not None
    arrays.update({"w": backend.asarray(np.asarray(weights, dtype))} if weighted else {})
    train, evaluate = training_kernel(name, weighted), evaluation_kernel(name, weighted)
    run(backend, "launch", train, {**arrays, "d": d}, scalars, {"inv_weight": 1.0}, rows=rows, cols=cols)
    scalars.update({"centre": 0} if loss.levels else {})
    run(backend, "launch", evaluate, {**arrays, "row_metric": metric}, scalars, rows=rows, cols=cols)
    return out.read(), d.read(), metric.read()


def test_softmax_of_huge_logits(backend: Any, dtype: Any) -> None:
    huge = float(np.finfo(dtype).max)
    z = [
        [1000, -1000, 0],
        [-1000, -1000, -1000],
        [1000, 1000, -1000],
        [-math.inf, 0, 0],
        [huge, -huge, huge / 2],
    ]
    loss, d, metric = rows_of(backend, "softmax_cross_entropy", z, [1, 2, 0, 1, 0], dtype)
    close(loss, [2000, math.log(3), math.log(2), math.log(2), 0], "elementwise")
    third = 1 / 3
    expected = [[1, -1, 0], [third, third, third - 1], [-0.5, 0.5, 0], [0, -0.5, 0.5], [0, 0, 0]]
    close(d, np.array(expected), "elementwise")
    # a tie is won by the first of the classes, as by argmax
    assert metric.tolist() == [0, 0, 1, 1, 1]


@pytest.mark.cuda_sample(5)
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("label", [0, 1, 2])
def test_softmax_of_nan(backend: Any, dtype: Any, label: int, place: int) -> None:
    """NaN is a NaN loss and a wrong answer, wherever it stands."""
    z = np.array([[1.0, 2.0, 3.0]])
    z[0, place] = np.nan
    loss, d, metric = rows_of(backend, "softmax_cross_entropy", z, [label], dtype)
    assert np.isnan(loss[0])
    assert np.isnan(d).all()
    assert metric[0] == 0


def test_softmax_all_nan_is_never_right(backend: Any, dtype: Any) -> None:
    z = np.full((3, 4), np.nan)
    assert rows_of(backend, "softmax_cross_entropy", z, [0, 1, 3], dtype)[2].tolist() == [0, 0, 0]


def test_binary_of_huge_logits(backend: Any, dtype: Any) -> None:
    z = [[1e4], [-1e4], [1e4], [-1e4], [0]]
    loss, d, metric = rows_of(backend, "binary_cross_entropy", z, [[1], [0], [0], [1], [1]], dtype)
    close(loss, [0, 0, 1e4, 1e4, math.log(2)], "elementwise")
    close(d[:, 0], [0, 0, 1, -1, -0.5], "elementwise")
    assert metric.tolist() == [1, 1, 0, 0, 0]


def test_binary_of_nan_is_a_wrong_answer(backend: Any, dtype: Any) -> None:
    z = [[np.nan, 1.0], [np.nan, 1.0], [-1.0, 1.0]]
    _, _, metric = rows_of(backend, "binary_cross_entropy", z, [[0, 1], [1, 1], [0, 1]], dtype)
    assert metric.tolist() == [0, 0, 1]


@pytest.mark.cuda_sample(5)
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e38])
@pytest.mark.parametrize("name", NAMES)
def test_a_row_of_weight_zero_does_not_count(backend: Any, name: str, value: float) -> None:
    """Whatever the network makes of it."""
    z = [[value, 1.0], [0.5, -0.5]]
    labels: Any = [0, 1] if LOSSES[name].classes else [[0.0, 1.0], [1.0, 0.0]]
    loss, d, metric = rows_of(backend, name, z, labels, np.float32, weights=[0.0, 2.0])
    assert loss[0] == metric[0] == 0 and (d[0] == 0).all()
    alone = rows_of(backend, name, z[1:], labels[1:], np.float32, weights=[2.0])
    assert loss[1] == alone[0][0] and metric[1] == alone[2][0] and (d[1] == alone[1][0]).all()


def test_sigmoid_far_below_zero_is_not_zero(backend: Any) -> None:
    """exp(95) is infinite in float32, exp(-95) is a denormal number; float32 kernels on CUDA flush those."""
    out, z = Padded(backend, np.zeros((1, 2), np.float32)), np.array([[-95.0, 95.0]], np.float32)
    arrays = {"z": Padded(backend, z), "out": out}
    run(backend, "launch", output_kernel("sigmoid"), arrays, {"stride": 1}, rows=1, cols=2)
    low, high = out.read()[0]
    flushed = backend.name == "cuda" and low == 0
    assert (flushed or abs(low - math.exp(-95)) <= 2.0**-149) and high == 1


def test_poisson_overflow_is_infinite(backend: Any, dtype: Any) -> None:
    loss, d, _ = rows_of(backend, "poisson", [[1000.0], [-1000.0]], [[2], [2]], dtype)
    assert loss[0] == math.inf and d[0, 0] == math.inf
    close(loss[1], 2000, "elementwise")
    close(d[1, 0], -2, "elementwise")


@pytest.mark.cuda_sample(3)
@pytest.mark.parametrize("name", [n for n in NAMES if not LOSSES[n].classes])
def test_nan_is_a_nan_loss_and_gradient(backend: Any, dtype: Any, name: str) -> None:
    loss, d, _ = rows_of(backend, name, [[0.5, np.nan], [0.5, 0.5]], [[1, 1], [1, 1]], dtype)
    assert np.isnan(loss[0]) and np.isfinite(loss[1])
    assert np.isnan(d[0, 1])
    assert np.isfinite(d[1]).all() and np.isfinite(d[0, 0])


def test_huber_at_its_corner(backend: Any, dtype: Any) -> None:
    z = [[1.0], [-1.0], [3.0], [-3.0], [1e30]]
    loss, d, _ = rows_of(backend, "huber", z, [[0.0]] * 5, dtype)
    close(loss, [0.5, 0.5, 2.5, 2.5, 1e30], "elementwise")
    assert d[:, 0].tolist() == [1, -1, 1, -1, 1]


def test_absolute_error_at_zero(backend: Any, dtype: Any) -> None:
    _, d, _ = rows_of(backend, "absolute_error", [[0.0, 2.0, -2.0]], [[0.0, 0.0, 0.0]], dtype)
    close(d, np.array([[0, 1, -1]]) / 3, "elementwise")


@pytest.mark.cuda_sample(5)
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("cols", WIDTHS)
@pytest.mark.parametrize("link", sorted(oracles.LINKS))
def test_output_links(backend: Any, dtype: Any, link: str, cols: int, how: str) -> None:
    rng = np.random.default_rng(cols)
    rows, stride = 5, 6
    z = rng.normal(0, 3, (rows, cols)).astype(dtype)
    if link in ("sigmoid", "softmax"):
        z[0, 0], z[1, -1] = 1000, -1000
    out = Padded(backend, np.full(((RECORDED_K + 1) * stride, cols), -9, dtype))
    arrays = {"z": Padded(backend, z), "out": out}
    k = run(backend, how, output_kernel(link), arrays, {"stride": stride}, rows=rows, cols=cols, dtype=dtype)
    got, part = out.read(), slice(k * stride, k * stride + rows)
    expected = np.array([oracles.LINKS[link](row) for row in z.astype(float)])
    close(got[part], expected, "row sum" if link == "softmax" else "elementwise", scale=1 / cols)
    assert (np.delete(got, part, axis=0) == -9).all()
    if link == "softmax":
        close(got[part].astype(float).sum(axis=1), np.ones(rows), "row sum", dtype=dtype)
