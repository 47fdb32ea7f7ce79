"""Epochs, validation, early stopping, callbacks, history, divergence."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from tolerances import RELATIVE, close

import gpumlp
from gpumlp.rows import split_rows
from gpumlp.schedules import Constant
from gpumlp.training.history import EarlyStopping, History
from gpumlp.training.table import step_table


def bias_only(device: str, lr: float, dtype: str = "float64", **kw: Any) -> gpumlp.Trainer:
    """b <- b - lr (b - y): converges for lr < 2, grows beyond."""
    model = gpumlp.MLP([1, 1], init=0.0, device=device, dtype=dtype)
    return gpumlp.Trainer(model, loss="squared_error", optimizer=gpumlp.SGD(lr=lr), **kw)


def bias(trainer: gpumlp.Trainer) -> float:
    return float(trainer.model.get_parameters()[0][1][0])


X1, Y1 = np.zeros((4, 1)), np.full(4, 2.0)


class TestHistory:
    def test_figures_of_an_epoch(self, device: str) -> None:
        """The training loss is the mean over batches before their updates, weighted by rows."""
        trainer = bias_only(device, 0.5, batch_size=3)
        history = trainer.fit(X1, Y1, epochs=2, validation=(X1[:1], np.array([1.0])), progress=False)
        b, losses, val = 0.0, [], []
        for _ in range(2):
            total = 0.0
            for rows in (3, 1):
                total += rows * 0.5 * (b - 2) ** 2
                b -= 0.5 * (b - 2)
            losses.append(total / 4)
            val.append(0.5 * (b - 1) ** 2)
        close(history.loss, losses, "figures", dtype="float64")
        close(history.val_loss, val, "figures", dtype="float64")
        close(history.val_rmse, np.sqrt(2 * np.array(val)), "figures", dtype="float64")
        assert history.lr == [0.5, 0.5]
        assert len(history) == 2 and len(history.seconds) == 2 and min(history.seconds) >= 0
        assert set(history.metrics) == {"loss", "lr", "seconds", "val_loss", "val_rmse", "val_r2"}

    def test_best_epoch_without_early_stopping(self, device: str) -> None:
        trainer = bias_only(device, 1.5)
        assert trainer.fit(X1, Y1, epochs=4, progress=False).best_epoch == 3
        assert bias_only(device, 2.5).fit(X1, Y1, epochs=4, progress=False).best_epoch == 0

    def test_classification_records_accuracy(self, device: str) -> None:
        model = gpumlp.MLP([2, 2], device=device)
        trainer = gpumlp.Trainer(model, loss="softmax_cross_entropy", optimizer="sgd")
        X, y = np.eye(2), np.array([0, 1])
        history = trainer.fit(X, y, epochs=1, validation=(X, y), progress=False)
        assert set(history.metrics) == {"loss", "lr", "seconds", "val_loss", "val_accuracy"}
        with pytest.raises(AttributeError, match=r"no metric 'val_r2' was recorded.*val_accuracy"):
            history.val_r2  # noqa: B018

    def test_plain_values(self, device: str) -> None:
        history = bias_only(device, 0.5).fit(X1, Y1, epochs=1, progress=False)
        assert all(type(v) is float for values in history.metrics.values() for v in values)


class TestValidation:
    def test_fraction_is_a_split(self, device: str) -> None:
        """A third held out: the same as training on the rest with the held-out rows given."""
        rng = np.random.default_rng(0)
        X, y, w = rng.normal(size=(30, 3)), rng.normal(size=30), rng.random(30) + 0.1
        train, held = split_rows(7, 30, 1 / 3)
        assert len(held) == 10 and sorted([*train, *held]) == list(range(30))
        results = []
        for rows, validation in ((slice(None), 1 / 3), (train, (X[held], y[held], w[held]))):
            model = gpumlp.MLP([3, 4, 1], "tanh", device=device, dtype="float64")
            trainer = gpumlp.Trainer(model, loss="squared_error", optimizer="adam", batch_size=7, seed=7)
            history = trainer.fit(
                X[rows], y[rows], epochs=3, sample_weight=w[rows], validation=validation, progress=False
            )
            results.append((history.loss, history.val_loss, history.val_r2))
        assert results[0] == results[1]

    @pytest.mark.parametrize("weights", [False, True])
    def test_the_same_rows_with_other_targets(self, device: str, weights: bool) -> None:
        rng = np.random.default_rng(1)
        X, y, other = rng.normal(size=(30, 3)), rng.normal(size=(30, 1)), rng.normal(size=(30, 1))
        w = rng.random(30) + 0.5
        model = gpumlp.MLP([3, 4, 1], "tanh", device=device, dtype="float64")
        trainer = gpumlp.Trainer(model, loss="squared_error", optimizer="adam", batch_size=7)
        validation = (X, y, w) if weights else (X, other)
        history = trainer.fit(X, y, epochs=1, validation=validation, progress=False)
        assert history.val_loss[-1] == trainer.evaluate(*validation)["loss"]
        assert history.val_loss[-1] != trainer.evaluate(X, y)["loss"]

    def test_two_rows_can_be_split(self, device: str) -> None:
        assert sorted(int(rows[0]) for rows in split_rows(0, 2, 0.1)) == [0, 1]
        bias_only(device, 0.5).fit(X1[:2], Y1[:2], epochs=1, validation=0.5, progress=False)

    def test_does_not_train(self, device: str) -> None:
        a, b = bias_only(device, 0.5), bias_only(device, 0.5)
        a.fit(X1, Y1, epochs=2, validation=(X1, -Y1), progress=False)
        b.fit(X1, Y1, epochs=2, progress=False)
        assert bias(a) == bias(b)

    def test_is_evaluate(self, device: str) -> None:
        rng = np.random.default_rng(0)
        X, y = rng.normal(size=(40, 3)), rng.integers(0, 3, 40)
        model = gpumlp.MLP([3, 8, 3], dropout=0.5, device=device, dtype="float64")
        trainer = gpumlp.Trainer(model, loss="softmax_cross_entropy", optimizer="adam", l2=0.1)
        history = trainer.fit(X, y, epochs=2, validation=(X[:20], y[:20]), progress=False)
        figures = trainer.evaluate(X[:20], y[:20])
        assert figures == {"loss": history.val_loss[-1], "accuracy": history.val_accuracy[-1]}


class TestEarlyStopping:
    def test_waits_for_patience_epochs(self, device: str) -> None:
        """Nothing improves at lr = 0: the first epoch is the best, three more are waited for."""
        trainer = bias_only(device, 0.0)
        history = trainer.fit(
            X1, Y1, epochs=50, early_stopping=EarlyStopping(monitor="loss", patience=3), progress=False
        )
        assert len(history) == 4 and history.stopped_early and history.best_epoch == 0

    def test_goes_on_while_it_improves(self, device: str) -> None:
        trainer = bias_only(device, 0.5)
        stop = EarlyStopping(monitor="loss", patience=np.int64(1))
        history = trainer.fit(X1, Y1, epochs=np.int64(6), early_stopping=stop, progress=False)
        assert len(history) == 6 and not history.stopped_early

    def test_min_delta(self, device: str) -> None:
        """Losses 2, 0.5, 0.125, 0.03125: after the second, none is better by 0.5."""
        trainer = bias_only(device, 0.5)
        stop = EarlyStopping(monitor="loss", patience=2, min_delta=0.5)
        history = trainer.fit(X1, Y1, epochs=50, early_stopping=stop, progress=False)
        assert len(history) == 4 and history.best_epoch == 1

    def test_restores_the_best(self, device: str) -> None:
        """lr = 2.5 moves away: validation is best after the first epoch, b = 5."""
        trainer = bias_only(device, 2.5)
        history = trainer.fit(X1, Y1, epochs=9, validation=(X1, Y1), early_stopping=True, progress=False)
        assert history.best_epoch == 0 and len(history) == 9
        assert bias(trainer) == 5.0
        assert trainer.evaluate(X1, Y1)["loss"] == min(history.val_loss)

    def test_or_keeps_the_last(self, device: str) -> None:
        trainer = bias_only(device, 2.5)
        stop = EarlyStopping(patience=2, restore_best=False)
        history = trainer.fit(X1, Y1, epochs=9, validation=(X1, Y1), early_stopping=stop, progress=False)
        assert len(history) == 3 and history.stopped_early
        assert bias(trainer) == 2 - 2 * (-1.5) ** 3

    @pytest.mark.parametrize(
        ("monitor", "mode"), [("val_accuracy", "auto"), ("val_r2", "auto"), ("val_r2", "max")]
    )
    def test_more_is_better(self, monitor: str, mode: str) -> None:
        stop = EarlyStopping(monitor=monitor, mode=mode)
        assert stop.better(0.6, 0.5) and not stop.better(0.4, 0.5) and not stop.better(0.5, 0.5)

    @pytest.mark.parametrize("monitor", ["loss", "val_loss", "val_rmse", "seconds"])
    def test_less_is_better(self, monitor: str) -> None:
        stop = EarlyStopping(monitor=monitor)
        assert stop.better(0.4, 0.5) and not stop.better(0.6, 0.5) and not stop.better(math.nan, 0.5)
        assert stop.better(1.0, None) and not stop.better(math.nan, None)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"mode": "up"}, "mode='up'; expected 'auto', 'min' or 'max'"),
            ({"patience": 0}, "patience=0; expected an integer >= 1"),
            ({"patience": 2.5}, "patience=2.5"),
            ({"min_delta": -1}, "min_delta=-1"),
            ({"min_delta": math.nan}, "min_delta=nan"),
        ],
    )
    def test_bad_options(self, options: dict, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            EarlyStopping(**options)

    @pytest.mark.parametrize("monitor", ["val_loss", "val_accuracy", "los"])
    def test_metric_that_is_not_recorded(self, device: str, monitor: str) -> None:
        trainer = bias_only(device, 0.5)
        with pytest.raises(ValueError, match=f"unknown metric '{monitor}'.*Known: loss.*Give validation"):
            trainer.fit(X1, Y1, epochs=3, early_stopping=EarlyStopping(monitor=monitor), progress=False)
        assert bias(trainer) == 0 and trainer.optimizer.t == 0

    @pytest.mark.parametrize("monitor", ["loss", "val_loss", "val_rmse", "val_r2"])
    def test_every_figure_of_a_regression_can_be_monitored(self, device: str, monitor: str) -> None:
        stop, validation = EarlyStopping(monitor=monitor, patience=2), (X1[:2], np.array([1.0, 3.0]))
        history = bias_only(device, 0.5).fit(
            X1, Y1, epochs=3, validation=validation, early_stopping=stop, progress=False
        )
        assert history.best_epoch == 2

    def test_neither_object_nor_bool(self, device: str) -> None:
        with pytest.raises(TypeError, match=r"early_stopping=5; expected True, None or gpumlp.EarlyStopping"):
            bias_only(device, 0.5).fit(X1, Y1, epochs=3, early_stopping=5, progress=False)  # type: ignore[arg-type]


class TestCallbacks:
    @pytest.mark.parametrize(
        ("callbacks", "message"),
        [
            ([EarlyStopping()], r"callbacks\[0\] is an EarlyStopping; give it to fit"),
            ([print, 3], r"callbacks\[1\]=3 cannot be called"),
            (print, r"is one function; give a list"),
        ],
    )
    def test_what_is_no_callback(self, callbacks: Any, message: str) -> None:
        with pytest.raises(TypeError, match=message):
            bias_only("numpy", 0.5, callbacks=callbacks)

    def test_called_after_every_epoch(self, device: str) -> None:
        seen: list[tuple[Any, int, float]] = []

        def note(trainer: gpumlp.Trainer, history: History) -> None:
            seen.append((trainer, len(history), bias(trainer)))

        trainer = bias_only(device, 0.5, callbacks=[note])
        trainer.fit(X1, Y1, epochs=3, progress=False)
        assert seen == [(trainer, 1, 1.0), (trainer, 2, 1.5), (trainer, 3, 1.75)]

    def test_true_ends(self, device: str) -> None:
        called: list[str] = []
        first = lambda t, h: called.append("first") or len(h) == 2  # noqa: E731
        second = lambda t, h: called.append("second")  # noqa: E731
        history = bias_only(device, 0.5, callbacks=[first, second]).fit(X1, Y1, epochs=9, progress=False)
        assert len(history) == 2 and not history.stopped_early
        assert called == ["first", "second"] * 2

    def test_error_comes_through(self, device: str) -> None:
        def fail(trainer: gpumlp.Trainer, history: History) -> None:
            raise KeyError("mine")

        trainer = bias_only(device, 0.5, callbacks=[fail])
        with pytest.raises(KeyError, match="mine"):
            trainer.fit(X1, Y1, epochs=9, progress=False)
        assert bias(trainer) == 1.0

    def test_may_change_the_learning_rate(self, device: str) -> None:
        def halve(trainer: gpumlp.Trainer, history: History) -> None:
            trainer.optimizer.lr /= 2

        trainer = bias_only(device, 1.0, callbacks=[halve])
        assert trainer.fit(X1, Y1, epochs=3, progress=False).lr == [1.0, 0.5, 0.25]


class TestDivergence:
    def test_names_epoch_and_step(self, device: str) -> None:
        """float32: b = 2e20 after the first step, its square overflows in the second."""
        trainer = bias_only(device, 1e20, dtype="float32", batch_size=1)
        with pytest.raises(
            gpumlp.DivergenceError, match=r"became (inf|nan) in epoch 1, step 2 .*lr 1e\+20.*clip_norm"
        ):
            trainer.fit(X1, Y1, epochs=3, progress=False)

    def test_in_a_later_epoch(self, device: str) -> None:
        trainer = bias_only(device, 1e20, dtype="float32")
        with pytest.raises(gpumlp.DivergenceError, match="epoch 2, step 1"):
            trainer.fit(X1, Y1, epochs=3, progress=False)

    def test_is_an_arithmetic_error(self) -> None:
        assert issubclass(gpumlp.DivergenceError, FloatingPointError)

    def test_overflowing_sum_is_no_divergence_of_a_row(self, device: str) -> None:
        """Each row's loss is finite in float32, their sum is not: still a clear error, not a crash."""
        trainer = bias_only(device, 0.0, dtype="float32")
        with pytest.raises(gpumlp.DivergenceError, match="epoch 1"):
            trainer.fit(np.zeros((1000, 1)), np.full(1000, 2e19), epochs=1, progress=False)


