"""How gradient descent, momentum, AdaGrad, RMSProp and Adam walk down f(x) = 0.1 x1^2 + 2 x2^2 from (-5, -2).

The example of d2l.ai, chapter 12, with its learning rates; the steps are made by gpumlp's own update rules.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import gpumlp
from scripts.shared.command import check_writable, command_line, default
from scripts.shared.show import COLORS, pyplot, table

START = (-5.0, -2.0)
X1_RANGE, X2_RANGE = (-5.8, 2.6), (-3.2, 3.2)  # of the figure


def rules() -> dict[str, gpumlp.optimizers.Optimizer]:
    """Title -> optimiser, with the textbook's settings (Adam: its lr for RMSProp)."""
    return {
        "Gradient descent, lr 0.4": gpumlp.SGD(lr=0.4),
        "Momentum 0.5, lr 0.6": gpumlp.SGD(lr=0.6, momentum=0.5),
        "AdaGrad, lr 0.4": gpumlp.AdaGrad(lr=0.4),
        "AdaGrad, lr 2": gpumlp.AdaGrad(lr=2.0),
        "RMSProp 0.9, lr 0.4": gpumlp.RMSProp(lr=0.4, rho=0.9),
        "Adam, lr 0.4": gpumlp.Adam(lr=0.4),
    }


def f(x: np.ndarray) -> Any:
    """0.1 x1^2 + 2 x2^2; `x` (..., 2)."""
    return 0.1 * x[..., 0] ** 2 + 2 * x[..., 1] ** 2


def path(optimizer: gpumlp.optimizers.Optimizer, steps: int, device: str) -> np.ndarray:
    """The points (steps + 1, 2), float64, that `optimizer` visits."""
    backend = gpumlp.get_backend(device)
    scale = backend.asarray(np.array([0.2, 4.0]))
    x = backend.asarray(np.array(START))
    points = [backend.to_numpy(x)]
    for _ in range(steps):
        optimizer.update(x, scale * x)
        points.append(backend.to_numpy(x))
    return np.array(points)


def draw(paths: dict[str, np.ndarray], file: str) -> None:
    """One panel per rule: contours of f and the path."""
    plt = pyplot()
    columns = min(3, len(paths))
    lines = -(-len(paths) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(4.1 * columns, 2.9 * lines), sharex=True, sharey=True, squeeze=False
    )
    x1, x2 = np.meshgrid(np.linspace(*X1_RANGE, 211), np.linspace(*X2_RANGE, 161))
    heights = f(np.stack([x1, x2], axis=-1))
    levels = np.array([0, 0.05, 0.2, 0.5, 1, 2, 3.5, 5.5, 8, 11, 15, 20, 30])
    for number, (title, points) in enumerate(paths.items()):
        ax = axes.flat[number]
        color = COLORS[number % len(COLORS)]
        ax.contourf(x1, x2, heights, levels=levels, cmap="Blues_r", vmin=-110, vmax=30, zorder=0)
        ax.contour(x1, x2, heights, levels=levels[1:], colors="0.66", linewidths=0.7, zorder=1)
        ax.plot(*points.T, "-", color=color, lw=1.6, alpha=0.85, zorder=3)
        ax.plot(*points.T, "o", color=color, ms=4.2, mec="white", mew=0.6, zorder=4)
        ax.plot(*points[0], "s", color="0.15", ms=6, mec="white", mew=0.8, zorder=5)
        ax.plot(0, 0, "*", color="0.15", ms=11, mec="white", mew=0.8, zorder=2)
        ax.set_title(title, loc="left", color=color, fontweight="bold")
        ax.text(
            0.98,
            0.05,
            f"f = {f(points[-1]):.2g} after {len(points) - 1} steps",
            transform=ax.transAxes,
            ha="right",
            fontsize=8.5,
            color="0.2",
            bbox={"fc": "white", "ec": "none", "alpha": 0.75, "pad": 1.5},
            zorder=6,
        )
        ax.set(xlim=X1_RANGE, ylim=X2_RANGE)
        ax.grid(False)
    for ax in axes.flat[len(paths) :]:
        ax.set_visible(False)
    for ax in axes[-1]:
        ax.set_xlabel("$x_1$")
    for ax in axes[:, 0]:
        ax.set_ylabel("$x_2$")
    figure.suptitle(r"$f(x) = 0.1\,x_1^2 + 2\,x_2^2$ from $(-5, -2)$ (square) to the minimum (star)", y=0.995)
    figure.tight_layout()
    figure.savefig(file)
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Walk, print the last points, draw; returns {title: points (steps + 1, 2)}."""
    parser = command_line(__doc__)
    parser.add_argument("-o", "--out", default="optimizer_paths.png", help=default("figure file"))
    parser.add_argument("--steps", type=int, default=20, help=default("steps per rule"))
    args = parser.parse_args(argv)
    if args.steps < 1:
        parser.error(f"--steps {args.steps}; expected at least 1")
    check_writable(args.out)
    paths = {title: path(rule, args.steps, args.device) for title, rule in rules().items()}
    print(
        table(
            ["rule", "x1", "x2", "f"],
            [[t, f"{p[-1, 0]:.6f}", f"{p[-1, 1]:.6f}", f"{f(p[-1]):.6f}"] for t, p in paths.items()],
        )
    )
    draw(paths, args.out)
    print(f"drawn to {args.out}")
    return paths


if __name__ == "__main__":
    main()
