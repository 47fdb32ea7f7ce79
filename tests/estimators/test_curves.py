"""The same random_state gives scikit-learn's own training: losses, scores, stopping, predictions."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from sklearn import neural_network
from sklearn.datasets import (
    load_diabetes,
    load_digits,
    load_iris,
    make_multilabel_classification,
    make_regression,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import MinMaxScaler
from tolerances import RELATIVE

import gpumlp

#: sums in another order: errors seen are below 1e-14 (1e-10 for L-BFGS, whose line searches amplify them)
RTOL = 1e-8


def data(name: str) -> tuple[np.ndarray, np.ndarray, str]:
    """X, y, estimator."""
    if name == "digits":
        X, y = load_digits(return_X_y=True)
        return X[:300] / 16, y[:300], "MLPClassifier"
    if name == "diabetes":
        X, y = load_diabetes(return_X_y=True)
        return X * 20, (y - 150) / 80, "MLPRegressor"
    return *load_iris(return_X_y=True), "MLPClassifier"


def pair(
    X: Any, y: Any, kind: str, device: str, sample_weight: Any = None, **options: Any
) -> tuple[Any, Any]:
    """scikit-learn's and our estimator, fitted."""
    options = {
        "hidden_layer_sizes": (20, 10),
        "random_state": 0,
        "max_iter": 15,
        "learning_rate_init": 0.01,
        **options,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        theirs = getattr(neural_network, kind)(**options).fit(X, y, sample_weight=sample_weight)
        ours = getattr(gpumlp, kind)(**options, device=device).fit(X, y, sample_weight=sample_weight)
    return theirs, ours


def check(theirs: Any, ours: Any, X: Any) -> None:
    """All that a fit leaves behind is equal."""
    assert ours.n_iter_ == theirs.n_iter_ and ours.t_ == theirs.t_ and ours.n_outputs_ == theirs.n_outputs_
    assert ours.out_activation_ == theirs.out_activation_ and ours.n_layers_ == theirs.n_layers_
    np.testing.assert_allclose(ours.loss_, theirs.loss_, rtol=RTOL)
    if theirs.solver != "lbfgs":
        np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=RTOL)
        assert (ours.best_loss_ is None) == (theirs.best_loss_ is None)
    for mine, other in zip(ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True):
        np.testing.assert_allclose(mine, other, rtol=RELATIVE["float32 run"], atol=1e-6)
    got, expected = ours.predict(X), theirs.predict(X)
    if hasattr(ours, "classes_"):
        np.testing.assert_array_equal(got, expected)
        assert got.dtype == expected.dtype
    else:
        np.testing.assert_allclose(got, expected, rtol=RELATIVE["float32 roundings"], atol=1e-6)


SOLVERS = {
    "constant": {"solver": "sgd", "momentum": 0},
    "momentum": {"solver": "sgd", "nesterovs_momentum": False},
    "nesterov": {"solver": "sgd"},
    "momentum one": {"solver": "sgd", "momentum": 1.0, "learning_rate_init": 1e-3},
    "invscaling": {"solver": "sgd", "learning_rate": "invscaling", "learning_rate_init": 0.2, "power_t": 0.3},
    "adaptive": {"solver": "sgd", "learning_rate": "adaptive", "tol": 0.05, "n_iter_no_change": 1},
    "adam": {"solver": "adam"},
    "adam, other betas": {"solver": "adam", "beta_1": 0.0, "beta_2": 0.9, "epsilon": 1e-3},
    "lbfgs": {"solver": "lbfgs"},
    "large alpha": {"solver": "adam", "alpha": 30.0, "activation": "tanh"},
    "logistic, odd batches": {"solver": "sgd", "activation": "logistic", "batch_size": 47},
    "unshuffled": {"solver": "adam", "shuffle": False, "batch_size": 64},
    "identity": {"solver": "adam", "activation": "identity"},
}


