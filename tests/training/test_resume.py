"""A training that is saved and loaded goes on to the bit, on this executor or another one."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tolerances import RELATIVE

import gpumlp
from gpumlp import schedules
from gpumlp.optimizers import OPTIMIZERS
from gpumlp.schedules import schedule_from_dict, schedule_to_dict

RNG = np.random.default_rng(0)
X = RNG.normal(size=(100, 6)).astype(np.float32)
Y = (X[:, 0] + X[:, 1] ** 2 > 0.7).astype(np.int64)


def _trainer(device: str, **more: Any) -> gpumlp.Trainer:
    model = gpumlp.MLP(
        [6, 9, 2], "tanh", dropout=0.2, seed=3, device=device, dtype=more.pop("dtype", "float32")
    )
    settings = {"optimizer": gpumlp.Adam(lr=0.01), "batch_size": 16, "l1": 1e-3, "l2": 1e-2, "seed": 7}
    return gpumlp.Trainer(model, loss="softmax_cross_entropy", **{**settings, **more})


def _flat(trainer: gpumlp.Trainer) -> np.ndarray:
    return trainer.model.backend.to_numpy(trainer.model.flat)


def _same_end(path: Path, device: str, elsewhere: str | None = None, **more: Any) -> None:
    """Five epochs at once, and two and three with a file between."""
    fit = {"validation": 0.2, "progress": False}
    whole, half = _trainer(device, **dict(more)), _trainer(device, **dict(more))
    losses = whole.fit(X, Y, epochs=5, **fit).loss
    first = half.fit(X, Y, epochs=2, **fit).loss
    half.save(path)
    resumed = gpumlp.Trainer.load(path, device=elsewhere or device)
    assert (resumed.epoch, resumed.optimizer.t) == (2, half.optimizer.t)
    second = resumed.fit(X, Y, epochs=3, **fit).loss
    if elsewhere is None:
        assert np.array_equal(_flat(resumed), _flat(whole)) and [*first, *second] == losses
    else:
        np.testing.assert_allclose(second, losses[2:], rtol=RELATIVE["float32 run"])
    assert np.array_equal(gpumlp.load(path, device=device).weights[0], half.model.weights[0])


@pytest.mark.cuda_sample(3)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rule", sorted(OPTIMIZERS))
def test_goes_on_to_the_bit(tmp_path: Path, device: str, rule: str, dtype: str) -> None:
    options = {"momentum": 0.9} if rule in ("sgd", "rmsprop") else {}
    schedule = schedules.Warmup(steps=5, after=schedules.Exponential(0.99))
    _same_end(
        tmp_path / "t.npz",
        device,
        optimizer=OPTIMIZERS[rule](lr=0.01, **options),  # type: ignore[call-arg]
        dtype=dtype,
        clip_norm=1.0,
        schedule=schedule,
    )


def test_plain_gradient_descent_has_no_state(tmp_path: Path, device: str) -> None:
    _same_end(tmp_path / "t.npz", device, optimizer=gpumlp.SGD(lr=0.1))


def test_on_another_executor(tmp_path: Path, device: str) -> None:
    _same_end(tmp_path / "t.npz", device, elsewhere="numpy")


@pytest.mark.parametrize("precision", ["tf32", "float16", "bfloat16"])
def test_mixed_precision(tmp_path: Path, device: str, precision: str) -> None:
    if gpumlp.get_backend(device).name != "cuda":
        pytest.skip("only on CUDA devices")
    _same_end(tmp_path / "t.npz", device, precision=precision)


def test_the_loss_scale_goes_on(tmp_path: Path, device: str) -> None:
    if gpumlp.get_backend(device).name != "cuda":
        pytest.skip("only on CUDA devices")
    trainer = _trainer(device, precision="float16")
    trainer.fit(X, Y, epochs=1, progress=False)
    lowered = np.array([1024, 0, 3, 2], np.float32)
    trainer.model.backend.copy(trainer.engine.precision.scaler, lowered)
    for number in range(2):  # a loaded one that is saved again at once keeps it too
        trainer.save(tmp_path / f"{number}.npz")
        trainer = gpumlp.Trainer.load(tmp_path / f"{number}.npz", device=device)
    trainer.fit(X, Y, epochs=1, progress=False)
    state = trainer.loss_scale_state()
    assert state is not None and state[0] == 1024 and state[2:].tolist() == [3 + 7, 2]


def test_before_the_first_fit(tmp_path: Path, device: str) -> None:
    new = _trainer(device)
    new.save(tmp_path / "t.npz")
    resumed = gpumlp.Trainer.load(tmp_path / "t.npz", device=device)
    for each in (new, resumed):
        each.fit(X, Y, epochs=2, progress=False)
    assert np.array_equal(_flat(new), _flat(resumed))


def test_saved_in_a_callback(tmp_path: Path, device: str) -> None:
    def keep(trainer: gpumlp.Trainer, history: gpumlp.History) -> None:
        if len(history) == 2:
            trainer.save(tmp_path / "t.npz")

    whole = _trainer(device, callbacks=[keep])
    whole.fit(X, Y, epochs=4, progress=False)
    resumed = gpumlp.Trainer.load(tmp_path / "t.npz", device=device)
    resumed.fit(X, Y, epochs=2, progress=False)
    assert np.array_equal(_flat(resumed), _flat(whole))


def test_huber_keeps_its_delta(tmp_path: Path, device: str) -> None:
    model = gpumlp.MLP([6, 1], device=device)
    gpumlp.Trainer(model, loss=gpumlp.Huber(0.3), optimizer="sgd").save(tmp_path / "t.npz")
    assert gpumlp.Trainer.load(tmp_path / "t.npz", device=device).objective.delta == 0.3


def test_a_schedule_of_ones_own_is_asked_for(tmp_path: Path, device: str) -> None:
    trainer = _trainer(device, schedule=lambda t, total: 0.9**t)
    trainer.save(tmp_path / "t.npz")
    with pytest.raises(ValueError, match=r"schedule of its own.*Trainer.load\(path, schedule=\.\.\.\)"):
        gpumlp.Trainer.load(tmp_path / "t.npz", device=device)
    loaded = gpumlp.Trainer.load(tmp_path / "t.npz", device=device, schedule=lambda t, total: 0.9**t)
    assert loaded.batch_size == 16


@pytest.mark.parametrize("name", sorted(schedules.SCHEDULES))
def test_schedules_survive_json(name: str) -> None:
    schedule = (
        schedules.Warmup(after=schedules.Step(0.5, 7)) if name == "warmup" else schedules.SCHEDULES[name]()
    )
    assert schedule_from_dict(json.loads(json.dumps(schedule_to_dict(schedule)))) == schedule


def test_files_that_are_no_training(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    gpumlp.MLP([2, 3], device="numpy").save(path)
    with pytest.raises(
        gpumlp.ModelFileError, match=r"holds a model only, no training; read it with gpumlp\.load"
    ):
        gpumlp.Trainer.load(path, device="numpy")


def _edit(path: Path, change: Any) -> None:
    with np.load(path) as archive:
        arrays = dict(archive)
    header = json.loads(arrays["header"].tobytes())
    change(header["trainer"], arrays)
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    path.write_bytes(buffer.getvalue())


def test_a_file_from_before_there_were_averages(tmp_path: Path) -> None:
    path, trainer = tmp_path / "t.npz", _trainer("numpy")
    trainer.fit(X, Y, epochs=1, progress=False)
    trainer.save(path)
    _edit(path, lambda t, a: t["hyperparameters"].pop("average"))
    loaded = gpumlp.Trainer.load(path, device="numpy")
    assert loaded.optimizer.average == 0 and loaded.optimizer.t == trainer.optimizer.t


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, a: t.update(optimizer="adamm"), "unknown optimizer 'adamm'"),
        (lambda t, a: t.update(seed="x"), "trainer 'seed' is 'x'"),
        (lambda t, a: t.pop("epoch"), "trainer 'epoch' is None"),
        (lambda t, a: t["hyperparameters"].update(eps=-1.0), "eps=-1.0"),
        (lambda t, a: t["hyperparameters"].pop("betas"), "cannot be restored: 'betas'"),
        (lambda t, a: t.update(state=["v"]), "arrays .*, expected"),
        (lambda t, a: a.pop("v_w0"), "arrays .*, expected"),
        (
            lambda t, a: a.update(v_w0=np.zeros((2, 2), np.float32)),
            r"array v_w0 is float32 of shape \(2, 2\)",
        ),
        (lambda t, a: t.update(batch_size=0), "batch_size=0"),
    ],
)
def test_damaged_files_are_told(tmp_path: Path, change: Any, message: str) -> None:
    path, trainer = tmp_path / "t.npz", _trainer("numpy")
    trainer.fit(X, Y, epochs=1, progress=False)
    trainer.save(path)
    _edit(path, change)
    with pytest.raises(gpumlp.ModelFileError, match=message):
        gpumlp.Trainer.load(path, device="numpy")
