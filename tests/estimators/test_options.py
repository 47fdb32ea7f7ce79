"""What the estimators have beyond scikit-learn's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from launching import watch
from sklearn.datasets import load_diabetes, load_digits, load_iris
from sklearn.metrics import accuracy_score, log_loss, mean_absolute_error
from sklearn.model_selection import train_test_split
from tolerances import RELATIVE

import gpumlp
from gpumlp import MLPClassifier, MLPRegressor
from gpumlp.optimizers import OPTIMIZERS

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
X, Y = load_iris(return_X_y=True)
X = (X - X.mean(axis=0)) / X.std(axis=0)


def clf(**options: Any) -> MLPClassifier:
    return MLPClassifier(**{"hidden_layer_sizes": (8,), "max_iter": 10, "random_state": 0, **options})


# ---- more solvers and activations -----------------------------------------------
@pytest.mark.parametrize("solver", sorted(set(OPTIMIZERS) - {"sgd", "adam", "muon"}))
@pytest.mark.parametrize("weighted", [False, True])
def test_solvers_are_the_optimizers(solver: str, weighted: bool, device: str) -> None:
    """Three full-batch epochs, against gradients from `Trainer` and updates by the optimiser itself."""
    w = np.random.default_rng(0).random(len(X)) + 0.5 if weighted else None
    est = clf(solver=solver, max_iter=3, batch_size=150, shuffle=False, alpha=3.0, device=device)
    total = 150.0 if w is None else w.sum()
    # zero steps to have the start values
    start = clf(solver=solver, max_iter=1, batch_size=150, learning_rate_init=1e-300, device=device).fit(X, Y)
    model = gpumlp.MLP([4, 8, 3], dtype="float64", device="numpy")
    model.set_parameters(list(zip(start.coefs_, start.intercepts_, strict=True)))
    # what they take from scikit-learn's parameters
    given = {"lr": 1e-3, "eps": 1e-8, "betas": (0.9, 0.999), "eps_hat": True, "weight_decay": 0.0}
    known = OPTIMIZERS[solver]().hyperparameters()
    rule = OPTIMIZERS[solver](**{name: value for name, value in given.items() if name in known})
    trainer = gpumlp.Trainer(model, loss="softmax_cross_entropy", optimizer="sgd")
    for _ in range(3):
        _, grads = trainer.loss_and_grads(X, Y, w)
        parameters = model.get_parameters()
        for (dW, _), (W, _) in zip(grads, parameters, strict=True):
            if solver == "adamw":  # decoupled: not divided by the batch's weight
                np.multiply(W, 1 - 1e-3 * 3.0, out=W)
            else:
                np.add(dW, 3.0 / total * W, out=dW)
        rule.update([a for pair in parameters for a in pair], [g for pair in grads for g in pair])
        model.set_parameters(parameters)
    est.fit(X, Y, sample_weight=w)
    for mine, (W, _) in zip(est.coefs_, model.get_parameters(), strict=True):
        np.testing.assert_allclose(mine, W, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("activation", ["leaky_relu", "elu", "gelu", "silu", "softplus", "sigmoid"])
def test_activations_learn(activation: str, device: str) -> None:
    est = clf(activation=activation, max_iter=120, learning_rate_init=0.03, device=device).fit(X, Y)
    assert est.score(X, Y) > 0.95
    lbfgs = clf(activation=activation, solver="lbfgs", max_iter=200, device=device).fit(X, Y)
    assert lbfgs.loss_ < 0.06


def test_sigmoid_is_logistic(device: str) -> None:
    one, other = (clf(activation=name, device=device).fit(X, Y) for name in ("sigmoid", "logistic"))
    np.testing.assert_array_equal(one.coefs_[0], other.coefs_[0])


# ---- regularisation -----------------------------------------------
def test_dropout(device: str) -> None:
    digits, labels = load_digits(return_X_y=True)
    options = {"hidden_layer_sizes": (64,), "max_iter": 15, "learning_rate_init": 0.01, "device": device}
    plain = clf(**options).fit(digits[:400] / 16, labels[:400])
    dropped = clf(**options, dropout=0.5).fit(digits[:400] / 16, labels[:400])
    assert dropped.loss_ > 1.5 * plain.loss_  # the loss of training sees the masks
    assert dropped.score(digits[:400] / 16, labels[:400]) > 0.9  # predictions do not
    again = clf(**options, dropout=[0.5]).fit(digits[:400] / 16, labels[:400])
    np.testing.assert_array_equal(dropped.coefs_[0], again.coefs_[0])
    other = clf(**options, dropout=0.5, random_state=1).fit(digits[:400] / 16, labels[:400])
    assert other.loss_ != dropped.loss_


def test_l1_is_scaled_as_alpha(device: str) -> None:
    """One full-batch step of plain gradient descent: w - lr (g + l1 sign(w) / n)."""
    options = {
        "solver": "sgd",
        "momentum": 0.0,
        "learning_rate_init": 0.1,
        "alpha": 0.0,
        "max_iter": 1,
        "device": device,
    }
    options |= {"batch_size": 150, "shuffle": False}
    start = clf(**{**options, "learning_rate_init": 1e-300}).fit(X, Y)
    plain, sparse = clf(**options).fit(X, Y), clf(**options, l1=3.0).fit(X, Y)
    for W0, W1, W2 in zip(start.coefs_, plain.coefs_, sparse.coefs_, strict=True):
        np.testing.assert_allclose(W2 - W1, -0.1 * 3.0 / 150 * np.sign(W0), rtol=RELATIVE["run"], atol=1e-14)
    for b1, b2 in zip(plain.intercepts_, sparse.intercepts_, strict=True):
        np.testing.assert_array_equal(b1, b2)


# ---- losses -----------------------------------------------
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("loss", ["absolute_error", "huber", gpumlp.Huber(0.3)])
def test_regression_losses(loss: Any, solver: str, device: str) -> None:
    data, target = load_diabetes(return_X_y=True)
    data, target = data * 20, (target - 150) / 80
    target[::20] += 30  # outliers
    options = {
        "hidden_layer_sizes": (10,),
        "max_iter": 80,
        "random_state": 0,
        "solver": solver,
        "device": device,
    }
    robust = MLPRegressor(loss, learning_rate_init=0.01, **options).fit(data, target)
    squared = MLPRegressor(learning_rate_init=0.01, **options).fit(data, target)
    rest = np.arange(len(target)) % 20 > 0
    errors = [mean_absolute_error(target[rest], est.predict(data[rest])) for est in (robust, squared)]
    assert errors[0] < 0.75 * errors[1]
    error = np.abs(robust.predict(data) - target)
    delta = {"huber": 1.0, "absolute_error": 0.0}.get(loss, 0.3) if isinstance(loss, str) else 0.3
    value = error if delta == 0 else np.where(error <= delta, error**2 / 2, delta * (error - delta / 2))
    if solver == "lbfgs":  # the last loss is that of the last parameters
        penalty = 0.5e-4 * sum((W**2).sum() for W in robust.coefs_) / len(data)
        assert robust.loss_ == pytest.approx(value.mean() + penalty, rel=RELATIVE["run"])


@pytest.mark.parametrize("loss", ["absolute_error", "huber"])
def test_a_step_with_several_outputs_follows_the_reported_loss(loss: str, device: str) -> None:
    """Bias gradients are those of the mean over rows and outputs."""
    rng = np.random.default_rng(0)
    data, target = rng.normal(size=(20, 2)), rng.normal(0, 3, (20, 4))
    options = {"solver": "sgd", "alpha": 0.0, "momentum": 0.0, "batch_size": 20, "random_state": 0}
    est = MLPRegressor(loss, hidden_layer_sizes=(), learning_rate_init=0.5, device=device, **options)
    est.partial_fit(data, target)
    before, (W, b) = est.loss_, (est.coefs_[0].copy(), est.intercepts_[0].copy())
    d = data @ W + b - target
    size = np.abs(d)
    est.partial_fit(data, target)
    value = size if loss == "absolute_error" else np.where(size <= 1, d * d / 2, size - 0.5)
    assert est.loss_ == pytest.approx(value.mean()) and before != est.loss_
    slope = np.sign(d) if loss == "absolute_error" else np.clip(d, -1, 1)
    np.testing.assert_allclose(est.intercepts_[0], b - 0.5 * slope.mean(axis=0) / 4, rtol=RELATIVE["run"])


# ---- validation -----------------------------------------------
def test_given_validation_rows(device: str) -> None:
    X1, X2, y1, y2 = train_test_split(X, Y, test_size=40, random_state=0)
    est = clf(max_iter=30, learning_rate_init=0.01, device=device).fit(X1, y1, X_val=X2, y_val=y2)
    assert len(est.validation_loss_curve_) == 30 and est.validation_scores_ is None
    assert est.validation_loss_curve_[-1] == pytest.approx(
        log_loss(y2, est.predict_proba(X2)), rel=RELATIVE["run"]
    )
    plain = clf(max_iter=30, learning_rate_init=0.01, device=device).fit(X1, y1)
    np.testing.assert_array_equal(est.coefs_[0], plain.coefs_[0])  # looking changes nothing
    assert plain.validation_loss_curve_ is None


def test_weighted_validation_rows(device: str) -> None:
    w = np.random.default_rng(0).random(50)
    est = clf(early_stopping=True, device=device).fit(X, Y, X_val=X[::3], y_val=Y[::3], sample_weight_val=w)
    best = max(est.validation_scores_)
    assert accuracy_score(Y[::3], est.predict(X[::3]), sample_weight=w) == pytest.approx(
        best, rel=RELATIVE["few roundings"]
    )
    last = clf(device=device).fit(X, Y, X_val=X[::3], y_val=Y[::3], sample_weight_val=w)
    expected = log_loss(Y[::3], last.predict_proba(X[::3]), sample_weight=w)
    assert last.validation_loss_curve_[-1] == pytest.approx(expected, rel=RELATIVE["run"])


def test_validation_loss_of_poisson_is_the_deviance(device: str) -> None:
    from sklearn.metrics import mean_poisson_deviance

    rng = np.random.default_rng(0)
    y = rng.poisson(np.exp(X[:, 0])).astype(float)
    reg = MLPRegressor("poisson", (5,), max_iter=5, random_state=0, device=device).fit(
        X, y, X_val=X[:50], y_val=y[:50]
    )
    expected = mean_poisson_deviance(y[:50], reg.predict(X[:50])) / 2
    assert reg.validation_loss_curve_[-1] == pytest.approx(expected, rel=RELATIVE["run"])


@pytest.mark.parametrize(
    "scoring", ["neg_log_loss", "loss", "f1_macro", lambda est, A, b: -float(est.n_iter_)]
)
def test_any_scorer(scoring: Any, device: str) -> None:
    X1, X2, y1, y2 = train_test_split(X, Y, test_size=40, random_state=0)
    est = clf(max_iter=20, learning_rate_init=0.05, early_stopping=True, scoring=scoring, device=device)
    est.fit(X1, y1, X_val=X2, y_val=y2)
    if scoring in ("neg_log_loss", "loss"):
        np.testing.assert_allclose(
            est.validation_scores_, -np.array(est.validation_loss_curve_), rtol=RELATIVE["run"]
        )
        assert est.best_validation_score_ == pytest.approx(
            -log_loss(y2, est.predict_proba(X2)), rel=RELATIVE["run"]
        )
    elif callable(scoring):
        assert est.validation_scores_ == [-float(n) for n in range(1, est.n_iter_ + 1)]
        first = clf(max_iter=1, learning_rate_init=0.05, device=device).fit(X1, y1)
        np.testing.assert_array_equal(est.coefs_[0], first.coefs_[0])  # the best epoch's parameters are kept


def test_validation_rows_are_checked(device: str) -> None:
    with pytest.raises(ValueError, match="X has 3 features, but MLPClassifier is expecting 4 features"):
        clf(device=device).fit(X, Y, X_val=X[:, :3], y_val=Y)
    with pytest.raises(ValueError, match=r"`y` has classes not in `self\.classes_`"):
        clf(device=device).fit(X, Y, X_val=X, y_val=Y + 1)


# ---- callbacks -----------------------------------------------
def test_callbacks(device: str) -> None:
    seen: list[tuple[int, float, float]] = []

    def watch(est: MLPClassifier) -> bool:
        seen.append((est.n_iter_, est.loss_curve_[-1], est.score(X, Y)))
        return est.n_iter_ == 4

    est = clf(callbacks=watch, device=device).fit(X, Y)
    assert [n for n, _, _ in seen] == [1, 2, 3, 4] and est.n_iter_ == 4
    assert [loss for _, loss, _ in seen] == est.loss_curve_
    assert seen[-1][2] == est.score(X, Y)
    undisturbed = clf(max_iter=4, device=device).fit(X, Y)
    np.testing.assert_array_equal(est.coefs_[0], undisturbed.coefs_[0])


def test_interrupt(device: str) -> None:
    def stop(est: MLPClassifier) -> None:
        if est.n_iter_ == 3:
            raise KeyboardInterrupt

    with pytest.warns(UserWarning, match=r"Training interrupted by user\."):
        est = clf(callbacks=[stop], device=device).fit(X, Y)
    np.testing.assert_array_equal(est.coefs_[0], clf(max_iter=3, device=device).fit(X, Y).coefs_[0])


# ---- types and devices -----------------------------------------------
@pytest.mark.parametrize("given", ["float16", "float32", "float64", "int64", "bool"])
@pytest.mark.parametrize("wanted", [None, "float32", "float64", np.float32])
def test_dtype(given: str, wanted: Any, device: str) -> None:
    est = clf(dtype=wanted, device=device, max_iter=2).fit((X * 3).astype(given), Y)
    expected = np.dtype(wanted or ("float32" if given == "float32" else "float64"))
    assert est.coefs_[0].dtype == est.intercepts_[-1].dtype == expected
    assert est.predict_proba(X).dtype == expected


def test_device_can_change_between_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    est = clf(device="numpy").fit(X, Y)
    expected, recorded = est.predict_proba(X), watch(monkeypatch, gpumlp.get_backend("native"), "record")
    np.testing.assert_allclose(
        est.set_params(device="native").predict_proba(X), expected, rtol=RELATIVE["few roundings"]
    )
    assert recorded


def test_no_silent_fallback() -> None:
    if gpumlp.backends.cuda_problem() is None:
        pytest.skip("there is a CUDA device")
    with pytest.raises(gpumlp.DeviceError, match="cuda:0' cannot be used"):
        clf(device="cuda").fit(X, Y)
