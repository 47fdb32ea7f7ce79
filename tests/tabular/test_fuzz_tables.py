"""Random tables: an estimator answers alike however they come, and so do its file and its ONNX graph."""

from __future__ import annotations

import csv
import importlib.util
import io
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_tables import FORMS, Cells, csv_of, onnx_inputs, random_table, target_of

import gpumlp
from gpumlp.cli import main
from gpumlp.tables import read_frame

pytest.importorskip("sklearn")

#: GPUMLP_FUZZ_TABLES=1000 tries so many
CASES = int(os.environ.get("GPUMLP_FUZZ_TABLES", "12"))
#: the command line reads files for models of tables
WITH_CLI = importlib.util.find_spec("gpumlp.cli.tabular") is not None
WITH_ONNX = all(map(importlib.util.find_spec, ("onnx", "onnxruntime")))
ROWS, NEW = 120, 30


def fitted(rng: np.random.Generator, train: list[Cells], path: Path) -> Any:
    """An estimator that has learnt from one of the forms."""
    classes = bool(rng.random() < 0.6)
    y = target_of(rng, ROWS, classes)
    form = str(rng.choice([*FORMS, "csv"]))
    given = [column.name for column in train if column.kind in ("whole", "truth") and rng.random() < 0.3]
    categorical = given[:1] if rng.random() < 0.3 else given
    if form == "csv":
        path.write_bytes(csv_of(rng, train).encode())
        X = read_frame(path, modes=dict.fromkeys(categorical, "text"))
    else:
        X = FORMS[form](rng, train)
    kind = gpumlp.TabularClassifier if classes else gpumlp.TabularRegressor
    est = kind(quality="fast", time_limit=0.01, categorical=categorical, random_state=0, device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return est.fit(X, y)


def answers(est: Any, X: Any) -> np.ndarray:
    return est.predict_proba(X) if hasattr(est, "classes_") else est.predict(X)


def told(est: Any, folder: Path, capfd: pytest.CaptureFixture[str]) -> np.ndarray:
    """What `gpumlp predict` writes for new.csv, as float32 where the estimator's answers are."""
    classes = hasattr(est, "classes_")
    words = ["predict", str(folder / "model.npz"), str(folder / "new.csv"), "--device", "cpu"]
    capfd.readouterr()
    assert main([*words, *["--proba"] * classes]) == 0
    rows = list(csv.reader(io.StringIO(capfd.readouterr().out)))[1:]
    if not classes:
        return np.array([float(row[0]) for row in rows])
    np.testing.assert_array_equal(
        [row[0] for row in rows],
        [
            str(label)
            for label in est.classes_[np.argmax([list(map(float, row[1:])) for row in rows], axis=1)]
        ],
    )
    return np.array([list(map(float, row[1:])) for row in rows], np.float32)


@pytest.mark.parametrize("seed", range(CASES))
def test_all_ways_agree(tmp_path: Path, capfd: pytest.CaptureFixture[str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    train, new = random_table(rng, ROWS, NEW)
    try:
        est = fitted(rng, train, tmp_path / "train.csv")
    except ValueError as error:
        assert "no column can be used" in str(error)
        return
    new = [new[k] for k in rng.permutation(len(new))]
    if rng.random() < 0.1:
        new = [column.take([0]) for column in new]
    first = answers(est, FORMS["dict"](rng, new))
    for name, form in FORMS.items():
        np.testing.assert_array_equal(answers(est, form(rng, new)), first, name)
    (tmp_path / "new.csv").write_bytes(csv_of(rng, new).encode())
    read = read_frame(tmp_path / "new.csv", modes=est.encoder_.modes())
    np.testing.assert_array_equal(answers(est, read), first, "csv")
    est.save(tmp_path / "model.npz")
    if WITH_CLI:
        np.testing.assert_array_equal(told(est, tmp_path, capfd), first, "command line")
    np.testing.assert_array_equal(
        answers(gpumlp.load(tmp_path / "model.npz", device="cpu"), read), first, "file"
    )
    if WITH_ONNX:
        check_graph(est, new, first)


def check_graph(est: Any, new: list[Cells], first: np.ndarray) -> None:
    """The exported graph answers as the estimator does."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        gpumlp.export.to_onnx(est).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    got = dict(zip(names, session.run(None, onnx_inputs(session.get_inputs(), new)), strict=True))
    if hasattr(est, "classes_"):
        np.testing.assert_allclose(got["probabilities"], first, rtol=0, atol=1e-6)
        # labels may differ where two are equally probable up to rounding
        clear = np.diff(np.sort(first, axis=1)[:, -2:])[:, 0] > 1e-6
        np.testing.assert_array_equal(got["label"][clear], est.classes_[first.argmax(axis=1)][clear])
    else:
        scale = float(est.target_scale_.max() + np.abs(est.target_mean_).max())
        np.testing.assert_allclose(got["value"], first, rtol=1e-6, atol=1e-6 * scale)
