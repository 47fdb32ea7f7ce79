"""Sample weights: ones are no weights, zero is a removed row, two is the row twice."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning

from gpumlp import MLPClassifier, MLPRegressor

SOLVERS = ["sgd", "adam", "adagrad", "rmsprop", "adamw", "lbfgs"]
RNG = np.random.default_rng(0)
IRIS = load_iris(return_X_y=True)
TIMES = RNG.integers(0, 3, len(IRIS[0]))


def fit(kind: type, X: Any, y: Any, w: Any = None, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        options = {"hidden_layer_sizes": (8,), "max_iter": 20, "random_state": 0, "shuffle": False, **options}
        return kind(**options).fit(X, y, sample_weight=w)


def same(one: Any, other: Any, rtol: float) -> None:
    for a, b in zip(one.coefs_ + one.intercepts_, other.coefs_ + other.intercepts_, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)
    if one.solver != "lbfgs":
        np.testing.assert_allclose(one.loss_curve_, other.loss_curve_, rtol=rtol)


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize("solver", SOLVERS)
def test_ones_are_no_weights(kind: type, solver: str, device: str) -> None:
    X, y = IRIS
    options = {"solver": solver, "device": device, "batch_size": 32, "shuffle": True}
    # the same steps; only a multiplication by 1 and another order in two sums differ
    same(fit(kind, X, y, np.ones(len(X)), **options), fit(kind, X, y, **options), 1e-8)


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize("solver", SOLVERS)
def test_zero_and_two(kind: type, solver: str, device: str) -> None:
    """Integer weights equal repeated rows, in one batch of all rows."""
    X, y = IRIS
    rows = np.repeat(np.arange(len(X)), TIMES)
    options = {"solver": solver, "device": device, "alpha": 0.1}
    weighted = fit(kind, X, y, TIMES, **options, batch_size=len(X))
    repeated = fit(kind, X[rows], y[rows], **options, batch_size=len(rows))
    # sums of another number of terms; L-BFGS amplifies that in its line searches, and RMSProp's and AdaGrad's
    # first steps are lr sign(g), also for a g that is 0 but for rounding
    same(weighted, repeated, 1e-4 if solver == "lbfgs" else 1e-6)


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_weight_of_batches(kind: type, device: str) -> None:
    """Batches whose rows are there twice, against weights of two."""
    X, y = IRIS[0][:96], IRIS[1][:96]
    options = {"device": device, "alpha": 0.5, "solver": "sgd"}
    rows = np.repeat(np.arange(96), 2)
    same(
        fit(kind, X, y, np.full(96, 2.0), **options, batch_size=16),
        fit(kind, X[rows], y[rows], **options, batch_size=32),
        1e-9,
    )


def test_a_batch_without_weight_changes_nothing(device: str) -> None:
    """scikit-learn raises ZeroDivisionError here."""
    X, y = IRIS[0][::3], IRIS[1][::3]
    w = np.ones(50)
    w[16:32] = 0
    keep = w > 0
    options = {"device": device, "alpha": 0.5, "solver": "sgd", "momentum": 0.0, "batch_size": 16}
    one, other = fit(MLPRegressor, X, y, w, **options), fit(MLPRegressor, X[keep], y[keep], **options)
    for a, b in zip(one.coefs_, other.coefs_, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)


def test_class_weight_is_a_sample_weight(device: str) -> None:
    X, y = IRIS
    factors = {0: 1.0, 1: 3.0, 2: 0.5}
    w = RNG.random(len(X)) + 0.5
    one = fit(MLPClassifier, X, y, w, class_weight=factors, device=device)
    other = fit(MLPClassifier, X, y, w * np.array([factors[k] for k in y]), device=device)
    same(one, other, 1e-12)
    balanced = fit(MLPClassifier, X[:120], y[:120], class_weight="balanced", device=device)
    same(
        balanced,
        fit(MLPClassifier, X[:120], y[:120], (40 / np.bincount(y[:120]))[y[:120]], device=device),
        1e-12,
    )


def test_bad_weights(device: str) -> None:
    X, y = IRIS
    with pytest.raises(ValueError, match="must contain at least one non-zero number"):
        fit(MLPClassifier, X, y, np.zeros(len(X)), device=device)
    with pytest.raises(ValueError, match="sample_weight"):
        fit(MLPClassifier, X, y, np.ones(3), device=device)
    one = np.zeros(len(X))
    one[0] = 1  # on one side of the split only
    for kind in (MLPClassifier, MLPRegressor):
        with pytest.raises(ValueError, match="non-zero number on both sides of the split"):
            fit(kind, X, y, one, device=device, early_stopping=True)
    with pytest.raises(ValueError, match="Input sample_weight contains NaN"):
        fit(MLPClassifier, X, y, np.full(len(X), np.nan), device=device)
    with pytest.raises(ValueError, match="class_weight='balanced' is not supported for partial_fit"):
        MLPClassifier(class_weight="balanced", device=device).partial_fit(X, y, classes=[0, 1, 2])
