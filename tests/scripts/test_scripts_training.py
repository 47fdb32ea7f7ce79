"""The training scripts on small data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

Script = Callable[[str], ModuleType]


def test_mnist_script_learns_and_draws(
    script: Script, device: str, images: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot = tmp_path / "curves.png"
    args = ["--hidden", "16", "--epochs", "8", "--batch-size", "16", "--lr", "0.02", "--validation", "0.2"]
    result = script("train_mnist").main([images, *args, "--device", device, "--plot", str(plot)])
    out = capsys.readouterr().out
    assert result["accuracy"] >= 0.95  # the classes do not overlap; one of three by chance
    assert f"test accuracy {result['accuracy']:.4f}" in out
    assert out.count("validation accuracy") == 8 == len(result["history"])
    assert "16-16-3, 323 parameters, 240 rows" in out
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_pixels_are_scaled(script: Script) -> None:
    x = script("train_mnist").pixels(np.array([[[0, 51], [102, 255]]], np.uint8))
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, [[0, 0.2, 0.4, 1]], rtol=1e-7)


def test_mnist_script_refuses_bad_sizes(
    script: Script, images: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        script("train_mnist").main([images, "--hidden", "16,wide"])
    assert "expected numbers such as 256,128" in capsys.readouterr().err


def test_airfoil_script_reaches_least_squares(
    script: Script, device: str, regression: str, tmp_path: Path
) -> None:
    plot = tmp_path / "losses.png"
    args = ["--epochs", "12", "--device", device, "--plot", str(plot)]
    results = script("airfoil").main([regression, *args])
    with np.load(regression) as data:
        columns = np.column_stack([data["X"], data["y"]])
    columns = (columns - columns.mean(axis=0)) / columns.std(axis=0)
    X, y = columns[:, :5], columns[:, 5]
    w = np.linalg.solve(X.T @ X, X.T @ y)  # standardised columns: the intercept is 0
    optimum = np.mean((X @ w - y) ** 2) / 2
    assert results.pop("optimum") == pytest.approx(optimum, rel=1e-9)
    assert len(results) == 5
    for title, result in results.items():
        assert len(result["loss"]) == 13
        assert result["loss"][0] == pytest.approx(0.5, abs=0.1), title  # weights near 0: half the variance
        assert optimum - 1e-6 <= result["loss"][-1] <= optimum + 0.02, title
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_quantile_map_is_scikit_learns(script: Script) -> None:
    QuantileTransformer = pytest.importorskip("sklearn.preprocessing").QuantileTransformer
    rng = np.random.default_rng(2)
    train = np.column_stack(
        [rng.exponential(size=500), rng.integers(0, 9, 500), rng.standard_normal(500) ** 3]
    )
    new = np.column_stack([rng.exponential(size=90), rng.integers(-1, 11, 90), 2 * rng.standard_normal(90)])
    ours = script("california").QuantileNormal(100, noise=0).fit(train)
    theirs = QuantileTransformer(n_quantiles=100, output_distribution="normal", subsample=None).fit(train)
    for X in (train, new):
        # two implementations of the inverse normal distribution, both good to about 1e-9 in the tails
        np.testing.assert_allclose(ours.transform(X), theirs.transform(X), rtol=0, atol=1e-7)


def test_california_script_trains_and_stops_early(
    script: Script, device: str, regression: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot = tmp_path / "curves.png"
    args = ["--hidden", "32", "--epochs", "60", "--patience", "5", "--batch-size", "16", "--lr", "0.01"]
    result = script("california").main(
        [regression, *args, "--seeds", "2", "--device", device, "--plot", str(plot)]
    )
    with np.load(regression) as data:
        spread = data["y"][data["test_idx"]].std()
    runs = result["runs"]
    assert len(runs) == 2 and runs[0]["test"] != runs[1]["test"]
    assert result["rmse"] == pytest.approx((runs[0]["test"] + runs[1]["test"]) / 2)
    assert 0.45 < result["rmse"] < 0.5 * spread  # the noise's standard deviation is 0.5
    for run in runs:
        assert run["best_epoch"] == 1 + int(np.argmin(run["history"].val_rmse))
        assert run["epochs"] in (60, run["best_epoch"] + 5)
    assert f"mean of 2: {result['rmse']:.4f}" in capsys.readouterr().out
    assert plot.read_bytes().startswith(b"\x89PNG")
