"""What callbacks change counts from the next step on, as between two fits, on every executor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tolerances import RELATIVE

import gpumlp

RNG = np.random.default_rng(0)
X = RNG.normal(size=(150, 6))
Y = (X[:, :3].sum(axis=1) > 0).astype(int)


def trainer(device: str, *callbacks: Any, optimizer: Any = None, **options: Any) -> gpumlp.Trainer:
    model = gpumlp.MLP([6, 8, 2], dropout=options.pop("dropout", 0.0), device=device, dtype="float64", seed=1)
    return gpumlp.Trainer(
        model,
        loss="softmax_cross_entropy",
        optimizer=optimizer or gpumlp.Adam(lr=0.01),
        batch_size=32,
        callbacks=callbacks,
        **options,
    )


def flat(t: gpumlp.Trainer) -> np.ndarray:
    return t.model.backend.to_numpy(t.model.flat)


def load_state(t: gpumlp.Trainer) -> None:
    other = trainer(t.model.device if t.model.device != "cpu" else t.model.backend.name)
    other.fit(X, Y, epochs=2)
    t.optimizer.load_state_dict(other.optimizer.state_dict())


def other_optimizer(t: gpumlp.Trainer) -> None:
    t.optimizer = gpumlp.SGD(lr=0.1, momentum=0.5)


CHANGES: dict[str, Callable[[gpumlp.Trainer], Any]] = {
    "lr": lambda t: setattr(t.optimizer, "lr", 0.03),
    "betas": lambda t: setattr(t.optimizer, "betas", (0.5, 0.9)),
    "eps": lambda t: setattr(t.optimizer, "eps", 0.01),
    "amsgrad": lambda t: (t.optimizer.reset(), setattr(t.optimizer, "amsgrad", True)),
    "l1": lambda t: setattr(t.optimizer, "l1", 0.01),
    "l2": lambda t: setattr(t.optimizer, "l2", 0.1),
    "weight_decay": lambda t: setattr(t.optimizer, "weight_decay", 0.1),
    "clip_norm": lambda t: setattr(t, "clip_norm", 1e-3),
    "batch_size up": lambda t: setattr(t, "batch_size", 70),
    "batch_size down": lambda t: setattr(t, "batch_size", 16),
    "seed": lambda t: setattr(t, "seed", 5),
    "reset": lambda t: t.optimizer.reset(),
    "state": load_state,
    "optimizer": other_optimizer,
    "weights": lambda t: t.model.weights.__setitem__(0, np.full((6, 8), 0.1)),
}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_as_between_two_fits(device: str, change: str, streaming: bool) -> None:
    def callback(t: gpumlp.Trainer, history: gpumlp.History) -> None:
        if len(history) == 1:
            CHANGES[change](t)

    inside, between = trainer(device, callback, dropout=0.2), trainer(device, dropout=0.2)
    plain = trainer(device, dropout=0.2)
    options = {"streaming": streaming, "validation": (X[:40], Y[:40])}
    history = inside.fit(X, Y, epochs=3, **options)
    first = between.fit(X, Y, epochs=1, **options)
    CHANGES[change](between)
    rest = between.fit(X, Y, epochs=2, **options)
    plain.fit(X, Y, epochs=3, **options)
    np.testing.assert_array_equal(flat(inside), flat(between))
    assert not np.array_equal(flat(inside), flat(plain))
    assert history.val_loss == first.val_loss + rest.val_loss
    assert (inside.epoch, inside.optimizer.t) == (between.epoch, between.optimizer.t)


def test_hyper_parameters_that_make_no_sense_are_refused_at_the_next_step(device: str) -> None:
    def callback(t: gpumlp.Trainer, history: gpumlp.History) -> None:
        t.optimizer.betas = (2.0, 0.5)

    with pytest.raises(ValueError, match="betas"):
        trainer(device, callback).fit(X, Y, epochs=2)


def test_the_model_may_move(device: str) -> None:
    """The rows follow it, and the best parameters come back to where it is."""
    elsewhere = "native" if gpumlp.get_backend(device).name == "numpy" else "numpy"
    if gpumlp.get_backend("cpu").name == "numpy":
        pytest.skip("there is one executor only")
    seen = []

    def move(t: gpumlp.Trainer, history: gpumlp.History) -> None:
        seen.append(flat(t))
        if len(history) == 2:
            t.model.to(elsewhere)

    stop = gpumlp.EarlyStopping(monitor="val_loss", patience=9)
    moved, stayed = trainer(device, move), trainer(device)
    history = moved.fit(X, Y, epochs=5, validation=0.3, early_stopping=stop)
    expected = stayed.fit(X, Y, epochs=5, validation=0.3, early_stopping=stop)
    assert moved.model.backend.name == elsewhere and len(seen) == 5
    np.testing.assert_allclose(history.loss, expected.loss, rtol=RELATIVE["run"])
    np.testing.assert_allclose(flat(moved), flat(stayed), rtol=RELATIVE["float32 roundings"], atol=1e-12)
    assert moved.evaluate(X, Y)["loss"] == pytest.approx(stayed.evaluate(X, Y)["loss"])


def test_rows_on_a_device_do_not_follow_the_model_to_the_host(device: str) -> None:
    backend = gpumlp.get_backend(device)
    if backend.name != "cuda":
        pytest.skip("only on CUDA devices")
    t = trainer(device, lambda t, history: t.model.to("numpy") and None)
    with pytest.raises(TypeError, match="the model is on cpu"):
        t.fit(backend.asarray(X), backend.asarray(Y), epochs=2)


def test_the_loss_cannot_be_exchanged(device: str) -> None:
    with pytest.raises(AttributeError):
        trainer(device).loss = "squared_error"  # type: ignore[misc, assignment]


def test_labels_that_change_after_the_check(device: str) -> None:
    """They index outputs, so training reads the labels that were checked."""
    labels = Y.astype(np.int32)

    def relabel(t: gpumlp.Trainer, history: gpumlp.History) -> None:
        labels[5] = 2**30

    inside, plain = trainer(device, relabel), trainer(device)
    inside.fit(X, labels, epochs=3, validation=0.3)
    plain.fit(X, Y, epochs=3, validation=0.3)
    np.testing.assert_array_equal(flat(inside), flat(plain))


def test_history_is_kept_when_a_training_ends_early(device: str) -> None:
    def press(t: gpumlp.Trainer, history: gpumlp.History) -> None:
        if len(history) == 2:
            raise KeyboardInterrupt

    t = trainer(device, press)
    with pytest.raises(KeyboardInterrupt):
        t.fit(X, Y, epochs=5)
    assert len(t.history) == 2 and t.history.best_epoch is not None


def test_steps_of_alternating_sizes_are_recorded_once(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    t, expected = trainer(device), trainer(device)
    backend, count = t.model.backend, []
    record = backend.record
    monkeypatch.setattr(backend, "record", lambda ops, steps: (count.append(1), record(ops, steps))[1])
    sizes = [32, 7, 20, 1] * 5
    start = 0
    for number, size in enumerate(sizes):
        rows = slice(start % 100, start % 100 + size)
        t.step(X[rows], Y[rows])
        start += size
        if number == 3:
            recorded = len(count)
    assert len(count) == recorded
    start = 0
    for size in sizes:
        rows = slice(start % 100, start % 100 + size)
        expected = trainer(device) if size == 0 else expected
        expected.step(X[rows], Y[rows])
        start += size
    np.testing.assert_array_equal(flat(t), flat(expected))
    for size in range(40, 60):  # more than are kept
        t.step(X[:size], Y[:size])
    t.step(X[:32], Y[:32])
    assert len(count) > recorded
