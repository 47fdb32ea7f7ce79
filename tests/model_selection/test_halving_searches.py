"""`RandomizedSearchCV(halving=...)`: who leaves when, against fits of their own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import gpumlp
from gpumlp.model_selection import RandomizedSearchCV

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
X, Y = load_iris(return_X_y=True)
SPACE = {"learning_rate_init": np.geomspace(1e-4, 1, 9).tolist(), "alpha": [1e-4, 1e-2]}
FOLDS = StratifiedKFold(3, shuffle=True, random_state=0)


def network(**options: Any) -> Any:
    options = {"max_iter": 12, "n_iter_no_change": 100, "random_state": 0, "batch_size": 32, **options}
    return gpumlp.MLPClassifier((6,), **options)


def search(est: Any, space: Any = None, **options: Any) -> RandomizedSearchCV:
    options = {"n_iter": 9, "cv": FOLDS, "random_state": 3, "halving": 3, **options}
    return RandomizedSearchCV(est, space or SPACE, **options)


def expected(
    est: Any, candidates: list[dict], rungs: list[int], scoring: Any = None
) -> tuple[list[int], list[int], np.ndarray]:
    """Rungs passed, epochs and scores (candidates, folds) of networks that are fitted from the start, once
    for every rung."""
    inside = list(range(len(candidates)))
    passed, epochs = [0] * len(candidates), [0] * len(candidates)
    scores = np.zeros((len(candidates), FOLDS.n_splits))
    for rung in [*rungs, est[-1].max_iter if hasattr(est, "steps") else est.max_iter]:
        for number in inside:
            one = clone(est).set_params(**candidates[number])
            (one[-1] if hasattr(one, "steps") else one).set_params(max_iter=rung)
            scores[number] = cross_validate(one, X, Y, cv=FOLDS, scoring=scoring)["test_score"]
            epochs[number] = rung
        if rung in rungs:
            order = sorted(inside, key=lambda number: -scores[number].mean())
            inside = sorted(order[: math.ceil(len(inside) / 3)])
            for number in inside:
                passed[number] += 1
    return passed, epochs, scores


@pytest.mark.parametrize("scoring", [None, "neg_log_loss"])
def test_the_worst_leave_at_each_rung(device: str, scoring: Any) -> None:
    est = network(device=device)
    mine = search(est, scoring=scoring).fit(X, Y)
    results = mine.cv_results_
    rungs = gpumlp.SuccessiveHalving(3).rungs(9, 12)
    assert rungs == [2, 4]
    passed, epochs, scores = expected(est, results["params"], rungs, scoring)
    assert results["rung"].tolist() == passed
    assert sorted(passed) == [0] * 6 + [1] * 2 + [2]
    assert results["n_epochs"].tolist() == epochs
    found = np.stack([results[f"split{fold}_test_score"] for fold in range(3)], axis=1)
    np.testing.assert_array_equal(found, scores)
    assert mine.best_index_ == passed.index(2)
    assert mine.best_score_ == scores[mine.best_index_].mean()
    assert mine.best_estimator_.n_iter_ == 12  # on all rows, to the end
    again = clone(est).set_params(**mine.best_params_).fit(X, Y)
    np.testing.assert_array_equal(mine.predict_proba(X), again.predict_proba(X))


def test_the_best_is_one_that_has_reached_the_end() -> None:
    """A candidate that learns fast and then gets lost, or the other way round, has a better score early."""
    results = search(network(max_iter=40)).fit(X, Y)
    rung, mean = results.cv_results_["rung"], results.cv_results_["mean_test_score"]
    assert rung[results.best_index_] == rung.max()
    assert results.best_score_ == mean[rung == rung.max()].max()


def test_in_a_pipeline() -> None:
    est = make_pipeline(StandardScaler(), network())
    space = {f"mlpclassifier__{name}": values for name, values in SPACE.items()}
    mine = search(est, space).fit(X, Y)
    passed, epochs, scores = expected(est, mine.cv_results_["params"], [2, 4])
    assert mine.cv_results_["rung"].tolist() == passed
    assert mine.cv_results_["n_epochs"].tolist() == epochs
    np.testing.assert_array_equal(mine.cv_results_["split1_test_score"], scores[:, 1])


def test_early_stopping_counts_the_best_epoch() -> None:
    """At a rung a network has the parameters that its fit would leave there."""
    est = network(early_stopping=True)
    mine = search(est).fit(X, Y)
    passed, _, scores = expected(est, mine.cv_results_["params"], [2, 4])
    assert mine.cv_results_["rung"].tolist() == passed
    np.testing.assert_array_equal(mine.cv_results_["split0_test_score"], scores[:, 0])


def test_options_of_halving() -> None:
    halving = gpumlp.SuccessiveHalving(2, min_epochs=5)
    results = search(network(), halving=halving, n_iter=8).fit(X, Y).cv_results_
    assert sorted(results["rung"]) == [0] * 4 + [1] * 4
    assert sorted(set(results["n_epochs"])) == [6, 12]
    assert sorted(search(network(), halving=True).fit(X, Y).cv_results_["rung"]) == [0] * 6 + [1] * 2 + [2]
    for without in (None, False):
        assert "rung" not in search(network(), halving=without).fit(X, Y).cv_results_


def test_several_metrics() -> None:
    one = search(network(), scoring="f1_macro").fit(X, Y)
    two = search(network(), scoring=["accuracy", "f1_macro"], refit="f1_macro").fit(X, Y)
    assert one.cv_results_["rung"].tolist() == two.cv_results_["rung"].tolist()
    np.testing.assert_array_equal(one.cv_results_["mean_test_score"], two.cv_results_["mean_test_f1_macro"])
    assert one.best_index_ == two.best_index_
    with pytest.raises(ValueError, match="needs refit to name the one that counts, of accuracy, f1_macro"):
        search(network(), scoring=["accuracy", "f1_macro"], refit=False).fit(X, Y)


@pytest.mark.parametrize("state", [None, 0])
def test_candidates_that_fail_or_diverge_leave(state: Any) -> None:
    space = {"learning_rate_init": [1e-3, 1e-2, 1e30], "max_iter": [12, 0], "solver": ["sgd"]}
    with pytest.warns(Warning, match="fits failed"):
        mine = search(network(dtype="float32", random_state=state), space, n_iter=6).fit(X.astype("f"), Y)
    results = mine.cv_results_
    for params, rung in zip(results["params"], results["rung"], strict=True):
        if params["max_iter"] == 0 or params["learning_rate_init"] == 1e30:
            assert rung == 0
    assert mine.best_params_["max_iter"] == 12


@pytest.mark.parametrize("halving", [1, 0.5, "three", -3])
def test_factors_that_are_refused(halving: Any) -> None:
    with pytest.raises(ValueError, match="halving"):
        search(network(), halving=halving).fit(X, Y)


def test_what_cannot_be_halved() -> None:
    with pytest.raises(ValueError, match="halving needs candidates that are, or end in, MLPClassifier"):
        search(LogisticRegression(), {"C": [0.1, 1.0, 10.0]}, n_iter=3).fit(X, Y)
    with pytest.raises(ValueError, match="solver='lbfgs'"):
        search(network(), {"solver": ["adam", "lbfgs"], "alpha": [0.0, 1.0]}, n_iter=4).fit(X, Y)


def test_nothing_is_left_of_a_search_that_was_interrupted() -> None:
    def callback(est: Any) -> None:
        if est.n_iter_ == 3:
            raise KeyboardInterrupt

    mine = search(network(callbacks=callback))
    with pytest.raises(KeyboardInterrupt):
        mine.fit(X, Y)
    assert not hasattr(mine, "cv_results_")
    mine.set_params(estimator=network()).fit(X, Y)
    assert max(mine.cv_results_["rung"]) == 2
