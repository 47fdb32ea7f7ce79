"""Forward pass, losses, gradients and training against PyTorch in double precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tolerances import close

import gpumlp
from gpumlp.activations import ACTIVATIONS
from gpumlp.losses import LOSSES

torch = pytest.importorskip("torch")
F = torch.nn.functional

SLOPES = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "identity": lambda z: z,
    "leaky_relu": lambda z: F.leaky_relu(z, 0.01),
    "elu": F.elu,
    "gelu": F.gelu,
    "silu": F.silu,
    "softplus": F.softplus,
}
LOSS = {
    "softmax_cross_entropy": F.cross_entropy,
    "binary_cross_entropy": F.binary_cross_entropy_with_logits,
    "squared_error": lambda z, y: F.mse_loss(z, y) / 2,
    "absolute_error": F.l1_loss,
    "huber": F.huber_loss,
    "poisson": lambda z, y: F.poisson_nll_loss(z, y, log_input=True, full=False),
    "softmax_cross_entropy_smoothed": lambda z, y: F.cross_entropy(z, y, label_smoothing=0.1),
    "binary_cross_entropy_smoothed": lambda z, y: F.binary_cross_entropy_with_logits(z, 0.9 * y + 0.05),
    "quantile": lambda z, y: torch.max(QS * (y - z), (QS - 1) * (y - z)).mean(),
}
QS = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
SIZES = [6, 5, 4, 3]


def theirs(model: gpumlp.MLP) -> tuple[list[Any], Any]:
    """(parameters, forward function) of the same network in PyTorch."""
    parameters = [torch.tensor(a, requires_grad=True) for pair in model.get_parameters() for a in pair]

    def forward(X: Any) -> Any:
        a = torch.tensor(X)
        for n in range(len(model.layers)):
            a = a @ parameters[2 * n] + parameters[2 * n + 1]
            if n < len(model.activations):
                a = SLOPES[model.activations[n]](a)
        return a

    return parameters, forward


def data(loss: str, rows: int = 11) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(6)
    X = rng.normal(size=(rows, SIZES[0]))
    if LOSSES[loss].classes:
        return X, rng.integers(0, SIZES[-1], rows)
    if LOSSES[loss].link == "sigmoid":
        return X, rng.integers(0, 2, (rows, SIZES[-1])).astype(float)
    return X, rng.gamma(1.0, 2.0, (rows, LOSSES[loss].targets(SIZES[-1])))


def test_what_is_compared_is_there() -> None:
    assert set(SLOPES) <= set(ACTIVATIONS)
    assert set(LOSS) <= set(LOSSES)


@pytest.mark.parametrize("activation", sorted(SLOPES))
@pytest.mark.parametrize("loss", sorted(LOSS))
def test_loss_and_gradients(device: str, loss: str, activation: str) -> None:
    model = gpumlp.MLP(SIZES, activation, init=0.7, seed=2, dtype="float64", device=device)
    X, y = data(loss)
    parameters, forward = theirs(model)
    z = forward(X)
    close(model.forward(X), z.detach().numpy(), "network")
    value = LOSS[loss](z, torch.tensor(y))
    value.backward()
    got, grads = gpumlp.Trainer(model, loss=loss, optimizer="sgd").loss_and_grads(X, y)
    close(got, value.item(), "network", dtype="float64")
    for g, p in zip([a for pair in grads for a in pair], parameters, strict=True):
        close(g, p.grad.numpy(), "network")


@pytest.mark.parametrize("smoothing", [0.0, 0.3, 0.9])
def test_label_smoothing(device: str, smoothing: float) -> None:
    """As PyTorch's `label_smoothing`, in training and in figures, with sample weights."""
    model = gpumlp.MLP(SIZES, init=0.7, seed=2, dtype="float64", device=device)
    X, y = data("softmax_cross_entropy")
    w = np.random.default_rng(1).uniform(0.1, 2, len(y))
    rows = F.cross_entropy(theirs(model)[1](X), torch.tensor(y), label_smoothing=smoothing, reduction="none")
    expected = np.average(rows.detach().numpy(), weights=w)
    trainer = gpumlp.Trainer(model, loss=gpumlp.SoftmaxCrossEntropy(smoothing), optimizer="sgd")
    close(trainer.loss_and_grads(X, y, w)[0], expected, "network", dtype="float64")
    close(trainer.evaluate(X, y, w)["loss"], expected, "network", dtype="float64")
    model = gpumlp.MLP([*SIZES[:-1], 1], init=0.7, seed=2, dtype="float64", device=device)
    targets = (y > 0) * 1.0
    z = theirs(model)[1](X)[:, 0]
    expected = F.binary_cross_entropy_with_logits(
        z, torch.tensor((1 - smoothing) * targets + smoothing / 2)
    ).item()
    trainer = gpumlp.Trainer(model, loss=gpumlp.BinaryCrossEntropy(smoothing), optimizer="sgd")
    figures = trainer.evaluate(X, targets)
    close(trainer.loss_and_grads(X, targets)[0], expected, "network", dtype="float64")
    close(figures["loss"], expected, "network", dtype="float64")
    assert figures["accuracy"] == np.mean((z.detach().numpy() > 0) == (y > 0))


def test_twenty_steps_of_adam(device: str) -> None:
    """Mini-batches, L2 on the weights only."""
    model = gpumlp.MLP(SIZES, ["relu", "gelu"], seed=2, dtype="float64", device=device)
    X, y = data("softmax_cross_entropy", rows=40)
    parameters, forward = theirs(model)
    groups = [
        {"params": parameters[0::2], "weight_decay": 0.01},
        {"params": parameters[1::2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.Adam(groups, lr=0.01, eps=1e-6)
    trainer = gpumlp.Trainer(model, loss="softmax_cross_entropy", optimizer=gpumlp.Adam(lr=0.01), l2=0.01)
    for i in range(20):
        part = np.arange(8 * i, 8 * i + 8) % 40
        trainer.step(X[part], y[part])
        optimizer.zero_grad()
        F.cross_entropy(forward(X[part]), torch.tensor(y[part])).backward()
        optimizer.step()
    for a, p in zip([a for pair in model.get_parameters() for a in pair], parameters, strict=True):
        close(a, p.detach().numpy(), "50 training steps")
