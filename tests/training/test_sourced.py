"""Training on the rows of a source: the documented batches on every executor; nothing hangs or is lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tolerances import RELATIVE

import gpumlp
from gpumlp.rows import ArrayRows, ParquetRows, RowSource, Windows, check_given

RNG = np.random.default_rng(1)
N, BATCH, SEED = 330, 16, 7
X = RNG.normal(size=(N, 6)).astype(np.float32)
Y = (X[:, 0] + X[:, 1] ** 2 > 0.7).astype(np.int64)
W = RNG.uniform(0.1, 2, N)
T = np.column_stack([X[:, 0] + 3, X[:, 1] * X[:, 2]])


def _trainer(device: Any, loss: str = "softmax_cross_entropy", **more: Any) -> gpumlp.Trainer:
    model = gpumlp.MLP([6, 9, 2], "tanh", dropout=0.2, seed=3, device=device)
    settings = {"optimizer": gpumlp.Adam(lr=0.01), "batch_size": BATCH, "seed": SEED}
    return gpumlp.Trainer(model, loss=loss, **{**settings, **more})


def _flat(trainer: gpumlp.Trainer) -> np.ndarray:
    return trainer.model.backend.to_numpy(trainer.model.flat)


def _source(target: Any = Y, weight: Any = None, window: int = 70, per_group: int = 50) -> ArrayRows:
    return ArrayRows(X, target, weight, rows_per_group=per_group, window=window)


def _numbers(groups: list[np.ndarray], window: int, epoch: int) -> Iterator[np.ndarray]:
    """Row numbers of the batches of an epoch, by what the documentation says."""
    rng = np.random.default_rng([SEED, 1, epoch])
    order = np.concatenate([groups[g] for g in rng.permutation(len(groups))])
    size = max(1, window // BATCH) * BATCH
    for start in range(0, len(order), size):
        part = order[start : start + size]
        part = part[rng.permutation(len(part))]
        yield from (part[i : i + BATCH] for i in range(0, len(part), BATCH))


@pytest.mark.memory
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("window", [1, 70, 100_000])
def test_the_batches_are_the_documented_ones(device: str, window: int, weighted: bool) -> None:
    w = W if weighted else None
    trainer, other = _trainer(device), _trainer(device)
    history = trainer.fit(_source(Y, w, window), epochs=3)
    groups = np.split(np.arange(N), range(50, N, 50))
    for epoch in range(3):
        for rows in _numbers(groups, window, epoch):
            other.step(X[rows], Y[rows], None if w is None else W[rows])
    np.testing.assert_array_equal(_flat(trainer), _flat(other))
    assert trainer.optimizer.t == other.optimizer.t == 3 * -(-N // BATCH)
    assert history.loss[2] < history.loss[0]


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "squared_error"])
def test_figures_and_predictions_are_those_of_arrays(
    device: str, tmp_path: Path, loss: str, weighted: bool
) -> None:
    target, w = (Y if loss.startswith("softmax") else T + 100), W if weighted else None
    trainer = _trainer(device, loss)
    history = trainer.fit(_source(target, w), epochs=2, validation=_source(target[::-1], w))
    evaluated, expected = trainer.evaluate(_source(target, w)), trainer.evaluate(X, target, w)
    assert evaluated == pytest.approx(expected, rel=RELATIVE["float32 sums"])
    held = trainer.evaluate(X, target[::-1], w)
    names = {name: history.metrics[f"val_{name}"][-1] for name in held}
    assert names == pytest.approx(held, rel=RELATIVE["float32 sums"])
    np.testing.assert_array_equal(trainer.model.predict(_source()), trainer.model.predict(X))


def test_held_out_rows_are_evaluated_and_not_trained_on(device: str) -> None:
    source = _source(T)
    trainer, other = _trainer(device, "squared_error"), _trainer(device, "squared_error")
    history = trainer.fit(source, epochs=2, validation=0.2)
    train, held = source.split(0.2, SEED)
    again = other.fit(train, epochs=2, validation=held)
    np.testing.assert_array_equal(_flat(trainer), _flat(other))
    assert history.metrics["val_rmse"] == again.metrics["val_rmse"] and held.n_rows == 66
    # rows of both kinds beside each other
    arrays = trainer.fit(source, epochs=1, validation=(X, T)).metrics["val_r2"][-1]
    assert arrays == pytest.approx(trainer.evaluate(X, T)["r2"], rel=RELATIVE["float32 sums"])
    trainer.fit(X, T, epochs=1, validation=source, early_stopping=True)


def test_goes_on_to_the_bit_from_a_file(device: str, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    names = [*"abcdef"]
    columns = {**dict(zip(names, X.T, strict=True)), "y": np.where(Y, "b", "a"), "w": W}
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet", row_group_size=50)

    def source() -> ParquetRows:
        return ParquetRows(tmp_path, names, "y", "w", classes=["a", "b"], window=70)

    whole, half, arrays = _trainer(device), _trainer(device), _trainer(device)
    whole.fit(source(), epochs=3, validation=0.2)
    half.fit(source(), epochs=1, validation=0.2)
    half.save(tmp_path / "half.npz")
    resumed = gpumlp.Trainer.load(tmp_path / "half.npz", device=device)
    resumed.fit(source(), epochs=2, validation=0.2)
    arrays.fit(_source(Y, W), epochs=3, validation=0.2)
    for other in (resumed, arrays):
        np.testing.assert_array_equal(_flat(other), _flat(whole))


class _Breaks(RowSource):
    """A source that does something after so many pieces of 20 rows."""

    def __init__(self, after: int, what: Any) -> None:
        self.n_features, self.groups, self.window = 6, [100, 100, 100], 32
        self.left, self.what = after, what

    def read(self, group: int) -> Iterator[Any]:
        for start in range(0, 100, 20):
            if not self.left:
                self.what()
            self.left -= 1
            rows = slice(100 * group + start, 100 * group + start + 20)
            yield X[rows], Y[rows], None


def _raise(error: BaseException) -> Any:
    def act() -> None:
        raise error

    return act


@pytest.mark.parametrize(
    "error", [OSError("the disk is gone"), KeyboardInterrupt(), ValueError("wrong"), MemoryError()]
)
@pytest.mark.parametrize("after", [3, 14, 20])
def test_an_error_while_reading_ends_the_training(
    device: str, tmp_path: Path, error: BaseException, after: int
) -> None:
    trainer, before = _trainer(device), threading.active_count()
    with pytest.raises(type(error)) as caught:
        trainer.fit(_Breaks(after, _raise(error)), epochs=3)
    assert caught.value is error and threading.active_count() == before
    assert np.isfinite(_flat(trainer)).all() and len(trainer.history) == trainer.epoch == after // 15
    trainer.save(tmp_path / "t.npz")
    again = gpumlp.Trainer.load(tmp_path / "t.npz", device=device)
    assert again.optimizer.t == trainer.optimizer.t
    for each in (trainer, again):
        each.fit(_source(), epochs=1)
    np.testing.assert_array_equal(_flat(trainer), _flat(again))


def test_ctrl_c_while_waiting_for_rows(device: str) -> None:
    """The signal comes while the reader is busy and the training waits for it."""
    trainer, pressed, before = _trainer(device), threading.Event(), threading.active_count()

    def press() -> None:
        if not pressed.is_set():
            pressed.set()
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        trainer.fit(_Breaks(12, press), epochs=3)
    assert threading.active_count() == before and trainer.epoch == len(trainer.history) == 0
    trainer.fit(_source(), epochs=1)


def test_a_file_that_is_damaged_half_way(device: str, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path, names = tmp_path / "t.parquet", [*"abcdef"]
    columns = {**dict(zip(names, X.T, strict=True)), "y": Y}
    columns["c"] = np.where(np.arange(N) == 200, np.nan, columns["c"])
    parquet.write_table(pa.table(columns), path, row_group_size=50)
    trainer, source = _trainer(device), ParquetRows(path, names, "y", window=32)
    where = r"row group 4, its rows 0 to 49: X contains nan \(row 0, column 2"
    for use in (lambda: trainer.fit(source, epochs=1), lambda: trainer.evaluate(source)):
        with pytest.raises(ValueError, match=where):
            use()
    # a callback that writes over the file between two epochs
    columns["c"] = X[:, 2]
    parquet.write_table(pa.table(columns), path, row_group_size=50)
    trainer, source = _trainer(device), ParquetRows(path, names, "y", window=32)
    trainer.callbacks = [lambda *_: path.write_bytes(b"gone") and None]
    with pytest.raises(ValueError, match=r"t.parquet' has changed since it was opened"):
        trainer.fit(source, epochs=3)
    assert trainer.epoch == len(trainer.history) == 1


def test_reading_overlaps_with_training(device: str) -> None:
    """While the first window is in use the second one is completed, and no more."""
    seen: list[int] = []
    third = threading.Event()

    class Watched(ArrayRows):
        def read(self, group: int) -> Any:
            seen.append(group)
            if group == 2:
                third.set()
            return super().read(group)

    trainer = _trainer(device)
    source = Watched(X, Y, rows_per_group=64)
    windows = Windows(check_given(trainer.model, trainer.loss, source), 64)
    passed = windows.read(range(6))
    first = next(passed)
    assert third.wait(20)
    np.testing.assert_array_equal(first.X, X[:64])
    np.testing.assert_array_equal(next(passed).X, X[64:128])
    passed.close()
    assert len(seen) <= 5


def test_figures_of_many_windows(device: str) -> None:
    """R2 of targets whose mean drifts from window to window."""
    n = 100_000
    x = np.linspace(0, 1, n, dtype=np.float32).reshape(n, 1).repeat(20, axis=1)
    model = gpumlp.MLP([20, 1], device=device)
    trainer = gpumlp.Trainer(model, loss="squared_error", optimizer="sgd")
    w = np.linspace(0.5, 1, n)
    found = trainer.evaluate(ArrayRows(x, 1000 + 3 * x[:, 0], w))
    assert found == pytest.approx(trainer.evaluate(x, 1000 + 3 * x[:, 0], w), rel=RELATIVE["float32 run"])


def test_divergence_and_the_other_settings(device: str) -> None:
    trainer = _trainer(device, "squared_error", optimizer=gpumlp.SGD(1e30))
    with pytest.raises(gpumlp.DivergenceError, match=r"epoch 1, one of the steps 1 to 4"):
        trainer.fit(_source(T), epochs=3)
    averaged = _trainer(device, average=0.9, clip_norm=1.0)
    averaged.callbacks = [lambda t, _: setattr(t, "batch_size", 32)]
    history = averaged.fit(_source(), epochs=3)
    assert averaged.optimizer.t == -(-N // 16) + 2 * -(-N // 32) and len(history) == 3
