"""Networks that share a plan: each ends as its own fit would have left it, whatever the others do.

On executors of the host these are trainings side by side, and the same has to hold.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tolerances import GRADIENT, close

import gpumlp
from gpumlp.schedules import Cosine, Step, Warmup
from gpumlp.training import members

N_IN = 7
RULES: dict[str, Any] = {
    "sgd": lambda r: gpumlp.SGD(lr=r.uniform(0.01, 0.1), momentum=r.uniform(0, 0.9)),
    "nesterov": lambda r: gpumlp.SGD(lr=0.05, momentum=r.uniform(0.1, 0.9), nesterov=True),
    "adagrad": lambda r: gpumlp.AdaGrad(lr=r.uniform(0.01, 0.1), eps=10.0 ** -r.integers(5, 8)),
    "rmsprop": lambda r: gpumlp.RMSProp(lr=r.uniform(1e-3, 1e-2), rho=r.uniform(0.8, 0.99)),
    "adam": lambda r: gpumlp.Adam(lr=r.uniform(1e-3, 2e-2), betas=(r.uniform(0.5, 0.9), 0.99)),
    "amsgrad": lambda r: gpumlp.Adam(lr=r.uniform(1e-3, 2e-2), amsgrad=True),
    "adamw": lambda r: gpumlp.AdamW(lr=r.uniform(1e-3, 2e-2), weight_decay=r.choice([0.0, 0.1])),
}


def data(n: int = 131) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    X = rng.normal(size=(n, N_IN)).astype(np.float32)
    return X, (X[:, 0] * X[:, 1] + X[:, 2] > 0).astype(int) + (X[:, 3] > 1), rng.random(n) + 0.2


def trainer(
    seed: int, device: str, rule: str, activation: str = "tanh", dtype: str = "float32", **more: Any
) -> gpumlp.Trainer:
    """What may differ within a plan differs, as `seed` says."""
    rng = np.random.default_rng([seed, 7])
    width = (8, 12, 17)[seed % 3]
    model = gpumlp.MLP(
        [N_IN, width, 9, 3],
        activation,
        dropout=[float(rng.choice([0.0, 0.2])), float(rng.choice([0.0, 0.3]))],
        dtype=dtype,
        seed=seed,
        device=device,
    )
    settings = {
        "loss": "softmax_cross_entropy",
        "optimizer": RULES[rule](rng),
        "batch_size": 16,
        "l1": float(rng.choice([0.0, 1e-4])),
        "l2": float(rng.choice([0.0, 1e-3])),
        "clip_norm": rng.choice([None, 0.5]),
        "schedule": rng.choice([None, Cosine(), Step(gamma=0.5, every=9), Warmup(steps=5)]),
        "seed": seed,
    }
    return gpumlp.Trainer(model, **{**settings, **more})


def folds(n: int, parts: int) -> list[np.ndarray]:
    """Of different lengths: n is not a multiple of `parts`."""
    return [np.setdiff1d(np.arange(n), part) for part in np.array_split(np.arange(n), parts)]


def assert_same(one: gpumlp.Trainer, other: gpumlp.Trainer, what: str = "50 training steps") -> None:
    """To the bit on the host, else to rounding."""
    host, exact = one.model.backend.to_numpy, one.model.device == "cpu"
    assert (one.epoch, one.optimizer.t, one.model.output) == (
        other.epoch,
        other.optimizer.t,
        other.model.output,
    )
    assert len(one.history) == len(other.history) and one.history.best_epoch == other.history.best_epoch
    assert one.history.stopped_early == other.history.stopped_early
    assert one.history.metrics.keys() == other.history.metrics.keys()
    pairs = [(one.model.flat, other.model.flat)]
    for mine, theirs in zip(one.optimizer.state, other.optimizer.state, strict=True):
        pairs += [(mine[name], theirs[name]) for name in mine if name != "_shape"]
    pairs += [
        (np.asarray(values), np.asarray(other.history[name]))
        for name, values in one.history.metrics.items()
        if name != "seconds"
    ]
    for mine, theirs in pairs:
        if exact:
            np.testing.assert_array_equal(host(mine), host(theirs))
        else:
            close(host(mine), host(theirs), what, dtype=one.model.dtype.name)


def check(alone: list[gpumlp.Trainer], together: list[gpumlp.Trainer], each: list[dict], many: dict) -> None:
    """Fits of `alone`, and one `fit_many` of `together`."""
    X, y, _ = data()
    for one, given in zip(alone, each, strict=True):
        index = given.pop("rows", slice(None))
        one.fit(X[index], y[index], progress=False, **given)
    gpumlp.fit_many(together, X, y, progress=False, **many)
    for one, other in zip(alone, together, strict=True):
        assert_same(one, other)


@pytest.fixture(autouse=True)
def side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads on the host, although these networks are small."""
    monkeypatch.setattr(members, "SMALL", 0)


