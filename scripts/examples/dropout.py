"""Dropout (d2l.ai 5.6): what masks do to a hidden layer, and to what a network learns from wrong labels."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import gpumlp
from gpumlp.datasets import load_digits
from scripts.shared import show, textbook


def main(device: str = "auto") -> Any:
    X, y = load_digits()
    rng = np.random.default_rng(0)
    order = rng.permutation(len(X))
    X, y = X[order] / 16, y[order]
    model = gpumlp.MLP([64, 256, 10], dropout=0.5, device=device)
    host = model.backend.to_numpy
    model.forward(X, keep=True)
    plain = host(model.hidden[0]).copy()
    model.forward(X, keep=True, training=True)
    dropped = host(model.hidden[0])
    # a unit becomes 0 with probability p, else it is divided by 1 - p, so that its mean stays (5.6.1)
    kept = (dropped != 0)[plain > 0]
    np.testing.assert_allclose(dropped[plain > 0], np.where(kept, plain[plain > 0] / 0.5, 0), rtol=1e-6)
    assert abs(kept.mean() - 0.5) < 5 * 0.5 / np.sqrt(kept.size)  # five standard deviations
    assert abs(dropped.mean() / plain.mean() - 1) < 0.01

    labels, curves = y[:400].copy(), []
    labels[:80] = rng.integers(0, 10, 80)  # without dropout the network learns these, too
    for p in (0.0, 0.5):
        model = gpumlp.MLP([64, 128, 128, 10], dropout=p, device=device)
        rule = gpumlp.Adam(lr=3e-3)
        trainer = gpumlp.Trainer(model, loss="softmax_cross_entropy", optimizer=rule, batch_size=40)
        trainer.fit(X[:400], labels, epochs=40, validation=(X[400:], y[400:]), progress=False)
        curves.append(trainer.history.val_accuracy)
    assert curves[1][-1] > curves[0][-1] + 0.02

    figure, (left, right) = show.pyplot().subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    bins = np.linspace(0.01, 4, 60)
    left.hist(plain.ravel(), bins, color=show.COLORS[0], alpha=0.6, label="without dropout")
    left.hist(dropped.ravel(), bins, color=show.COLORS[1], histtype="step", label="p = 0.5, values above 0")
    left.set(xlabel="output of a hidden unit", ylabel="number", title="Half are 0, the others twice as large")
    left.legend()
    for curve, p, color in zip(curves, (0, 0.5), show.COLORS, strict=False):
        right.plot(range(1, 41), curve, color=color, label=f"p = {p}")
    right.set(xlabel="epoch", ylabel="accuracy on 1,397 other digits", title="A fifth of 400 labels is wrong")
    right.legend()
    return figure


if __name__ == "__main__":
    textbook.run(main, __file__, __doc__)
