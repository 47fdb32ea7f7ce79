"""Searches on a cluster give what they give without one."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import gpumlp
from gpumlp.model_selection import GridSearchCV, RandomizedSearchCV, cross_val_score, cross_validate

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
X, Y = load_iris(return_X_y=True)


def network(**options: Any) -> Any:
    return gpumlp.MLPClassifier((6,), max_iter=5, **{"random_state": 0, "device": "cpu", **options})


def assert_same(mine: dict, other: dict) -> None:
    assert list(mine) == list(other)
    for name, values in other.items():
        if "time" not in name and name != "params":
            assert np.array_equal(np.asarray(mine[name]), np.asarray(values)), name


def test_a_grid(client: Any) -> None:
    estimator = make_pipeline(StandardScaler(), network())
    grid = {"mlpclassifier__alpha": [1e-4, 0.1], "standardscaler__with_mean": [True, False]}
    options = {"cv": 3, "return_train_score": True}
    mine = GridSearchCV(estimator, grid, **options, client=client).fit(X, Y)
    other = GridSearchCV(estimator, grid, **options).fit(X, Y)
    assert_same(mine.cv_results_, other.cv_results_)
    assert np.array_equal(mine.predict_proba(X), other.predict_proba(X))
    assert clone(mine).client is client and pickle.loads(pickle.dumps(mine)).client is None


def test_candidates_without_a_seed(client: Any) -> None:
    """They draw from the generator of this process, in the order of the candidates."""
    found = []
    for given in (client, None):
        np.random.seed(3)
        grid = {"random_state": [None, 0, None]}
        search = RandomizedSearchCV(network(), grid, n_iter=3, random_state=0, cv=2, client=given)
        found.append(search.fit(X, Y).cv_results_)
    assert_same(*found)


def test_cross_validation(client: Any) -> None:
    expected = cross_val_score(LogisticRegression(), X, Y)
    assert np.array_equal(cross_val_score(LogisticRegression(), X, Y, client=client), expected)
    found = cross_validate(network(), X, Y, return_estimator=True, client=client)
    assert len(found["estimator"]) == 5
    assert np.array_equal(found["test_score"], cross_val_score(network(), X, Y))


def test_what_cannot_be(client: Any) -> None:
    with pytest.raises(ValueError, match="'alpha' parameter"):
        GridSearchCV(network(), {"alpha": [-1.0]}, error_score="raise", client=client).fit(X, Y)
    with pytest.raises(TypeError, match=r"expected a distributed.Client"):
        GridSearchCV(network(), {"alpha": [1.0]}, client="localhost:8786").fit(X, Y)
    with pytest.raises(ValueError, match="halving"):
        RandomizedSearchCV(network(), {"alpha": [1.0, 2]}, halving=3, n_iter=2, client=client).fit(X, Y)