@pytest.mark.parametrize("name", ["digits", "iris", "diabetes"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_solvers(name: str, solver: str, device: str) -> None:
    X, y, kind = data(name)
    check(*pair(X, y, kind, device, **SOLVERS[solver]), X)


@pytest.mark.parametrize("name", ["digits", "iris", "diabetes"])
@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_early_stopping_scores(name: str, solver: str, device: str) -> None:
    X, y, kind = data(name)
    theirs, ours = pair(X, y, kind, device, solver=solver, early_stopping=True, n_iter_no_change=2, tol=0.01)
    check(theirs, ours, X)
    np.testing.assert_allclose(ours.validation_scores_, theirs.validation_scores_, rtol=RTOL)
    assert ours.best_validation_score_ == pytest.approx(theirs.best_validation_score_, rel=RTOL)


@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
@pytest.mark.parametrize("name", ["iris", "diabetes"])
def test_weights(name: str, solver: str, device: str) -> None:
    X, y, kind = data(name)
    w = np.random.default_rng(1).random(len(X)) + 0.1
    options = {"batch_size": 32, "alpha": 0.5} if solver != "lbfgs" else {"alpha": 0.5}
    check(*pair(X, y, kind, device, w, solver=solver, **options), X)


def test_weights_with_early_stopping(device: str) -> None:
    X, y, kind = data("diabetes")
    w = np.random.default_rng(1).random(len(X)) + 0.1
    theirs, ours = pair(X, y, kind, device, w, early_stopping=True)
    check(theirs, ours, X)
    np.testing.assert_allclose(ours.validation_scores_, theirs.validation_scores_, rtol=RTOL)


@pytest.mark.parametrize("solver", ["sgd", "lbfgs"])
@pytest.mark.parametrize("loss", ["squared_error", "poisson"])
@pytest.mark.parametrize("weighted", [False, True])
def test_several_outputs(solver: str, loss: str, weighted: bool, device: str) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(90, 4))
    y = rng.poisson(np.exp(X[:, :3] * 0.5)).astype(float)
    w = rng.random(90) if weighted else None
    options = {"loss": loss, "batch_size": 40, "max_iter": 12}
    theirs, ours = pair(X, y, "MLPRegressor", device, w, solver=solver, **options)
    check(theirs, ours, X)
    assert ours.predict(X).shape == (90, 3)


def test_several_outputs_with_early_stopping(device: str) -> None:
    X, y = make_regression(n_samples=80, n_features=4, n_targets=3, random_state=0)
    theirs, ours = pair(X, y / y.std(axis=0), "MLPRegressor", device, early_stopping=True)
    check(theirs, ours, X)
    np.testing.assert_allclose(
        ours.validation_scores_, theirs.validation_scores_, rtol=RELATIVE["float32 roundings"]
    )


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_multilabel(solver: str, device: str) -> None:
    X, y = make_multilabel_classification(n_samples=80, random_state=0)
    theirs, ours = pair(
        X / 10, y, "MLPClassifier", device, solver=solver, batch_size=30 if solver == "adam" else "auto"
    )
    check(theirs, ours, X / 10)
    np.testing.assert_allclose(
        ours.predict_proba(X / 10), theirs.predict_proba(X / 10), rtol=RELATIVE["float32 roundings"]
    )


def test_two_classes_with_names(device: str) -> None:
    X, y = load_iris(return_X_y=True)
    y = np.array(["versicolor", "virginica"])[y[50:] - 1]
    theirs, ours = pair(X[50:], y, "MLPClassifier", device, early_stopping=True)
    check(theirs, ours, X[50:])
    np.testing.assert_allclose(ours.predict_proba(X[50:]), theirs.predict_proba(X[50:]), rtol=1e-8)
    np.testing.assert_allclose(ours.predict_log_proba(X[50:]), theirs.predict_log_proba(X[50:]), rtol=1e-7)
    assert ours.score(X[50:], y) == theirs.score(X[50:], y)


@pytest.mark.parametrize("name", ["iris", "diabetes"])
def test_partial_fit(name: str, device: str) -> None:
    X, y, kind = data(name)
    rows = np.array_split(np.random.default_rng(0).permutation(len(X)), 4)
    fitted = []
    for module, options in ((neural_network, {}), (gpumlp, {"device": device})):
        est = getattr(module, kind)(hidden_layer_sizes=(7,), random_state=3, batch_size=16, **options)
        first = {"classes": [0, 1, 2]} if kind == "MLPClassifier" else {}
        for part in rows * 2:
            est.partial_fit(X[part], y[part], **first)
        fitted.append(est)
    check(*fitted, X)


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_partial_fit_of_all_kinds(solver: str, device: str) -> None:
    """After a fit, batches of changing size, with and without weights, parameters changed on the way."""
    X, y, _ = data("diabetes")
    w = np.random.default_rng(0).random(len(X)) + 0.5
    fitted = []
    for module, options in ((neural_network, {}), (gpumlp, {"device": device})):
        est = module.MLPRegressor(
            hidden_layer_sizes=(7,), solver=solver, random_state=3, max_iter=3, **options
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            est.fit(X, y)
        for n in (1, 50, 50, 49, 300, 50):
            est.partial_fit(X[:n], y[:n])
            est.partial_fit(X[:n], y[:n], w[:n])
        est.set_params(alpha=3.0)
        est.partial_fit(X, y).partial_fit(X, y)
        fitted.append(est)
    check(*fitted, X)


def test_warm_start(device: str) -> None:
    X, y, _ = data("iris")
    fitted = []
    for module, options in ((neural_network, {}), (gpumlp, {"device": device})):
        est = module.MLPClassifier((9,), max_iter=4, warm_start=True, random_state=0, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            for _ in range(3):
                est.fit(X, y)
        fitted.append(est)
    check(*fitted, X)
    assert len(fitted[1].loss_curve_) == 12


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_warm_start_keeps_the_best_parameters(device: str) -> None:
    """scikit-learn's arrays alias here, so it keeps the last ones; see docs/sklearn.md."""
    X, y, _ = data("iris")
    clf = gpumlp.MLPClassifier(
        (9,),
        max_iter=30,
        learning_rate_init=0.05,
        n_iter_no_change=100,
        warm_start=True,
        random_state=0,
        early_stopping=True,
        device=device,
    )
    best = [c.copy() for c in clf.fit(X, y).coefs_]
    clf.set_params(learning_rate_init=100.0, max_iter=2).fit(X, y)
    assert len(clf.validation_scores_) == 32
    for now, before in zip(clf.coefs_, best, strict=True):
        np.testing.assert_array_equal(now, before)


def test_single_precision_follows_too(device: str) -> None:
    X, y, kind = data("digits")
    theirs, ours = pair(X.astype(np.float32), y, kind, device)
    # 15 epochs in single precision: rounding differences of 1e-7 grow with training
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-3)
    assert {c.dtype for c in ours.coefs_ + ours.intercepts_} == {np.dtype(np.float32)}
    assert ours.predict_proba(X.astype(np.float32)).dtype == np.float32


def test_run_of_the_documentation(device: str) -> None:
    """Their example "Compare Stochastic learning strategies": digits, constant with momentum."""
    X, y = load_digits(return_X_y=True)
    X = MinMaxScaler().fit_transform(X)
    clf = gpumlp.MLPClassifier(
        solver="sgd",
        learning_rate="constant",
        momentum=0.9,
        nesterovs_momentum=False,
        learning_rate_init=0.2,
        max_iter=15,
        random_state=0,
        device=device,
    )
    with pytest.warns(ConvergenceWarning, match=r"Maximum iterations \(15\) reached"):
        clf.fit(X, y)
    assert f"{clf.score(X, y):.6f}" == "0.992766"
    assert f"{clf.loss_:.6f}" == "0.041297"


def test_verbose_output_is_the_same(capsys: pytest.CaptureFixture[str], device: str) -> None:
    X, y, kind = data("iris")
    options = {
        "verbose": True,
        "early_stopping": True,
        "solver": "sgd",
        "learning_rate": "adaptive",
        "max_iter": 60,
    }
    options |= {"n_iter_no_change": 2, "tol": 0.1, "random_state": 0}
    getattr(neural_network, kind)(**options).fit(X, y)
    theirs = capsys.readouterr().out
    getattr(gpumlp, kind)(**options, device=device).fit(X, y)
    assert capsys.readouterr().out == theirs
    assert "Setting learning rate to" in theirs and "too small. Stopping." in theirs


def test_a_score_that_stays_the_same_does_not_stop_with_tol_zero(device: str) -> None:
    X, y, kind = data("iris")
    options = {"learning_rate_init": 1e-9, "tol": 0.0, "n_iter_no_change": 2, "early_stopping": True}
    theirs, ours = pair(X, y, kind, device, **options)
    check(theirs, ours, X)
    assert ours.n_iter_ == 15 and len(set(ours.validation_scores_)) == 1


def test_several_rates_with_early_stopping(device: str) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(90, 4))
    y = rng.poisson(np.exp(X[:, :3] * 0.5)).astype(float)
    theirs, ours = pair(X, y, "MLPRegressor", device, loss="poisson", early_stopping=True)
    check(theirs, ours, X)
    np.testing.assert_allclose(ours.validation_scores_, theirs.validation_scores_, rtol=RTOL)


def test_huge_outputs_are_told_apart(device: str) -> None:
    X, y, kind = data("iris")
    theirs, ours = pair(X, y, kind, device)
    np.testing.assert_array_equal(ours.predict(1e4 * X), theirs.predict(1e4 * X))
