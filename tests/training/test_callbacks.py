"""Ready-made callbacks: what they write.  TensorBoard and MLflow are stood in for by what they call."""

from __future__ import annotations

import csv
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp.callbacks import Checkpoint, CSVLogger, MLflow, TensorBoard

X = np.random.default_rng(0).normal(size=(40, 3))
Y = X.sum(axis=1)


def trainer(*callbacks: Any, lr: float = 0.01) -> gpumlp.Trainer:
    model = gpumlp.MLP([3, 4, 1], "tanh", device="cpu")
    given = {"loss": "squared_error", "optimizer": gpumlp.Adam(lr=lr), "batch_size": 16}
    return gpumlp.Trainer(model, callbacks=list(callbacks), **given)


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    one = trainer(CSVLogger(path))
    history = one.fit(X, Y, epochs=2, validation=(X, Y), progress=False)
    one.callbacks = [CSVLogger(path, append=True)]
    later = one.fit(X, Y, epochs=1, validation=(X, Y), progress=False)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["epoch"], row["steps"]) for row in rows] == [("1", "3"), ("2", "6"), ("3", "9")]
    for name in ("loss", "lr", "val_loss", "val_r2"):
        assert [float(row[name]) for row in rows] == history[name] + later[name]
    with pytest.raises(ValueError, match=r"log.csv' has the columns .*val_loss.*; this training has epoch, "):
        one.fit(X, Y, epochs=1, progress=False)


def test_checkpoints(tmp_path: Path) -> None:
    files = Checkpoint(tmp_path / "at{epoch}.npz", every=2), Checkpoint(tmp_path / "last.npz")
    one = trainer(*files)
    one.fit(X, Y, epochs=5, progress=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["at2.npz", "at4.npz", "last.npz"]
    resumed = gpumlp.Trainer.load(tmp_path / "at2.npz", device="cpu")
    resumed.fit(X, Y, epochs=3, progress=False)
    assert np.array_equal(resumed.model.flat, one.model.flat)
    assert gpumlp.Trainer.load(tmp_path / "last.npz", device="cpu").epoch == 5


@pytest.mark.parametrize(("monitor", "better"), [(None, min), ("val_r2", max)])
def test_the_best_checkpoint(tmp_path: Path, monitor: str | None, better: Any) -> None:
    """Of a training whose steps are too long at times."""
    one = trainer(Checkpoint(tmp_path / "best.npz", best_only=True, monitor=monitor), lr=0.4)
    history = one.fit(X, Y, epochs=6, validation=(X, Y), progress=False)
    values = history[monitor or "val_loss"]
    assert 0 < values.index(better(values)) < 5
    assert gpumlp.Trainer.load(tmp_path / "best.npz", device="cpu").epoch == values.index(better(values)) + 1


def test_tensorboard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    written: list[tuple[str, float, int]] = []

    class Writer:
        def __init__(self, logdir: str) -> None:
            assert logdir == str(tmp_path)

        def add_scalar(self, tag: str, data: float, step: int) -> None:
            written.append((tag, float(data), step))

        def flush(self) -> None: ...

        def close(self) -> None: ...

    summary = types.ModuleType("tensorboard.summary")
    summary.Writer = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorboard", types.ModuleType("tensorboard"))
    monkeypatch.setitem(sys.modules, "tensorboard.summary", summary)
    board = TensorBoard(tmp_path, every=2, norms=True)
    history = trainer(board).fit(X, Y, epochs=2, progress=False)
    board.close()
    assert [w for w in written if w[0] == "epoch/loss"] == [
        ("epoch/loss", loss, 3 * n) for n, loss in enumerate(history.loss, start=1)
    ]
    tags = {tag for tag, _, step in written if step == 4}
    kinds = ("grad_norm", "update_norm", "weight_norm")
    assert tags == {"step/loss", "step/lr", *(f"{kind}/layer_{n}" for kind in kinds for n in (1, 2))}


def test_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    params: list[Any] = []
    metrics: list[Any] = []
    fake = types.ModuleType("mlflow")
    fake.log_params = lambda values, **run: params.append((values, run))  # type: ignore[attr-defined]
    fake.log_metrics = lambda values, step, **run: metrics.append((values, step, run))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    history = trainer(MLflow(run_id="r1")).fit(X, Y, epochs=2, progress=False)
    assert [(values["epoch/loss"], step) for values, step, _ in metrics] == list(
        zip(history.loss, (3, 6), strict=True)
    )
    (values, run), *more = params
    assert not more and run == {"run_id": "r1"}
    assert (values["loss"], values["optimizer"], values["optimizer.lr"]) == ("squared_error", "adam", 0.01)


@pytest.mark.parametrize(("make", "name"), [(lambda: TensorBoard("runs"), "tensorboard"), (MLflow, "mlflow")])
def test_a_library_that_is_missing(monkeypatch: pytest.MonkeyPatch, make: Any, name: str) -> None:
    for module in (name, f"{name}.summary"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"needs the package {name} .*pip install {name}"):
        make()


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="Checkpoint: monitor says what is best; it needs best_only=True"):
        Checkpoint("a.npz", monitor="val_loss")
    with pytest.raises(ValueError, match="no metric 'val_loss' was recorded; recorded: loss"):
        trainer(Checkpoint("a.npz", best_only=True, monitor="val_loss")).fit(X, Y, epochs=1, progress=False)
