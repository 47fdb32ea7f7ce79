"""bench_tables.py on a small set, and on files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest


def test_prints_a_table(
    script: Callable[[str], ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn")
    X = np.random.default_rng(0).normal(size=(90, 3))
    rows = np.arange(90)
    parts = {"train_idx": rows[:50], "val_idx": rows[50:70], "test_idx": rows[70:]}
    np.savez(tmp_path / "line.npz", X=X, y=X[:, 0], **parts)
    options = ["--device", "cpu", "--sets", "iris", "--data", str(tmp_path / "line.npz")]
    options += ["--quality", "fast", "--seeds", "2"]
    assert script("bench.bench_tables").main(options) == 0
    out = capsys.readouterr().out
    assert "line: 50 + 20 + 20 rows, RMSE" in out
    for name in ("iris", "line"):
        found = [line for line in out.splitlines() if line.startswith(f"{name} ")]
        assert {"gpumlp fast", "HistGradientBoosting", "scikit-learn MLP"} <= {
            " ".join(line.split()[1:3]) if "gpumlp" in line or "MLP" in line else line.split()[1]
            for line in found
        }


def test_a_file_without_rows_is_named(script: Callable[[str], ModuleType], tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    np.savez(tmp_path / "other.npz", Z=np.zeros(3))
    with pytest.raises(SystemExit, match="has the arrays Z; expected X and y"):
        script("bench.bench_tables").main(
            ["--device", "cpu", "--sets", "--data", str(tmp_path / "other.npz")]
        )
