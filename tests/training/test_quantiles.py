"""Quantiles: the pinball loss, predictions that do not cross, figures, files and the estimator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tolerances import RELATIVE

import gpumlp

RNG = np.random.default_rng(0)
X = RNG.normal(size=(120, 3))
Y = X @ [1.0, -2.0, 0.5] + (1 + X[:, 0] ** 2) * RNG.standard_normal(120)
LEVELS = (0.1, 0.5, 0.9)


def pinball(y: np.ndarray, q: np.ndarray, levels: Any, w: Any = None) -> float:
    """Mean over rows and levels."""
    d = y[:, None] - q.reshape(len(y), -1)
    return float(np.average(np.maximum(levels * d, (np.array(levels) - 1) * d).mean(axis=1), weights=w))


def trainer(device: str, levels: Any = LEVELS, hidden: tuple[int, ...] = (8,), **options: Any) -> Any:
    options = {"optimizer": gpumlp.Adam(lr=0.02), "batch_size": 32, **options}
    model = gpumlp.MLP([3, *hidden, len(levels)], "tanh", device=device, dtype="float64", init=1.0)
    return gpumlp.Trainer(model, loss=gpumlp.Quantile(levels), **options)


@pytest.mark.parametrize("levels", [(0.5,), (0.05, 0.3), LEVELS, tuple(np.linspace(0.01, 0.99, 33))])
@pytest.mark.parametrize("weighted", [False, True])
def test_figures_are_those_of_predictions_which_do_not_cross(
    device: str, levels: Any, weighted: bool
) -> None:
    w = RNG.uniform(0, 2, len(Y)) if weighted else None
    t = trainer(device, levels)
    z = t.model.forward(X)
    t.step(X[:5], Y[:5])
    z = t.model.forward(X)
    q = t.model.predict(X).reshape(len(X), -1)
    assert (np.diff(q, axis=1) >= 0).all()
    np.testing.assert_array_equal(q, np.sort(z, axis=1))
    assert len(levels) == 1 or (np.diff(z, axis=1) < 0).any(), "nothing crossed"
    figures, few = t.evaluate(X, Y, w), RELATIVE["few roundings"]
    assert figures["loss"] == pytest.approx(pinball(Y, q, levels, w), rel=few)
    centre = q[:, np.argmin(np.abs(np.array(levels) - 0.5))]
    assert figures["rmse"] == pytest.approx(np.sqrt(np.average((centre - Y) ** 2, weights=w)), rel=few)
    spread = np.average((Y - np.average(Y, weights=w)) ** 2, weights=w)
    assert figures["r2"] == pytest.approx(1 - figures["rmse"] ** 2 / spread, rel=few)
    # what is trained is each output's own loss, and sorting never makes it larger
    raw = t.loss_and_grads(X, Y, w)[0]
    assert raw == pytest.approx(pinball(Y, z, levels, w), rel=few)
    assert figures["loss"] <= raw and (len(levels) == 1 or figures["loss"] < raw)


def test_scikit_learns_pinball_loss(device: str) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    t = trainer(device)
    t.fit(X, Y, epochs=3, progress=False)
    q = t.model.predict(X)
    each = [metrics.mean_pinball_loss(Y, q[:, j], alpha=level) for j, level in enumerate(LEVELS)]
    assert t.evaluate(X, Y)["loss"] == pytest.approx(np.mean(each), rel=RELATIVE["few roundings"])


@pytest.mark.cuda_sample(3)
@pytest.mark.parametrize("number", range(3))
def test_a_linear_network_finds_the_linear_quantiles(device: str, number: int) -> None:
    """scikit-learn's QuantileRegressor solves the linear programme, for one level at a time."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    level = LEVELS[number]
    exact = linear_model.QuantileRegressor(quantile=level, alpha=0.0).fit(X, Y)
    best = pinball(Y, exact.predict(X), (level,))
    schedule = gpumlp.schedules.Cosine()
    t = trainer(device, LEVELS, (), optimizer=gpumlp.Adam(lr=0.05), batch_size=120, schedule=schedule)
    t.fit(X, Y, epochs=1500, progress=False)
    assert best <= pinball(Y, t.model.predict(X)[:, number], (level,)) < best * 1.001


def test_nan_outputs_are_last(backend: Any) -> None:
    from gpumlp.kernels.losses import output_kernel

    z = np.array([[3.0, np.nan, 1.0], [np.nan] * 3, [np.inf, np.nan, -np.inf], [2.0, 2.0, 1.0]])
    out = backend.zeros(z.shape, "float64")
    backend.launch(
        output_kernel("sorted"), {"z": backend.asarray(z), "out": out}, {"stride": 0}, rows=4, cols=3
    )
    np.testing.assert_array_equal(backend.to_numpy(out), np.sort(z, axis=1))


