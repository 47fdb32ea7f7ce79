"""Damaged and hostile files by the thousand: the same content, or the package's own error; never a traceback.

GPUMLP_FUZZ=100000 sets the number of tries of each test (300 by default), GPUMLP_FUZZ_SEED where they begin.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import damage
import numpy as np
import pytest

import gpumlp
from gpumlp import cli, schedules
from gpumlp.model.saved import save_model
from gpumlp.tables import TableError, read_table

TRIES = int(os.environ.get("GPUMLP_FUZZ", "300"))
SEED = int(os.environ.get("GPUMLP_FUZZ_SEED", "0"))
X = np.random.default_rng(0).normal(size=(12, 3)).round(3)
Y = np.arange(12) % 2


def training(path: Path) -> bytes:
    """The file of a small training with everything in it."""
    model = gpumlp.MLP([3, 4, 2], "tanh", dropout=0.1, device="numpy")
    model.extra = {
        "preparation": preparation(),
        "training": {"epochs": 2, "figures": {"train": {"accuracy": 0.5}}},
    }
    trainer = gpumlp.Trainer(
        model,
        loss="softmax_cross_entropy",
        optimizer="adam",
        clip_norm=1.0,
        schedule=schedules.Warmup(steps=3, after=schedules.Cosine(steps=20)),
    )
    trainer.fit(X, Y, epochs=2, progress=False)
    trainer.save(path)
    return path.read_bytes()


def preparation() -> dict[str, Any]:
    return {
        "task": "classification",
        "loss": "softmax_cross_entropy",
        "features": ["a", "b", "c"],
        "target": "t",
        "classes": ["0", "1"],
        "numeric_classes": True,
        "mean": [0.0, 0.1, 0.2],
        "scale": [1.0, 1.5, 2.0],
        "target_mean": 0.0,
        "target_scale": 1.0,
    }


def state(trainer: gpumlp.Trainer) -> list[Any]:
    """All that decides how a training goes on."""
    arrays = {n: a for n, a in trainer.optimizer.state[0].items() if n != "_shape"}
    return [
        trainer.model.flat.tobytes(),
        {name: array.tobytes() for name, array in arrays.items()},
        trainer.optimizer.hyperparameters(),
        (trainer.optimizer.t, trainer.epoch, trainer.seed, trainer.batch_size, trainer.clip_norm),
        (trainer.loss.name, trainer.schedule, trainer.precision, trainer.model.dropouts),
        (trainer.model.activations, trainer.model.output, trainer.model.extra),
    ]


def draws() -> Any:
    """A generator for each try; the number of the try is shown by a failing assertion."""
    for number in range(SEED, SEED + TRIES):
        yield number, random.Random(number)


def run(*words: object) -> tuple[int, str, str]:
    """The command line: exit code, output, errors; the last net must not be reached."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main([*map(str, words), *(("--device", "numpy") if words[0] != "info" else ())])
    assert code in (0, 2), err.getvalue()
    assert (code == 2) == ("gpumlp: error: " in err.getvalue())
    assert "fault of gpumlp" not in err.getvalue() and "Traceback" not in err.getvalue(), err.getvalue()
    assert "\x1b" not in err.getvalue() + (out.getvalue() if words[0] != "predict" else "")
    return code, out.getvalue(), err.getvalue()


