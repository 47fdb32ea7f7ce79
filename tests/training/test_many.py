"""`fit_many` does what fits one after another do: to the bit on the CPU."""

from __future__ import annotations

import _thread
import threading
import time
from typing import Any

import numpy as np
import pytest
from tolerances import close

import gpumlp
from gpumlp.backends.native.plan import Batch
from gpumlp.schedules import Cosine, Step
from gpumlp.training import many, members

RULES = [
    lambda lr: gpumlp.SGD(lr=lr),
    lambda lr: gpumlp.SGD(lr=lr, momentum=0.9, nesterov=True),
    lambda lr: gpumlp.AdaGrad(lr=lr),
    lambda lr: gpumlp.RMSProp(lr=lr, centered=True),
    lambda lr: gpumlp.Adam(lr=lr, amsgrad=True),
    lambda lr: gpumlp.AdamW(lr=lr, weight_decay=0.01),
]


@pytest.fixture(autouse=True, params=[0, 10**9], ids=["threads", "together"])
def side_by_side(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Threads, although the networks of these tests are so small that one thread would take them all; and
    that."""
    monkeypatch.setattr(members, "SMALL", request.param)


ACTIVATIONS = ["relu", "tanh", "gelu", "silu"]
N_IN, CLASSES = 6, 3


def data(n: int = 150) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    X = rng.normal(size=(n, N_IN)).astype(np.float32)
    return X, (X @ rng.normal(size=(N_IN, CLASSES))).argmax(1), rng.random(n) + 0.2


def any_trainer(seed: int, device: str, **more: Any) -> gpumlp.Trainer:
    """One of many kinds, chosen by `seed`."""
    rng = np.random.default_rng(seed)
    hidden = [int(n) for n in rng.integers(1, 24, rng.integers(0, 3))]
    model = gpumlp.MLP(
        [N_IN, *hidden, CLASSES],
        ACTIVATIONS[rng.integers(len(ACTIVATIONS))],
        dropout=float(rng.choice([0.0, 0.3])),
        dtype=str(rng.choice(["float32", "float64"])),
        seed=seed,
        device=device,
    )
    return gpumlp.Trainer(
        model,
        loss="softmax_cross_entropy",
        optimizer=RULES[rng.integers(len(RULES))](float(rng.choice([0.01, 0.003]))),
        batch_size=int(rng.choice([16, 37, 500])),
        l1=float(rng.choice([0.0, 1e-4])),
        l2=float(rng.choice([0.0, 1e-3])),
        clip_norm=rng.choice([None, 0.5]),
        schedule=rng.choice([None, Cosine(), Step(gamma=0.5, every=7)]),
        seed=seed,
        **more,
    )


def plain(history: gpumlp.History) -> dict[str, Any]:
    figures = {name: values for name, values in history.metrics.items() if name != "seconds"}
    error = None if history.error is None else str(history.error)
    return {**figures, "best": history.best_epoch, "stopped": history.stopped_early, "error": error}


def same(one: gpumlp.Trainer, other: gpumlp.Trainer) -> None:
    """On the CPU every bit of the two is equal."""
    assert (one.epoch, one.optimizer.t, one.model.output) == (
        other.epoch,
        other.optimizer.t,
        other.model.output,
    )
    pairs = [(one.model.flat, other.model.flat)]
    for mine, theirs in zip(one.optimizer.state, other.optimizer.state, strict=True):
        assert mine.keys() == theirs.keys()
        pairs += [(mine[name], theirs[name]) for name in mine if name != "_shape"]
    host = one.model.backend.to_numpy
    if one.model.device == "cpu":
        assert plain(one.history) == plain(other.history)
        assert all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)
        return
    for a, b in pairs:
        close(host(a), host(b), "50 training steps", dtype=one.model.dtype.name)


@pytest.mark.parametrize("start", range(0, 60, 10))
@pytest.mark.cuda_sample(5)
def test_equal_to_fits_one_after_another(device: str, start: int) -> None:
    X, y, w = data()
    rng = np.random.default_rng(start)
    seeds = range(start, start + 10)
    rows = [None if rng.random() < 0.3 else rng.permutation(150)[: rng.integers(40, 150)] for _ in seeds]
    validation = [[None, 0.25, (X[:30], y[:30]), (X[:30], y[:30], w[:30])][rng.integers(4)] for _ in seeds]
    weights = [w if rng.random() < 0.5 else None for _ in seeds]
    epochs = [int(n) for n in rng.integers(1, 9, 10)]
    stops = [
        [None, gpumlp.EarlyStopping("loss", patience=1, min_delta=0.05), gpumlp.EarlyStopping("loss")][
            rng.integers(3)
        ]
        for _ in seeds
    ]
    alone, together = ([any_trainer(seed, device) for seed in seeds] for _ in range(2))
    for trainer, index, held, weight, count, stop in zip(
        alone, rows, validation, weights, epochs, stops, strict=True
    ):
        part = slice(None) if index is None else index
        trainer.fit(
            X[part],
            y[part],
            epochs=count,
            validation=held,
            sample_weight=None if weight is None else weight[part],
            early_stopping=stop,
            progress=False,
        )
    histories = gpumlp.fit_many(
        together,
        X,
        y,
        epochs=epochs,
        rows=rows,
        validation=validation,
        sample_weight=weights,
        early_stopping=stops,
        progress=False,
    )
    for one, other, history in zip(alone, together, histories, strict=True):
        assert history is other.history
        same(one, other)
    part = slice(None) if rows[0] is None else rows[0]  # and a fit of its own goes on
    for trainer in (alone[0], together[0]):
        trainer.fit(X[part], y[part], epochs=2, progress=False)
    same(alone[0], together[0])


def test_regression_and_weights_of_unusual_size(device: str) -> None:
    """Weights are scaled by those of the fold, as in a fit of its own."""
    X, _, w = data()
    y, w = X[:, :2] * 2, np.where(np.arange(150) < 75, w * 1e-20, w * 1e25)
    folds = [np.arange(75), np.arange(50, 150)]
    alone, together = (
        [
            gpumlp.Trainer(
                gpumlp.MLP([N_IN, 5, 2], device=device, seed=k), loss=loss, optimizer="adam", batch_size=20
            )
            for k, loss in enumerate(["squared_error", gpumlp.Huber(0.5)])
        ]
        for _ in range(2)
    )
    for trainer, fold in zip(alone, folds, strict=True):
        trainer.fit(X[fold], y[fold], epochs=3, sample_weight=w[fold], validation=0.2, progress=False)
    gpumlp.fit_many(
        together,
        X,
        y,
        epochs=3,
        rows=folds,
        sample_weight=w,
        validation=0.2,
        early_stopping=None,
        progress=False,
    )
    for one, other in zip(alone, together, strict=True):
        same(one, other)


def trainers_with(device: str, callback: Any, at: int, n: int = 5) -> list[gpumlp.Trainer]:
    return [any_trainer(seed, device, callbacks=[callback] if seed == at else []) for seed in range(n)]


def test_callbacks(device: str) -> None:
    """Called in this thread after each epoch; True ends the one training."""
    X, y, _ = data()
    seen: list[tuple[int, int]] = []

    def note(trainer: gpumlp.Trainer, history: gpumlp.History) -> bool:
        assert threading.current_thread() is threading.main_thread()
        seen.append((trainer.seed, len(history)))
        trainer.optimizer.lr /= 2
        return trainer.seed == 2 and len(history) == 2

    alone, together = ([any_trainer(k, device, callbacks=[note]) for k in range(4)] for _ in range(2))
    for trainer in alone:
        trainer.fit(X, y, epochs=4, progress=False)
    expected, seen[:] = sorted(seen), []
    gpumlp.fit_many(together, X, y, epochs=4, progress=False)
    assert sorted(seen) == expected and len(seen) == 14
    for one, other in zip(alone, together, strict=True):
        same(one, other)


def is_own_fit(trainer: gpumlp.Trainer, seed: int, epochs: int) -> None:
    """Whether it is what a fit of its own is after as many epochs."""
    X, y, _ = data()
    assert len(trainer.history) == trainer.epoch or trainer.epoch == 0
    own = any_trainer(seed, trainer.model.backend.name)
    if trainer.epoch:
        # schedules know how many epochs were planned
        own.callbacks = [lambda t, h: len(h) == trainer.epoch]
        own.fit(X, y, epochs=epochs, progress=False)
        same(own, trainer)
    else:
        close(
            own.model.backend.to_numpy(own.model.flat),
            trainer.model.backend.to_numpy(trainer.model.flat),
            "exact",
        )


def test_a_raising_callback_ends_all_at_an_epochs_end(device: str) -> None:
    X, y, _ = data()

    def fail(trainer: gpumlp.Trainer, history: gpumlp.History) -> None:
        if len(history) == 3:
            raise KeyError("mine")

    trainers = trainers_with(device, fail, 1)
    epochs = [3000, 10**6, 3000, 3000, 3000]  # the one with the most work comes first
    with pytest.raises(KeyError, match="mine"):
        gpumlp.fit_many(trainers, X, y, epochs=epochs, progress=False)
    assert trainers[1].epoch == 3
    assert min(trainers[k].epoch for k in (0, 2, 3, 4)) < 3000
    for seed, trainer in enumerate(trainers):
        is_own_fit(trainer, seed, epochs[seed])


def test_interrupt_in_a_callback(device: str) -> None:
    X, y, _ = data()

    def interrupt(trainer: gpumlp.Trainer, history: gpumlp.History) -> None:
        if len(history) == 2:
            raise KeyboardInterrupt

    trainers = trainers_with(device, interrupt, 0)
    with pytest.raises(KeyboardInterrupt):
        gpumlp.fit_many(trainers, X, y, epochs=50, progress=False)
    for seed, trainer in enumerate(trainers):
        is_own_fit(trainer, seed, 50)


@pytest.mark.parametrize("name", ["numpy", "cpu"])
def test_interrupt_in_the_middle_of_an_epoch(name: str) -> None:
    """An epoch that would take long is taken back."""
    X = np.zeros((400_000, 16), np.float32)
    y = np.arange(len(X)) % 2
    trainers = [
        gpumlp.Trainer(
            gpumlp.MLP([16, 256, 256, 2], seed=k, device=name),
            loss="softmax_cross_entropy",
            optimizer="adam",
            batch_size=4,
        )
        for k in range(3)
    ]
    before = [trainer.model.flat.copy() for trainer in trainers]
    started = threading.Event()
    trainers[0].schedule = lambda t, total: started.set() or np.ones(len(t))

    def interrupt() -> None:
        started.wait()
        time.sleep(0.3)
        _thread.interrupt_main()

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        gpumlp.fit_many(trainers, X, y, epochs=2, progress=False)
    for trainer, flat in zip(trainers, before, strict=True):
        assert trainer.epoch == trainer.optimizer.t == 0
        assert np.array_equal(trainer.model.flat, flat)
        assert not any(
            np.any(a) for state in trainer.optimizer.state for n, a in state.items() if n != "_shape"
        )


class TestDivergence:
    def trainers(self, device: str, lrs: list[float]) -> list[gpumlp.Trainer]:
        return [
            gpumlp.Trainer(
                gpumlp.MLP([N_IN, 8, CLASSES], seed=k, device=device),
                loss="softmax_cross_entropy",
                optimizer=gpumlp.SGD(lr=lr),
                batch_size=30,
            )
            for k, lr in enumerate(lrs)
        ]

    def test_of_some(self, device: str) -> None:
        X, y, _ = data()
        lrs = [0.1, 1e38, 0.01, 1e38]
        alone, together = self.trainers(device, lrs), self.trainers(device, lrs)
        for trainer, lr in zip(alone, lrs, strict=True):
            if lr == 1e38:
                with pytest.raises(gpumlp.DivergenceError):
                    trainer.fit(X, y, epochs=4, progress=False)
            else:
                trainer.fit(X, y, epochs=4, progress=False)
        histories = gpumlp.fit_many(together, X, y, epochs=4, progress=False)
        assert [h.error is None for h in histories] == [True, False, True, False]
        assert isinstance(histories[1].error, gpumlp.DivergenceError)
        assert "epoch 1" in str(histories[1].error) and "diverged" in repr(histories[1])
        for one, other in zip(alone, together, strict=True):
            if one.history.error is None or one.model.device == "cpu":
                same(one, other)

    def test_of_all(self, device: str) -> None:
        X, y, _ = data()
        with pytest.raises(gpumlp.DivergenceError, match="all 2 networks diverged; the first: training div"):
            gpumlp.fit_many(self.trainers(device, [1e38, 1e38]), X, y, epochs=4, progress=False)


class TestBadInput:
    @pytest.mark.parametrize(
        ("given", "kind", "message"),
        [
            ({"epochs": 0}, ValueError, r"trainers\[0\]: epochs=0"),
            ({"epochs": [1, 2]}, ValueError, "epochs has 2 entries; expected one for each of 3"),
            (
                {"rows": [None, [2, 150], None]},
                ValueError,
                r"trainers\[1\]: rows has numbers .* to 150",
            ),
            ({"rows": [None, [-1, 1], None]}, ValueError, r"trainers\[1\]: rows has numbers from -1"),
            ({"rows": [None, [], None]}, ValueError, r"trainers\[1\]: rows is .*at least one row number"),
            ({"rows": [np.ones(150, bool)] * 3}, ValueError, r"trainers\[0\]: rows is bool.*flatnonzero"),
            ({"rows": [[0, 1]]}, ValueError, "rows has 1 entries"),
            ({"validation": [None, 2.0, None]}, ValueError, r"trainers\[1\]: validation=2.0"),
            ({"validation": [0.5, 0.5]}, ValueError, "validation has 2 entries.*one for all is a tuple"),
            ({"sample_weight": [None, np.ones(3), None]}, ValueError, r"trainers\[1\]: sample_weight"),
            ({"early_stopping": [None, None, 5]}, TypeError, r"trainers\[2\]: early_stopping=5"),
            (
                {"early_stopping": True},
                ValueError,
                r"trainers\[0\]: early stopping: unknown metric",
            ),
        ],
    )
    def test_says_which(self, device: str, given: dict, kind: type, message: str) -> None:
        X, y, _ = data()
        trainers = [any_trainer(k, device) for k in range(3)]
        before = [t.model.backend.to_numpy(t.model.flat) for t in trainers]
        with pytest.raises(kind, match=message):
            gpumlp.fit_many(trainers, X, y, **{"epochs": 2, "progress": False, **given})
        for trainer, flat in zip(trainers, before, strict=True):
            assert trainer.epoch == trainer.optimizer.t == len(trainer.history) == 0
            assert np.array_equal(trainer.model.backend.to_numpy(trainer.model.flat), flat)

    def test_trainers(self, device: str) -> None:
        X, y, _ = data()
        one = any_trainer(0, device)
        for trainers, kind, message in [
            ([], ValueError, "trainers is empty"),
            (one, TypeError, "one Trainer; expected a list"),
            ([one, one.model], TypeError, r"trainers\[1\]=MLP"),
            (
                [one, any_trainer(1, device), one],
                ValueError,
                r"trainers\[0\] and .*2\] have the same model",
            ),
        ]:
            with pytest.raises(kind, match=message):
                gpumlp.fit_many(trainers, X, y, epochs=1, progress=False)  # type: ignore[arg-type]
        wide = gpumlp.Trainer(
            gpumlp.MLP([N_IN + 1, CLASSES], device=device), loss="softmax_cross_entropy", optimizer="sgd"
        )
        with pytest.raises(ValueError, match=r"trainers\[1\]: X has 6 features"):
            gpumlp.fit_many([one, wide], X, y, epochs=1, progress=False)
        small = any_trainer(2, device)
        small.optimizer = gpumlp.Adam(eps=1e-320)
        with pytest.raises(ValueError, match=r"trainers\[1\]: Adam: eps"):
            gpumlp.fit_many([one, small], X, y, epochs=1, progress=False)
        assert one.epoch == 0


def test_executors_side_by_side() -> None:
    X, y, _ = data()
    names = ["numpy", "native", "numpy", "native", "native"]
    alone, together = ([any_trainer(k, name) for k, name in enumerate(names)] for _ in range(2))
    for trainer in alone:
        trainer.fit(X, y, epochs=3, progress=False)
    gpumlp.fit_many(together, X, y, epochs=3, progress=True)
    for one, other in zip(alone, together, strict=True):
        same(one, other)


def test_small_networks_train_in_one_thread(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads would wait for Python's lock; the results are the same.  Their steps are done in batches."""
    X, y, _ = data()
    threads, made = [], threading.Thread
    monkeypatch.setattr(threading, "Thread", lambda *a, **k: (threads.append(1), made(*a, **k))[1])
    batches, run = [], Batch.run
    monkeypatch.setattr(Batch, "run", lambda batch: (batches.append(1), run(batch))[1])
    many, counts = [], []
    for small in (0, 10**9):
        monkeypatch.setattr(members, "SMALL", small)
        trainers = [any_trainer(seed, device) for seed in range(4)]
        gpumlp.fit_many(trainers, X, y, epochs=3)
        many.append(trainers)
        counts.append(len(threads))
        threads.clear()
    lanes = gpumlp.get_backend(device).lanes
    assert counts == [min(4, lanes), 1]
    assert (len(batches) >= 3) == (device == "native" and lanes > 1)
    for one, other in zip(*many, strict=True):
        same(one, other)


def test_validation_rows_are_checked_once(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y, _ = data()
    trainers = [any_trainer(seed, device) for seed in range(6)]
    dtypes = {t.model.dtype for t in trainers}
    calls, check = [], many.check_rows
    monkeypatch.setattr(many, "check_rows", lambda *given: (calls.append(1), check(*given))[1])
    gpumlp.fit_many(trainers, X, y, epochs=1, validation=(X[:9], y[:9]), progress=False)
    assert len(calls) == len(dtypes)


def test_an_error_in_the_middle_names_its_trainer(device: str) -> None:
    X, y, _ = data()
    trainers = [any_trainer(seed, device) for seed in range(4)]
    trainers[2].schedule = lambda t, total: np.full(len(t), -1.0 if t[0] else 1.0)
    with pytest.raises(ValueError, match="learning rates from -0") as caught:
        gpumlp.fit_many(trainers, X, y, epochs=3, progress=False)
    if hasattr(caught.value, "add_note"):
        assert caught.value.__notes__ == ["raised while trainers[2] was trained"]


def test_histories_say_how(device: str) -> None:
    X, y, _ = data()
    histories = gpumlp.fit_many(
        [any_trainer(seed, device) for seed in (1, 1)], X, y, epochs=2, progress=False
    )
    plans = " in 1 plan" if gpumlp.get_backend(device).name == "cuda" else ""
    assert repr(histories).splitlines()[0] == f"2 networks{plans}:"
    assert isinstance(histories, list) and repr(histories).count("History(2 epochs") == 2
