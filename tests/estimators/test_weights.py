"""Sample weights: ones are no weights, zero is a removed row, two is the row twice."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from sklearn import neural_network
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score, make_scorer, r2_score
from tolerances import RELATIVE

from gpumlp import MLPClassifier, MLPRegressor
from gpumlp.rows.weights import scaled_weights

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
        np.testing.assert_allclose(a, b, rtol=RELATIVE["run"])


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


# ---- scale -----------------------------------------------
def equal(one: Any, other: Any) -> None:
    """To the bit."""
    for a, b in zip(one.coefs_ + one.intercepts_, other.coefs_ + other.intercepts_, strict=True):
        np.testing.assert_array_equal(a, b)
    if one.solver != "lbfgs":
        assert one.loss_curve_ == other.loss_curve_
        assert one.validation_loss_curve_ == other.validation_loss_curve_
        assert one.validation_scores_ == other.validation_scores_


@pytest.mark.cuda_sample(7)
@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
@pytest.mark.parametrize("power", [-1060, -140, -60, 60, 120, 1000])
def test_scale_of_all_weights(kind: type, solver: str, power: int, dtype: np.dtype, device: str) -> None:
    """A power of two is exact, in the penalty as well."""
    X, y = IRIS[0].astype(dtype), IRIS[1]
    w = RNG.integers(1, 4, len(X)) / 4  # few bits: exact as denormal numbers, too
    w *= 2.0 ** -np.frexp(w.mean())[1]
    options = {"solver": solver, "device": device, "alpha": 0.1, "batch_size": 32, "max_iter": 4}
    if solver != "lbfgs":
        options |= {"early_stopping": True}
    equal(fit(kind, X, y, np.ldexp(w, power), **options), fit(kind, X, y, w, **options))


def test_any_scale(device: str) -> None:
    X, y = IRIS[0].astype(np.float32), IRIS[1]
    w = RNG.uniform(0.5, 2, len(X))
    one = fit(MLPRegressor, X, y, w, device=device, batch_size=32, max_iter=5)
    for scale in (1e-300, 1e-39, 1e-30, 1e30, 1e36, 1e300):
        other = fit(MLPRegressor, X, y, w * scale, device=device, batch_size=32, max_iter=5)
        np.testing.assert_allclose(other.loss_curve_, one.loss_curve_, rtol=RELATIVE["float32 run"])
        assert other.score(X, y, w * scale) == pytest.approx(one.score(X, y, w), rel=RELATIVE["float32 run"])


@pytest.mark.cuda_sample(5)
@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e3, 1e6])
@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
def test_usual_scales_are_theirs(scale: float, solver: str, device: str) -> None:
    """scikit-learn divides the penalty by the sum of the weights, so it depends on their scale."""
    X, y = IRIS
    w = (RNG.random(len(X)) + 0.5) * scale
    options: dict[str, Any] = {"solver": solver, "alpha": 0.01 * scale, "max_iter": 5}
    options |= {"hidden_layer_sizes": (8,), "random_state": 0, "batch_size": 32}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        theirs = neural_network.MLPClassifier(**options).fit(X, y, w)
        ours = MLPClassifier(**options, device=device).fit(X, y, w)
    for a, b in zip(ours.coefs_, theirs.coefs_, strict=True):
        np.testing.assert_allclose(a, b, rtol=RELATIVE["float32 roundings"], atol=1e-9)


@pytest.mark.parametrize("scale", [5e-324, 1e-200, 1e-12, 1.0, 1e12, 1e200, 8e307])
def test_scaled_weights(scale: float) -> None:
    w = np.array([0.0, 1.0, 2.0, 1.0]) * scale
    got = scaled_weights(w)
    assert got[0] == 0 and (got[1:] / got[1] == [1, 2, 1]).all()
    assert (got is not w) or scale == 1.0 or 1e-12 <= scale <= 1e12
    assert 1e-12 <= got.max() <= 4e12
    spread = scaled_weights(np.array([1e-300, 1e300]))
    assert np.isfinite(spread.astype(np.float32)).all() and spread[1] > 0


# ---- zero -----------------------------------------------
ZERO = np.where(RNG.random(len(IRIS[0])) < 0.3, 0.0, 1.0) * RNG.uniform(0.5, 2, len(IRIS[0]))
KEPT = ZERO > 0


@pytest.mark.cuda_sample(3)
@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 16, "shuffle": True},
        {"early_stopping": True, "shuffle": True},
        {"solver": "lbfgs"},
        {"dropout": 0.3, "batch_size": 16},
        {"solver": "sgd", "learning_rate": "invscaling", "batch_size": 16},
    ],
    ids=str,
)
def test_zero_is_no_row(kind: type, options: dict[str, Any], device: str) -> None:
    X, y = IRIS
    equal(
        fit(kind, X, y, ZERO, **options, device=device),
        fit(kind, X[KEPT], y[KEPT], ZERO[KEPT], **options, device=device),
    )


def test_zero_is_no_row_of_a_class(device: str) -> None:
    """Class set, stratification, balanced weights and validation rows."""
    X, y = IRIS
    w = np.where(y == 2, 0.0, ZERO)
    options = {"device": device, "early_stopping": True, "class_weight": "balanced"}
    one = fit(MLPClassifier, X, y, w, **options)
    assert one.classes_.tolist() == [0, 1]
    equal(one, fit(MLPClassifier, X[w > 0], y[w > 0], w[w > 0], **options))
    est = MLPClassifier((8,), random_state=0, max_iter=3, early_stopping=True, device=device)
    with pytest.raises(ValueError, match="classes not in"):
        est.fit(X[y < 2], y[y < 2], X_val=X, y_val=y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        est.fit(X[y < 2], y[y < 2], X_val=X, y_val=y, sample_weight_val=w)
    assert est.score(X, y, w) == pytest.approx(max(est.validation_scores_))
    est = MLPClassifier((8,), random_state=0, device=device)
    est.partial_fit(X, y, w, classes=[0, 1])  # the rows of class 2 are not there


@pytest.mark.parametrize("weighted", [False, True])
def test_class_weight_of_zero(weighted: bool, device: str) -> None:
    X, y = IRIS
    w = ZERO + 0.1 if weighted else None
    one = fit(MLPClassifier, X, y, w, class_weight={0: 1, 1: 2, 2: 0}, device=device)
    assert one.classes_.tolist() == [0, 1, 2]
    factors = np.array([1.0, 2.0, 0.0])[y]
    est = MLPClassifier((8,), max_iter=20, random_state=0, shuffle=False, device=device, batch_size=150)
    for _ in range(20):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            est.partial_fit(X, y, factors if w is None else w * factors, classes=[0, 1, 2])
    same(one, est, 1e-12)


# ---- classes -----------------------------------------------
def test_class_weight_of_a_batch(device: str) -> None:
    """A class that the batch lacks keeps its weight."""
    X, y = IRIS
    for batch in (y == 0, y < 2, y > 0, y >= 0):
        one, other = (MLPClassifier((8,), random_state=0, device=device) for _ in range(2))
        one.set_params(class_weight={2: 5.0, 1: 2.0})
        one.partial_fit(X[batch], y[batch], classes=[0, 1, 2])
        other.partial_fit(X[batch], y[batch], np.array([1.0, 2.0, 5.0])[y[batch]], classes=[0, 1, 2])
        same(one, other, 1e-12)


def test_class_weights_of_labels(device: str) -> None:
    X, y = IRIS
    Y = np.stack([y > 0, y > 1], axis=1).astype(int)
    factors = [{0: 1.0, 1: 3.0}, {1: 0.5}]
    w = np.where(Y[:, 0], 3.0, 1.0) * np.where(Y[:, 1], 0.5, 1.0)
    for batch in (y >= 0, y == 0, y > 0):
        one, other = (MLPClassifier((8,), random_state=0, device=device) for _ in range(2))
        one.set_params(class_weight=factors).partial_fit(X[batch], Y[batch], classes=[0, 1])
        same(one, other.partial_fit(X[batch], Y[batch], w[batch], classes=[0, 1]), 1e-12)
    balanced = fit(MLPClassifier, X, Y, class_weight="balanced", device=device)
    w = (75 / np.bincount(Y[:, 0]))[Y[:, 0]] * (75 / np.bincount(Y[:, 1]))[Y[:, 1]]
    same(balanced, fit(MLPClassifier, X, Y, w, device=device), 1e-12)
    for wrong in ({0: 1}, [{0: 1}], [{0: 1}] * 3):
        with pytest.raises(ValueError, match="For multi-output"):
            fit(MLPClassifier, X, Y, class_weight=wrong, device=device)


def test_class_weight_of_validation_rows(device: str) -> None:
    X, y = IRIS
    factors = np.array([1.0, 30.0, 0.1])
    options = {"device": device, "early_stopping": True}
    est = MLPClassifier((8,), max_iter=5, random_state=0, class_weight=dict(enumerate(factors)), **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        est.fit(X, y, X_val=X[::2], y_val=y[::2])
    assert est.score(X[::2], y[::2], factors[y[::2]]) == pytest.approx(max(est.validation_scores_))


# ---- scorers -----------------------------------------------
def unweighted(est: Any, A: Any, b: Any) -> float:
    return float(est.score(A, b))


def own(est: Any, A: Any, b: Any, sample_weight: Any = None) -> float:
    return float(est.score(A, b, sample_weight))


@pytest.mark.cuda_sample(3)
@pytest.mark.parametrize("given", [False, True], ids=["split", "given"])
@pytest.mark.parametrize("scoring", [None, "accuracy", make_scorer(accuracy_score), own])
def test_scorers_see_the_weights(scoring: Any, given: bool, device: str) -> None:
    X, y = IRIS
    w = np.where(y == 1, 30.0, 0.1) * ZERO
    V, v, u = X[::3], y[::3], w[::3]
    seen: list[float] = []
    options = {"scoring": scoring, "device": device, "early_stopping": True}

    def keep(est: Any) -> None:
        seen.append(accuracy_score(v, est.predict(V), sample_weight=u))

    est = MLPClassifier((8,), max_iter=6, random_state=0, **options, callbacks=keep)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        if given:
            est.fit(X, y, w, X_val=V, y_val=v, sample_weight_val=u)
            np.testing.assert_allclose(est.validation_scores_, seen, rtol=RELATIVE["few roundings"])
        else:
            plain = MLPClassifier((8,), max_iter=6, random_state=0, **{**options, "scoring": None}).fit(
                X, y, w
            )
            np.testing.assert_allclose(
                est.fit(X, y, w).validation_scores_, plain.validation_scores_, rtol=RELATIVE["few roundings"]
            )


def test_scorers_without_weights(device: str) -> None:
    X, y = IRIS
    est = MLPClassifier(
        (8,), max_iter=3, random_state=0, early_stopping=True, scoring=unweighted, device=device
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        est.fit(X, y, X_val=X, y_val=y, sample_weight_val=ZERO)
    assert max(est.validation_scores_) == pytest.approx(est.score(X[KEPT], y[KEPT]))


@pytest.mark.cuda_sample(5)
@pytest.mark.parametrize("sparse", [None, "csr", "csc"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", ["squared_error", "poisson"])
def test_several_targets_stop_early(loss: str, weighted: bool, sparse: Any, device: str) -> None:
    import scipy.sparse

    X, y = IRIS
    Y = np.stack([y, X[:, 0]], axis=1)
    w = ZERO + 0.1 if weighted else None
    options: dict[str, Any] = {"hidden_layer_sizes": (8,), "random_state": 0, "max_iter": 6, "loss": loss}
    options |= {"early_stopping": True}
    A = X if sparse is None else scipy.sparse.csr_array(X).asformat(sparse)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        theirs = neural_network.MLPRegressor(**options).fit(X, Y, w)
        ours = MLPRegressor(**options, device=device).fit(A, Y, w)
        given = MLPRegressor(**options, device=device).fit(X, Y, w, X_val=A, y_val=Y, sample_weight_val=w)
    np.testing.assert_allclose(ours.validation_scores_, theirs.validation_scores_, rtol=RELATIVE["run"])
    best = r2_score(Y, given.predict(A), sample_weight=w)
    assert max(given.validation_scores_) == pytest.approx(best, rel=RELATIVE["run"])


def test_one_class_stops_early(device: str) -> None:
    X, y = IRIS[0], np.full(150, "ok")
    options: dict[str, Any] = {"hidden_layer_sizes": (8,), "random_state": 0, "early_stopping": True}
    theirs = neural_network.MLPClassifier(**options).fit(X, y)
    for weights in (None, ZERO):
        ours = MLPClassifier(**options, device=device).fit(X, y, weights)
        assert set(ours.validation_scores_) == {1.0} == {ours.score(X, y)}
    assert set(theirs.validation_scores_) == {1.0}
