"""A new optimiser is one class and one entry in the registry; everything else finds it there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import oracles
import pytest
from rules import OPTIONS
from tolerances import RELATIVE

import gpumlp
from gpumlp.cli import main
from gpumlp.optimizers import OPTIMIZERS, Optimizer

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class SignMomentum(Optimizer):
    """``m = beta m + (1 - beta) g;  w -= lr sign(m)``."""

    name: ClassVar[str] = "sign_momentum"
    lr: float = 0.01
    beta: float = 0.5

    def state_names(self) -> tuple[str, ...]:
        return ("m",)

    def constants(self) -> dict[str, float]:
        return {"beta": self.beta, "gain": 1 - self.beta}

    def text(self) -> str:
        return """m = beta * m + gain * grad;
const C delta = lr * ((m > C(0) ? C(1) : C(0)) - (m < C(0) ? C(1) : C(0)));"""

    def rule(self, grad: np.ndarray, lr: float, **values: Any) -> np.ndarray:
        m = values["m"]
        m *= values["beta"]
        m += values["gain"] * grad
        return lr * np.sign(m)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> type[Optimizer]:
    monkeypatch.setitem(OPTIMIZERS, SignMomentum.name, SignMomentum)
    return SignMomentum


def test_on_bare_arrays(on: Any, dtype: Any, toy: Any) -> None:
    p = on.asarray(np.zeros((2, 2), dtype))
    optimizer = toy(lr=1.0, l2=0.5, weight_decay=0.1)
    optimizer.update(p, on.asarray(np.array([[2, -2], [0, 1]], dtype)))
    assert on.to_numpy(p).tolist() == [[-1, 1], [0, -1]]
    optimizer.update(p, on.asarray(np.array([[-1.5, 0], [0, 0]], dtype)))
    # gradients with l2: -2, 0.5, 0, -0.5; m: -0.5, -0.25, 0, 0; decay 0.1
    np.testing.assert_allclose(on.to_numpy(p), [[0.1, 1.9], [0, -0.9]], rtol=RELATIVE["float32 roundings"])


def test_in_a_trainer(device: str, toy: Any) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(64, 3))
    results = []
    for optimizer in ("sign_momentum", toy(lr=0.01)):
        model = gpumlp.MLP([3, 4, 1], "tanh", device=device, dtype="float64")
        trainer = gpumlp.Trainer(
            model, loss="squared_error", optimizer=optimizer, batch_size=16, clip_norm=1.0
        )
        history = trainer.fit(X, X.sum(axis=1), epochs=20, progress=False)
        assert history.loss[-1] < 0.2 * history.loss[0]
        results.append(history.loss)
    assert results[0] == results[1]


def test_a_training_is_saved_and_goes_on(device: str, toy: Any, tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(64, 3))
    trainers = []
    for epochs in (3, 1):
        model = gpumlp.MLP([3, 4, 1], "tanh", device=device, dtype="float64")
        trainer = gpumlp.Trainer(model, loss="squared_error", optimizer=toy(beta=0.75), batch_size=16)
        trainer.fit(X, X.sum(axis=1), epochs=epochs, progress=False)
        trainers.append(trainer)
    trainers[1].save(tmp_path / "training.npz")
    resumed = gpumlp.Trainer.load(tmp_path / "training.npz", device=device)
    resumed.fit(X, X.sum(axis=1), epochs=2, progress=False)
    for one, other in zip(trainers[0].model.get_parameters(), resumed.model.get_parameters(), strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_file_says_what_it_needs(monkeypatch: pytest.MonkeyPatch, toy: Any, tmp_path: Path) -> None:
    model = gpumlp.MLP([3, 1], device="numpy")
    gpumlp.Trainer(model, loss="squared_error", optimizer=toy()).save(tmp_path / "training.npz")
    monkeypatch.delitem(OPTIMIZERS, toy.name)
    needs = r"unknown optimizer 'sign_momentum'.*gpumlp.optimizers.OPTIMIZERS\['sign_momentum'\]"
    with pytest.raises(gpumlp.ModelFileError, match=needs):
        gpumlp.Trainer.load(tmp_path / "training.npz", device="numpy")
    assert gpumlp.load(tmp_path / "training.npz", device="numpy").layer_sizes == [3, 1]


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer. Maximum iterations")
def test_in_an_estimator(device: str, toy: Any) -> None:
    """One row and one weight: the weight moves by learning_rate_init in every step."""
    pytest.importorskip("sklearn")
    est = gpumlp.MLPRegressor(hidden_layer_sizes=(), random_state=0, max_iter=10, device=device)
    est.set_params(solver="sign_momentum", learning_rate_init=0.01, alpha=0.0, tol=0.0).fit([[1.0]], [100.0])
    start = gpumlp.MLPRegressor(hidden_layer_sizes=(), random_state=0, max_iter=1, device=device)
    start.set_params(solver="sgd", learning_rate_init=1e-9).fit([[1.0]], [100.0])
    np.testing.assert_allclose(est.coefs_[0], start.coefs_[0] + 0.1, rtol=RELATIVE["float32 sums"])


def test_numbers_of_a_rule_become_pythons(toy: Any) -> None:
    """A rule need not check what is only a number."""
    assert type(toy(beta=np.float32(0.5)).beta) is float
    with pytest.raises(ValueError, match="SignMomentum: beta='x'; expected a number"):
        toy(beta="x")


def test_on_the_command_line(toy: Any, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert "sign_momentum" in capsys.readouterr().out
    out = tmp_path / "model.npz"
    options = ["--optimizer", "sign_momentum", "--epochs", "1", "--hidden", "8", "--device", "cpu"]
    assert main(["train", *options, "--out", str(out)]) == 0
    assert out.exists()


def test_registry_is_complete(capsys: pytest.CaptureFixture) -> None:
    """Every rule has an oracle, test cases, a line in docs/formulas.md, and a choice of the CLI."""
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    help_text = capsys.readouterr().out
    formulas = (ROOT / "docs" / "formulas.md").read_text(encoding="utf-8")
    for name, rule in OPTIMIZERS.items():
        assert rule.name == name
        assert name in oracles.RULES, f"tests/oracles.py has no formula for {name}"
        assert OPTIONS.get(name), f"tests/rules.py has no options for {name}"
        assert re.search(rf"^\|[^|]*`{name}`", formulas, re.M), f"docs/formulas.md has no row for {name}"
        assert re.search(rf"\b{name}\b", help_text)
        assert getattr(gpumlp, rule.__name__) is rule
        assert rule.__doc__ and "Examples" in rule.__doc__


def test_every_option_is_tested() -> None:
    """Each constructor argument of each rule is varied in tests/rules.py or tested by name."""
    elsewhere = {"eps", "rho", "betas", "lr"}
    common = {"l1", "l2", "weight_decay", "proximal", "average"}
    for name, rule in OPTIMIZERS.items():
        own = set(rule().hyperparameters()) - common - elsewhere
        varied = {option for options in OPTIONS[name] for option in options}
        missing = own - varied - ({"eps_hat"} if name == "adamw" else set())
        assert not missing, f"{name}: {missing}"
