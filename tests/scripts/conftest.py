"""The scripts as modules, and small data files."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Imports a script by room and name, as "bench.bench_kernels"."""
    monkeypatch.syspath_prepend(ROOT)
    return lambda name: importlib.import_module(f"scripts.{name}")


@pytest.fixture
def images(tmp_path: Path) -> str:
    """Path of a set like MNIST: 3 classes of 4 x 4 images, each with one bright row, and noise."""
    rng = np.random.default_rng(0)

    def part(n: int) -> tuple[np.ndarray, np.ndarray]:
        y = rng.integers(0, 3, n).astype(np.uint8)
        x = rng.integers(0, 120, (n, 4, 4)).astype(np.uint8)
        x[np.arange(n), y] += 130
        return x, y

    (x_train, y_train), (x_test, y_test) = part(240), part(60)
    path = tmp_path / "images.npz"
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return str(path)


@pytest.fixture
def regression(tmp_path: Path) -> str:
    """Path of a regression set: 5 columns of different scales, a nearly linear target, and a split."""
    rng = np.random.default_rng(1)
    X = rng.standard_normal((400, 5)) * [1, 10, 100, 0.1, 5] + [0, 3, -50, 1, 7]
    y = 4 + X @ [2, 0.1, -0.02, 5, 0.2] + 0.5 * rng.standard_normal(400)
    rows = rng.permutation(400).astype(np.uint16)
    path = tmp_path / "regression.npz"
    np.savez(path, X=X, y=y, train_idx=rows[:280], val_idx=rows[280:340], test_idx=rows[340:])
    return str(path)
