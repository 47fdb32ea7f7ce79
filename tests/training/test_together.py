"""Small networks on the CPU, which go through their epochs together; see also test_many.py."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp.backends.native.plan import Batch
from gpumlp.rows import check_rows
from gpumlp.training import members


def data(n: int = 150) -> tuple[np.ndarray, np.ndarray]:
    X = np.random.default_rng(3).normal(size=(n, 6)).astype(np.float32)
    return X, X[:, :3].argmax(1)


def trainer(seed: int, device: str, batch: int = 16, **more: Any) -> gpumlp.Trainer:
    return gpumlp.Trainer(
        gpumlp.MLP([6, 5 + seed, 3], seed=seed, device=device),
        loss="softmax_cross_entropy",
        optimizer=gpumlp.Adam(lr=0.01),
        batch_size=batch,
        **more,
    )


def alike(one: gpumlp.Trainer, other: gpumlp.Trainer) -> None:
    """The parameters are equal; on CUDA, sums may be in another order."""
    flat = [t.model.backend.to_numpy(t.model.flat) for t in (one, other)]
    rounding = {"rtol": 1e-4, "atol": 1e-5} if one.model.device != "cpu" else {"rtol": 0}
    np.testing.assert_allclose(*flat, **rounding)


def test_one_thread_of_python_and_batches(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads would wait for Python's lock; the results are the same."""
    X, y = data()
    threads, made = [], threading.Thread
    monkeypatch.setattr(threading, "Thread", lambda *a, **k: (threads.append(1), made(*a, **k))[1])
    batches, run = [], Batch.run
    monkeypatch.setattr(Batch, "run", lambda batch: (batches.append(1), run(batch))[1])
    many, counts = [], []
    for small in (0, 10**9):
        monkeypatch.setattr(members, "SMALL", small)
        trainers = [trainer(seed, device) for seed in range(4)]
        gpumlp.fit_many(trainers, X, y, epochs=3)
        many.append([one.model.flat for one in trainers])
        counts.append((len(threads), len(batches)))
        threads.clear()
    lanes = gpumlp.get_backend(device).lanes
    assert [count[0] for count in counts] == [1 if device == "cuda" else min(4, lanes), 1]
    assert counts[0][1] == 0
    assert (counts[1][1] >= 3) == (lanes > 1)
    for one, other in zip(*many, strict=True):
        assert bool((one == other).all())


def test_averages_of_the_weights(device: str) -> None:
    """They are exchanged with the parameters before and after the steps of an epoch."""
    X, y = data()
    alone, many = ([trainer(seed, device, average=0.9) for seed in range(3)] for _ in range(2))
    for one in alone:
        one.fit(X, y, epochs=3)
    gpumlp.fit_many(many, X, y, epochs=3)
    for one, other in zip(alone, many, strict=True):
        alike(other, one)


@pytest.mark.parametrize("count", [65, 130])
def test_more_than_go_together(count: int, device: str) -> None:
    X, y = data(40)
    alone, many = ([trainer(seed, device) for seed in range(count)] for _ in range(2))
    for one in alone[::8]:
        one.fit(X, y, epochs=2)
    gpumlp.fit_many(many, X, y, epochs=2)
    for one, other in zip(alone[::8], many[::8], strict=True):
        alike(other, one)


@pytest.mark.skipif(gpumlp.get_backend("cpu").name != "native", reason="no native executor")
def test_a_callback_evaluates_meanwhile() -> None:
    """In the calling thread, whose plans do not wait."""
    X, y = data()
    seen: list[bool] = []

    def look(one: Any, history: Any) -> None:
        seen.append(one.evaluate(X, y)["loss"] == history.val_loss[-1])

    trainers = [trainer(seed, "cpu", callbacks=[look]) for seed in range(5)]
    gpumlp.fit_many(trainers, X, y, epochs=3, validation=(X, y))
    assert seen == [True] * 15


def test_small_are_epochs_of_few_rows_and_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that go through their epochs together are asked after each whether to end."""
    monkeypatch.setattr(type(gpumlp.get_backend("cpu")), "lanes", 4)

    def lanes(rows: int, batch: int, held: int = 0) -> int:
        one = trainer(0, "cpu", batch)
        X, y = data(rows + held)
        parts = [slice(rows), slice(rows, None)][: 1 + bool(held)]
        checked = [check_rows(one.model, one.loss, X[part], y[part]) for part in parts]
        train, val = [*checked, None][:2]
        return members.Member(one, train, val, 1, None).lanes

    assert lanes(500, 50) == 1
    assert lanes(1000, 1) == lanes(150_000, 10_000) == lanes(500, 50, 150_000) == 4
