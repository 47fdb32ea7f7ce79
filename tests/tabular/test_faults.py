"""Targets, weights and numbers of rows at the edge: a right answer, or one clear sentence."""

import warnings

import numpy as np
import pytest

from gpumlp import TabularClassifier, TabularRegressor

FAST = {"quality": "fast", "random_state": 0, "device": "cpu"}


def rows(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 3))


@pytest.mark.parametrize("n", [2, 10, 20])
def test_few_rows_are_learnt_whole(n):
    X = rows(n)
    regressor = TabularRegressor(**FAST).fit(X, X[:, 0])
    assert regressor.score(X, X[:, 0]) > 0.95
    assert regressor.validation_scores_ == {}
    assert "none were held back" in regressor.notes_[0]
    y = np.arange(n) % 2
    X[:, 0] += 10 * y
    assert TabularClassifier(**FAST).fit(X, y).score(X, y) == 1


@pytest.mark.parametrize("value", [0.0, 3.0, -1e300, 1e-300])
def test_a_constant_target_is_answered(value):
    with pytest.warns(UserWarning, match="y is the same in all validation rows") as caught:
        regressor = TabularRegressor(**FAST).fit(rows(60), np.full(60, value))
    assert [str(each.message) for each in caught if issubclass(each.category, RuntimeWarning)] == []
    np.testing.assert_array_equal(regressor.predict(rows(5, 1)), np.full(5, value))
    assert regressor.validation_scores_["rmse"] == regressor.validation_scores_["constant_rmse"] == 0


def test_targets_further_apart_than_numbers_reach():
    with pytest.raises(ValueError, match=r"y goes from -1.7e[+]308 to 1.7e[+]308, further than"):
        TabularRegressor(**FAST).fit(rows(60), np.where(np.arange(60) % 2, 1.7e308, -1.7e308))


def test_a_heavy_tail_stays_within_what_was_seen():
    X = rows(300)
    y = np.exp(5 * X[:, 0])
    answers = TabularRegressor(**FAST).fit(X, y).predict(rows(300, 1))
    assert y.min() <= answers.min() and answers.max() <= y.max()


@pytest.mark.parametrize("quality", ["fast", "medium"])
def test_a_class_that_validation_rows_lack(quality):
    """One row has it: that is trained on in every fold."""
    X, y = rows(200), np.where(np.arange(200) == 3, "rare", "usual")
    X[3] = 9
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {**FAST, "quality": quality}
        classifier = TabularClassifier(**options, class_weight="balanced").fit(X, y)
    assert classifier.predict(X)[3] == "rare"
    chances = classifier.predict_proba(rows(50, 1))
    assert np.isfinite(chances).all() and chances.shape == (50, 2)
    given = TabularClassifier(**options).fit(X, y, X_val=X[10:40], y_val=y[10:40])
    assert given.validation_scores_["accuracy"] > 0.9


def test_weights_of_zero_are_rows_that_are_absent():
    X, y = rows(90), np.arange(90) % 3
    w = (y != 2).astype(float)
    classifier = TabularClassifier(**FAST).fit(X, y, sample_weight=w)
    assert classifier.classes_.tolist() == [0, 1]
    with pytest.raises(ValueError, match="y has one class only"):
        TabularClassifier(**FAST).fit(X, y, sample_weight=(y == 1).astype(float))
    with pytest.raises(ValueError, match="only 1 of 90 rows has a weight above 0; 2 are needed"):
        TabularRegressor(**FAST).fit(X, y, sample_weight=(np.arange(90) == 4).astype(float))
    for wrong in (np.zeros(90), -np.ones(90), np.full(90, np.nan)):
        with pytest.raises(ValueError):
            TabularRegressor(**FAST).fit(X, y, sample_weight=wrong)