def test_step_uses_the_clip_norm_of_now(device: str) -> None:
    trainer = gpumlp.Trainer(
        gpumlp.MLP([2, 1], init=0.0, device=device, dtype="float64"),
        loss="squared_error",
        optimizer=gpumlp.SGD(lr=1.0),
        clip_norm=1.0,
    )
    lengths = []
    for limit in (1.0, 0.01):
        trainer.clip_norm, before = limit, trainer.model.get_parameters()[0]
        trainer.step([[3.0, 4.0]], [100.0])
        after = trainer.model.get_parameters()[0]
        lengths.append(np.sqrt(sum(float(np.sum((a - b) ** 2)) for a, b in zip(after, before, strict=True))))
    np.testing.assert_allclose(lengths, [1.0, 0.01], rtol=RELATIVE["run"])


@pytest.mark.parametrize("seed", [0, 2**63 - 1])
def test_seeds_up_to_63_bits(device: str, seed: int) -> None:
    bias_only(device, 0.5, seed=seed).fit(X1, Y1, epochs=1, validation=0.5, progress=False)
    gpumlp.MLP([2, 2], seed=seed, device=device)


def test_step_numbers_are_cut_into_parts_that_floats_hold() -> None:
    optimizer = gpumlp.SGD()
    optimizer.t = 2**24 - 1
    table = step_table(optimizer, Constant(), np.ones(3), 3)
    assert table["t_low"].tolist() == [2**24 - 1, 0, 1]
    assert table["t_high"].tolist() == [0, 1, 1]
