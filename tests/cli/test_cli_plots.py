"""The learning curves and the progress bar."""

from __future__ import annotations

import os
import sys
import time

import pytest

from gpumlp.plots import plot_history
from gpumlp.training.history import History
from gpumlp.training.progress import Progress

matplotlib = pytest.importorskip("matplotlib")


def history(**metrics) -> History:
    return History({"lr": [0.1] * 3, "seconds": [0.1] * 3, **metrics}, best_epoch=1)


@pytest.mark.parametrize(
    "metrics",
    [
        {"loss": [2.0, 0.2, 0.01]},
        {"loss": [2.0, 1.0, 0.5], "val_loss": [2.1, 1.1, 1.2], "val_accuracy": [0.5, 0.7, 0.6]},
        {
            "loss": [-2.0, -2.5, -3.0],
            "val_loss": [-1.0, -2.0, -1.5],
            "val_rmse": [30.0, 2.0, 3.0],
            "val_r2": [0.1, 0.9, 0.8],
        },
    ],
)
def test_a_picture_is_written(tmp_path, metrics):
    for ending, start in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")):
        plot_history(history(**metrics), tmp_path / f"p{ending}", target="price", target_scale=2.0)
        assert (tmp_path / f"p{ending}").read_bytes().startswith(start)
    assert len(os.listdir(tmp_path)) == 3


def test_labels_units_and_best_epoch(tmp_path):
    metrics = {"loss": [2.0, 0.2, 0.01], "val_loss": [2.1, 0.3, 0.4], "val_rmse": [30.0, 2.0, 3.0]}
    plot_history(history(**metrics), tmp_path / "p.svg", target="price")
    import matplotlib as mpl

    with mpl.rc_context({"svg.fonttype": "none"}):  # letters stay letters
        plot_history(history(**metrics), tmp_path / "p.svg", target="price")
    text = (tmp_path / "p.svg").read_text()
    assert "dropout" not in text
    for words in (
        "epoch",
        "loss (mean per row)",
        "RMSE (units of price)",
        "training",
        "validation",
        "lowest validation loss: epoch 2",
    ):
        assert words in text


def test_restored_weights_dropout_and_another_figure_watched(tmp_path):
    import matplotlib as mpl

    metrics = {"loss": [2.0, 0.2, 0.01], "val_loss": [2.1, 0.3, 0.2]}
    with mpl.rc_context({"svg.fonttype": "none"}):
        plot_history(history(**metrics), tmp_path / "a.svg", restored=True, dropout=True)
        plot_history(history(**metrics), tmp_path / "b.svg")  # epoch 2 is best, but not by val_loss
    text = (tmp_path / "a.svg").read_text()
    assert "best epoch 2, restored" in text and "training (with dropout)" in text
    text = (tmp_path / "b.svg").read_text()
    assert "best epoch 2" in text and "lowest" not in text and "restored" not in text


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_short_runs_have_whole_epochs_on_the_axis(tmp_path, epochs):
    import re

    import matplotlib as mpl

    with mpl.rc_context({"svg.fonttype": "none"}):
        plot_history(History({"loss": [300.0] * epochs}), tmp_path / "p.svg")
    axis = (tmp_path / "p.svg").read_text().split('id="matplotlib.axis_2"')[0]
    ticks = re.findall(r">(-?[\d.]+)</text>", axis)
    assert ticks == [str(n + 1) for n in range(epochs)]


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
@pytest.mark.parametrize("target", [r"$\x{$", "a $b$ c", "\u4ef7\u683c", "x" * 10**5, "a\nb\x1b[2J"])
def test_any_name_of_a_target_can_be_drawn(tmp_path, recwarn, target, ending):
    losses = [3.0, 2.0, 1.0]
    curves = history(loss=losses, val_loss=losses, val_rmse=losses)
    plot_history(curves, tmp_path / f"p.{ending}", target=target)
    assert (tmp_path / f"p.{ending}").stat().st_size > 1000 and not list(recwarn)


def test_settings_that_matplotlib_cannot_draw_with_are_told(tmp_path):
    with (
        matplotlib.rc_context({"text.usetex": True, "text.latex.preamble": r"\no_such_command"}),
        pytest.raises(ValueError, match="the learning curves could not be drawn"),
    ):
        plot_history(history(loss=[2.0, 0.2, 0.01]), tmp_path / "p.png")
    assert os.listdir(tmp_path) == []


def test_pictures_that_cannot_be_drawn(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no epochs"):
        plot_history(History(), tmp_path / "p.png")
    with pytest.raises(ValueError, match="must end in"):
        plot_history(history(loss=[1.0] * 3), tmp_path / "p.gif")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'gpumlp\[plot\]'"):
        plot_history(history(loss=[1.0] * 3), tmp_path / "p.png")
    assert os.listdir(tmp_path) == []


def test_progress_is_silent_unless_asked_for(capsys, monkeypatch):
    for enabled in (None, False):  # stderr is no terminal here
        bar = Progress(3, enabled)
        bar(None, History({"loss": [1.0]}))
        bar.close()
    monkeypatch.setitem(sys.modules, "tqdm", None)
    bar = Progress(3, True)
    bar(None, History({"loss": [1.0]}))
    bar.close()
    assert capsys.readouterr() == ("", "")


def test_progress_shows_epochs_and_figures(capsys):
    pytest.importorskip("tqdm")
    bar = Progress(3, True)
    figures = {"loss": 0.12345678, "lr": 0.5, "seconds": 9.0, "val_loss": 2.0}
    time.sleep(0.2)  # tqdm shows nothing sooner
    bar(None, History({name: [value] * 2 for name, value in figures.items()}))
    bar.close()
    bar.close()
    shown = capsys.readouterr().err
    assert "2/3" in shown and "loss=0.1235" in shown and "val_loss=2" in shown and "lr" not in shown
