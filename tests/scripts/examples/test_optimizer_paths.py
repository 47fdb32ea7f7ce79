"""scripts/examples/optimizer_paths.py against the textbook's formulas."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np

Script = Callable[[str], ModuleType]


def textbook(rule: str, lr: float, steps: int) -> tuple[float, float]:
    """The last point of the walk down 0.1 x1^2 + 2 x2^2 from (-5, -2), by plain Python."""
    ends = []
    for start, curvature in ((-5.0, 0.2), (-2.0, 4.0)):
        x, v, s = start, 0.0, 0.0
        for t in range(1, steps + 1):
            g = curvature * x
            if rule == "gradient descent":
                x -= lr * g
            elif rule == "momentum":
                v = 0.5 * v + g
                x -= lr * v
            elif rule == "adagrad":
                s += g * g
                x -= lr * g / math.sqrt(s + 1e-6)
            elif rule == "rmsprop":
                s = 0.9 * s + 0.1 * g * g
                x -= lr * g / math.sqrt(s + 1e-6)
            else:
                v = 0.9 * v + 0.1 * g
                s = 0.999 * s + 0.001 * g * g
                x -= lr * (v / (1 - 0.9**t)) / (math.sqrt(s / (1 - 0.999**t)) + 1e-6)
        ends.append(x)
    return ends[0], ends[1]


def test_paths_are_those_of_the_textbook(script: Script, device: str, tmp_path: Path) -> None:
    file = tmp_path / "paths.png"
    paths = script("examples.optimizer_paths").main(["--out", str(file), "--device", device])
    wanted = [
        ("gradient descent", 0.4),
        ("momentum", 0.6),
        ("adagrad", 0.4),
        ("adagrad", 2.0),
        ("rmsprop", 0.4),
        ("adam", 0.4),
    ]
    assert len(paths) == len(wanted)
    for (title, points), (rule, lr) in zip(paths.items(), wanted, strict=True):
        assert title.lower().startswith(rule) and title.endswith(f"lr {lr:g}")
        assert points.shape == (21, 2) and points[0].tolist() == [-5, -2]
        # float64; rounding errors of 20 contracting steps, relative to the start's magnitude
        np.testing.assert_allclose(points[-1], textbook(rule, lr, 20), rtol=0, atol=1e-13)
    assert file.read_bytes().startswith(b"\x89PNG")
