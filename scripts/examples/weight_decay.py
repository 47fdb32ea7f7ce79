"""Weight decay (d2l.ai 3.7): 200 weights and 20 rows; a penalty keeps them from being learnt by heart."""

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
    X, y = synthetic_regression(np.full(200, 0.01), b=0.05, n=120)
    train, test = slice(0, 20), slice(20, None)
    batches = [slice(start, start + 5) for start in range(0, 20, 5)]

    figure, axes = show.pyplot().subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
    unseen = {}
    for ax, decay in zip(axes, (0.0, 3.0), strict=True):
        model = gpumlp.MLP([200, 1], init=0.1, dtype="float64", device=device)
        trainer = gpumlp.Trainer(model, loss="squared_error", optimizer=gpumlp.SGD(lr=0.01), l2=decay)
        (W, b) = model.get_parameters()[0]
        w, curves = W[:, 0], []
        for _ in range(60):
            for rows in batches:
                error = X[rows] @ w + b - y[rows]
                # the penalty's gradient is decay * w (3.7.2): every step shrinks w; b has no penalty
                w = (1 - 0.01 * decay) * w - 0.01 * X[rows].T @ error / 5
                b = b - 0.01 * error.mean()
                trainer.step(X[rows], y[rows])
            curves.append([trainer.evaluate(X[part], y[part])["loss"] for part in (train, test)])
        W, B = model.get_parameters()[0]
        np.testing.assert_allclose(W[:, 0], w, rtol=0, atol=1e-12)
        np.testing.assert_allclose(B, b, rtol=0, atol=1e-12)
        unseen[decay] = curves[-1][1]
        for column, name in enumerate(("the 20 training rows", "100 unseen rows")):
            ax.semilogy(range(1, 61), np.array(curves)[:, column], color=show.COLORS[column], label=name)
        length = np.linalg.norm(w)
        ax.set(
            xlabel="epoch", ylim=(1e-5, 2), title=rf"$\lambda$ = {decay:g}: at the end $\|w\|$ = {length:.2f}"
        )
        show.whole_ticks(ax)
    assert unseen[3.0] < unseen[0.0] / 10
    axes[0].set_ylabel("half mean squared error")
    axes[0].legend()
    return figure


if __name__ == "__main__":
    textbook.run(main, __file__, __doc__)
