"""Not-a-number is never the best, and never what `fit` leaves without an error."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import gpumlp

RNG = np.random.default_rng(0)
X = RNG.normal(size=(160, 5))
Y = X @ np.arange(5.0) + 1


def model(device: str) -> gpumlp.MLP:
    return gpumlp.MLP([5, 1], device=device, seed=0)


def flat(m: gpumlp.MLP) -> np.ndarray:
    return m.backend.to_numpy(m.flat)


def blow(step: int) -> Any:
    """A schedule with one absurd learning rate."""
    return lambda t, total: np.where(np.asarray(t) == step, 4e39, 1.0)


def test_figures_of_nan_are_nan(device: str) -> None:
    m = model(device)
    trainer = gpumlp.Trainer(m, loss="squared_error", optimizer="sgd")
    m.weights[0] = np.full((5, 1), np.nan)
    figures = trainer.evaluate(X, Y)
    assert all(math.isnan(figures[name]) for name in ("loss", "rmse", "r2"))
    constant = trainer.evaluate(X, np.ones(160))
    assert math.isnan(constant["r2"])


@pytest.mark.parametrize("monitor", ["loss", "val_loss", "val_rmse", "val_r2"])
@pytest.mark.parametrize("streaming", [False, True])
def test_the_best_epoch_comes_back(device: str, monitor: str, streaming: bool) -> None:
    """The last step of the fourth epoch overflows, after all losses of the epoch were computed."""
    kept: list[np.ndarray] = []
    m = model(device)
    trainer = gpumlp.Trainer(
        m,
        loss="squared_error",
        optimizer=gpumlp.SGD(lr=0.05),
        batch_size=32,
        schedule=blow(15 if monitor != "loss" else 19),
        callbacks=[lambda t, history: kept.append(flat(t.model))],
    )
    validation = None if monitor == "loss" else 0.2
    stop = gpumlp.EarlyStopping(monitor=monitor, patience=5)
    with pytest.raises(gpumlp.DivergenceError, match="epoch 4"):
        trainer.fit(X, Y, epochs=8, validation=validation, early_stopping=stop, streaming=streaming)
    assert len(trainer.history) == 3 and trainer.history.best_epoch == 2
    np.testing.assert_array_equal(flat(m), kept[2])


def test_a_last_update_that_overflows_is_reported(device: str) -> None:
    m = model(device)
    trainer = gpumlp.Trainer(
        m, loss="squared_error", optimizer=gpumlp.SGD(lr=0.05), batch_size=32, schedule=blow(9)
    )
    with pytest.raises(gpumlp.DivergenceError, match=r"\d parameters are NaN or infinite.*epoch 2") as caught:
        trainer.fit(X, Y, epochs=2)
    assert "after the last step" in caught.value.where


def test_what_a_training_started_from_is_better_than_nan(device: str) -> None:
    """The first epoch's only update overflows: its loss is finite, what is put back are the start values."""
    m = model(device)
    start = flat(m)
    trainer = gpumlp.Trainer(m, loss="squared_error", optimizer=gpumlp.SGD(lr=1e39), batch_size=160)
    with pytest.raises(gpumlp.DivergenceError):
        trainer.fit(X * 1e3, Y, epochs=5, early_stopping=gpumlp.EarlyStopping(monitor="loss"))
    np.testing.assert_array_equal(flat(m), start)
    assert trainer.history.best_epoch is None
