"""The programs of docs/own-training.md, on every executor, with gradients against central differences."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tolerances import close

import gpumlp

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "own-training.md").read_text(encoding="utf-8")
H = 1e-5


def program(title: str, steps: int) -> str:
    """The code under a heading, or of the beginning of the page, with so many steps."""
    section = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0] if title else PAGE
    text = re.findall(r"```python\n(.*?)```", section, re.DOTALL)[0]
    return text.replace("range(100)", f"range({steps})")


@pytest.fixture
def names(device: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the first program of the page defines; networks are on the executor and of double precision."""
    monkeypatch.setenv("GPUMLP_DEVICE", device)
    monkeypatch.setattr(gpumlp, "MLP", partial(gpumlp.MLP, dtype="float64"))
    found: dict[str, Any] = {}
    exec(program("", 1), found)
    found["X"], found["T"] = found["X"].astype("float64"), found["T"].astype("float64")
    return found


def run(names: dict[str, Any], title: str, steps: int = 5) -> None:
    exec(program(title, steps), names)


def check(model: Any, grads: Any, loss: Callable[[], Any]) -> None:
    """Derivatives of `loss` along random directions of all parameters of `model`."""
    read, rng = model.backend.to_numpy, np.random.default_rng(2)
    gradient, start = np.concatenate([read(g).ravel() for g in grads]), read(model.flat)
    sizes = np.cumsum([int(p.size) for p in (*model.weights, *model.biases)])

    def at(way: np.ndarray, h: float) -> float:
        model.backend.copy(model.flat, start)
        for p, part in zip((*model.weights, *model.biases), np.split(way, sizes[:-1]), strict=True):
            p[...] += model.backend.asarray(h * part.reshape(p.shape))
        return float(loss())

    ways = rng.normal(size=(3, gradient.size))
    numeric = np.array([(at(way, H) - at(way, -H)) / (2 * H) for way in ways])
    model.backend.copy(model.flat, start)
    assert np.abs(gradient).max() > 1e-4
    close(ways @ gradient, numeric, "central differences")


def bits(arrays: Sequence[Any]) -> list[bytes]:
    return [np.asarray(getattr(a, "get", lambda a=a: a)()).tobytes() for a in arrays]


def test_the_first_program_learns(names: dict[str, Any]) -> None:
    run(names, "", steps=60)
    Y, T = names["model"].forward(names["X"]), names["T"]
    assert float(((Y - T) ** 2).mean()) < 0.5 * float((T**2).mean())


def test_skip_connections(names: dict[str, Any]) -> None:
    run(names, "Skip connections")
    body, head, X, T = (names[name] for name in ("body", "head", "X", "T"))

    def loss() -> Any:
        return ((head.forward(X + body.forward(X)) - T) ** 2).sum() / (2 * len(X))

    for model, grads in zip((body, head), names["gradients"](), strict=True):
        check(model, grads, loss)


def test_several_heads(names: dict[str, Any]) -> None:
    run(names, "Several heads")
    trunk, classes, number, wanted, X, T, xp = (
        names[name] for name in ("trunk", "classes", "number", "wanted", "X", "T", "xp")
    )

    def loss() -> Any:
        shared = trunk.forward(X)
        z = classes.forward(shared)
        entropy = xp.log(xp.exp(z).sum(axis=1)) - (z * wanted).sum(axis=1)
        return (entropy + ((number.forward(shared) - T) ** 2).sum(axis=1) / 2).mean()

    for model, grads in zip((trunk, classes, number), names["gradients"](), strict=True):
        check(model, grads, loss)


def test_a_loss_of_ones_own(names: dict[str, Any]) -> None:
    run(names, "A loss of your own")
    normal, X, T, xp = (names[name] for name in ("normal", "X", "T", "xp"))

    def loss() -> Any:
        mean, log = normal.forward(X)[:, :1], normal.forward(X)[:, 1:]
        return (log + ((T - mean) / xp.exp(log)) ** 2 / 2).mean()

    check(normal, names["gradients"](), loss)


def test_frozen_layers(names: dict[str, Any]) -> None:
    title = "Frozen layers"
    run(names, title, steps=0)
    tuned, X, T = names["tuned"], names["X"], names["T"]
    before = bits([*tuned.weights, *tuned.biases])
    run(names, title)
    tuned = names["tuned"]  # made anew, from the same seed
    changed = [a != b for a, b in zip(before, bits([*tuned.weights, *tuned.biases]), strict=True)]
    assert changed == [False, False, True] * 2

    def loss() -> Any:
        tuned.dropout_step = 7
        return ((tuned.forward(X, keep=True, training=True) - T) ** 2).sum() / (2 * len(X))

    tuned.dropout_step = 7
    check(tuned, names["gradients"](), loss)


def test_two_networks_against_each_other(names: dict[str, Any]) -> None:
    title = "Two networks against each other"
    run(names, title, steps=1)
    maker, judge, X, xp = (names[name] for name in ("maker", "judge", "X", "xp"))
    Z = xp.asarray(np.random.default_rng(3).normal(size=(256, 4)))

    def of_judge() -> Any:
        real, fake = judge.forward(X), judge.forward(maker.forward(Z))
        return (xp.log1p(xp.exp(-real)).sum() + xp.log1p(xp.exp(fake)).sum()) / (len(X) + len(Z))

    def of_maker() -> Any:
        return xp.log1p(xp.exp(-judge.forward(maker.forward(Z)))).mean()

    losses = {id(judge): of_judge, id(maker): of_maker}
    for model, _, grads in names["gradients"](Z):
        check(model, grads, losses[id(model)])


def test_the_trainers_steps(names: dict[str, Any]) -> None:
    run(names, "The trainer's gradients, and its steps")
    on_host = isinstance(names["X"], np.ndarray)
    assert isinstance(names["loss"], np.float64 if on_host else type(names["X"]))
    assert isinstance(names["value"], float) == on_host