@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu", "sigmoid"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.cuda_sample(4)
def test_folds(device: str, rule: str, activation: str) -> None:
    """Rows, validation rows and numbers of steps of their own; widths that are padded, or not (sigmoid)."""
    X, y, _ = data()
    alone, together = ([trainer(k, device, rule, activation) for k in range(5)] for _ in range(2))
    rows = folds(len(X), 5)
    held = [np.setdiff1d(np.arange(len(X)), index) for index in rows]
    validation = [(X[index], y[index]) for index in held]
    check(
        alone,
        together,
        [{"epochs": 4, "rows": r, "validation": v} for r, v in zip(rows, validation, strict=True)],
        {"epochs": 4, "rows": rows, "validation": validation},
    )


@pytest.mark.memory
@pytest.mark.parametrize("how", ["fraction", "common", "weighted", "none"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_validation_and_weights(device: str, how: str, dtype: str) -> None:
    X, y, w = data()
    validation = {
        "fraction": 0.3,
        "common": (X[:40], y[:40]),
        "weighted": (X[:40], y[:40], w[:40]),
        "none": None,
    }[how]
    weights = [w if k % 2 else None for k in range(6)] if how != "common" else [w] * 6
    rows = [np.random.default_rng(k).permutation(len(X))[: 100 + k] for k in range(6)]
    alone, together = ([trainer(k, device, "adam", dtype=dtype) for k in range(6)] for _ in range(2))
    each = [
        {
            "epochs": 3,
            "rows": r,
            "validation": validation,
            "sample_weight": None if v is None else v[r],
        }
        for r, v in zip(rows, weights, strict=True)
    ]
    check(
        alone, together, each, {"epochs": 3, "rows": rows, "validation": validation, "sample_weight": weights}
    )


@pytest.mark.parametrize("batch", [1000, 131, 130, 64])
def test_batches_as_long_as_the_rows(device: str, batch: int) -> None:
    X, _, _ = data()
    alone, together = ([trainer(k, device, "rmsprop", batch_size=batch) for k in range(4)] for _ in range(2))
    rows: list[Any] = [None, *folds(len(X), 3)]
    each = [{"epochs": 3, **({} if r is None else {"rows": r})} for r in rows]
    check(alone, together, each, {"epochs": 3, "rows": rows})


def test_values_with_several_outputs(device: str) -> None:
    X, _, w = data()
    Y = np.stack([X[:, 0] * 2, X[:, 1] - X[:, 2]], axis=1)

    def make() -> list[gpumlp.Trainer]:
        return [
            gpumlp.Trainer(
                gpumlp.MLP([N_IN, 6 + k, 2], "silu", seed=k, device=device),
                loss="squared_error",
                optimizer=gpumlp.AdamW(lr=0.01 * (k + 1)),
                batch_size=50,
                seed=k,
            )
            for k in range(4)
        ]

    alone, together = make(), make()
    for one in alone:
        one.fit(X, Y, epochs=5, validation=0.2, sample_weight=w, progress=False)
    gpumlp.fit_many(together, X, Y, epochs=5, validation=0.2, sample_weight=w, progress=False)
    for one, other in zip(alone, together, strict=True):
        assert_same(one, other)


@pytest.mark.memory
def test_members_leave_at_their_own_time(device: str) -> None:
    """Half of them stop early, one diverges, one ends by a callback, the numbers of epochs differ."""
    X, y, _ = data()

    def make() -> list[gpumlp.Trainer]:
        some = [trainer(k, device, "sgd", l1=0.0, schedule=None) for k in range(12)]
        some[3].optimizer.lr = 1e38
        some[3].clip_norm = None
        some[5].callbacks = [lambda t, h: len(h) == 2]
        return some

    alone, together = make(), make()
    stops = [
        gpumlp.EarlyStopping("val_loss", patience=1, min_delta=0.02, restore_best=bool(k % 4))
        if k % 2
        else None
        for k in range(12)
    ]
    epochs = [6 + k % 3 for k in range(12)]
    for one, stop, n in zip(alone, stops, epochs, strict=True):
        try:
            one.fit(X, y, epochs=n, validation=0.25, early_stopping=stop, progress=False)
        except gpumlp.DivergenceError:
            assert one is alone[3]
    histories = gpumlp.fit_many(
        together, X, y, epochs=epochs, validation=0.25, early_stopping=stops, progress=False
    )
    assert isinstance(histories[3].error, gpumlp.DivergenceError)
    assert str(histories[3].error) == str(alone[3].history.error)
    lengths = [len(history) for history in histories]
    assert lengths[5] == 2 and len(set(lengths)) > 3
    for number, (one, other) in enumerate(zip(alone, together, strict=True)):
        if number != 3:
            assert_same(one, other)
    for one, other in zip(alone, together, strict=True):  # and everything goes on
        if one is not alone[3]:
            one.fit(X, y, epochs=1, progress=False)
            other.fit(X, y, epochs=1, progress=False)
            assert_same(one, other)


@pytest.mark.parametrize(
    "change",
    [
        "rate",
        "penalty",
        "new penalty",
        "parameters",
        "clipping",
        "dropout",
        "batch",
        "rule",
        "activation",
        "fit",
    ],
)
def test_what_callbacks_change(device: str, change: str) -> None:
    """It counts from the next epoch on for this one network."""
    X, y, _ = data()

    def callback(one: gpumlp.Trainer, history: gpumlp.History) -> None:
        if len(history) != 2:
            return
        if change == "rate":
            one.optimizer.lr *= 0.1
        elif change == "penalty":
            one.optimizer.l2 *= 10
        elif change == "new penalty":
            one.optimizer.weight_decay = 0.5
        elif change == "parameters":
            one.model.biases[0] = np.full(one.model.layer_sizes[1], 0.25)
        elif change == "clipping":
            one.clip_norm = 0.01
        elif change == "dropout":
            one.model.dropouts = [0.4, 0.0]
        elif change == "batch":
            one.batch_size = 40
        elif change == "rule":
            one.optimizer = gpumlp.AdaGrad(lr=0.05)
        elif change == "activation":
            one.model.activations = ["relu", "relu"]
        else:
            one.fit(X, y, epochs=1, progress=False)

    def make() -> list[gpumlp.Trainer]:
        some = [trainer(k, device, "adam", l2=1e-3, schedule=None) for k in range(4)]
        some[1].callbacks = [callback]
        return some

    if change == "fit":  # would call itself
        done: list[int] = []
        inner = callback

        def callback(one: gpumlp.Trainer, history: gpumlp.History) -> None:
            if len(done) % 2 == 0 and len(history) == 2:
                done.append(1)
                inner(one, history)
                done.append(1)

    alone, together = make(), make()
    check(alone, together, [{"epochs": 4}] * 4, {"epochs": 4})


def test_a_callback_sees_its_trainer_at_the_epochs_end(device: str, tmp_path: Any) -> None:
    """Parameters, figures and files are those of the epoch that has just ended."""
    X, y, _ = data()
    seen: dict[tuple[int, int], Any] = {}

    def callback(one: gpumlp.Trainer, history: gpumlp.History) -> None:
        path = tmp_path / f"{one.seed}.npz"
        one.save(path)
        again = gpumlp.Trainer.load(path, device=device)
        assert again.epoch == one.epoch == len(history) and again.optimizer.t == one.optimizer.t
        host = one.model.backend.to_numpy
        np.testing.assert_array_equal(host(again.model.flat), host(one.model.flat))
        seen.setdefault((one.seed, len(history)), []).append(one.evaluate(X, y)["loss"])

    alone, together = (
        [trainer(k, device, "adam", schedule=None, callbacks=[callback]) for k in range(3)] for _ in range(2)
    )
    check(alone, together, [{"epochs": 3}] * 3, {"epochs": 3})
    assert len(seen) == 9
    for values in seen.values():
        close(np.float32(values[0]), np.float32(values[1]), "50 training steps")


@pytest.mark.parametrize("where", ["callback", "schedule"])
def test_an_error_in_one_leaves_the_others_at_an_epochs_end(device: str, where: str) -> None:
    X, y, _ = data()

    def fail(one: gpumlp.Trainer, history: gpumlp.History) -> None:
        if len(history) == 2:
            raise KeyError("mine")

    def bad(t: np.ndarray, total: int) -> Any:
        if t[0] > 10:
            raise KeyError("mine")
        return np.ones(len(t))

    trainers = [trainer(k, device, "adam", schedule=None) for k in range(5)]
    if where == "callback":
        trainers[2].callbacks = [fail]
    else:
        trainers[2].schedule = bad
    with pytest.raises(KeyError, match="mine"):
        gpumlp.fit_many(trainers, X, y, epochs=10**5, progress=False)
    for k, one in enumerate(trainers):
        assert len(one.history) == one.epoch and one.optimizer.t == one.epoch * 9
        if one.epoch and one.epoch < 100:
            stop = [lambda t, h, last=one.epoch: len(h) == last]
            own = trainer(k, device, "adam", schedule=None, callbacks=stop)
            own.fit(X, y, epochs=10**5, progress=False)
            assert_same(own, one)


@pytest.mark.parametrize("precision", ["tf32", "float16", "bfloat16"])
def test_reduced_precision(device: str, precision: str) -> None:
    """Each has a loss scale of its own; products of 16 bits are rounded alike."""
    X, y, _ = data()
    if gpumlp.get_backend(device).name != "cuda":
        pytest.skip("only on CUDA devices")
    alone, together = (
        [trainer(k, device, "adam", "relu", precision=precision, l1=0.0) for k in range(5)] for _ in range(2)
    )
    for one in alone:
        one.fit(X, y, epochs=3, validation=0.2, progress=False)
    gpumlp.fit_many(together, X, y, epochs=3, validation=0.2, progress=False)
    for one, other in zip(alone, together, strict=True):
        # a sum in another order may round a factor of 16 bits the other way
        np.testing.assert_allclose(one.history["loss"], other.history["loss"], rtol=GRADIENT[precision])
        assert one.optimizer.t == other.optimizer.t
        if precision == "float16":
            assert one.history["skipped"] == other.history["skipped"]
            assert one.engine.precision.loss_scale() == other.engine.precision.loss_scale()


def test_rows_that_fill_up_a_batch_do_no_harm(device: str) -> None:
    """A number that 16 bits cannot hold is infinite, and 0 times infinity is no number."""
    if gpumlp.get_backend(device).name != "cuda":
        pytest.skip("only on CUDA devices")
    X, y, _ = data()
    X = X.copy()
    X[0] = 1e5  # not in any fold, and the first row that could fill up the shorter ones
    rows = [np.arange(2 + k, len(X)) for k in range(3)]
    some = [trainer(k, device, "adam", precision="float16", l1=0.0, batch_size=40) for k in range(3)]
    histories = gpumlp.fit_many(some, X, y, epochs=3, rows=rows, progress=False)
    assert [sum(history["skipped"]) for history in histories] == [0, 0, 0]
