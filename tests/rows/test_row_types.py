"""Rows stay in their own type and are converted batch by batch, with the numbers of converted rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gpumlp.kernels.kernel import FIXED
from tolerances import RELATIVE

import gpumlp
from gpumlp.rows import check_rows, split_rows, split_validation
from gpumlp.training.placement import place

TYPES = [*FIXED, "bool", "float16", "uint64", ">f4"]


def _rows(dtype: str, order: str = "C") -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    values = rng.integers(0, 2 if dtype == "bool" else 100, (70, 5))
    X = np.asarray(values, dtype, order=order)
    if X.dtype.kind == "f":
        X /= 7  # numbers that float32 has to round
    return X, (values[:, 0] > values[:, 0].mean()).astype(np.int64)


def _train(X: Any, y: Any, device: str, streaming: bool, **more: Any) -> tuple[Any, Any, dict]:
    model = gpumlp.MLP([5, 8, 2], device=device, seed=1)
    trainer = gpumlp.Trainer(
        model, loss="softmax_cross_entropy", optimizer="adam", batch_size=16, **more.pop("trainer", {})
    )
    history = trainer.fit(X, y, epochs=2, streaming=streaming, progress=False, **more)
    figures = trainer.evaluate(X, y)
    return model.backend.to_numpy(model.flat), model.forward(X), {**history.metrics, **figures, "seconds": 0}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("dtype", TYPES)
def test_any_type_gives_what_its_float32_values_give(device: str, dtype: str, streaming: bool) -> None:
    X, y = _rows(dtype)
    flat, outputs, figures = _train(X, y, device, streaming, validation=0.3)
    expected = _train(X.astype(np.float32), y, device, streaming, validation=0.3)
    assert np.array_equal(flat, expected[0]) and np.array_equal(outputs, expected[1])
    assert figures == expected[2]


@pytest.mark.parametrize("dtype", ["uint8", "float64"])
def test_on_the_device_as_well(device: str, dtype: str) -> None:
    X, y = _rows(dtype)
    xp = gpumlp.get_backend(device).xp
    flat, outputs, _ = _train(xp.asarray(X), xp.asarray(y), device, False, validation=0.3)
    expected = _train(X, y, device, False, validation=0.3)
    assert np.array_equal(flat, expected[0])
    assert np.array_equal(gpumlp.get_backend(device).to_numpy(outputs), expected[1])


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_reads_bytes(device: str, precision: str) -> None:
    if gpumlp.get_backend(device).name != "cuda":
        pytest.skip("only on CUDA devices")
    X, y = _rows("uint8")
    more = {"precision": precision}
    flat, _, _ = _train(X, y, device, False, trainer=more)
    assert np.array_equal(flat, _train(X.astype(np.float32), y, device, False, trainer=more)[0])


def test_rows_that_are_not_aligned(device: str) -> None:
    """Compiled code may assume that a float32 lies at a multiple of 4 bytes."""
    X, y = _rows("float32")
    raw = np.zeros(X.nbytes + 1, np.uint8)[1:].view("float32").reshape(X.shape)
    raw[...] = X
    assert not raw.flags.aligned
    assert np.array_equal(_train(raw, y, device, False)[0], _train(X, y, device, False)[0])
    trainer = _trainer(device)
    assert not np.shares_memory(check_rows(trainer.model, trainer.loss, raw, y).X, raw)


def _trainer(device: str, dtype: str = "float32") -> gpumlp.Trainer:
    return gpumlp.Trainer(
        gpumlp.MLP([5, 2], device=device, dtype=dtype), loss="softmax_cross_entropy", optimizer="sgd"
    )


def test_what_is_kept_of_them(device: str) -> None:
    """On the CPU the user's own array; on a device the type that needs less room."""
    trainer = _trainer(device)
    on_cpu = trainer.model.device == "cpu"
    for dtype, wide in (("uint8", False), ("int32", False), ("float64", True), ("int64", True)):
        X, y = _rows(dtype)
        kept = check_rows(trainer.model, trainer.loss, X, y).on(trainer.model.backend, trainer.model.dtype).X
        assert kept.dtype == ("float32" if wide and not on_cpu else dtype)
        assert not on_cpu or np.shares_memory(kept, X)
    X, y = _rows("float64", order="F")  # a copy is needed: the smaller one
    assert (
        check_rows(trainer.model, trainer.loss, X, y).on(trainer.model.backend, trainer.model.dtype).X.dtype
        == "float32"
    )


def test_a_split_shares_the_rows(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = _trainer(device)
    rows = check_rows(trainer.model, trainer.loss, *_rows("float32"))
    train, val = split_validation(trainer.model, trainer.loss, rows, 0.3, trainer.seed)
    backend, recorded = trainer.model.backend, []
    record = backend.record
    monkeypatch.setattr(backend, "record", lambda ops, steps: (recorded.extend(ops), record(ops, steps))[1])
    place(trainer.engine, train, val, trainer.batch_size, None)
    assert val is not None and (train.n_rows, val.n_rows) == (49, 21)
    read = [op.arrays["X"] for op in recorded if "X" in getattr(op, "arrays", {})]
    assert len(read) >= 2 and all(X is read[0] for X in read)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_split_is_a_split_for_regression_with_weights(device: str, streaming: bool) -> None:
    """The same as training on the one part with the other given: parameters, losses, RMSE and R2."""
    X, _ = _rows("float64")
    rng = np.random.default_rng(0)
    y, w = rng.normal(size=(70, 2)), rng.random(70)
    train, held = split_rows(5, 70, 0.25)
    results = []
    for part, validation in ((slice(None), 0.25), (train, (X[held], y[held], w[held]))):
        model = gpumlp.MLP([5, 4, 2], "tanh", device=device, dtype="float64")
        trainer = gpumlp.Trainer(model, loss="squared_error", optimizer="adam", batch_size=8, seed=5)
        more = {"validation": validation, "streaming": streaming, "progress": False}
        history = trainer.fit(X[part], y[part], epochs=3, sample_weight=w[part], **more)
        metrics = {n: v for n, v in history.metrics.items() if n != "seconds"}
        results.append((model.backend.to_numpy(model.flat).tolist(), metrics))
    assert results[0][0] == results[1][0]
    for name, values in results[0][1].items():  # streamed chunks may be cut elsewhere, so sums too
        np.testing.assert_allclose(values, results[1][1][name], rtol=RELATIVE["few roundings"])


@pytest.mark.parametrize(
    ("value", "model_dtype", "message"),
    [
        (1e39, "float32", r"X contains 1e\+39 \(row 3, column 1\), which is too large for float32"),
        (3.4028235677973366e38, "float32", "too large for float32"),  # rounds to infinity
        (3.4028235e38, "float32", None),
        (-1e300, "float32", r"X contains -1e\+300 \(row 3, column 1\)"),
        (1e300, "float64", None),
        (np.nan, "float32", r"X contains nan \(row 3, column 1; 1 such values in all\)"),
        (-np.inf, "float64", r"X contains -inf \(row 3, column 1"),
    ],
)
def test_values_that_the_model_cannot_hold_are_named(
    device: str, value: float, model_dtype: str, message: str | None
) -> None:
    X, y = _rows("float64")
    X[3, 1] = value
    trainer = _trainer(device, model_dtype)
    if message is None:
        check_rows(trainer.model, trainer.loss, X, y)
        return
    with pytest.raises(ValueError, match=message):
        trainer.fit(X, y, epochs=1)
