"""The lasso (d2l.ai 3.7, exercises) on the airfoil data: the penalty on |w| sets weights to exactly 0."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import gpumlp
from gpumlp.datasets import load_airfoil
from scripts.shared import show, textbook

NAMES = ("frequency", "angle of attack", "chord length", "velocity", "thickness")


def fit(X: np.ndarray, y: np.ndarray, penalty: float, device: str) -> np.ndarray:
    """Weights that minimise mean((X w - y)^2) / 2 + penalty |w|, by proximal gradient descent."""
    model = gpumlp.MLP([5, 1], init="normal", dtype="float64", device=device)
    settings: dict[str, Any] = {"l1": penalty, "proximal": True, "batch_size": len(X)}
    trainer = gpumlp.Trainer(model, loss="squared_error", optimizer=gpumlp.SGD(lr=1 / 2.2), **settings)
    trainer.fit(X, y, epochs=270, progress=False)
    return model.get_parameters()[0][0][:, 0]


def main(device: str = "auto") -> Any:
    X, y = load_airfoil()
    X, y = (X - X.mean(axis=0)) / X.std(axis=0), (y - y.mean()) / y.std()
    penalties = np.linspace(0, 0.42, 15)
    path = np.array([fit(X, y, p, device) for p in penalties])
    for penalty, w in zip(penalties, path, strict=True):  # the minimum's conditions (there is no closed form)
        pull = X.T @ (y - X @ w) / len(X)
        np.testing.assert_allclose(pull[w != 0], penalty * np.sign(w[w != 0]), rtol=0, atol=1e-9)
        assert (np.abs(pull[w == 0]) <= penalty).all()
    assert (path[-1] == 0).all() and (path[0] != 0).all()

    # of uncorrelated columns there is a closed form: the least-squares weight, moved towards 0 by the penalty
    Q = np.linalg.qr(X)[0] * np.sqrt(len(X))
    least = Q.T @ y / len(X)
    threshold = np.sign(least) * np.maximum(np.abs(least) - 0.2, 0)
    np.testing.assert_allclose(fit(Q, y, 0.2, device), threshold, rtol=0, atol=1e-9)

    figure, ax = show.pyplot().subplots(figsize=(6.5, 3.8), layout="constrained")
    for column, name in enumerate(NAMES):
        ax.plot(penalties, path[:, column], ".-", color=show.COLORS[column], label=name)
    ax.axhline(0, color="0.3", lw=0.8)
    ax.set(xlabel=r"penalty $\lambda$", ylabel="weight", title="Lasso: weights become 0 one after another")
    ax.legend(loc="lower right")
    return figure


if __name__ == "__main__":
    textbook.run(main, __file__, __doc__)
