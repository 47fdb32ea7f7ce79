"""Task, classes, scaling and splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gpumlp.cli.words import TASK_RULE
from gpumlp.tables import Table, TableError
from gpumlp.tables.fit import detect_task, fit_preparation, split_table


def make(x, y) -> Table:
    x = np.asarray(x)
    return Table("t", x, [f"x{j}" for j in range(x.shape[1])], False, np.asarray(y), "y")


@pytest.mark.parametrize(
    ("y", "task"),
    [
        (["a", "b"], "classification"),
        ([True, False], "classification"),
        ([0.0, 1.0] * 5, "classification"),
        ([0.0, 1.0, 0.0, 1.0], "regression"),
        ([250.0, 300.0], "regression"),
        ([1.5, 2.0, 2.0, 2.0], "regression"),
        (np.arange(100) % 20, "classification"),
        (np.arange(100) % 21, "regression"),
        ([3, 1, 2, 5, 7], "regression"),
    ],
)
def test_detect_task(y, task):
    y = np.asarray(y)
    assert detect_task(y.astype(str) if y.dtype.kind == "b" else y)[0] == task  # as tables are read


def test_reasons_name_what_the_target_is():
    assert detect_task(np.array(["a", "b"]))[1] == "the target is text"
    assert detect_task(np.array(["TRUE", "False"]))[1] == "the target is True/False"
    assert detect_task(np.array([1.0, 2.0]))[1] == "the target has 2 distinct whole numbers in only 2 rows"


def test_help_docs_and_code_state_one_rule(run, capsys):
    docs = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    with pytest.raises(SystemExit):
        run("train", "--help")
    for text in (docs, capsys.readouterr().out, detect_task.__doc__):
        assert TASK_RULE in " ".join(text.split())


def test_split_is_a_seeded_partition():
    table = make(np.zeros((100, 1)), np.zeros(100))
    parts = split_table(table, 3, 0.15, 0.1)
    assert [len(p) for p in parts] == [75, 10, 15]
    assert sorted(np.concatenate(parts).tolist()) == list(range(100))
    order = np.random.default_rng([3, 4]).permutation(100)
    np.testing.assert_array_equal(parts[2], order[:15])
    assert [len(p) for p in split_table(make(np.zeros((5, 1)), np.zeros(5)), 0, 0.01, 0.0)] == [4, 0, 1]
    with pytest.raises(TableError, match="'t' has 3 rows, too few for 1 test row and 1 validation row"):
        split_table(make(np.zeros((3, 1)), np.zeros(3)), 0, 0.15, 0.15)
    message = "'t' has 1 row, too few for at least 2 for training; give more rows$"
    with pytest.raises(TableError, match=message):
        split_table(make(np.zeros((1, 1)), np.zeros(1)), 0, 0, 0)


def test_scaling_comes_from_the_training_rows_only():
    rng = np.random.default_rng(0)
    x = rng.normal(5, 3, (50, 3))
    x[:, 2] = 0.1  # constant
    y = rng.normal(100, 10, 50)
    train = np.arange(30)
    prep = fit_preparation(make(x, y), train, "regression", "squared_error", True)
    np.testing.assert_allclose(prep.mean, x[:30].mean(0), rtol=1e-14)
    np.testing.assert_allclose(prep.scale, [*x[:30, :2].std(0), 1.0], rtol=1e-13)
    np.testing.assert_allclose(prep.inputs(x, np.float64), (x - prep.mean) / prep.scale, rtol=1e-14)
    scaled = prep.targets(make(x, y), np.float64)
    np.testing.assert_allclose(scaled, (y - y[:30].mean()) / y[:30].std(), rtol=1e-12)
    np.testing.assert_allclose(prep.values(scaled), y, rtol=1e-14)


def test_pixels_are_divided_by_their_maximum():
    x = np.array([[0, 200], [0, 100], [1, 0], [0, 50]], np.uint8)
    prep = fit_preparation(
        make(x, [0, 1, 0, 1]), np.arange(4), "classification", "softmax_cross_entropy", True
    )
    np.testing.assert_allclose(prep.inputs(x, np.float32), x / 200, rtol=1e-6)


def test_counts_for_poisson_are_not_scaled():
    prep = fit_preparation(make(np.eye(4), [0, 1, 5, 2]), np.arange(4), "regression", "poisson", True)
    assert (prep.target_mean, prep.target_scale) == (0.0, 1.0)


def test_numeric_classes_sort_as_numbers_and_ignore_spelling():
    t = make(np.zeros((8, 1)), np.array([10.0, 9, 9, 10, 2, 2, 10, 9]))
    prep = fit_preparation(t, np.arange(8), "classification", "softmax_cross_entropy", True)
    assert prep.classes == ["2", "9", "10"]
    other = make(np.zeros((2, 1)), np.array([9, 2], np.int32))
    assert prep.targets(other, np.float32).tolist() == [1, 0]


def test_text_classes_keep_their_spelling():
    t = make(np.zeros((6, 1)), np.array(["01", "1", "x", "x", "1", "01"]))
    prep = fit_preparation(t, np.arange(6), "classification", "softmax_cross_entropy", True)
    assert prep.classes == ["01", "1", "x"]
    assert prep.targets(t, np.float32).tolist() == [0, 1, 2, 2, 1, 0]


@pytest.mark.parametrize(
    ("y", "task", "message"),
    [
        (["a"] * 5, "classification", r"one class only \('a'\)"),
        (list("abcde"), "classification", "every row has a label of its own"),
        (["1", "2", "x", "1", "2"], "regression", r"holds text \('x'\)"),
    ],
)
def test_unusable_targets(y, task, message):
    with pytest.raises(TableError, match=message):
        fit_preparation(make(np.zeros((5, 1)), y), np.arange(5), task, "any", True)


def test_values_too_large_to_standardise():
    with pytest.raises(TableError, match="column 'x1' are too large"):
        fit_preparation(
            make([[1.0, 1e300], [2.0, -1e300]], [0.0, 1.0]), np.arange(2), "regression", "squared_error", True
        )


@pytest.mark.parametrize(
    ("levels", "rows", "refused"), [(20, 40, False), (20, 39, True), (21, 100, True), (2, 100, False)]
)
def test_fractions_are_classes_if_they_are_few(levels, rows, refused):
    y = np.arange(rows) % levels + 0.5
    table = make(np.zeros((rows, 1)), y)
    if refused:
        with pytest.raises(TableError, match=r"distinct numbers with fractions .* quantity, not classes"):
            fit_preparation(table, np.arange(rows), "classification", "softmax_cross_entropy", True)
    else:
        prep = fit_preparation(table, np.arange(rows), "classification", "softmax_cross_entropy", True)
        assert len(prep.classes) == levels
