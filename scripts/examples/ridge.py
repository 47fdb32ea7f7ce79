"""Ridge regression (d2l.ai 3.7) on the airfoil data: weights by penalty, trained and in closed form."""

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


def main(device: str = "auto") -> Any:
    X, y = load_airfoil()
    X, y = (X - X.mean(axis=0)) / X.std(axis=0), (y - y.mean()) / y.std()

    def closed(penalty: float) -> np.ndarray:
        """Where the gradient X'(X w - y) / n + penalty w is 0."""
        return np.linalg.solve(X.T @ X / len(X) + penalty * np.eye(5), X.T @ y / len(X))

    penalties = np.logspace(-3, 2, 11)
    trained = []
    for penalty in penalties:
        model = gpumlp.MLP([5, 1], init="normal", dtype="float64", device=device)
        rule = gpumlp.SGD(lr=1 / (2.2 + penalty))  # 2.2 is above the largest eigenvalue of X'X / n
        trainer = gpumlp.Trainer(model, loss="squared_error", optimizer=rule, l2=penalty, batch_size=len(X))
        trainer.fit(X, y, epochs=270, progress=False)
        trained.append(model.get_parameters()[0][0][:, 0])
    np.testing.assert_allclose(trained, [closed(p) for p in penalties], rtol=0, atol=1e-9)

    figure, ax = show.pyplot().subplots(figsize=(6.5, 3.8), layout="constrained")
    fine = np.logspace(-3, 2, 200)
    for column, name in enumerate(NAMES):
        path = [closed(p)[column] for p in fine]
        ax.semilogx(fine, path, color=show.COLORS[column], label=name)
        ax.semilogx(penalties, np.array(trained)[:, column], "o", ms=4.5, color=show.COLORS[column])
    ax.axhline(0, color="0.3", lw=0.8)
    ax.set(
        xlabel=r"penalty $\lambda$", ylabel="weight", title="Ridge: closed form (lines) and trained (dots)"
    )
    ax.legend(loc="lower right")
    return figure


if __name__ == "__main__":
    textbook.run(main, __file__, __doc__)
