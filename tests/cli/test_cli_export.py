"""`gpumlp export`: the file answers as `gpumlp predict` does."""

from __future__ import annotations

import csv
import os

import numpy as np
import pytest

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")


@pytest.fixture
def trained(run, flowers):
    result = run("train", flowers, "--target", "kind", "--epochs", 3, "--quiet", "--out", "m.npz")
    assert result.code == 0, result.err
    return flowers


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_answers_as_predict(run, trained):
    result = run("export", "m.npz", "-o", "m.onnx")
    assert result.code == 0 and result.out == "m.onnx written\ntakes     X\ngives     label, probabilities\n"
    assert run("predict", "m.npz", trained, "-o", "p.csv", "--proba").code == 0
    expected, table = rows("p.csv"), rows(trained)
    features = [name for name in table[0] if name != "kind"]
    X = np.array([[row[name] for name in features] for row in table], np.float32)
    session = onnxruntime.InferenceSession("m.onnx", providers=["CPUExecutionProvider"])
    label, p = session.run(None, {"X": X})
    assert label.tolist() == [next(iter(row.values())) for row in expected]
    names = [name for name in expected[0] if name.startswith("p_")]
    np.testing.assert_allclose(p, [[float(row[n]) for n in names] for row in expected], rtol=1e-4, atol=1e-5)


def test_default_name_and_replacing(run, trained):
    assert run("export", "m.npz").out.startswith("m.onnx written\n")
    assert "replac" in run("export", "m.npz", "--float64").out


def test_refusals(fails, trained, tmp_path):
    before = sorted(os.listdir(tmp_path))
    assert "the name must end in .onnx" in fails("export", "m.npz", "-o", "m.pb")
    assert "none.npz" in fails("export", "none.npz")
    assert sorted(os.listdir(tmp_path)) == before