def test_a_training_is_saved_and_goes_on(device: str, tmp_path: Path) -> None:
    path, levels = tmp_path / "t.npz", (0.2, 0.8)
    whole, half = trainer(device, levels), trainer(device, levels)
    whole.fit(X, Y, epochs=4, progress=False)
    half.fit(X, Y, epochs=2, progress=False)
    half.save(path)
    loaded = gpumlp.Trainer.load(path, device=device)
    loaded.fit(X, Y, epochs=2, progress=False)
    np.testing.assert_array_equal(loaded.model.predict(X), whole.model.predict(X))
    model = gpumlp.load(path, device=device)
    assert model.output == "sorted"
    np.testing.assert_array_equal(model.predict(X), half.model.predict(X))
    ensemble = gpumlp.Ensemble([model, whole.model])
    assert (np.diff(ensemble.predict(X), axis=1) >= 0).all()


def test_many_and_streamed(device: str) -> None:
    alone, other = trainer(device), trainer(device)
    alone.fit(X, Y, epochs=3, validation=0.2, progress=False)
    gpumlp.fit_many([other], X, Y, epochs=3, validation=0.2, progress=False)
    np.testing.assert_array_equal(alone.model.predict(X), other.model.predict(X))
    streamed = trainer(device)
    streamed.fit(X, Y, epochs=3, validation=0.2, progress=False, streaming=True)
    np.testing.assert_array_equal(alone.model.predict(X), streamed.model.predict(X))


def test_the_name_stands_for_three_levels(device: str) -> None:
    model = gpumlp.MLP([3, 3], device=device)
    assert gpumlp.Trainer(model, loss="quantile", optimizer="sgd").objective.delta == LEVELS
    needs = r"levels 0.1, 0.5, 0.9 and needs 3 outputs, one for each; the network has 1\. .*gpumlp.Quantile"
    with pytest.raises(ValueError, match=needs):
        gpumlp.Trainer(gpumlp.MLP([3, 1], device=device), loss="quantile", optimizer="sgd")
    with pytest.raises(ValueError, match=r"y has shape \(120, 3\); quantile learns quantiles of one target"):
        gpumlp.Trainer(model, loss="quantile", optimizer="sgd").step(X, np.zeros((120, 3)))


@pytest.mark.parametrize(
    "levels",
    [
        (),
        0.5,
        "0.5",
        None,
        (0.0, 0.5),
        (0.5, 1.0),
        (0.5, 0.5),
        (0.9, 0.1),
        (0.1, np.nan),
        ("a",),
        [[0.1, 0.2]],
    ],
)
def test_levels_that_make_no_sense(levels: Any) -> None:
    with pytest.raises(ValueError, match=r"Quantile: levels=.*expected ascending numbers > 0 and < 1"):
        gpumlp.Quantile(levels)


@pytest.mark.parametrize("levels", [[0.25, 0.5], np.array([0.25, 0.5]), (np.float32(0.25), np.float64(0.5))])
def test_levels_of_all_kinds(levels: Any) -> None:
    assert gpumlp.Quantile(levels).levels == (0.25, 0.5) and hash(gpumlp.Quantile(levels))


@pytest.mark.parametrize("bad", [-0.1, 1.0, 2, "x", None, True, np.nan])
@pytest.mark.parametrize("kind", [gpumlp.SoftmaxCrossEntropy, gpumlp.BinaryCrossEntropy])
def test_smoothing_that_makes_no_sense(kind: Any, bad: Any) -> None:
    with pytest.raises(
        ValueError, match=rf"{kind.__name__}: label_smoothing=.*expected a number >= 0 and < 1"
    ):
        kind(bad)


def test_smoothing_is_saved(device: str, tmp_path: Path) -> None:
    model = gpumlp.MLP([3, 4, 3], device=device)
    t = gpumlp.Trainer(model, loss=gpumlp.SoftmaxCrossEntropy(0.2), optimizer="sgd")
    t.save(tmp_path / "t.npz")
    loaded = gpumlp.Trainer.load(tmp_path / "t.npz", device=device)
    assert loaded.objective == t.objective and loaded.objective.delta == 0.2
    assert gpumlp.SoftmaxCrossEntropy(0.0).name == "softmax_cross_entropy"


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer. Maximum iterations", "ignore:lbfgs failed")
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_the_estimator(device: str, solver: str) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    options = {"hidden_layer_sizes": (), "random_state": 0, "device": device, "solver": solver, "alpha": 0.0}
    est = gpumlp.MLPRegressor(gpumlp.Quantile(LEVELS), **options, max_iter=30, learning_rate_init=0.05)
    est.fit(X, Y)
    q = est.predict(X)
    assert q.shape == (120, 3) and (np.diff(q, axis=1) >= 0).all() and est.n_outputs_ == 3
    assert est.score(X, Y) == pytest.approx(metrics.r2_score(Y, q[:, 1]), rel=RELATIVE["few roundings"])
    assert pinball(Y, q, LEVELS) < 0.8 * pinball(Y, np.quantile(Y, LEVELS) + 0 * q, LEVELS)
    one = gpumlp.MLPRegressor(gpumlp.Quantile([0.5]), **options, max_iter=5).fit(X, Y)
    assert one.predict(X).shape == (120,) and np.isfinite(one.score(X, Y))
    early = gpumlp.MLPRegressor("quantile", **{**options, "solver": "adam"}, early_stopping=True, max_iter=5)
    assert len(early.fit(X, Y).validation_scores_) > 0
    with pytest.raises(ValueError, match="y has 2 columns; loss='quantile' learns quantiles of one target"):
        early.fit(X, np.column_stack([Y, Y]))
