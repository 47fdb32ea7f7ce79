"""The gradient of the whole objective by central differences in double precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tolerances import close

import gpumlp
from gpumlp.activations import ACTIVATIONS
from gpumlp.losses import LOSSES

H = 1e-5


def data(
    loss: str, rows: int = 7, inputs: int = 3, outputs: int = 2
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(11)
    X = rng.normal(size=(rows, inputs))
    if LOSSES[loss].classes:
        y: np.ndarray = rng.integers(0, outputs, rows)
    elif LOSSES[loss].link == "sigmoid":
        y = rng.choice([0.0, 1.0, 0.3], (rows, outputs))
    else:
        y = rng.gamma(1.0, 1.0, (rows, LOSSES[loss].targets(outputs)))
    return X, y, rng.uniform(0.1, 3, rows) * (np.arange(rows) != 2)


def check(trainer: gpumlp.Trainer, X: Any, y: Any, w: Any, directions: int | None) -> None:
    """Every single derivative, or derivatives along random directions."""
    model = trainer.model
    start = [a.copy() for pair in model.get_parameters() for a in pair]
    _, grads = trainer.loss_and_grads(X, y, w)
    gradient = np.concatenate([g.ravel() for pair in grads for g in pair])

    def objective(flat: np.ndarray) -> float:
        parts = np.split(flat, np.cumsum([a.size for a in start])[:-1])
        arrays = [part.reshape(a.shape) for part, a in zip(parts, start, strict=True)]
        model.set_parameters(list(zip(arrays[::2], arrays[1::2], strict=True)))
        return trainer.loss_and_grads(X, y, w)[0]

    at = np.concatenate([a.ravel() for a in start])
    ways = (
        np.eye(at.size) if directions is None else np.random.default_rng(1).normal(size=(directions, at.size))
    )
    numeric = np.array([(objective(at + H * way) - objective(at - H * way)) / (2 * H) for way in ways])
    assert np.abs(gradient).max() > 1e-3
    close(ways @ gradient, numeric, "central differences")


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("penalties", [{}, {"l1": 0.05, "l2": 0.3}], ids=["free", "l1 l2"])
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_loss_activation(device: str, loss: str, activation: str, penalties: dict, weighted: bool) -> None:
    model = gpumlp.MLP([3, 4, 2], activation, seed=3, init=0.8, dtype="float64", device=device)
    spec = gpumlp.Quantile((0.2, 0.7)) if loss == "quantile" else loss
    trainer = gpumlp.Trainer(model, loss=spec, optimizer="sgd", **penalties)
    X, y, w = data(loss)
    # a simulated device takes milliseconds for a launch: there the derivatives along five directions
    check(trainer, X, y, w if weighted else None, 5 if device.startswith("cuda") else None)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_dropout_with_its_mask(device: str, activation: str) -> None:
    """The mask is that of the coming step, so it stays while the parameters move."""
    model = gpumlp.MLP(
        [3, 9, 7, 2],
        [activation, "tanh"],
        dropout=[0.4, 0.3],
        seed=3,
        init=0.8,
        dtype="float64",
        device=device,
    )
    trainer = gpumlp.Trainer(model, loss="squared_error", optimizer="sgd", seed=5)
    X, y, _ = data("squared_error")
    full = gpumlp.Trainer(model, loss="squared_error", optimizer="sgd").evaluate(X, y)["loss"]
    assert abs(trainer.loss_and_grads(X, y)[0] - full) > 1e-6, "dropout had no effect"
    check(trainer, X, y, None, 5)


def test_dropout_masks_change_from_step_to_step(device: str) -> None:
    model = gpumlp.MLP([3, 16, 2], dropout=0.5, dtype="float64", device=device)
    trainer = gpumlp.Trainer(model, loss="squared_error", optimizer=gpumlp.SGD(lr=0.0))
    X, y, _ = data("squared_error")
    values = []
    for _ in range(4):
        values += [trainer.loss_and_grads(X, y)[0]] * 1
        assert trainer.loss_and_grads(X, y)[0] == values[-1]
        trainer.step(X, y)
    assert len(set(values)) == 4


def test_dropout_keeps_the_mean(device: str) -> None:
    """Averaged over masks, a linear network's output is the one without dropout."""
    model = gpumlp.MLP([3, 40, 1], "identity", dropout=0.5, dtype="float64", device=device)
    X = np.ones((4000, 3))
    trainer = gpumlp.Trainer(model, loss="squared_error", optimizer="sgd")
    z = float(model.forward(X[:1])[0, 0])
    _, grads = trainer.loss_and_grads(X, np.zeros(4000))
    # db of the output layer is the mean output; its deviation over masks is |(W1 x) W2| / sqrt(4000)
    W1, W2 = model.get_parameters()[0][0], model.get_parameters()[1][0]
    spread = np.sqrt(np.sum((W1.sum(axis=0) * W2[:, 0]) ** 2) / 4000)
    assert abs(grads[1][1][0] - z) < 5 * spread


def test_huber_delta(device: str) -> None:
    model = gpumlp.MLP([3, 2], dtype="float64", device=device, init=2.0)
    X, y, _ = data("huber")
    values = []
    for delta in (0.1, 1.0, 1e6):
        trainer = gpumlp.Trainer(model, loss=gpumlp.Huber(delta), optimizer="sgd")
        check(trainer, X, y, None, None)
        values.append(trainer.loss_and_grads(X, y)[0])
    squared = gpumlp.Trainer(model, loss="squared_error", optimizer="sgd").loss_and_grads(X, y)[0]
    close(values[2], squared, "figures")
    assert values[0] < values[1] < values[2]


@pytest.mark.parametrize("sizes", [[1, 1], [5, 1], [1, 5], [2, 1, 2], [9, 8, 7, 6, 5, 4]])
def test_shapes_of_networks(device: str, sizes: list[int]) -> None:
    """No hidden layer to four, widths of 1 and other than the padding's multiples."""
    model = gpumlp.MLP(sizes, "tanh", init=0.5, dtype="float64", device=device)
    rng = np.random.default_rng(0)
    trainer = gpumlp.Trainer(model, loss="squared_error", optimizer="sgd", l2=0.1)
    check(trainer, rng.normal(size=(5, sizes[0])), rng.normal(size=(5, sizes[-1])), None, 5)


def test_penalties_spare_the_biases(device: str) -> None:
    model = gpumlp.MLP([2, 3, 1], device=device, dtype="float64")
    parameters = [(W, np.full_like(b, 7.0)) for W, b in model.get_parameters()]
    model.set_parameters(parameters)
    X, y = np.zeros((4, 2)), np.zeros(4)
    plain = gpumlp.Trainer(model, loss="squared_error", optimizer="sgd").loss_and_grads(X, y)
    heavy = gpumlp.Trainer(model, loss="squared_error", optimizer="sgd", l1=0.5, l2=3.0).loss_and_grads(X, y)
    size = sum(0.5 * np.abs(W).sum() + 1.5 * np.square(W).sum() for W, _ in parameters)
    close(heavy[0] - plain[0], size, "figures")
    for (dW, db), (dW0, db0), (W, _) in zip(heavy[1], plain[1], parameters, strict=True):
        assert (db == db0).all()
        close(dW - dW0, 3 * W + 0.5 * np.sign(W), "figures")
