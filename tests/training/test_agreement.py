"""One run on every executor; the same run twice; and the pieces of a run put together by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tolerances import RELATIVE, close

import gpumlp
from gpumlp.rows import epoch_order

SIZES = [20, 16, 9, 3]


def data(rows: int = 85) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(8)
    X = rng.normal(size=(rows, SIZES[0]))
    return X, (X[:, :3] + 0.3 * rng.normal(size=(rows, 3))).argmax(axis=1)


def make(device: str, dtype: Any, **kw: Any) -> gpumlp.Trainer:
    model = gpumlp.MLP(SIZES, ["tanh", "gelu"], dropout=[0.2, 0.4], seed=1, dtype=dtype, device=device)
    optimizer = gpumlp.SGD(lr=0.1, momentum=0.9, nesterov=True)
    options = {
        "batch_size": 16,
        "l2": 1e-3,
        "l1": 1e-4,
        "clip_norm": 0.5,
        "schedule": "cosine",
        "seed": 4,
        **kw,
    }
    return gpumlp.Trainer(model, loss="softmax_cross_entropy", optimizer=optimizer, **options)


def run(device: str, dtype: Any, **kw: Any) -> tuple[gpumlp.History, list[np.ndarray]]:
    X, y = data()
    trainer = make(device, dtype, **kw)
    weights = np.linspace(0.5, 2, len(X))
    history = trainer.fit(X, y, epochs=9, validation=0.1, sample_weight=weights, progress=False)
    return history, [a for pair in trainer.model.get_parameters() for a in pair]


@pytest.mark.memory
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_fifty_steps_agree_with_numpy(device: str, dtype: Any, optimizer: str) -> None:
    """Dropout, clipping, momentum, penalties, a schedule, a short last batch: 10 epochs of 6 steps."""
    kw: dict[str, Any] = {} if optimizer == "sgd" else {"proximal": True}
    results = []
    for name in ("numpy", device):
        trainer = make(name, dtype, **kw)
        if optimizer == "adam":
            trainer = gpumlp.Trainer(
                trainer.model, loss="softmax_cross_entropy", optimizer=gpumlp.Adam(lr=0.01), batch_size=16,
                l1=1e-3, proximal=True, schedule="onecycle", seed=4,
            )  # fmt: skip
        X, y = data()
        history = trainer.fit(X, y, epochs=10, validation=(X[:20], y[:20]), progress=False)
        assert trainer.optimizer.t == 60
        results.append((history, trainer.model.get_parameters()))
    (numpy_history, expected), (history, got) = results
    for (W, b), (W0, b0) in zip(got, expected, strict=True):
        close(W, W0, "50 training steps")
        close(b, b0, "50 training steps")
    for name in ("loss", "val_loss", "lr"):
        close(history.metrics[name], numpy_history.metrics[name], "50 training steps", dtype=dtype)
    assert history.val_accuracy == numpy_history.val_accuracy
    assert history.loss[-1] < 0.8 * history.loss[0]


def test_two_runs_are_bitwise_equal(device: str, dtype: Any) -> None:
    (history, a), (again, b) = run(device, dtype), run(device, dtype)
    assert all((x == y).all() for x, y in zip(a, b, strict=True))
    for name in set(history.metrics) - {"seconds"}:
        assert history.metrics[name] == again.metrics[name], name


@pytest.mark.parametrize(
    "change", [{"seed": 5}, {"batch_size": 17}, {"clip_norm": 0.05}, {"l2": 0.1}, {"l1": 0.01}]
)
def test_every_setting_matters(device: str, change: dict) -> None:
    history, a = run(device, "float64")
    other, b = run(device, "float64", **change)
    assert any((x != y).any() for x, y in zip(a, b, strict=True))
    assert history.loss != other.loss


def test_step_is_fits_step(device: str, dtype: Any) -> None:
    """The batches of two epochs, given one by one to `step`, the short last one included."""
    X, y = data()
    whole, single = make(device, dtype, schedule=None), make(device, dtype, schedule=None)
    whole.fit(X, y, epochs=2, progress=False)
    for epoch in range(2):
        order = epoch_order(4, epoch, len(X))
        assert sorted(order) == list(range(len(X)))
        for start in range(0, len(X), 16):
            part = order[start : start + 16]
            single.step(X[part], y[part])
    assert single.optimizer.t == whole.optimizer.t == 12
    for (W, b), (W0, b0) in zip(single.model.get_parameters(), whole.model.get_parameters(), strict=True):
        close(W, W0, "network")
        close(b, b0, "network")


def test_two_fits_are_one(device: str) -> None:
    """fit(2) and fit(3) on one trainer are fit(5): order, masks and momentum go on."""
    X, y = data()
    a, b = make(device, "float64", schedule=None), make(device, "float64", schedule=None)
    first, second = a.fit(X, y, epochs=2, progress=False), a.fit(X, y, epochs=3, progress=False)
    whole = b.fit(X, y, epochs=5, progress=False)
    assert first.loss + second.loss == whole.loss
    for (W, _), (W0, _) in zip(a.model.get_parameters(), b.model.get_parameters(), strict=True):
        assert (W == W0).all()


@pytest.mark.parametrize(
    ("rows", "batch", "steps"), [(10, 4, 3), (10, 5, 2), (10, 10, 1), (10, 1000, 1), (1, 3, 1)]
)
def test_every_row_is_trained_once(device: str, rows: int, batch: int, steps: int) -> None:
    """With one weight per row, an epoch moves each weight exactly once, by its own batch's gradient."""
    X, y = np.eye(rows), np.ones(rows)
    model = gpumlp.MLP([rows, 1], init=0.0, device=device, dtype="float64")
    trainer = gpumlp.Trainer(
        model, loss="squared_error", optimizer=gpumlp.SGD(lr=1e-9), batch_size=batch, seed=3
    )
    history = trainer.fit(X, y, epochs=1, progress=False)
    assert trainer.optimizer.t == steps
    sizes = {int(i): min(batch, rows - n // batch * batch) for n, i in enumerate(epoch_order(3, 0, rows))}
    expected = [1e-9 / sizes[i] for i in range(rows)]
    np.testing.assert_allclose(
        model.get_parameters()[0][0][:, 0], expected, rtol=RELATIVE["float32 roundings"]
    )
    assert abs(history.loss[0] - 0.5) < 1e-6


def test_moved_model_goes_on(device: str) -> None:
    """Two epochs on NumPy, two on the other device, with the optimiser's state, are four on NumPy."""
    X, y = data()
    moved, stayed = (make("numpy", "float64", schedule="invscaling") for _ in range(2))
    first = moved.fit(X, y, epochs=2, progress=False)
    assert moved.model.to(device) is moved.model
    assert moved.model.device == gpumlp.get_backend(device).device
    second = moved.fit(X, y, epochs=2, progress=False)
    reference = [stayed.fit(X, y, epochs=2, progress=False) for _ in range(2)]
    close(
        first.loss + second.loss, reference[0].loss + reference[1].loss, "50 training steps", dtype="float64"
    )
    moved.model.to("numpy")
    moved.step(X, y)
    stayed.step(X, y)
    for (W, _), (W0, _) in zip(moved.model.get_parameters(), stayed.model.get_parameters(), strict=True):
        close(W, W0, "50 training steps")


def test_state_loaded_between_steps_is_used(device: str) -> None:
    """`step` keeps its plan for batches of one size; new optimiser state must reach it all the same."""
    X, y = data(16)
    a = make(device, "float64", clip_norm=None, schedule=None)
    for _ in range(3):
        a.step(X, y)
    saved, at = a.optimizer.state_dict(), a.model.get_parameters()
    a.step(X, y)
    expected = a.model.get_parameters()
    for _ in range(2):
        a.step(X, y)
    a.optimizer.load_state_dict(saved)
    a.model.set_parameters(at)
    a.step(X, y)
    for (W, _), (W0, _) in zip(a.model.get_parameters(), expected, strict=True):
        assert (W == W0).all()


def test_padding_stays_zero(device: str) -> None:
    """What lies beside weights and biases in the flat buffer is zero after training with everything on."""
    trainer = make(device, "float32")
    X, y = data()
    trainer.fit(X, y, epochs=2, progress=False)
    model = trainer.model
    flat = model.backend.to_numpy(model.flat)
    inside = np.zeros(model.flat_size, bool)
    for layer in model.layers:
        layer.matrix(inside)[...] = True
    assert inside.sum() == model.n_params
    assert (flat[~inside] == 0).all()


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16, np.int64, np.uint8, bool, list])
def test_kinds_of_input(device: str, kind: Any) -> None:
    """Whatever holds the same numbers trains the same model."""
    rng = np.random.default_rng(0)
    X = rng.integers(0, 2, (12, 20))
    y = rng.integers(0, 3, 12)
    expected = make(device, "float32")
    expected.fit(X.astype(np.float32), y, epochs=2, progress=False)
    got = make(device, "float32")
    given = X.tolist() if kind is list else X.astype(kind)
    got.fit(given, y.tolist() if kind is list else y.astype(float), epochs=2, progress=False)
    for (W, _), (W0, _) in zip(got.model.get_parameters(), expected.model.get_parameters(), strict=True):
        assert (W == W0).all()


@pytest.mark.parametrize("view", ["fortran", "every second row", "reversed", "columns"])
def test_strided_input(device: str, view: str) -> None:
    X, y = data(24)
    given = {
        "fortran": np.asfortranarray(X),
        "every second row": np.repeat(X, 2, axis=0)[::2],
        "reversed": X[::-1].copy()[::-1],
        "columns": np.hstack([X, X])[:, : X.shape[1]],
    }[view]
    a, b = make(device, "float64"), make(device, "float64")
    keep = given.copy()
    assert a.fit(X, y, epochs=1, progress=False).loss == b.fit(given, y, epochs=1, progress=False).loss
    assert (a.model.forward(X) == b.model.forward(given)).all()
    assert (given == keep).all()
