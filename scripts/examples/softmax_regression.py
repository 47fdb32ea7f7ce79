"""Softmax regression (d2l.ai 4.1 to 4.5) on handwritten digits: by hand beside gpumlp, and what it learns."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import gpumlp
from gpumlp.datasets import load_digits
from scripts.shared import show, textbook


def softmax(Z: np.ndarray) -> np.ndarray:
    E = np.exp(Z - Z.max(axis=1, keepdims=True))  # the largest is subtracted, or exp overflows (4.5.2)
    return E / E.sum(axis=1, keepdims=True)


def main(device: str = "auto") -> Any:
    X, y = load_digits()
    X = X.astype(np.float64) / 16
    model = gpumlp.MLP([64, 10], init="normal", dtype="float64", device=device)
    trainer = gpumlp.Trainer(model, loss="softmax_cross_entropy", optimizer=gpumlp.SGD(lr=0.5))
    (W, b) = model.get_parameters()[0]
    losses, ours, accuracy, rng = [], [], [], np.random.default_rng(0)
    for _ in range(10):
        for rows in rng.permutation(1400).reshape(28, 50):
            P = softmax(X[rows] @ W + b)
            losses.append(-np.log(P[np.arange(50), y[rows]]).mean())  # cross-entropy (4.1.8)
            dZ = (
                P - np.eye(10)[y[rows]]
            ) / 50  # its gradient with respect to Z: softmax less one-hot (4.1.9)
            W, b = W - 0.5 * X[rows].T @ dZ, b - 0.5 * dZ.sum(axis=0)
            ours.append(float(trainer.step(X[rows], y[rows], loss=True)))
        accuracy.append(np.mean(model.predict(X[1400:]) == y[1400:]))
    np.testing.assert_allclose(ours, losses, rtol=1e-10)
    np.testing.assert_allclose(model.get_parameters()[0][0], W, rtol=0, atol=1e-12)
    assert accuracy[-1] > 0.88

    figure, ax, right = textbook.curves_and_images()
    ax.plot(losses, color=show.COLORS[0], lw=3, alpha=0.35, label="training loss, by hand")
    ax.plot(ours, color=show.COLORS[0], lw=0.8, label="training loss, gpumlp")
    ax.plot(np.arange(28, 281, 28), accuracy, "o-", ms=4, color=show.COLORS[1], label="test accuracy")
    ax.set(xlabel="step", ylim=(0, 2.4), title=f"Digits: accuracy {accuracy[-1]:.3f} on 397 unseen images")
    ax.legend()
    right.suptitle("Weights of the ten outputs (red: for, blue: against)", fontsize=11)
    textbook.images(right, W.T, range(10), cmap="RdBu_r", vmin=-1.6, vmax=1.6)
    return figure


if __name__ == "__main__":
    textbook.run(main, __file__, __doc__)
