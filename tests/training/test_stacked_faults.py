"""Networks that share a plan, where something is in the way: callbacks that change things at the last moment,
memory or a device that fails.  Each ends as its own fit would have left it, or at the end of an epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tolerances import close

import gpumlp
from gpumlp.training import members
from gpumlp.training.history import History

N_IN = 6


def data(n: int = 90) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(11)
    X = rng.normal(size=(n, N_IN)).astype(np.float32)
    return X, (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)


def trainer(seed: int, device: str, **more: Any) -> gpumlp.Trainer:
    sizes = [N_IN, 8 + 3 * (seed % 2), 5, 3]
    settings = {"optimizer": gpumlp.Adam(lr=0.01), "batch_size": 16, "seed": seed}
    return gpumlp.Trainer(
        gpumlp.MLP(sizes, "tanh", seed=seed, device=device),
        loss="softmax_cross_entropy",
        **{**settings, **more},
    )


def host(array: Any) -> np.ndarray:
    return array.get() if hasattr(array, "get") else array


def assert_same(one: gpumlp.Trainer, other: gpumlp.Trainer) -> None:
    assert (one.epoch, one.optimizer.t, len(one.history)) == (
        other.epoch,
        other.optimizer.t,
        len(other.history),
    )
    close(host(one.model.flat), host(other.model.flat), "50 training steps")
    for mine, theirs in zip(one.optimizer.state, other.optimizer.state, strict=True):
        for name in set(mine) - {"_shape"}:
            close(host(mine[name]), host(theirs[name]), "50 training steps")
    for name, values in one.history.metrics.items():
        if name != "seconds":
            close(np.float32(values), np.float32(other.history[name]), "50 training steps")


@pytest.fixture(autouse=True)
def side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "SMALL", 0)


@pytest.mark.parametrize("sizes", [(16, 40), (40, 30), (40, 1000)])
def test_batches_longer_than_the_rows_are_of_any_size(device: str, sizes: tuple[int, int]) -> None:
    """One step an epoch, whatever the batch size is."""
    X, y = data()
    rows = [np.arange(5, 5 + min(size, 40)) for size in sizes]

    def make() -> list[gpumlp.Trainer]:
        return [trainer(k, device, batch_size=size) for k, size in enumerate(sizes)]

    alone, together = make(), make()
    for one, index in zip(alone, rows, strict=True):
        one.fit(X[index], y[index], epochs=4, progress=False)
    gpumlp.fit_many(together, X, y, epochs=4, rows=rows, progress=False)
    for one, other in zip(alone, together, strict=True):
        assert_same(one, other)


def _parameters(one: gpumlp.Trainer) -> None:
    one.model.biases[0] = np.full(one.model.layer_sizes[1], 0.25)


def _count(one: gpumlp.Trainer) -> None:
    one.optimizer.t += 5
    one.epoch += 3


def _rule(one: gpumlp.Trainer) -> None:
    one.optimizer = gpumlp.SGD(lr=0.05, momentum=0.5)


def _state(one: gpumlp.Trainer) -> None:
    one.optimizer.reset()


def _load(one: gpumlp.Trainer) -> None:
    other = gpumlp.Adam(lr=0.02)
    other.load_state_dict(one.optimizer.state_dict())
    one.optimizer.load_state_dict({**other.state_dict(), "t": 3})


def _move(one: gpumlp.Trainer) -> None:
    one.model.to("cpu")


def _silence(one: gpumlp.Trainer) -> None:
    one.callbacks = []


CHANGES = [_parameters, _count, _rule, _state, _load, _move, _silence]


@pytest.mark.parametrize("when", ["last", "others leave", "pause", "error"])
@pytest.mark.parametrize("change", CHANGES, ids=[f.__name__.strip("_") for f in CHANGES])
def test_what_a_callback_changed_is_not_undone(device: str, change: Callable, when: str) -> None:
    """Neither at the end, nor when the plan is made again or left for a while."""
    X, y = data()
    last = {"last": 3, "others leave": 5, "pause": 6, "error": 3}[when]

    def callback(one: gpumlp.Trainer, history: History) -> bool:
        if len(history) == 3:
            change(one)
        elif len(history) == 4:
            _parameters(one)
        return len(history) == last

    def make() -> list[gpumlp.Trainer]:
        some = [trainer(k, device) for k in range(4)]
        some[1].callbacks = [callback]
        if when == "error":
            some[2].callbacks = [fail]
        if when == "pause":
            some[2].optimizer.lr = some[3].optimizer.lr = 0.0
        return some

    def fail(one: gpumlp.Trainer, history: History) -> None:
        if len(history) == 3:
            raise KeyError("mine")

    alone, together = make(), make()
    counts = [3 if when == "others leave" and k > 1 else last for k in range(4)]
    for one, n in zip(alone[:2], counts, strict=False):
        one.fit(X, y, epochs=n, progress=False)
    many: dict[str, Any] = {"epochs": counts, "progress": False}
    if when == "pause":  # after three epochs; the last two, which learn nothing, leave
        halving = gpumlp.SuccessiveHalving(2, monitor="loss")
        many = {**many, "halving": halving, "groups": [0, 0, 1, 1]}
    if when == "error":
        with pytest.raises(KeyError, match="mine"):
            gpumlp.fit_many(together, X, y, **many)
    else:
        gpumlp.fit_many(together, X, y, **many)
    for one, other in zip(alone[:2], together, strict=False):
        if when == "error" and len(other.history) < 3 and one.model.backend.name != "cuda":
            continue  # there nobody waits for the others
        assert_same(one, other)
        assert one.model.device == other.model.device and one.optimizer.lr == other.optimizer.lr
