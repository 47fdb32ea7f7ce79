"""What a fitted estimator keeps: answers as it was fitted, streams of random numbers, arrays of its own."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from tolerances import RELATIVE

from gpumlp import Huber, MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4))
LABELS = np.digitize(X[:, 0], [-0.4, 0.4])
COUNTS = RNG.poisson(np.exp(X[:, 0])).astype(float)


def clf(device: str, **options: Any) -> MLPClassifier:
    return MLPClassifier(
        **{"hidden_layer_sizes": (6,), "max_iter": 4, "random_state": 0, "device": device, **options}
    )


# ---- answers -----------------------------------------------
@pytest.mark.parametrize("first", ["poisson", "squared_error"])
def test_answers_do_not_follow_the_loss(first: str, device: str) -> None:
    reg = MLPRegressor(first, hidden_layer_sizes=(4,), max_iter=4, random_state=0, device=device)
    expected = reg.fit(X, COUNTS).predict(X)
    for loss in ("squared_error", "poisson", "huber", Huber(0.2)):
        reg.set_params(loss=loss)
        for est in (reg, pickle.loads(pickle.dumps(reg)), copy.deepcopy(reg)):
            np.testing.assert_array_equal(est.predict(X), expected)
    assert reg.set_params(loss="poisson").fit(X, COUNTS).predict(X).min() > 0


@pytest.mark.parametrize(
    "changed",
    [
        {"activation": "tanh"},
        {"solver": "lbfgs"},
        {"dtype": "float32"},
        {"hidden_layer_sizes": (9, 9)},
        {"class_weight": {0: 5.0}},
        {"dropout": 0.5},
        {"random_state": 7, "alpha": 10.0, "early_stopping": True},
    ],
)
def test_answers_do_not_follow_parameters(changed: dict[str, Any], device: str) -> None:
    est = clf(device).fit(X, LABELS)
    expected = est.predict_proba(X)
    for other in (est.set_params(**changed), pickle.loads(pickle.dumps(est)), copy.copy(est)):
        np.testing.assert_array_equal(other.predict_proba(X), expected)


def test_a_fit_follows_parameters(device: str) -> None:
    """Further training does what it is asked to do, and the answers with it."""
    reg = MLPRegressor(
        hidden_layer_sizes=(),
        solver="sgd",
        learning_rate_init=0.1,
        momentum=0,
        alpha=0,
        random_state=0,
        device=device,
        batch_size=60,
    )
    y = X[:, 0] * 3
    reg.partial_fit(X, y)
    W, b = reg.coefs_[0].copy(), reg.intercepts_[0].copy()
    reg.set_params(loss="absolute_error").partial_fit(X, y)
    slope = np.sign((X @ W)[:, 0] + b - y)
    np.testing.assert_allclose(reg.intercepts_[0], b - 0.1 * slope.mean(), rtol=RELATIVE["run"])
    est = clf(device, warm_start=True).fit(X, LABELS)
    est.set_params(activation="tanh").fit(X, LABELS)
    hidden = np.tanh(X @ est.coefs_[0] + est.intercepts_[0])
    out = hidden @ est.coefs_[1] + est.intercepts_[1]
    np.testing.assert_array_equal(est.predict(X), out.argmax(axis=1))


@pytest.mark.parametrize("stop", [False, True])
def test_early_stopping_switched_between_warm_starts(stop: bool, device: str) -> None:
    est = clf(device, warm_start=True, early_stopping=stop).fit(X, LABELS)
    est.set_params(early_stopping=not stop).fit(X, LABELS)
    assert (est.validation_scores_ is None) == stop and len(est.loss_curve_) == 4


# ---- random numbers -----------------------------------------------
def mapped(est: Any, path: Path) -> Any:
    joblib.dump(est, path / "est.joblib")
    return joblib.load(path / "est.joblib", mmap_mode="r")


COPIES: dict[str, Callable[[Any, Path], Any]] = {
    "pickle": lambda est, path: pickle.loads(pickle.dumps(est)),
    "deepcopy": lambda est, path: copy.deepcopy(est),
    "copy": lambda est, path: copy.copy(est),
    "mapped file": mapped,
}


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("stream", ["seed", "RandomState"])
def test_dropout_goes_on_in_copies(name: str, stream: str, device: str, tmp_path: Path) -> None:
    est = clf(
        device,
        dropout=0.5,
        batch_size=16,
        random_state=3 if stream == "seed" else np.random.RandomState(3),
    )
    est.partial_fit(X, LABELS, classes=[0, 1, 2]).partial_fit(X, LABELS)
    other = COPIES[name](est, tmp_path)
    again = COPIES[name](est, tmp_path)
    for _ in range(2):
        est.partial_fit(X, LABELS)
    for _ in range(2):  # after the first has gone on: nothing is shared
        other.partial_fit(X, LABELS)
    assert other.loss_curve_ == est.loss_curve_ and len(again.loss_curve_) == 2
    for a, b in zip(est.coefs_ + est.intercepts_, other.coefs_ + other.intercepts_, strict=True):
        np.testing.assert_array_equal(a, b)


def test_dropout_goes_on_on_another_device(device: str) -> None:
    kept, moved = (
        clf("numpy", dropout=0.5, batch_size=16).partial_fit(X, LABELS, classes=[0, 1, 2]) for _ in range(2)
    )
    moved.set_params(device=device)
    for est in (kept, moved):
        est.partial_fit(X, LABELS).set_params(alpha=0.1).partial_fit(X, LABELS)
    np.testing.assert_allclose(moved.loss_curve_, kept.loss_curve_, rtol=1e-10)


def test_masks_differ_between_calls(device: str) -> None:
    """Without a step in the weights only the masks make the losses differ."""
    est = clf(device, dropout=0.5, learning_rate_init=1e-300, shuffle=False)
    for _ in range(3):
        est.partial_fit(X, LABELS, classes=[0, 1, 2])
    assert len(set(est.loss_curve_)) == 3


# ---- parameters -----------------------------------------------
@pytest.mark.parametrize("name", COPIES)
def test_copies_can_be_changed(name: str, device: str, tmp_path: Path) -> None:
    reg = MLPRegressor(hidden_layer_sizes=(6,), max_iter=4, random_state=0, device=device).fit(X, COUNTS)
    expected = reg.predict(X)
    other = COPIES[name](reg, tmp_path)
    other.intercepts_[-1] += 1.5
    other.coefs_[0][:] = 0
    constant = other.predict(X)
    assert np.ptp(constant) == 0
    np.testing.assert_array_equal(reg.predict(X), expected)
    other.partial_fit(X, COUNTS)
    assert np.ptp(other.predict(X)) > 0
    np.testing.assert_array_equal(reg.predict(X), expected)


def test_changes_count_after_many_predictions(device: str) -> None:
    """In place, by assignment of arrays and of lists, and back."""
    reg = MLPRegressor(hidden_layer_sizes=(300, 300), max_iter=1, random_state=0, device=device)
    reg.fit(X, COUNTS)
    before = reg.predict(X)
    for _ in range(20):
        np.testing.assert_array_equal(reg.predict(X), before)
    held = reg.intercepts_[-1]
    held += 1.0
    np.testing.assert_allclose(reg.predict(X), before + 1, rtol=RELATIVE["few roundings"])
    saved, reg.intercepts_ = reg.intercepts_, [b * 0 for b in reg.intercepts_]
    changed = reg.predict(X)
    assert np.abs(changed - (before + 1)).min() > 0.5
    reg.intercepts_[-1] = np.array([2.0])
    np.testing.assert_allclose(reg.predict(X), changed + 2, rtol=RELATIVE["few roundings"])
    reg.intercepts_ = saved
    np.testing.assert_allclose(reg.predict(X), before + 1, rtol=RELATIVE["few roundings"])
    held -= 1.0
    np.testing.assert_array_equal(reg.predict(X), reg.predict(X))
    np.testing.assert_allclose(reg.predict(X), before, rtol=RELATIVE["few roundings"])


def test_parameters_of_an_epoch_stay(device: str) -> None:
    seen: list[Any] = []
    est = clf(device, callbacks=lambda est: seen.append((est.coefs_, est.predict_proba(X))))
    est.fit(X, LABELS).partial_fit(X, LABELS)
    coefs = [each[0].copy() for each, _ in seen]
    assert len(seen) == 5 and all((a != b).any() for a, b in zip(coefs, coefs[1:], strict=False))
    np.testing.assert_array_equal(est.coefs_[0], coefs[-1])
    np.testing.assert_array_equal(est.predict_proba(X), seen[-1][1])
