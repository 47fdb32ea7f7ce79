"""A loss or an activation of one's own is one entry in a registry; everything else finds it there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tolerances import close

import gpumlp
from gpumlp.activations import ACTIVATIONS, Activation
from gpumlp.cli import main
from gpumlp.losses import LOSSES, Loss

D = "(z[c] - y[row * ld_y + c])"


def _reference(z: np.ndarray, y: np.ndarray, delta: float) -> tuple[np.ndarray, np.ndarray]:
    root = np.sqrt(1 + ((z - y) / delta) ** 2)
    return delta**2 * (root - 1), (z - y) / root


PSEUDO_HUBER = Loss(
    "pseudo_huber",
    f"delta * delta * (sqrt(C(1) + {D} / delta * ({D} / delta)) - C(1))",
    f"const C dc = {D}, xc = dc / delta;\nconst C gc = dc * rsqrt(C(1) + xc * xc);",
    _reference,
    delta=2.0,
)
SOFTSIGN = Activation(
    "softsign",
    "z / (C(1) + fabs(z))",
    "(C(1) - fabs(a)) * (C(1) - fabs(a))",
    lambda z: z / (1 + np.abs(z)),
    lambda a: (1 - np.abs(a)) ** 2,
)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 3))
Y = X @ [1.0, -2.0, 0.5] + 3 * RNG.normal(size=32)


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setitem(LOSSES, PSEUDO_HUBER.name, PSEUDO_HUBER)
    monkeypatch.setitem(ACTIVATIONS, SOFTSIGN.name, SOFTSIGN)
    return monkeypatch


def trainer(device: str, loss: Any, sizes: tuple[int, ...] = (3, 4, 1)) -> gpumlp.Trainer:
    model = gpumlp.MLP(list(sizes), "softsign", device=device, dtype="float64")
    return gpumlp.Trainer(model, loss=loss, optimizer=gpumlp.SGD(lr=0.1), batch_size=32)


@pytest.mark.parametrize("delta", [None, 0.7])
def test_training_has_the_numbers_of_the_formulas(device: str, own: Any, delta: float | None) -> None:
    """One hidden layer, ten steps on all rows, against back-propagation by hand."""
    loss = "pseudo_huber" if delta is None else replace(PSEUDO_HUBER, delta=delta)
    t, size = trainer(device, loss), delta or 2.0
    (W, b), (V, c) = (tuple(map(np.array, pair)) for pair in t.model.get_parameters())
    losses = []
    for _ in range(10):
        z = X @ W + b
        a = z / (1 + np.abs(z))
        error = (a @ V + c)[:, 0] - Y
        root = np.sqrt(1 + (error / size) ** 2)
        losses.append(np.mean(size**2 * (root - 1)))
        d = (error / root / len(X))[:, None]
        back = d @ V.T / (1 + np.abs(z)) ** 2
        V, c = V - 0.1 * a.T @ d, c - 0.1 * d.sum(axis=0)
        W, b = W - 0.1 * X.T @ back, b - 0.1 * back.sum(axis=0)
    history = t.fit(X, Y, epochs=10, progress=False)
    close(np.array(history.loss), losses, "100 steps")
    for (got_W, got_b), wanted in zip(t.model.get_parameters(), ((W, b), (V, c)), strict=True):
        close(got_W, wanted[0], "100 steps")
        close(got_b, wanted[1], "100 steps")


def test_a_training_is_saved_and_goes_on(device: str, own: Any, tmp_path: Path) -> None:
    loss, path = replace(PSEUDO_HUBER, delta=0.7), tmp_path / "training.npz"
    whole, half = trainer(device, loss), trainer(device, loss)
    whole.fit(X, Y, epochs=4, progress=False)
    half.fit(X, Y, epochs=2, progress=False)
    half.save(path)
    loaded = gpumlp.Trainer.load(path, device=device)
    loaded.fit(X, Y, epochs=2, progress=False)
    for one, other in zip(whole.model.get_parameters(), loaded.model.get_parameters(), strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert np.array_equal(gpumlp.load(path, device=device).predict(X), half.model.predict(X))


@pytest.mark.parametrize(
    ("registry", "name", "where"),
    [(LOSSES, "pseudo_huber", "gpumlp.losses.LOSSES"), (ACTIVATIONS, "softsign", "activations.ACTIVATIONS")],
)
def test_a_file_says_what_it_needs(own: Any, tmp_path: Path, registry: dict, name: str, where: str) -> None:
    trainer("numpy", "pseudo_huber").save(tmp_path / "training.npz")
    own.delitem(registry, name)
    with pytest.raises(gpumlp.ModelFileError, match=rf"unknown .*'{name}'.*{where}\['{name}'\]"):
        gpumlp.Trainer.load(tmp_path / "training.npz", device="numpy")


def _forward(estimator: Any) -> np.ndarray:
    (W, V), (b, c) = estimator.coefs_, estimator.intercepts_
    z = X @ W + b
    return ((z / (1 + np.abs(z))) @ V + c)[:, 0]


@pytest.mark.filterwarnings("ignore:.*aximum:UserWarning", "ignore:lbfgs failed")
def test_estimators(device: str, own: Any) -> None:
    pytest.importorskip("sklearn")
    options: dict[str, Any] = {"hidden_layer_sizes": (4,), "activation": "softsign", "device": device}
    options |= {"random_state": 0, "alpha": 0.0, "learning_rate_init": 0.1, "max_iter": 50}
    regressor = gpumlp.MLPRegressor("pseudo_huber", **options, solver="sgd").fit(X, Y)
    close(regressor.predict(X), _forward(regressor), "100 steps")
    assert regressor.loss_curve_[-1] < 0.9 * regressor.loss_curve_[0]
    classifier = gpumlp.MLPClassifier(**options, solver="lbfgs").fit(X, Y > 0)
    close(classifier.predict_proba(X)[:, 1], 1 / (1 + np.exp(-_forward(classifier))), "100 steps")


def test_command_line(own: Any, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    table, out = tmp_path / "table.csv", tmp_path / "model.npz"
    rows = [",".join(map(repr, map(float, (*x, y)))) for x, y in zip(X, Y, strict=True)]
    table.write_text("\n".join(["a,b,c,y", *rows]))
    options = [
        "--target",
        "y",
        "--loss",
        "pseudo_huber",
        "--activation",
        "softsign",
        "--epochs",
        "2",
        "--device",
        "cpu",
    ]
    assert main(["train", str(table), *options, "--out", str(out)]) == 0
    assert "regression (because of --loss pseudo_huber)" in capsys.readouterr().out
    assert main(["evaluate", str(out), str(table)]) == 0
    assert gpumlp.load(out).activations[0] == "softsign"


def test_losses_that_are_not_known() -> None:
    with pytest.raises(ValueError, match=r"'pseudo_huber'.*LOSSES\['pseudo_huber'\]"):
        gpumlp.losses.get_loss("pseudo_huber")
    with pytest.raises(ValueError, match="'huber'"):  # another loss of a known name
        gpumlp.losses.get_loss(replace(PSEUDO_HUBER, name="huber"))


def test_an_entry_that_is_replaced_is_used(device: str, own: Any) -> None:
    """Kernels belong to the entry, not to its name."""
    t = trainer(device, "pseudo_huber")
    first = t.evaluate(X, Y)["loss"]
    double = replace(PSEUDO_HUBER, value=f"C(2) * {PSEUDO_HUBER.value}", reference=_twice)
    own.setitem(LOSSES, PSEUDO_HUBER.name, double)
    close(np.array(trainer(device, "pseudo_huber").evaluate(X, Y)["loss"]), 2 * first, "figures")


def _twice(z: np.ndarray, y: np.ndarray, delta: float) -> tuple[np.ndarray, np.ndarray]:
    return 2 * _reference(z, y, delta)[0], _reference(z, y, delta)[1]
