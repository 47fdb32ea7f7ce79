"""The training scripts on small data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import gpumlp

Script = Callable[[str], ModuleType]


def test_mnist_script_learns_and_draws(
    script: Script, device: str, images: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot = tmp_path / "curves.png"
    args = ["--hidden", "16", "--epochs", "8", "--batch-size", "16", "--lr", "0.02", "--validation", "0.2"]
    result = script("examples.train_mnist").main([images, *args, "--device", device, "--plot", str(plot)])
    out = capsys.readouterr().out
    assert result["accuracy"] >= 0.95  # the classes do not overlap; one of three by chance
    assert f"test accuracy {result['accuracy']:.4f}" in out
    assert out.count("validation accuracy") == 8 == len(result["history"])
    assert "16-16-3, 323 parameters, 240 rows" in out
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_pixels_are_scaled(script: Script) -> None:
    x = script("examples.train_mnist").pixels(np.array([[[0, 51], [102, 255]]], np.uint8))
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, [[0, 0.2, 0.4, 1]], rtol=1e-7)


def test_mnist_script_refuses_bad_sizes(
    script: Script, images: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        script("examples.train_mnist").main([images, "--hidden", "16,wide"])
    assert "expected numbers such as 256,128" in capsys.readouterr().err


def test_quantiles_map_to_a_normal_distribution(script: Script) -> None:
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(2)
    X = np.column_stack(
        [rng.exponential(size=6000), rng.integers(0, 9, 6000), rng.standard_normal(6000) ** 3]
    )
    mapped = script("examples.california").quantile_map(X, seed=0)
    Z = mapped.transform(X)
    assert mapped.n_quantiles_ == 200  # a landmark for 30 rows
    # continuous columns: a normal distribution up to the landmarks' distance; order is kept
    for column in (0, 2):
        assert abs(Z[:, column].mean()) < 0.02 and Z[:, column].std() == pytest.approx(1, abs=0.03)
        assert (np.diff(Z[np.argsort(X[:, column]), column]) >= 0).all()
    # the noise spreads out what occurs many times: each landmark is another value
    assert (np.diff(mapped.quantiles_, axis=0) > 0).all()
    # all of a value go to the middle of their quantiles
    assert abs(Z[X[:, 1] == 4, 1].mean()) < 0.05


def test_california_script_trains_and_stops_early(
    script: Script, device: str, regression: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot = tmp_path / "curves.png"
    args = ["--hidden", "32", "--epochs", "60", "--patience", "5", "--batch-size", "16", "--lr", "0.01"]
    result = script("examples.california").main(
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


DATA = {"train_mnist": "images", "california": "regression"}


@pytest.mark.parametrize("name", DATA)
def test_mistakes_end_with_one_line(
    script: Script, name: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    data = request.getfixturevalue(DATA[name])
    with pytest.raises(SystemExit, match=r"^error: .*cuda:9999.*cannot be used"):
        script(f"examples.{name}").main([data, "--device", "cuda:9999"])
    with pytest.raises(SystemExit) as end:
        script(f"examples.{name}").main([data, "--epochs", "0"])
    assert end.value.code == 2
    assert (
        capsys.readouterr().err == "error: argument --epochs: '0' is not a whole number >= 1 (see --help)\n"
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("train_mnist", ("x_train", "y_test", "MNIST database of handwritten digits")),
        ("california", ("train_idx", "California Housing", "StatLib")),
    ],
)
def test_help_names_arrays_and_source(
    script: Script, name: str, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        script(f"examples.{name}").main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert all(word in text for word in words)


def test_pictures_have_whole_epochs_and_all_values(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    plt = pytest.importorskip("matplotlib.pyplot")
    close = plt.close
    monkeypatch.setattr(plt, "close", lambda figure: None)  # looked at below
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda self, file: None)
    metrics = {"loss": [9.0, 8.0, 7.0], "val_loss": [9.0, 8.0, 7.0]}
    history = gpumlp.History({**metrics, "val_rmse": [3.0, 4.0, 5.0], "val_accuracy": [0.1, 0.2, 0.3]})
    run = {"history": history, "epochs": 3, "best_epoch": 1, "val": 6.0, "test": 6.0}
    for draw in (
        lambda: script("examples.california").draw([run], 2.0, "p.png"),
        lambda: script("examples.train_mnist").draw(history, 0.3, "p.png"),
    ):
        draw()
        for ax in plt.gcf().axes:
            assert all(float(tick).is_integer() for tick in ax.get_xticks())
            for line in ax.get_lines():
                low, high = ax.get_ylim()
                assert all(low <= y <= high for y in line.get_ydata())
        close("all")


@pytest.mark.parametrize("name", ["train_mnist", "california"])
def test_bad_data_files_are_named(script: Script, name: str, tmp_path: Path) -> None:
    main = script(f"examples.{name}").main
    with pytest.raises(SystemExit, match=r"no file .*missing\.npz"):
        main([str(tmp_path / "missing.npz")])
    np.savez(tmp_path / "other.npz", z=np.zeros(3))
    with pytest.raises(SystemExit, match=r"has no array .*found z"):
        main([str(tmp_path / "other.npz")])
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(SystemExit, match="cannot be read"):
        main([str(tmp_path / "text.npz")])
