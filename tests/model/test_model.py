"""The MLP object: views, copies, devices, and the shapes of what it predicts."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from tolerances import close

import gpumlp


def test_attributes(device: str) -> None:
    model = gpumlp.MLP([4, 7, 3], ["tanh"], dropout=0.25, device=device, dtype="float64")
    assert model.n_params == 4 * 7 + 7 + 7 * 3 + 3
    assert [tuple(W.shape) for W in model.weights] == [(4, 7), (7, 3)]
    assert [tuple(b.shape) for b in model.biases] == [(7,), (3,)]
    assert model.layer_sizes == [4, 7, 3] and model.activations == ["tanh"] and model.dropout == 0.25
    assert model.device in ("cpu", "cuda:0") and str(model.dtype) == "float64"
    assert "4-7-3" in repr(model) and "tanh" in repr(model) and str(model.n_params) in repr(model)


def test_views_change_the_model(device: str) -> None:
    model = gpumlp.MLP([2, 3, 1], "identity", init=0.0, device=device, dtype="float64")
    model.weights[0][...] = 1
    model.biases[0][1] = 10
    model.weights[1][...] = 2
    model.biases[1][...] = -1
    assert model.forward([[1.0, 2.0]]).tolist() == [[2 * (3 + 13 + 3) - 1]]


def test_set_parameters(device: str) -> None:
    model = gpumlp.MLP([2, 3, 1], device=device)
    values = [(np.full((2, 3), 0.5), np.ones(3)), (np.ones((3, 1)), np.zeros(1))]
    model.set_parameters(values)
    for (W, b), (W0, b0) in zip(model.get_parameters(), values, strict=True):
        assert (W == W0).all() and (b == b0).all()
    with pytest.raises(ValueError, match="1 layers of parameters were given, the network has 2"):
        model.set_parameters(values[:1])
    with pytest.raises(ValueError, match=r"layer 1: weights \(1, 3\).*expected \(3, 1\)"):
        model.set_parameters([values[0], (np.ones((1, 3)), np.zeros(1))])
    assert (model.get_parameters()[1][0] == 1).all()


@pytest.mark.parametrize("rows", [0, 1, 2, 5, 64, 4095, 4096, 4097, 9000])
def test_forward_in_pieces(device: str, rows: int) -> None:
    model = gpumlp.MLP([3, 4, 2], "relu", dropout=0.9, device=device, dtype="float64")
    X = np.random.default_rng(rows).normal(size=(rows, 3))
    (W, b), (V, c) = model.get_parameters()
    z = model.forward(X)
    close(z, np.maximum(X @ W + b, 0) @ V + c, "network")
    assert z.shape == (rows, 2) and isinstance(z, np.ndarray)
    again = model.forward(X[: rows // 2])
    close(again, z[: rows // 2], "network")


def test_results_are_not_overwritten_later(device: str) -> None:
    model = gpumlp.MLP([2, 1], device=device)
    first = model.forward([[1.0, 2.0]])
    keep = first.copy()
    model.forward([[5.0, -2.0]])
    assert (first == keep).all()


OUTPUTS = [
    ("softmax_cross_entropy", 3, (5,), "i", (5, 3)),
    ("softmax_cross_entropy", 2, (5,), "i", (5, 2)),
    ("binary_cross_entropy", 1, (5,), "i", (5, 2)),
    ("binary_cross_entropy", 3, (5, 3), "i", (5, 3)),
    ("squared_error", 1, (5,), "f", None),
    ("squared_error", 3, (5, 3), "f", None),
    ("absolute_error", 1, (5,), "f", None),
    ("huber", 2, (5, 2), "f", None),
    ("poisson", 1, (5,), "f", None),
    ("poisson", 2, (5, 2), "f", None),
]


@pytest.mark.parametrize(("loss", "outputs", "shape", "kind", "proba"), OUTPUTS)
def test_predict(
    device: str, dtype: Any, loss: str, outputs: int, shape: tuple, kind: str, proba: Any
) -> None:
    model = gpumlp.MLP([4, 6, outputs], "tanh", init=1.0, device=device, dtype=dtype)
    X = np.random.default_rng(0).normal(size=(5, 4))
    y = np.zeros(5, int) if loss == "softmax_cross_entropy" else np.zeros((5, outputs))
    gpumlp.Trainer(model, loss=loss, optimizer=gpumlp.SGD(lr=0.0)).step(X, y)
    z, predicted = model.forward(X), model.predict(X)
    assert predicted.shape == shape and predicted.dtype.kind == kind
    assert z.shape == (5, outputs) and z.dtype == dtype
    if kind == "i":
        assert predicted.dtype == np.int64
    if loss == "softmax_cross_entropy":
        assert (predicted == z.argmax(axis=1)).all()
    elif loss == "binary_cross_entropy":
        assert (predicted.reshape(z.shape) == (z > 0)).all()
    elif loss == "poisson":
        close(predicted.reshape(z.shape), np.exp(z), "row sum")
    else:
        assert (predicted.reshape(z.shape) == z).all()
    if proba is None:
        with pytest.raises(TypeError, match="predict_proba needs a classifier"):
            model.predict_proba(X)
        return
    p = model.predict_proba(X)
    assert p.shape == proba and ((p >= 0) & (p <= 1)).all()
    if loss == "softmax_cross_entropy" or outputs == 1:
        close(p.sum(axis=1), np.ones(5), "row sum")
        assert (p.argmax(axis=1) == predicted).all()
    else:
        close(p, 1 / (1 + np.exp(-z)), "row sum")


@pytest.mark.parametrize(
    "clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "pickle"]
)
def test_copies(device: str, dtype: Any, clone: Any) -> None:
    model = gpumlp.MLP([5, 9, 3], ["gelu"], dropout=0.3, seed=4, dtype=dtype, device=device)
    trainer = gpumlp.Trainer(model, loss="softmax_cross_entropy", optimizer="adam")
    X, y = np.random.default_rng(0).normal(size=(8, 5)), np.arange(8) % 3
    trainer.step(X, y)
    other = clone(model)
    assert (other.forward(X) == model.forward(X)).all()
    assert (other.layer_sizes, other.activations, other.dropouts, other.output, other.seed, other.dtype) == (
        model.layer_sizes, model.activations, model.dropouts, model.output, model.seed, model.dtype
    )  # fmt: skip
    assert other.backend is model.backend
    before = model.get_parameters()
    gpumlp.Trainer(other, loss="softmax_cross_entropy", optimizer="adam").step(X, y)
    assert (other.get_parameters()[0][0] != before[0][0]).any()
    assert (model.get_parameters()[0][0] == before[0][0]).all()


def test_moving(device: str) -> None:
    model = gpumlp.MLP([5, 9, 3], seed=4, dtype="float64", device="numpy")
    X = np.random.default_rng(0).normal(size=(8, 5))
    z = model.forward(X)
    assert model.to(device) is model and model.backend is gpumlp.get_backend(device)
    close(model.forward(X), z, "network")
    model.to("numpy")
    assert (model.forward(X) == z).all()


def test_cupy_in_cupy_out(device: str) -> None:
    backend = gpumlp.get_backend(device)
    if backend.xp is np:
        pytest.skip("no CUDA executor")
    model = gpumlp.MLP([4, 3], device=device)
    model.output = "softmax"
    X = np.random.default_rng(0).normal(size=(5000, 4)).astype(np.float32)
    on_device = backend.asarray(X)
    for name in ("forward", "predict", "predict_proba"):
        here, there = getattr(model, name)(X), getattr(model, name)(on_device)
        assert isinstance(here, np.ndarray) and isinstance(there, backend.xp.ndarray)
        assert (backend.to_numpy(there) == here).all()


def test_cupy_training_data(device: str) -> None:
    backend = gpumlp.get_backend(device)
    if backend.xp is np:
        pytest.skip("no CUDA executor")
    X, y = np.random.default_rng(0).normal(size=(30, 4)), np.arange(30) % 3
    histories = []
    for move in (np.asarray, backend.asarray):
        model = gpumlp.MLP([4, 3], device=device, dtype="float64")
        trainer = gpumlp.Trainer(model, loss="softmax_cross_entropy", optimizer="adam", batch_size=7)
        w = np.linspace(1, 2, 30)
        histories.append(
            trainer.fit(move(X), move(y), epochs=2, sample_weight=move(w), validation=0.2, progress=False)
        )
    assert histories[0].loss == histories[1].loss
    assert histories[0].val_loss == histories[1].val_loss
