"""What a training leaves to look at: times, frames, curves, notebooks; and progress inside an epoch."""

from __future__ import annotations

import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import gpumlp
from gpumlp.training.history import History
from gpumlp.training.progress import Progress

X = np.random.default_rng(0).normal(size=(64, 3))


def trainer(device: str = "numpy", **options) -> gpumlp.Trainer:
    model = gpumlp.MLP([3, 4, 1], device=device)
    return gpumlp.Trainer(model, loss="squared_error", optimizer="adam", **options)


def test_all_of_the_time_is_counted(device: str, monkeypatch) -> None:
    """That of callbacks too, after the last epoch as well, and of everything before the first."""
    now = [0.0]
    clock = SimpleNamespace(perf_counter=lambda: now[0])
    for module in ("loop", "trainer"):
        monkeypatch.setattr(f"gpumlp.training.{module}.time", clock)

    class Slow:
        """Rows that take 4 seconds, whenever they are read."""

        def __array__(self, dtype=None, copy=None):
            now[0] += 4
            return X.astype(dtype)

    def wait(trainer, history) -> None:
        now[0] += 2

    history = trainer(device, callbacks=[wait]).fit(
        Slow(), X[:, 0], epochs=3, validation=0.25, progress=False
    )
    assert history.seconds == [now[0] - 6, 2, 4] and now[0] >= 10


def test_metrics_that_some_epochs_lack_are_nan() -> None:
    history = History()
    for values in ({"loss": 3.0}, {"loss": 2.0, "val_loss": 1.0}, {"loss": 1.0}):
        history.append(values)
    assert history.loss == [3.0, 2.0, 1.0]
    assert [math.isnan(value) for value in history.val_loss] == [True, False, True]


def test_a_history_is_readable_in_a_notebook() -> None:
    history = History({"loss": [1 / n for n in range(1, 41)], "seconds": [0.5] * 40}, best_epoch=19)
    page = history._repr_html_()
    assert page.count("<tr>") == 1 + 11 + 2 and "20 (best)" in page and "20 s in all" in page
    assert "nothing" not in History()._repr_html_()


def test_a_plot_without_a_path_is_a_figure() -> None:
    pytest.importorskip("matplotlib")
    figure = History({"loss": [2.0, 1.0], "val_loss": [2.0, 1.5]}, best_epoch=1).plot()
    assert [line.get_label() for line in figure.axes[0].lines][:2] == ["training", "validation"]
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_a_notebook_has_a_bar(monkeypatch) -> None:
    auto = pytest.importorskip("tqdm.auto")
    plain = sys.modules["tqdm"].tqdm
    made = []
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setattr(auto, "tqdm", lambda **options: made.append(options) or plain(**options))
    Progress(3).close()
    assert len(made) == 1 and made[0]["total"] == 3
    del shell.kernel  # a terminal
    bar = Progress(3)
    assert not bar.shown


def test_a_long_epoch_shows_progress_inside_it(device: str, monkeypatch) -> None:
    pytest.importorskip("tqdm")
    monkeypatch.setattr("gpumlp.training.progress.EVERY", 0.0)
    seen = []
    monkeypatch.setattr(Progress, "show", lambda self, epochs, text=None: seen.append((epochs, text)))
    rows = np.tile(X, (400, 1))
    mine = trainer(device, batch_size=32)
    mine.fit(rows, rows[:, 0], epochs=2, progress=True)
    whole = [epochs for epochs, text in seen if text is not None]
    inside = [epochs for epochs, text in seen if text is None and epochs % 1]
    assert whole == [1, 2]
    if mine.model.backend.device == "cpu":
        assert inside and 0 < min(inside) < 1 and inside == sorted(inside)
