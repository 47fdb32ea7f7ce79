"""Linear regression (d2l.ai 3.1 to 3.5): by hand, by gpumlp, and the closed form."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import gpumlp
from gpumlp.datasets import synthetic_regression
from scripts.shared import show, textbook


def main(device: str = "auto") -> Any:
    X, y = synthetic_regression(w=(2.0, -3.4), b=4.2, n=1000, noise=0.5)
    A = np.column_stack([X, np.ones(len(X))])
    closed = np.linalg.solve(A.T @ A, A.T @ y)  # (3.1.9), with b as the weight of a column of ones

    model = gpumlp.MLP([2, 1], init="normal", dtype="float64", device=device)
    trainer = gpumlp.Trainer(model, loss="squared_error", optimizer=gpumlp.SGD(lr=0.03))
    (W, b) = model.get_parameters()[0]
    by_hand, ours = [[*W[:, 0], b[0]]], [[*W[:, 0], b[0]]]
    w, b = W[:, 0], b[0]
    for _ in range(3):
        for start in range(0, 1000, 10):
            rows = slice(start, start + 10)
            error = X[rows] @ w + b - y[rows]  # of the loss mean(error^2) / 2, (3.1.10)
            w, b = w - 0.03 * X[rows].T @ error / 10, b - 0.03 * error.mean()
            by_hand.append([*w, b])
            trainer.step(X[rows], y[rows])
            W, B = model.get_parameters()[0]
            ours.append([*W[:, 0], B[0]])
    np.testing.assert_allclose(ours, by_hand, rtol=0, atol=1e-12)
    np.testing.assert_allclose(ours[-1], closed, atol=0.15)  # batches of 10: noise remains

    figure, (left, right) = show.pyplot().subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    x = np.array([-3.3, 3.3])
    left.plot(X[:, 1], y - closed[0] * X[:, 0], ".", ms=3, color="0.6", label="1,000 rows, less $w_1 x_1$")
    left.plot(x, closed[2] + closed[1] * x, color=show.COLORS[1], lw=2, label="closed form")
    left.set(xlabel="$x_2$", ylabel="$y - w_1 x_1$", title="Least squares")
    left.legend()
    for column, name in enumerate(("$w_1$", "$w_2$", "$b$")):
        right.plot(np.array(by_hand)[:, column], color=show.COLORS[column], lw=3, alpha=0.35)
        right.plot(np.array(ours)[:, column], "--", color=show.COLORS[column], lw=1.2)
        right.axhline(closed[column], color="0.3", lw=0.8, ls=":")
        right.text(302, closed[column], name, va="center", color=show.COLORS[column])
    right.set(xlabel="step", xlim=(0, 300), title="by hand (wide), gpumlp (dashed), closed form (dotted)")
    return figure


if __name__ == "__main__":
    textbook.run(main, __file__, __doc__)
