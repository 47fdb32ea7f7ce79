"""`gpumlp.check_gradients` finds what is wrong, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import gpumlp
from gpumlp.activations import ACTIVATIONS
from gpumlp.losses import LOSSES


@pytest.mark.parametrize("name", [*sorted(ACTIVATIONS), *sorted(LOSSES)])
def test_the_packages_own_are_right(name: str) -> None:
    assert gpumlp.check_gradients(name).error < 1e-6


def test_the_place_of_the_worst_error() -> None:
    """A slope that is wrong at one of the given points."""
    bad = replace(ACTIVATIONS["tanh"], name="bad", df=lambda a: np.where(a > 0.9, 2.0, 1 - a * a))
    assert gpumlp.check_gradients(bad, [-3.0, 0.5]).checked == 2
    with pytest.raises(ValueError, match=r"worst of 3 at z = 3: derivative 2, central difference 0.00986603"):
        gpumlp.check_gradients(bad, [-3.0, 3.0, 0.5])
    assert gpumlp.check_gradients(bad, tolerance=10.0).error > 1


def test_a_kink_is_no_error() -> None:
    assert gpumlp.check_gradients("relu", [0.0]).error == 0
    steep = replace(ACTIVATIONS["relu"], df=lambda a: np.full_like(a, 1.5))
    with pytest.raises(ValueError, match="at z = 0"):
        gpumlp.check_gradients(steep, [0.0])


def test_a_whole_network(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Penalties, dropout, weights and a kinked activation; then one derivative is wrong."""
    rng = np.random.default_rng(0)
    X, y, w = rng.normal(size=(12, 3)), np.arange(12) % 4, rng.uniform(0.5, 2, 12)
    model = gpumlp.MLP([3, 6, 4], "relu", dropout=0.3, device=device)  # float32: a copy in float64 is checked
    trainer = gpumlp.Trainer(model, loss=gpumlp.SoftmaxCrossEntropy(0.2), optimizer="adam", l1=0.01, l2=0.1)
    before = model.backend.to_numpy(model.flat)
    report = gpumlp.check_gradients(trainer, X, y, w)
    assert (report.checked, report.good) == (model.n_params, True)
    assert np.array_equal(model.backend.to_numpy(model.flat), before) and trainer.optimizer.t == 0

    honest = gpumlp.Trainer.loss_and_grads

    def one_is_wrong(self: gpumlp.Trainer, *rows: object) -> object:
        value, grads = honest(self, *rows)
        grads[0][0][2, 5] += 0.5
        return value, grads

    monkeypatch.setattr(gpumlp.Trainer, "loss_and_grads", one_is_wrong)
    with pytest.raises(ValueError, match=r"worst of 52 at weights\[0\]\[2, 5\]: derivative"):
        gpumlp.check_gradients(trainer, X, y, w)


def test_an_embedding_and_many_parameters() -> None:
    X = np.random.default_rng(1).normal(size=(8, 3))
    embedding = gpumlp.Embedding("periodic", 3, frequencies=4)
    model = gpumlp.MLP([3, 40, 40, 2], "tanh", embedding=embedding, device="cpu")
    report = gpumlp.check_gradients(model, X, X[:, :2], loss="squared_error")
    assert report.checked == 1000 < model.n_params


def test_what_cannot_be_checked() -> None:
    model = gpumlp.MLP([3, 1], device="numpy")
    for given, message in (
        ((model,), "an MLP needs loss="),
        ((gpumlp.Trainer(model, loss="huber", optimizer="sgd"),), "needs rows"),
        (("mishh",), "neither a known activation nor a known loss"),
    ):
        with pytest.raises(ValueError, match=message):
            gpumlp.check_gradients(*given)
    with pytest.raises(TypeError, match="was given 3"):
        gpumlp.check_gradients(3)
