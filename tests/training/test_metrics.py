"""`evaluate` against scikit-learn's metrics, for more rows than one pass takes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from tolerances import close

import gpumlp
from gpumlp.plans import FORWARD_ROWS

metrics = pytest.importorskip("sklearn.metrics")


def make(device: str, loss: str, outputs: int, dtype: Any = "float64") -> gpumlp.Trainer:
    model = gpumlp.MLP([4, 5, outputs], "tanh", init=1.0, device=device, dtype=dtype)
    # penalties are no part of the figures
    trainer = gpumlp.Trainer(model, loss=loss, optimizer="sgd", l2=3.0)
    model.output = trainer.loss.link  # as training would set it
    return trainer


@pytest.mark.parametrize("rows", [1, 7, FORWARD_ROWS, FORWARD_ROWS + 1])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
class TestEvaluate:
    def rows_of(self, rows: int, weighted: bool) -> tuple[Any, np.ndarray, Any]:
        rng = np.random.default_rng(rows)
        return rng, rng.normal(size=(rows, 4)), rng.random(rows) + 0.1 if weighted else None

    def test_softmax(self, device: str, rows: int, weighted: bool) -> None:
        rng, X, w = self.rows_of(rows, weighted)
        y = rng.integers(0, 3, rows)
        trainer = make(device, "softmax_cross_entropy", 3)
        got, p = trainer.evaluate(X, y, w), trainer.model.predict_proba(X)
        close(got["accuracy"], metrics.accuracy_score(y, p.argmax(axis=1), sample_weight=w), "figures")
        close(got["loss"], metrics.log_loss(y, p, labels=[0, 1, 2], sample_weight=w), "figures")
        assert set(got) == {"loss", "accuracy"}

    def test_binary(self, device: str, rows: int, weighted: bool) -> None:
        rng, X, w = self.rows_of(rows, weighted)
        y = rng.integers(0, 2, rows)
        trainer = make(device, "binary_cross_entropy", 1)
        got, p = trainer.evaluate(X, y, w), trainer.model.predict_proba(X)
        assert p.shape == (rows, 2)
        close(
            got["accuracy"], metrics.accuracy_score(y, trainer.model.predict(X), sample_weight=w), "figures"
        )
        close(got["loss"], metrics.log_loss(y, p, labels=[0, 1], sample_weight=w), "figures")

    @pytest.mark.parametrize("outputs", [1, 3])
    def test_regression(self, device: str, rows: int, weighted: bool, outputs: int) -> None:
        rng, X, w = self.rows_of(rows, weighted)
        y = rng.normal(size=(rows, outputs)) + 5
        trainer = make(device, "squared_error", outputs)
        got, z = trainer.evaluate(X, y, w), trainer.model.forward(X)
        mse = metrics.mean_squared_error(y, z, sample_weight=w)
        close(got["loss"], mse / 2, "figures")
        close(got["rmse"], math.sqrt(mse), "figures")
        if rows > 1:
            close(
                got["r2"], metrics.r2_score(y, z, sample_weight=w, multioutput="variance_weighted"), "figures"
            )
        assert set(got) == {"loss", "rmse", "r2"}

    def test_poisson(self, device: str, rows: int, weighted: bool) -> None:
        rng, X, w = self.rows_of(rows, weighted)
        y = rng.poisson(2, rows).astype(float)
        trainer = make(device, "poisson", 1)
        got, rate = trainer.evaluate(X, y, w), trainer.model.predict(X)
        close(got["loss"], np.average(rate - y * np.log(rate), weights=w), "figures")
        close(got["rmse"] ** 2, metrics.mean_squared_error(y, rate, sample_weight=w), "figures")


def test_float32(device: str) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(5000, 4)), rng.normal(size=5000)
    trainer = make(device, "squared_error", 1, "float32")
    z = trainer.model.forward(X)[:, 0].astype(float)
    close(trainer.evaluate(X, y)["loss"], np.mean((z - y) ** 2) / 2, "figures", dtype="float32")


def test_constant_target_has_no_r2(device: str) -> None:
    """R2 of a target without variance: 1 if hit exactly, else 0, as scikit-learn has it."""
    trainer = make(device, "squared_error", 1)
    X, y = np.ones((3, 4)), np.full(3, 2.0)
    assert trainer.evaluate(X, y)["r2"] == 0.0
    exact = np.full(3, trainer.model.forward(X)[0, 0])
    assert trainer.evaluate(X, exact)["r2"] == 1.0


def test_evaluate_leaves_everything(device: str) -> None:
    trainer = make(device, "squared_error", 1)
    before = trainer.model.get_parameters()
    X, y = np.ones((3, 4)), np.ones(3)
    assert trainer.evaluate(X, y) == trainer.evaluate(X, y)
    assert trainer.optimizer.t == 0
    for (W, b), (W0, b0) in zip(trainer.model.get_parameters(), before, strict=True):
        assert (W == W0).all() and (b == b0).all()
