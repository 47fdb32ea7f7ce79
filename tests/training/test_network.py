"""The MLP object: initialisation, views, copies, devices, and the shapes of what it predicts."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest
from tolerances import close

import gpumlp
from gpumlp.network import INITS, layout, pad

WIDE = [400, 300, 200, 50]


def uniform(low_high: float) -> tuple[float, float]:
    return low_high / math.sqrt(3), low_high


#: init -> for (n_in, n_out, gain): (standard deviation, bound or None)
EXPECTED: dict[str, Any] = {
    "xavier_uniform": lambda i, o, g: uniform(math.sqrt(6 / (i + o))),
    "xavier_normal": lambda i, o, g: (math.sqrt(2 / (i + o)), None),
    "he_uniform": lambda i, o, g: uniform(math.sqrt(3 * g / i)),
    "he_normal": lambda i, o, g: (math.sqrt(g / i), None),
    "normal": lambda i, o, g: (0.01, None),
    "pytorch": lambda i, o, g: uniform(math.sqrt(1 / i)),
    "sklearn": lambda i, o, g: uniform(math.sqrt(6 / (i + o))),
    "auto": lambda i, o, g: (math.sqrt(2 / i), None) if g == 2 else uniform(math.sqrt(6 / (i + o))),
}


def test_every_init_is_tested() -> None:
    assert set(EXPECTED) == set(INITS)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("init", sorted(INITS))
def test_init_statistics(init: str, activation: str) -> None:
    model = gpumlp.MLP(WIDE, activation, init=init, dtype="float64", device="numpy")
    for n, (W, b) in enumerate(model.get_parameters()):
        gain = 2.0 if activation == "relu" and n < 2 else 1.0
        std, bound = EXPECTED[init](*W.shape, gain)
        # the sample deviation of n normal numbers has deviation std / sqrt(2 n): five of these
        assert abs(W.std() - std) < 5 * std / math.sqrt(2 * W.size)
        assert abs(W.mean()) < 5 * std / math.sqrt(W.size)
        if bound is None:
            assert np.abs(W).max() > 3 * std
        else:
            assert 0.99 * bound < np.abs(W).max() <= bound
        if init in ("sklearn", "pytorch"):
            assert 0.8 * bound < np.abs(b).max() <= bound
        else:
            assert (b == 0).all()


def test_sklearn_init_of_sigmoid_networks() -> None:
    model = gpumlp.MLP(WIDE, "sigmoid", init="sklearn", dtype="float64", device="numpy")
    for W, _ in model.get_parameters():
        bound = math.sqrt(2 / sum(W.shape))
        assert 0.99 * bound < np.abs(W).max() <= bound


def test_init_by_number() -> None:
    model = gpumlp.MLP(WIDE, init=0.25, device="numpy", dtype="float64")
    assert abs(model.get_parameters()[0][0].std() - 0.25) < 0.005
    assert all((W == 0).all() for W, _ in gpumlp.MLP(WIDE, init=0.0, device="numpy").get_parameters())


@pytest.mark.parametrize("init", sorted(INITS))
def test_same_weights_everywhere(device: str, dtype: Any, init: str) -> None:
    a = gpumlp.MLP([7, 5, 3], init=init, seed=9, device=device, dtype=dtype).get_parameters()
    b = gpumlp.MLP([7, 5, 3], init=init, seed=9, device="numpy", dtype="float64").get_parameters()
    c = gpumlp.MLP([7, 5, 3], init=init, seed=10, device=device, dtype=dtype).get_parameters()
    for (W, bias), (W0, bias0), (W1, _) in zip(a, b, c, strict=True):
        assert (W0.astype(dtype) == W).all() and (bias == bias0.astype(dtype)).all()
        assert (W != W1).any()


@pytest.mark.parametrize(
    ("n", "padded"), [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (8, 8), (9, 16), (784, 784)]
)
def test_padding(n: int, padded: int) -> None:
    assert pad(n) == padded


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


def test_layout_of_the_flat_buffer() -> None:
    """Blocks of 8 k rows, with rows of 1, 2, 4 or 8 k numbers, that start at multiples of 64; no more."""
    layers, size = layout([12, 5, 1])
    assert [(n.offset, n.size, n.ld) for n in layers] == [(0, 16 * 8, 8), (128, 8 * 1, 1)]
    assert size == 192


@pytest.mark.parametrize("init", ["pytorch", "sklearn"])
def test_drawn_biases_have_both_signs(init: str) -> None:
    for W, b in gpumlp.MLP(WIDE, init=init, device="numpy").get_parameters():
        assert b.min() < 0.8 * W.min() and b.max() > 0.8 * W.max()
