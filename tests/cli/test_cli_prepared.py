"""`load_prepared`: a model of the command line takes raw rows in Python."""

from __future__ import annotations

import csv

import numpy as np
import pytest

import gpumlp
from gpumlp.preparation import load_prepared


def raw(path, delimiter=","):
    with open(path, newline="") as file:
        rows = list(csv.reader(file, delimiter=delimiter))[1:]
    return np.array([[float(v) for v in row[:-1]] for row in rows]), [row[-1] for row in rows]


def written(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))[1:]


def test_classes_and_probabilities_equal_those_of_the_command_line(run, flowers):
    assert run("train", flowers, "--target", "kind", "--hidden", 16, "--lr", 0.02, "--out", "m.npz").code == 0
    assert run("predict", "m.npz", flowers, "--proba", "-o", "p.csv").code == 0
    X, y = raw(flowers)
    prepared = load_prepared("m.npz", "cpu")
    assert prepared.classes == ["iris, blue", "rose", "tulip"]
    assert prepared.feature_names == ["width", "height", "seven"]
    answer = prepared.predict(X)
    assert np.mean(answer == np.array(y)) > 0.95
    assert [row[0] for row in written("p.csv")] == answer.tolist()
    p = np.array([[float(v) for v in row[1:]] for row in written("p.csv")])
    np.testing.assert_allclose(prepared.predict_proba(X), p, rtol=1e-5, atol=1e-7)  # float32, printed digits


def test_values_are_in_units_of_the_target(run, prices):
    words = ("--target", "price", "--hidden", "none", "--lr", 0.05, "--out", "m.npz")
    assert run("train", prices, *words).code == 0
    X, y = raw(prices, ";")
    prepared = load_prepared("m.npz", "cpu")
    y = np.array(y, float)
    assert np.sqrt(np.mean((prepared.predict(X) - y) ** 2)) < 0.05 * y.std()
    bare = gpumlp.load("m.npz", "cpu").predict(X.astype(np.float32))
    assert np.sqrt(np.mean((bare - y) ** 2)) > y.std()  # the network alone knows no scaling
    assert prepared.classes == []
    with pytest.raises(ValueError, match="is for classifiers"):
        prepared.predict_proba(X)


class Frame:
    """What is used of a pandas DataFrame."""

    def __init__(self, **columns):
        self.columns, self.data = list(columns), columns

    def __getitem__(self, names):
        return np.stack([self.data[name] for name in names], axis=1)


def test_columns_of_a_data_frame_are_found_by_name(run, prices):
    words = ("--target", "price", "--epochs", 1, "--hidden", 4, "--out", "m.npz")
    assert run("train", prices, *words).code == 0
    prepared = load_prepared("m.npz", "cpu")
    X, _ = raw(prices, ";")
    frame = Frame(age=X[:, 1], price=X[:, 0], size=X[:, 0])
    np.testing.assert_array_equal(prepared.predict(frame), prepared.predict(X))
    with pytest.raises(ValueError, match="lacks the column 'age'; there is 'AGE'"):
        prepared.predict(Frame(size=X[:, 0], AGE=X[:, 1]))
    with pytest.raises(ValueError, match="lacks the column 'age'; there is only 'size'"):
        prepared.predict(Frame(size=X[:, 0]))


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ([[1.0]], r"shape \(1, 1\); expected \(n_rows, 2\)"),
        ([1.0, 2.0], r"shape \(2,\)"),
        ([["a", "b"]], "expected numbers"),
        ([[1.0, np.nan]], "NaN or infinite"),
    ],
)
def test_bad_rows(run, prices, X, message):
    words = ("--target", "price", "--epochs", 1, "--hidden", 4, "--out", "m.npz")
    assert run("train", prices, *words).code == 0
    with pytest.raises(ValueError, match=message):
        load_prepared("m.npz", "cpu").predict(X)


def test_a_model_without_preparation_is_refused(tmp_path):
    gpumlp.MLP([2, 3, 2], device="cpu").save(tmp_path / "m.npz")
    with pytest.raises(gpumlp.errors.ModelFileError, match=r"without stored scaling.*gpumlp\.load"):
        load_prepared(tmp_path / "m.npz", "cpu")
