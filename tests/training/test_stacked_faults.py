"""Networks that share a plan, where something is in the way: callbacks that change things at the last moment,
memory or a device that fails.  Each ends as its own fit would have left it, or at the end of an epoch."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from tolerances import close

import gpumlp
from gpumlp.network import Stack
from gpumlp.training import groups, members, stacked
from gpumlp.training.epochs import ResidentEpochs
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


def test_a_plan_is_freed_before_the_next_one(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wave after wave, and when some have left: also with one that has diverged, whose error is kept."""
    if backend.name != "cuda":
        pytest.skip("plans of many networks are for CUDA devices")
    made: list[Any] = []
    alive: list[int] = []

    class Watched(Stack):
        def __init__(self, networks: Any) -> None:
            alive.append(sum(one() is not None for one in made))
            super().__init__(networks)
            made.append(weakref.ref(self))

    monkeypatch.setattr(stacked, "Stack", Watched)
    monkeypatch.setattr(groups, "usable_bytes", lambda backend: (64 << 20) + 200_000)
    X, y = data()
    some = [trainer(k, backend.device) for k in range(8)]
    some[2].optimizer.lr = 1e38
    some[3].callbacks = [lambda one, history: len(history) == 2]
    gc.disable()
    try:
        histories = gpumlp.fit_many(
            some, X, y, epochs=[3, 4, 5, 6] * 2, validation=0.2, early_stopping=True, progress=False
        )
        left = sum(one() is not None for one in made)
    finally:
        gc.enable()
    assert histories[2].error is not None and len(alive) > 3
    assert max(alive) == left == 0


def test_penalties_of_all_kinds_in_one_plan(device: str) -> None:
    """`proximal` says nothing where l1 is 0."""
    X, y = data()
    settings = [
        {"l1": 0.0, "proximal": True},
        {"l1": 1e-2, "proximal": False},
        {"l1": 1e-2, "proximal": True},
        {"l1": 3e-2, "proximal": True, "l2": 1e-3},
        {"l2": 1e-2},
    ]

    def make() -> list[gpumlp.Trainer]:
        return [trainer(0, device, optimizer=gpumlp.SGD(lr=0.1), **more) for more in settings]

    alone, together = make(), make()
    for one in alone:
        one.fit(X, y, epochs=4, progress=False)
    gpumlp.fit_many(together, X, y, epochs=4, progress=False)
    for one, other in zip(alone, together, strict=True):
        assert_same(one, other)


def test_every_plan_is_counted(backend: Any) -> None:
    if backend.name != "cuda":
        pytest.skip("plans of many networks are for CUDA devices")
    X, y = data()
    some = [trainer(k, backend.device, batch_size=8 * (1 + k // 2)) for k in range(12)]
    histories = gpumlp.fit_many(some, X, y, epochs=1, progress=False)
    assert repr(histories).startswith("12 networks in 6 plans")


@pytest.mark.parametrize("error", [MemoryError, RuntimeError])
@pytest.mark.parametrize("steps", ["none", "all"])
@pytest.mark.parametrize("epoch", [0, 2])
def test_a_device_that_fails(
    backend: Any, monkeypatch: pytest.MonkeyPatch, epoch: int, steps: str, error: type[Exception]
) -> None:
    """The counts are those of what has been done, as after a fit of its own."""
    if backend.name != "cuda":
        pytest.skip("plans of many networks are for CUDA devices")
    X, y = data()
    run, ran = ResidentEpochs.run, []

    def failing(self: ResidentEpochs, table: dict[str, Any]) -> None:
        ran.append(1)
        if len(ran) == epoch + 1 and steps == "none":
            raise error("mine")
        run(self, table)
        if len(ran) == epoch + 1:
            raise error("mine")

    some = [trainer(k, backend.device) for k in range(3)]
    own = [trainer(k, backend.device) for k in range(3)]
    monkeypatch.setattr(ResidentEpochs, "run", failing)
    with pytest.raises(error, match="mine"):
        gpumlp.fit_many(some, X, y, epochs=4, progress=False)
    monkeypatch.undo()
    done = epoch + (steps == "all")
    for one, other in zip(own, some, strict=True):
        if done:
            one.fit(X, y, epochs=done, progress=False)
        assert len(other.history) == other.epoch == epoch and other.optimizer.t == 6 * done
        close(host(one.model.flat), host(other.model.flat), "50 training steps")


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("sizes", ["equal", "padded"])
def test_memory_that_ends_anywhere(backend: Any, seed: int, sizes: str) -> None:
    """All goes on in smaller plans, or all are at the end of an epoch."""
    if backend.name != "cuda":
        pytest.skip("plans of many networks are for CUDA devices")
    import cupy

    X, y = data()
    usual, rng = cupy.cuda.get_allocator(), np.random.default_rng(seed)

    def make() -> list[gpumlp.Trainer]:
        return [trainer(k if sizes == "padded" else 2 * k, backend.device) for k in range(5)]

    some, own = make(), make()
    some[1].callbacks = [lambda one, history: False]
    many: dict[str, Any] = {"epochs": [2, 3, 3, 4, 5], "early_stopping": True, "validation": 0.2}
    count, total = [0], 0

    def scarce(size: int) -> Any:
        count[0] += 1
        if count[0] == total:
            raise cupy.cuda.memory.OutOfMemoryError(size, 0, 0)
        return usual(size)

    cupy.cuda.set_allocator(scarce)
    try:
        gpumlp.fit_many(make(), X, y, progress=False, **many)
        total, count[0] = int(rng.integers(1, count[0] + 1)), 0
        with suppress(MemoryError):
            gpumlp.fit_many(some, X, y, progress=False, **many)
    finally:
        cupy.cuda.set_allocator(usual)
    for one, other in zip(own, some, strict=True):
        assert other.epoch == len(other.history) and other.optimizer.t == 5 * other.epoch
        if other.epoch:
            one.fit(X, y, **{**many, "epochs": other.epoch}, progress=False)
        close(host(one.model.flat), host(other.model.flat), "50 training steps")


def test_the_callers_own_stream(backend: Any) -> None:
    """What is read and written on it, in callbacks and afterwards, is in order with the training."""
    if backend.name != "cuda":
        pytest.skip("streams are those of CUDA devices")
    import cupy

    def double(one: gpumlp.Trainer, history: History) -> None:
        one.model.weights[0][...] *= 2  # by CuPy, on the current stream

    X, y = data()
    own, some = ([trainer(k, backend.device, callbacks=[double]) for k in range(3)] for _ in range(2))
    some[2].callbacks = own[2].callbacks = []
    for one in own:
        one.fit(X, y, epochs=3, progress=False)
    with cupy.cuda.Stream(non_blocking=True):
        gpumlp.fit_many(some, X, y, epochs=3, progress=False)
        copies = [one.model.flat.copy().get() for one in some]
    for one, copied in zip(own, copies, strict=True):
        close(host(one.model.flat), copied, "50 training steps")
