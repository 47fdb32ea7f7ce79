"""Moving averages of the weights: their values, where a trainer shows them, files and plans of many."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tolerances import RELATIVE, close

import gpumlp

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4))
Y = np.tanh(X @ RNG.normal(size=4)) + 0.1 * RNG.normal(size=60)


def trainer(device: str, average: float = 0.9, **options: Any) -> gpumlp.Trainer:
    model = gpumlp.MLP([4, 6, 1], "tanh", seed=1, device=device, dtype=options.pop("dtype", "float64"))
    rule = options.pop("optimizer", gpumlp.AdamW(lr=0.02))
    options = {"batch_size": 16, "seed": 3, **options}
    return gpumlp.Trainer(model, loss="squared_error", optimizer=rule, average=average, **options)


def flat(t: gpumlp.Trainer) -> np.ndarray:
    return t.model.backend.to_numpy(t.model.flat)


def held(t: gpumlp.Trainer) -> np.ndarray:
    return t.model.backend.to_numpy(t.optimizer.state[0]["average"])


@pytest.mark.parametrize("decay", [0.3, 0.999])
def test_averages_of_bare_arrays(on: Any, dtype: Any, decay: float) -> None:
    """d = min(decay, (1 + n) / (10 + n)) after n steps before, from the start values on."""
    rng = np.random.default_rng(0)
    for shape in ((5,), (3, 4)):
        start = rng.normal(size=shape).astype(dtype)
        p, average = on.asarray(start.copy()), start.astype(float)
        optimizer, plain, q = gpumlp.SGD(lr=0.1, average=decay), gpumlp.SGD(lr=0.1), on.asarray(start.copy())
        for n in range(30):
            g = on.asarray(rng.normal(size=shape).astype(dtype))
            optimizer.update(p, g)
            plain.update(q, g)
            d = min(decay, (1 + n) / (10 + n))
            average = d * average + (1 - d) * on.to_numpy(q)
        np.testing.assert_array_equal(on.to_numpy(p), on.to_numpy(q))
        close(on.to_numpy(optimizer.state[0]["average"]), average, "100 steps")


def test_an_update_of_several_arrays(on: Any) -> None:
    arrays, together = [on.asarray(np.full(n, 2.0)) for n in (3, 5)], gpumlp.Adam(lr=0.5, average=0.5)
    for _ in range(3):  # the second call on takes the quick way
        together.update(arrays, [on.asarray(np.ones(n)) for n in (3, 5)])
    alone, p = gpumlp.Adam(lr=0.5, average=0.5), on.asarray(np.full(5, 2.0))
    for _ in range(3):
        alone.update(p, on.asarray(np.ones(5)))
    found = on.to_numpy(together.state[1]["average"])
    np.testing.assert_array_equal(found, on.to_numpy(alone.state[0]["average"]))
    assert (found > on.to_numpy(p)).all()


@pytest.mark.parametrize("streaming", [False, True])
def test_a_trainer_shows_the_averages(device: str, streaming: bool) -> None:
    """Steps are those without averages; figures, callbacks and predictions are those of the averages."""
    weights: list[np.ndarray] = []
    plain = trainer(device, 0.0, batch_size=60)
    plain.callbacks = [lambda t, h: weights.append(flat(t).copy())]
    average = start = flat(plain).copy()
    plain.fit(X, Y, epochs=8, progress=False)
    shown: list[np.ndarray] = []
    t = trainer(device, 0.7, batch_size=60)
    t.callbacks = [lambda t, h: shown.append(flat(t).copy())]
    history = t.fit(X, Y, epochs=8, validation=(X, Y), progress=False, streaming=streaming)
    for n, w in enumerate(weights):
        d = min(0.7, (1 + n) / (10 + n))
        average = d * average + (1 - d) * w
        close(shown[n], average, "100 steps")
    assert np.abs(average - start).max() > 0.01
    np.testing.assert_array_equal(held(t), weights[-1])
    assert t.evaluate(X, Y)["loss"] == pytest.approx(history.val_loss[-1], rel=RELATIVE["few roundings"])
    model = gpumlp.MLP([4, 6, 1], "tanh", device=device, dtype="float64")
    model.set_parameters(t.model.get_parameters())
    np.testing.assert_array_equal(model.predict(X), t.model.predict(X))
    loss, _ = t.loss_and_grads(X, Y)
    assert loss == pytest.approx(history.val_loss[-1], rel=RELATIVE["few roundings"])


def test_single_steps(device: str) -> None:
    whole, steps = trainer(device), trainer(device)
    whole.fit(X[:16], Y[:16], epochs=1, progress=False)
    order = np.random.default_rng([3, 1, 0]).permutation(16)
    steps.step(X[order], Y[order])
    np.testing.assert_array_equal(flat(whole), flat(steps))
    np.testing.assert_array_equal(held(whole), held(steps))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_training_goes_on_to_the_bit(device: str, dtype: str, tmp_path: Path) -> None:
    whole, twice, half = (trainer(device, dtype=dtype, clip_norm=1.0) for _ in range(3))
    whole.fit(X, Y, epochs=6, progress=False)
    for _ in range(2):
        twice.fit(X, Y, epochs=3, progress=False)
    half.fit(X, Y, epochs=3, progress=False)
    half.save(tmp_path / "t.npz")
    resumed = gpumlp.Trainer.load(tmp_path / "t.npz", device=device)
    np.testing.assert_array_equal(
        gpumlp.load(tmp_path / "t.npz", device=device).predict(X), half.model.predict(X)
    )
    resumed.fit(X, Y, epochs=3, progress=False)
    for t in (twice, resumed):
        np.testing.assert_array_equal(flat(t), flat(whole))
        np.testing.assert_array_equal(held(t), held(whole))


def test_early_stopping_keeps_the_best_average(device: str) -> None:
    shown: list[np.ndarray] = []
    t = trainer(device, optimizer=gpumlp.SGD(lr=0.7, momentum=0.9))
    t.callbacks = [lambda t, h: shown.append(flat(t).copy())]
    history = t.fit(X, Y, epochs=12, validation=0.3, early_stopping=True, progress=False)
    assert history.best_epoch is not None
    np.testing.assert_array_equal(flat(t), shown[history.best_epoch])


def test_many(device: str) -> None:
    """In one plan, in threads, and alone: the same averages."""
    decays, rates = [0.5, 0.9, 0.99], [0.01, 0.02, 0.04]
    alone, many = (
        [trainer(device, d, optimizer=gpumlp.Adam(lr=lr)) for d, lr in zip(decays, rates, strict=True)]
        for _ in range(2)
    )
    many.append(trainer(device, 0.0))  # without averages it has a plan of its own
    gpumlp.fit_many(many, X, Y, epochs=4, validation=0.2, progress=False)
    for one, other in zip(alone, many, strict=False):
        one.fit(X, Y, epochs=4, validation=0.2, progress=False)
        close(flat(other), flat(one), "small plan")
        close(held(other), held(one), "small plan")
        assert one.history.val_loss == pytest.approx(other.history.val_loss, rel=RELATIVE["run"])


def test_ctrl_c_leaves_the_averages(device: str) -> None:
    def interrupt(t: Any, history: Any) -> None:
        raise KeyboardInterrupt

    t, whole = trainer(device), trainer(device)
    t.callbacks = [interrupt]
    with pytest.raises(KeyboardInterrupt):
        t.fit(X, Y, epochs=5, progress=False)
    whole.fit(X, Y, epochs=1, progress=False)
    np.testing.assert_array_equal(flat(t), flat(whole))
    np.testing.assert_array_equal(held(t), held(whole))


def test_half_precision(device: str) -> None:
    if not device.startswith("cuda"):
        pytest.skip("the host has no half precision")
    plain, t = (trainer(device, d, dtype="float32", precision="float16", batch_size=60) for d in (0.0, 0.9))
    for one in (plain, t):
        one.callbacks = [lambda t, h: None]  # parameters are stored in half precision again
        one.fit(X, Y, epochs=5, progress=False)
    np.testing.assert_array_equal(held(t), flat(plain))


def test_settings() -> None:
    with pytest.raises(ValueError, match="average=1"):
        trainer("numpy", 1.0)
    with pytest.raises(ValueError, match="average was given twice"):
        trainer("numpy", 0.9, optimizer=gpumlp.SGD(average=0.5))
    t = trainer("numpy", 0.0)
    t.fit(X, Y, epochs=1, progress=False)
    t.optimizer.average = 0.9
    with pytest.raises(ValueError, match=r"'average'.*call reset\(\)"):
        t.fit(X, Y, epochs=1, progress=False)
