"""Settings of trainers and models that are assigned to, before a training or in a callback of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp.schedules import Cosine

X = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int)


def _trainer(device: str, activation: str = "relu", dropout: float = 0.0, **settings: Any) -> gpumlp.Trainer:
    model = gpumlp.MLP([4, 5, 2], activation, dropout=dropout, seed=1, device=device)
    settings = {"optimizer": "adam", "batch_size": 16, **settings}
    return gpumlp.Trainer(model, loss="softmax_cross_entropy", **settings)


def _flat(trainer: gpumlp.Trainer) -> np.ndarray:
    return trainer.model.backend.to_numpy(trainer.model.flat)


BAD = [
    *(("batch_size", v) for v in (0, -3, 2.5, "8", None, True, [8], np.array([8]), np.bool_(True))),
    *(("clip_norm", v) for v in (0, -1, np.nan, np.inf, "1", True, [0.1], np.array([0.1]))),
    *(("seed", v) for v in (-1, 2.5, "a", None, 2**63)),
    *(("epoch", v) for v in (-5, 1.5, None, True)),
    *(("schedule", v) for v in (3, "cosinus", Cosine, lambda t: t)),
    *(("precision", v) for v in ("float64", None, 16)),
    *(("optimizer", v) for v in (None, "adamm", gpumlp.SGD)),
    *(("callbacks", v) for v in (None, print, [3], 3)),
    ("model", None),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_bad_value_is_refused_where_it_is_assigned(device: str, name: str, value: Any) -> None:
    trainer = _trainer(device)
    before = getattr(trainer, name)

    def change(trainer: gpumlp.Trainer, history: gpumlp.History) -> None:
        if len(history) == 2:
            setattr(trainer, name, value)

    trainer.callbacks.append(change)
    with pytest.raises((ValueError, TypeError), match=rf"{name}|unknown"):
        trainer.fit(X, Y, epochs=4)
    after = getattr(trainer, name)
    assert after == before or name == "epoch"
    trainer.callbacks = []
    trainer.fit(X, Y, epochs=1)
    assert np.isfinite(trainer.history.loss[0])


@pytest.mark.parametrize(
    ("name", "value", "plain"),
    [
        ("batch_size", np.int64(8), 8),
        ("batch_size", np.array(8), 8),
        ("clip_norm", np.float32(0.25), 0.25),
        ("clip_norm", np.array(0.25), 0.25),
        ("clip_norm", None, None),
        ("seed", np.uint8(3), 3),
        ("epoch", np.int64(7), 7),
        ("schedule", "cosine", Cosine()),
        ("schedule", None, gpumlp.schedules.Constant()),
    ],
)
def test_a_good_value_counts_and_can_be_saved(
    tmp_path: Path, device: str, name: str, value: Any, plain: Any
) -> None:
    trainer = _trainer(device)
    trainer.fit(X, Y, epochs=1)
    setattr(trainer, name, value)
    kept = getattr(trainer, name)
    assert kept == plain and type(kept) is type(plain)
    trainer.fit(X, Y, epochs=2)
    trainer.save(tmp_path / "t.npz")
    again = gpumlp.Trainer.load(tmp_path / "t.npz", device=device)
    for each in (trainer, again):
        each.fit(X, Y, epochs=2)
    np.testing.assert_array_equal(_flat(again), _flat(trainer))


def test_an_optimizer_by_name(device: str) -> None:
    trainer, other = _trainer(device), _trainer(device, optimizer="sgd")
    trainer.optimizer = "sgd"
    for each in (trainer, other):
        each.fit(X, Y, epochs=2)
    np.testing.assert_array_equal(_flat(trainer), _flat(other))


@pytest.mark.parametrize("value", [np.bool_(False), np.array(0), 0])
def test_flags_of_fit(device: str, value: Any) -> None:
    _trainer(device).fit(X, Y, epochs=1, progress=value, streaming=value)


@pytest.mark.parametrize("name", ["progress", "streaming"])
@pytest.mark.parametrize("value", ["no", [0], 2, 0.5])
def test_what_is_no_flag(device: str, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name}=.*True or False"):
        _trainer(device).fit(X, Y, epochs=1, **{name: value})


@pytest.mark.parametrize("monitor", [None, 3, b"loss", ["loss"], np.array("loss")])
def test_what_is_no_metric(monitor: Any) -> None:
    with pytest.raises(ValueError, match=r"monitor=.*the name of a metric"):
        gpumlp.EarlyStopping(monitor=monitor)


def test_the_objective_cannot_be_exchanged(device: str) -> None:
    trainer = _trainer(device)
    with pytest.raises(AttributeError):
        trainer.objective = None  # type: ignore[misc]


@pytest.mark.parametrize("t", [-4, 2.5, None, "3"])
def test_a_number_of_steps_that_is_none(tmp_path: Path, device: str, t: Any) -> None:
    trainer = _trainer(device)
    trainer.fit(X, Y, epochs=1)
    before = _flat(trainer)
    trainer.optimizer.t = t
    for use in (
        lambda: trainer.fit(X, Y, epochs=1),
        lambda: trainer.step(X, Y),
        lambda: trainer.save(tmp_path / "t.npz"),
    ):
        with pytest.raises(ValueError, match=r"optimizer\.t="):
            use()
    np.testing.assert_array_equal(_flat(trainer), before)
    assert not (tmp_path / "t.npz").exists()


def test_a_state_that_does_not_fit_is_not_saved(tmp_path: Path, device: str) -> None:
    trainer = _trainer(device)
    trainer.fit(X, Y, epochs=1)
    trainer.optimizer.amsgrad = True
    with pytest.raises(ValueError, match="s_max"):
        trainer.save(tmp_path / "t.npz")


# ---- of the network -----------------------------------------------
@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("moment", ["between fits", "in a callback"])
def test_dropout_and_activations_count_from_the_next_epoch_on(
    tmp_path: Path, device: str, moment: str, in_place: bool
) -> None:
    """As in a network that was made with them, predictions and validation included."""

    def change(trainer: gpumlp.Trainer, history: gpumlp.History | None = None) -> None:
        if history is not None and len(history) != 1:
            return
        if in_place:
            trainer.model.dropouts[0], trainer.model.activations[0] = np.float32(0.25), "tanh"
        else:
            trainer.model.dropouts, trainer.model.activations = 0.25, "tanh"

    trainer = _trainer(device)
    trainer.model.forward(X)
    if moment == "in a callback":
        trainer.callbacks.append(change)
        history = trainer.fit(X, Y, epochs=3, validation=(X, Y))
        losses = history.val_loss[1:]
    else:
        trainer.fit(X, Y, epochs=1, validation=(X, Y))
        change(trainer)
        losses = trainer.fit(X, Y, epochs=2, validation=(X, Y)).val_loss

    first = _trainer(device)
    first.fit(X, Y, epochs=1)
    other = _trainer(device, "tanh", 0.25, optimizer=first.optimizer)
    other.model.set_parameters(first.model.get_parameters())
    other.epoch = 1
    assert other.fit(X, Y, epochs=2, validation=(X, Y)).val_loss == losses
    np.testing.assert_array_equal(_flat(trainer), _flat(other))
    np.testing.assert_array_equal(trainer.model.forward(X), other.model.forward(X))
    trainer.save(tmp_path / "t.npz")
    loaded = gpumlp.load(tmp_path / "t.npz", device=device)
    assert (loaded.dropouts, loaded.activations) == ([0.25], ["tanh"])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("dropouts", [1.5], "dropout=1.5"),
        ("dropouts", "half", "dropout='half'"),
        ("dropouts", [0.1, 0.1], "2 entries"),
        ("activations", ["tanhh"], "unknown activation"),
        ("activations", ["tanh", "tanh"], "2 entries"),
    ],
)
def test_what_they_cannot_be(tmp_path: Path, device: str, name: str, value: Any, message: str) -> None:
    trainer = _trainer(device)
    trainer.fit(X, Y, epochs=1)
    setattr(trainer.model, name, value)
    for use in (
        lambda: trainer.fit(X, Y, epochs=1),
        lambda: trainer.step(X, Y),
        lambda: trainer.save(tmp_path / "t.npz"),
        lambda: trainer.model.save(tmp_path / "t.npz"),
    ):
        with pytest.raises(ValueError, match=message):
            use()


@pytest.mark.parametrize("value", ["logits", None, 3, ["softmax"], "Softmax"])
def test_an_output_that_is_none(device: str, value: Any) -> None:
    model = gpumlp.MLP([4, 2], device=device)
    with pytest.raises(ValueError, match=r"output=.*identity, softmax"):
        model.output = value
    assert model.output == "identity"


# ---- schedules and callbacks that do more than they should -----------------------------------------------
def test_a_schedule_may_write_to_its_steps(device: str) -> None:
    def schedule(t: np.ndarray, total: int) -> np.ndarray:
        factors = 0.5 ** t.astype(float)
        t[:] = 0
        return factors

    trainer, other = (
        _trainer(device, dropout=0.25, schedule=each) for each in (schedule, lambda t, total: 0.5**t)
    )
    for each in (trainer, other):
        each.fit(X, Y, epochs=2)
    np.testing.assert_array_equal(_flat(trainer), _flat(other))


@pytest.mark.parametrize("shape", [(2,), (4, 1), (0,), (1, 4)])
def test_factors_of_a_wrong_shape(device: str, shape: tuple[int, ...]) -> None:
    trainer = _trainer(device, schedule=lambda t, total: np.ones(shape))
    with pytest.raises(ValueError, match="the schedule gave factors of shape"):
        trainer.fit(X, Y, epochs=1)
    assert trainer.optimizer.t == 0


@pytest.mark.parametrize("ends", [False, True])
def test_each_fit_has_its_own_history(device: str, ends: bool) -> None:
    """Also one that a callback of another one calls."""
    inner = []

    def again(trainer: gpumlp.Trainer, history: gpumlp.History) -> None:
        if len(history) == 2 and not inner:
            trainer.callbacks = []
            inner.append(trainer.fit(X, Y, epochs=3))
            if ends:
                raise RuntimeError

    trainer, whole = _trainer(device, callbacks=[again]), _trainer(device)
    if ends:
        with pytest.raises(RuntimeError):
            trainer.fit(X, Y, epochs=4)
    else:
        assert trainer.fit(X, Y, epochs=4) is trainer.history
    expected = whole.fit(X, Y, epochs=5 if ends else 7).loss
    assert inner[0].loss == expected[2:5]
    assert trainer.history.loss == expected[:2] + expected[5:]
    np.testing.assert_array_equal(_flat(trainer), _flat(whole))


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
@pytest.mark.parametrize("what", ["trainer", "optimizer"])
def test_what_is_loaded_from_a_mapped_file_trains_on(
    tmp_path: Path, device: str, what: str, mode: str
) -> None:
    joblib = pytest.importorskip("joblib")
    trainer = _trainer(device)
    trainer.fit(X, Y, epochs=1)
    path = tmp_path / "object.joblib"
    joblib.dump(trainer if what == "trainer" else trainer.optimizer, path)
    before = path.read_bytes()
    loaded = joblib.load(path, mmap_mode=mode)
    if what == "optimizer":
        optimizer, loaded = loaded, _trainer(device)
        loaded.model.set_parameters(trainer.model.get_parameters())
        loaded.optimizer, loaded.epoch = optimizer, 1
    for each in (trainer, loaded):
        each.fit(X, Y, epochs=2)
    np.testing.assert_array_equal(_flat(loaded), _flat(trainer))
    del loaded
    assert path.read_bytes() == before