@pytest.fixture
def files(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GPUMLP_DEVICE", "numpy")
    return tmp_path


@pytest.mark.parametrize("way", ["bit", "torn"])
def test_a_damaged_training_is_refused_or_the_same(files, way):
    path = files / "t.npz"
    data = training(path)
    want = state(gpumlp.Trainer.load(path))
    for number, draw in draws():
        bad = damage.flip(data, draw.randrange(8 * len(data))) if way == "bit" else damage.torn(data, draw)
        path.write_bytes(bad)
        for load in (gpumlp.load, gpumlp.Trainer.load):
            try:
                found = load(path)
            except gpumlp.ModelFileError as error:
                assert str(path) in str(error), number
                continue
            model = getattr(found, "model", found)
            assert model.flat.tobytes() == want[0] and model.extra == want[-1][-1], number
            assert model is found or state(found) == want, number


@pytest.mark.parametrize("change", [damage.with_value, damage.with_head])
def test_a_hostile_training_is_refused_or_usable(files, change: Callable):
    path = files / "t.npz"
    data = training(path)
    (files / "x.csv").write_text(
        "a,b,c,t\n" + "".join(f"{a},{b},{c},{t}\n" for (a, b, c), t in zip(X, Y, strict=True))
    )
    for number, draw in draws():
        path.write_bytes(change(data, draw))
        with contextlib.suppress(gpumlp.ModelFileError):
            gpumlp.load(path)
        try:
            trainer = gpumlp.Trainer.load(path)
            rows = np.ones((5, trainer.model.layer_sizes[0]))
            trainer.fit(rows, np.arange(5) % trainer.model.layer_sizes[-1], epochs=1, progress=False)
            trainer.save(files / "again.npz")
        except (gpumlp.ModelFileError, gpumlp.DivergenceError):
            pass
        except ValueError as error:  # of values that are valid, but not for these rows or without a function
            assert "schedule" in str(error) or "loss" in str(error) or "y" in str(error), (number, error)
        for words in (["info", path], ["predict", path, "x.csv"]) if number % 3 == 0 else ():
            run(*words)
    assert not os.path.exists("exploded")


def test_a_hostile_preparation_ends_in_one_line(files):
    model = gpumlp.MLP([3, 2], device="numpy")
    model.output = "softmax"
    good = files / "m.npz"
    save_model(model, good, {"preparation": preparation(), "training": {"epochs": 1, "figures": {}}})
    data = good.read_bytes()
    (files / "x.csv").write_text("a,b,c,t\n1,2,3,0\n4,5,6,1\n")
    assert run("evaluate", good, "x.csv")[0] == 0
    for _, draw in draws():
        good.write_bytes(damage.with_value(data, draw))
        for words in (["info", good], ["predict", good, "x.csv", "--proba"], ["evaluate", good, "x.csv"]):
            run(*words)


def _npz(X: np.ndarray, y: np.ndarray, save: Callable) -> bytes:
    buffer = io.BytesIO()
    save(buffer, X=X, y=y, feature_names=np.array(["a", "b", "c"]))
    return buffer.getvalue()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_archive_of_rows_is_refused_or_the_same(files, save: Callable):
    path, data = files / "t.npz", _npz(X, Y, save)
    for number, draw in draws():
        path.write_bytes(
            damage.flip(data, draw.randrange(8 * len(data))) if number % 2 else damage.torn(data, draw)
        )
        try:
            table = read_table(str(path))
        except TableError as error:
            assert "t.npz" in str(error), number
            continue
        assert np.array_equal(table.X, X) and np.array_equal(table.y, Y), number
        assert table.names == ["a", "b", "c"] or not table.named, number


def test_hostile_tables_end_in_one_line(files):
    rows = "".join(f"{a},{b},{c},{t}\n" for (a, b, c), t in zip(X, Y, strict=True))
    text = ("a,b,c,t\n" + rows).encode()
    (files / "good.csv").write_bytes(text)
    save_model(_classifier(), files / "m.npz", {"preparation": preparation()})
    buffer = io.BytesIO()
    np.save(buffer, np.c_[X, Y])
    archive = _npz(X, Y, np.savez)
    ways: dict[str, Callable[[random.Random], bytes]] = {
        "t.csv": lambda draw: damage.mistyped(text, draw),
        "t.csv.gz": lambda draw: damage.torn(gzip.compress(text, mtime=0), draw),
        "u.csv.gz": lambda draw: gzip.compress(damage.mistyped(text, draw), mtime=0),
        "t.npy": lambda draw: damage.torn(buffer.getvalue(), draw),
        "u.npy": lambda draw: damage.flip(buffer.getvalue(), draw.randrange(8 * 128)),
        "t.npz": lambda draw: damage.with_head(archive, draw),
    }
    for number, draw in draws():
        name = list(ways)[number % len(ways)]
        (files / name).write_bytes(ways[name](draw))
        with contextlib.suppress(TableError):
            read_table(name, target="3" if name.endswith(".npy") else "t" if "csv" in name else None)
        run("predict", "m.npz", name)
        run("evaluate", "m.npz", name)
        if number % 20 == 0:
            run("train", name, *(["--target", "t"] if "csv" in name else []), "--epochs", 1, "--out", "o.npz")


def _classifier() -> gpumlp.MLP:
    model = gpumlp.MLP([3, 2], device="numpy")
    model.output = "softmax"
    return model
