"""Momentum, AdaGrad, RMSProp and Adam (d2l.ai 12) walk down f(x) = 0.1 x1^2 + 2 x2^2 from (-5, -2)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from gpumlp import SGD, AdaGrad, Adam, RMSProp, get_backend
from scripts.shared import show, textbook


def by_hand(rule: str, lr: float) -> np.ndarray:
    """The points (21, 2) that 20 steps of the textbook's formula visit."""
    points, v, s = [np.array([-5.0, -2.0])], 0.0, 0.0
    for t in range(1, 21):
        x = points[-1]
        g = x * [0.2, 4.0]  # the gradient
        if rule == "sgd":  # with momentum (12.6.3)
            v = 0.5 * v + g
            points.append(x - lr * v)
        elif rule == "adagrad":  # (12.7.5)
            s = s + g**2
            points.append(x - lr * g / np.sqrt(s + 1e-6))
        elif rule == "rmsprop":  # (12.8.1)
            s = 0.9 * s + 0.1 * g**2
            points.append(x - lr * g / np.sqrt(s + 1e-6))
        else:  # Adam (12.10.1 to 12.10.3)
            v, s = 0.9 * v + 0.1 * g, 0.999 * s + 0.001 * g**2
            points.append(x - lr * v / (1 - 0.9**t) / (np.sqrt(s / (1 - 0.999**t)) + 1e-6))
    return np.array(points)


def main(device: str = "auto") -> Any:
    rules = (SGD(0.6, momentum=0.5), AdaGrad(2.0), RMSProp(0.4), Adam(0.4))
    backend = get_backend(device)
    slope, (x1, x2) = backend.asarray(np.array([0.2, 4.0])), np.mgrid[-6:3:50j, -3.2:3.2:50j]
    figure, axes = show.pyplot().subplots(2, 2, figsize=(9, 5), layout="constrained")
    for ax, rule, color in zip(axes.flat, rules, show.COLORS, strict=False):
        x = backend.asarray(np.array([-5.0, -2.0]))
        points = [backend.to_numpy(x)]
        for _ in range(20):
            rule.update(x, slope * x)
            points.append(backend.to_numpy(x))
        np.testing.assert_allclose(points, by_hand(rule.name, rule.lr), rtol=0, atol=1e-13)
        ax.contour(x1, x2, 0.1 * x1**2 + 2 * x2**2, 14, colors="0.75", linewidths=0.7)
        ax.plot(*np.array(points).T, "o-", ms=4, color=color)
        ax.plot(0, 0, "k*", ms=10)
        ax.set(xlabel="$x_1$", ylabel="$x_2$")
        ax.set_title(f"{type(rule).__name__}, lr {rule.lr:g}".replace("SGD", "Momentum 0.5"), color=color)
    return figure


if __name__ == "__main__":
    textbook.run(main, __file__, __doc__)
