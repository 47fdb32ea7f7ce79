"""Exported models answer as ours do, in onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp.activations import ACTIVATIONS
from gpumlp.tables.preparation import Preparation

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

#: float32 probabilities and values of size 1: sums in another order, functions good to a few ulp
WITHIN = {"rtol": 1e-6, "atol": 1e-6}


def run(model: Any, X: Any, path: Path | None = None) -> dict[str, np.ndarray]:
    source = str(path) if path else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"X": X}), strict=True))


def rows(n: int = 300, n_in: int = 5, dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, n_in)).astype(dtype)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("n_out", [1, 3])
def test_values(activation: str, n_out: int, tmp_path: Path) -> None:
    model, X = gpumlp.MLP([5, 16, 8, n_out], activation, seed=1, device="cpu"), rows()
    path = tmp_path / "m.onnx"
    made = gpumlp.export.to_onnx(model, path)
    for answer in (run(made, X), run(made, X, path)):
        assert answer["value"].shape == model.predict(X).shape
        np.testing.assert_allclose(answer["value"], model.predict(X), **WITHIN)


@pytest.mark.parametrize(
    ("output", "n_out"), [("softmax", 4), ("sigmoid", 1), ("sigmoid", 3), ("exp", 2), ("sorted", 4)]
)
@pytest.mark.parametrize("size", [1, 3])
def test_classes_and_ensembles(output: str, n_out: int, size: int) -> None:
    X, models = rows(), [gpumlp.MLP([5, 16, n_out], "tanh", seed=k, device="cpu") for k in range(size)]
    for model in models:
        model.output = output
    model = models[0] if size == 1 else gpumlp.Ensemble([*models, models[0]])
    answer = run(gpumlp.export.to_onnx(model), X)
    if output in ("exp", "sorted"):
        np.testing.assert_allclose(answer["value"], model.predict(X), **WITHIN)
        return
    np.testing.assert_array_equal(answer["label"], model.predict(X))
    np.testing.assert_allclose(answer["probabilities"], model.predict_proba(X), **WITHIN)


def test_in_double_precision() -> None:
    model, X = gpumlp.MLP([5, 16, 3], "tanh", dtype="float64", seed=1, device="cpu"), rows(dtype=np.float64)
    answer = run(gpumlp.export.to_onnx(model, dtype="float64"), X)
    np.testing.assert_allclose(answer["value"], model.predict(X), rtol=1e-12, atol=1e-12)


CODES = {1: 4, 3: 7}
EMBEDDINGS = [
    gpumlp.Embedding("cosine", 6, scale=1.5, categories=CODES),
    gpumlp.Embedding("periodic", 6, scale=1.5, frequencies=5, columns=[4, 0]),
    gpumlp.Embedding.piecewise(np.round(rows(), 1), 4, bins=9, columns=[0, 2], categories=CODES),
    gpumlp.Embedding(None, categories=CODES),
    gpumlp.Embedding(None),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("embedding", EMBEDDINGS, ids=lambda e: e.summary())
def test_embeddings(embedding: gpumlp.Embedding, dtype: str) -> None:
    X, rng = rows(dtype=dtype), np.random.default_rng(1)
    for column, count in CODES.items():
        X[:, column] = rng.integers(0, count, len(X))
    model = gpumlp.MLP([5, 8, 2], "tanh", embedding=embedding, dtype=dtype, device="cpu")
    *pairs, own = model.get_parameters()
    own = {name: a + 0.3 * rng.normal(size=a.shape) for name, a in own.items()}
    model.set_parameters([*pairs, own])
    within = WITHIN if dtype == "float32" else {"rtol": 1e-12, "atol": 1e-12}
    for given in (model, gpumlp.Ensemble([model, model])):
        answer = run(gpumlp.export.to_onnx(given, dtype=dtype), X)
        np.testing.assert_allclose(answer["value"], model.predict(X), **within)


def targets(kind: str, X: np.ndarray) -> np.ndarray:
    three = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0.5)
    return {
        "numbers": three * 10 - 5,
        "texts": np.array(["red", "grün", "a b"])[three],
        "two": np.where(X[:, 0] > 0, "yes", "no"),
        "truth": X[:, 0] > 0,
        "floats": three + 0.0,
        "many": np.stack([X[:, 0] > 0, X[:, 1] > 0, X[:, 2] > 1], axis=1).astype(int),
    }[kind]


@pytest.mark.parametrize("activation", ["logistic", "gelu", "relu"])
@pytest.mark.parametrize("kind", ["numbers", "texts", "two", "truth", "floats", "many"])
def test_classifiers(kind: str, activation: str) -> None:
    pytest.importorskip("sklearn")
    X = rows()
    y = targets(kind, X)
    est = gpumlp.MLPClassifier((12, 7), activation, max_iter=5, random_state=0, device="cpu", tol=1e9).fit(
        X, y
    )
    answer = run(gpumlp.export.to_onnx(est), X)
    expected = est.predict(X)
    np.testing.assert_array_equal(answer["label"], expected.astype(int) if kind == "truth" else expected)
    np.testing.assert_allclose(answer["probabilities"], est.predict_proba(X), **WITHIN)


@pytest.mark.parametrize("n_out", [1, 2])
@pytest.mark.parametrize("loss", ["squared_error", "poisson"])
def test_regressors(loss: str, n_out: int) -> None:
    pytest.importorskip("sklearn")
    X = rows()
    y = np.abs(X[:, :n_out]) if n_out > 1 else np.abs(X[:, 0])
    est = gpumlp.MLPRegressor(
        loss=loss, hidden_layer_sizes=(12,), max_iter=5, random_state=0, device="cpu", tol=1e9
    ).fit(X, y)
    answer = run(gpumlp.export.to_onnx(est), X)
    assert answer["value"].shape == est.predict(X).shape
    np.testing.assert_allclose(answer["value"], est.predict(X), **WITHIN)


def test_models_of_the_command_line() -> None:
    """Scaling, class names and units of the target are inside."""
    from gpumlp.preparation import PreparedModel

    X = rows() * 7 + 30
    model = gpumlp.MLP([5, 8, 3], "tanh", seed=2, device="cpu")
    model.output = "softmax"
    scaling = {"mean": X.mean(axis=0).tolist(), "scale": X.std(axis=0).tolist()}
    prep = Preparation("classification", "softmax_cross_entropy", classes=["a", "b", "c"], **scaling)
    prepared = PreparedModel(model, prep)
    answer = run(gpumlp.export.to_onnx(prepared), X)
    np.testing.assert_array_equal(answer["label"], prepared.predict(X))
    np.testing.assert_allclose(answer["probabilities"], prepared.predict_proba(X), rtol=1e-5, atol=2e-6)
    model = gpumlp.MLP([5, 8, 1], "tanh", seed=2, device="cpu")
    prep = Preparation("regression", "squared_error", target_mean=200.0, target_scale=30.0, **scaling)
    prepared = PreparedModel(model, prep)
    answer = run(gpumlp.export.to_onnx(prepared), X)
    np.testing.assert_allclose(answer["value"], prepared.predict(X), rtol=1e-5)


@pytest.mark.parametrize("kind", ["texts", "two", "many", "numbers"])
def test_pipelines(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("skl2onnx")
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    X = rows() * 3 + 10
    y = targets(kind, X - 10)
    network = gpumlp.MLPClassifier((9,), "silu", max_iter=5, random_state=0, device="cpu", tol=1e9)
    pipe = make_pipeline(StandardScaler(), network).fit(X, y)
    answer = list(run(gpumlp.export.to_onnx(pipe, tmp_path / "p.onnx"), X).values())
    np.testing.assert_array_equal(answer[0], pipe.predict(X))
    np.testing.assert_allclose(answer[1], pipe.predict_proba(X), rtol=1e-5, atol=2e-6)


def test_pipelines_of_regressors() -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("skl2onnx")
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler

    X = rows()
    pipe = make_pipeline(
        MinMaxScaler(), gpumlp.MLPRegressor(hidden_layer_sizes=(9,), max_iter=5, random_state=0, device="cpu")
    )
    pipe.fit(X, X[:, 0] * 2)
    (value,) = run(gpumlp.export.to_onnx(pipe), X).values()
    np.testing.assert_allclose(value[:, 0], pipe.predict(X), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: 5, TypeError, "int cannot be exported to ONNX; expected an MLP, an Ensemble"),
        (gpumlp.Adam, TypeError, "Adam cannot be exported"),
    ],
)
def test_refusals(make: Callable[[], Any], kind: type, message: str, tmp_path: Path) -> None:
    with pytest.raises(kind, match=message):
        gpumlp.export.to_onnx(make(), tmp_path / "x.onnx")
    with pytest.raises(ValueError, match="dtype='half'; expected 'float32' or 'float64'"):
        gpumlp.export.to_onnx(gpumlp.MLP([2, 1], device="cpu"), dtype="half")
    assert not list(tmp_path.iterdir())
