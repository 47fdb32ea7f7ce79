"""Five optimisers on NASA's airfoil data with a linear model, as chapter 12 of d2l.ai compares them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import gpumlp
from gpumlp.datasets import load_airfoil
from scripts.shared import show, textbook

RULES = {  # with the textbook's settings
    "SGD, lr 0.05": gpumlp.SGD(lr=0.05),
    "momentum 0.9, lr 0.005": gpumlp.SGD(lr=0.005, momentum=0.9),
    "AdaGrad, lr 0.1": gpumlp.AdaGrad(lr=0.1),
    "RMSProp 0.9, lr 0.01": gpumlp.RMSProp(lr=0.01, rho=0.9),
    "Adam, lr 0.01": gpumlp.Adam(lr=0.01),
}


def main(device: str = "auto") -> Any:
    columns = np.column_stack(load_airfoil())
    columns = ((columns - columns.mean(axis=0)) / columns.std(axis=0))[:1500]  # as the textbook does
    X, y = columns[:, :5], columns[:, 5]
    A = np.column_stack([X, np.ones(len(X))])
    best = np.mean((A @ np.linalg.solve(A.T @ A, A.T @ y) - y) ** 2) / 2
    assert abs(best - 0.2417) < 5e-5  # no linear model is better

    figure, ax = show.pyplot().subplots(figsize=(6.5, 3.8), layout="constrained")
    for (title, rule), color in zip(RULES.items(), show.COLORS, strict=False):
        model = gpumlp.MLP([5, 1], init="normal", device=device)
        trainer = gpumlp.Trainer(model, loss="squared_error", optimizer=rule, batch_size=10)
        losses = [trainer.evaluate(X, y)["loss"]]
        losses += trainer.fit(X, y, epochs=4, validation=(X, y), progress=False).val_loss
        assert best < losses[-1] < best + 0.01, title
        print(f"{title:23}", *(f"{loss:.4f}" for loss in losses))
        ax.semilogy(np.array(losses) - best, "o-", ms=4.5, color=color, label=title)
    ax.set(xlabel="epoch", ylabel=f"half mean squared error above {best:.4f}", title="Airfoil self-noise")
    show.whole_ticks(ax)
    ax.legend()
    return figure


if __name__ == "__main__":
    textbook.run(main, __file__, __doc__)
