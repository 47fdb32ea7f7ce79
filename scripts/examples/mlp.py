"""A multilayer perceptron (d2l.ai 5.1 to 5.3): both passes by hand beside gpumlp's, on digits."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import gpumlp
from gpumlp.datasets import load_digits
from scripts.shared import show, textbook


def step(parameters: list[Any], X: np.ndarray, y: np.ndarray, lr: float) -> float:
    """One step of gradient descent, in place; gives the loss before it."""
    (W1, b1), (W2, b2) = parameters
    Z = X @ W1 + b1
    H = np.maximum(Z, 0)  # ReLU (5.1)
    P = np.exp(H @ W2 + b2)
    P /= P.sum(axis=1, keepdims=True)
    dO = (P - np.eye(10)[y]) / len(X)  # backpropagation (5.3), from the output to the input
    dZ = dO @ W2.T * (Z > 0)
    W1 -= lr * X.T @ dZ
    b1 -= lr * dZ.sum(axis=0)
    W2 -= lr * H.T @ dO
    b2 -= lr * dO.sum(axis=0)
    return float(-np.log(P[np.arange(len(X)), y]).mean())


def main(device: str = "auto") -> Any:
    X, y = load_digits()
    X = X.astype(np.float64) / 16
    model = gpumlp.MLP([64, 64, 10], "relu", dtype="float64", device=device)
    trainer = gpumlp.Trainer(model, loss="softmax_cross_entropy", optimizer=gpumlp.SGD(lr=0.2))
    parameters, by_hand, ours, rng = model.get_parameters(), [], [], np.random.default_rng(0)
    for rows in (rows for _ in range(20) for rows in rng.permutation(1400).reshape(28, 50)):
        by_hand.append(step(parameters, X[rows], y[rows], 0.2))
        ours.append(float(trainer.step(X[rows], y[rows], loss=True)))
    np.testing.assert_allclose(ours, by_hand, rtol=1e-8)
    answers = model.predict(X)
    wrong = 1400 + np.flatnonzero(answers[1400:] != y[1400:])
    assert 20 <= len(wrong) < 45

    figure, ax, right = textbook.curves_and_images()
    ax.semilogy(by_hand, color=show.COLORS[0], lw=3, alpha=0.35)
    ax.semilogy(ours, color=show.COLORS[0], lw=0.8)
    ax.set(xlabel="step", ylabel="training loss", title="64-64-10, ReLU: by hand (wide), gpumlp (thin)")
    right.suptitle(f"{len(wrong)} of 397 unseen images are misread, for example", fontsize=11)
    some = wrong[::2][:10]
    textbook.images(right, X[some], [f"{y[i]} as {answers[i]}" for i in some], cmap="Greys")
    return figure


if __name__ == "__main__":
    textbook.run(main, __file__, __doc__)
