"""Random trainers, of all kinds at once: `fit_many` against fits of their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tolerances import close

import gpumlp
from gpumlp.schedules import Cosine, Step, Warmup
from gpumlp.training import members
from gpumlp.training.history import History

N, N_IN = 61, 5
RULES: list[Any] = [
    lambda lr: gpumlp.SGD(lr=lr, momentum=0.8, nesterov=True),
    lambda lr: gpumlp.SGD(lr=lr),
    lambda lr: gpumlp.AdaGrad(lr=lr, initial_accumulator=0.1),
    lambda lr: gpumlp.AdaGrad(lr=lr, eps_in_sqrt=False),
    lambda lr: gpumlp.RMSProp(lr=0.1 * lr, centered=True, momentum=0.5),
    lambda lr: gpumlp.Adam(lr=0.1 * lr, eps_hat=True),
    lambda lr: gpumlp.AdamW(lr=0.1 * lr, weight_decay=2 * lr),
    lambda lr: gpumlp.optimizers.RAdam(lr=0.1 * lr),
    lambda lr: gpumlp.optimizers.Adadelta(),
]
LOSSES = [
    "softmax_cross_entropy",
    "binary_cross_entropy",
    "squared_error",
    "absolute_error",
    gpumlp.Huber(0.7),
    "poisson",
]


@pytest.fixture(autouse=True)
def side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "SMALL", 0)


def host(array: Any) -> np.ndarray:
    return array.get() if hasattr(array, "get") else array


def assert_same(one: gpumlp.Trainer, other: gpumlp.Trainer) -> None:
    """To the bit on the host, else to rounding."""
    mine, theirs = one.history, other.history
    assert (one.epoch, one.optimizer.t) == (other.epoch, other.optimizer.t)
    assert (mine.best_epoch, mine.stopped_early) == (theirs.best_epoch, theirs.stopped_early)
    assert mine.metrics.keys() == theirs.metrics.keys()
    pairs = [(one.model.flat, other.model.flat)]
    for a, b in zip(one.optimizer.state, other.optimizer.state, strict=True):
        pairs += [(a[name], b[name]) for name in a if name != "_shape"]
    pairs += [(np.array(v), np.array(theirs[name])) for name, v in mine.metrics.items() if name != "seconds"]
    for a, b in pairs:
        if one.model.device == "cpu":
            np.testing.assert_array_equal(host(a), host(b))
        else:
            close(host(a), host(b), "50 training steps", dtype=one.model.dtype.name)


def nudge(one: gpumlp.Trainer, history: History) -> bool:
    """A callback that changes something after every other epoch, and may end the training."""
    if len(history) % 2:
        one.optimizer.lr *= 0.7
        one.model.biases[0] = np.full(one.model.layer_sizes[1], 0.125)
    return len(history) == 3 and one.seed % 3 == 0


def some_rows(rng: Any) -> np.ndarray:
    """A fold, or a sample with duplicates."""
    if rng.random() < 0.5:
        return rng.permutation(N)[: int(rng.integers(30, N))]
    return rng.integers(0, N, int(rng.integers(30, 70)))


class Case:
    """What `seed` says; each call of `trainers` makes the same ones."""

    def __init__(self, seed: int, device: str) -> None:
        self.seed, self.device = seed, device
        rng = np.random.default_rng([seed, 1])
        self.loss = LOSSES[seed % len(LOSSES)]
        n_out = 3 if self.loss == "softmax_cross_entropy" else int(rng.integers(1, 3))
        self.n_out, self.rule = n_out, RULES[int(rng.integers(len(RULES)))]
        self.kind = rng.choice(["relu", "tanh", "gelu", "elu", "leaky_relu", "sigmoid", "softplus"], 2)
        self.dtype, self.batch = str(rng.choice(["float32", "float64"])), int(rng.choice([7, 16, 61, 200]))
        self.average, self.n = float(rng.choice([0.0, 0.9])), 6
        self.X = rng.integers(0, 9, (N, N_IN)) * 0.5 - 2
        self.X = self.X.astype(
            str(rng.choice(["float16", "float32", "float64", "uint8", "int16"])), copy=False
        )
        if self.X.dtype.kind == "u":
            self.X %= 5
        y = rng.integers(0, 3, N) if n_out == 3 else rng.integers(0, 2, (N, n_out)).astype(float)
        self.y = y
        self.w = [
            None if rng.random() < 0.4 else rng.integers(0, 3, N) * 10.0 ** rng.integers(-20, 20)
            for _ in range(6)
        ]
        self.rows: Any = [some_rows(rng) for _ in range(6)] if rng.random() < 0.7 else None
        held = slice(0, N, 3)
        self.validation = [None, 0.3, (self.X[held], y[held]), (self.X[held], y[held], np.arange(21.0))][
            int(rng.integers(4))
        ]
        self.epochs = [int(e) for e in rng.integers(1, 6, 6)]
        monitor = "loss" if self.validation is None else "val_loss"
        self.stops = [
            gpumlp.EarlyStopping(monitor, patience=1, min_delta=0.01, restore_best=bool(k % 2))
            if rng.random() < 0.5
            else None
            for k in range(6)
        ]
        if device == "cuda" and rng.random() < 0.3:
            import cupy

            self.X, self.y = cupy.asarray(self.X), cupy.asarray(self.y)
            if isinstance(self.validation, tuple):
                X, y, *w = self.validation
                self.validation = (cupy.asarray(X), cupy.asarray(y), *w)

    def trainers(self) -> list[gpumlp.Trainer]:
        return [self.trainer(k) for k in range(self.n)]

    def trainer(self, k: int) -> gpumlp.Trainer:
        rng = np.random.default_rng([self.seed, 2, k])
        padded = not {"sigmoid", "softplus"} & set(self.kind)
        width = int(rng.integers(3, 20)) if padded else 6
        model = gpumlp.MLP(
            [N_IN, width, 7, self.n_out],
            list(self.kind),
            dropout=float(rng.choice([0.0, 0.25])),
            dtype=self.dtype,
            seed=k,
            device=self.device,
        )
        return gpumlp.Trainer(
            model,
            loss=self.loss,
            optimizer=self.rule(float(rng.choice([0.02, 0.01]))),
            batch_size=self.batch,
            l1=float(rng.choice([0.0, 1e-3])),
            l2=float(rng.choice([0.0, 1e-3])),
            proximal=bool(rng.integers(2)),
            average=self.average * float(rng.choice([0.5, 1.0])),
            clip_norm=rng.choice([None, 0.5]),
            schedule=rng.choice([None, Cosine(), Step(gamma=0.5, every=5), Warmup(steps=4)]),
            seed=k,
            callbacks=[nudge] if rng.random() < 0.3 else [],
        )

    def given(self, k: int) -> dict[str, Any]:
        """Arguments of the k-th trainer's own fit."""
        index = slice(None) if self.rows is None else self.rows[k]
        w = self.w[k]
        return {
            "X": self.X[index],
            "y": self.y[index],
            "epochs": self.epochs[k],
            "sample_weight": None if w is None else w[index],
            "validation": self.validation,
            "early_stopping": self.stops[k],
        }


@pytest.mark.parametrize("seed", range(12))
def test_each_ends_as_by_its_own_fit(device: str, seed: int) -> None:
    """Twice: the second call goes on where the first one ended."""
    case = Case(seed, device)
    alone, together = case.trainers(), case.trainers()
    for _ in range(2):
        for k, one in enumerate(alone):
            one.fit(**case.given(k), progress=False)
        gpumlp.fit_many(
            together,
            case.X,
            case.y,
            epochs=case.epochs,
            rows=case.rows,
            validation=case.validation,
            sample_weight=case.w,
            early_stopping=case.stops,
            progress=False,
        )
        for one, other in zip(alone, together, strict=True):
            assert_same(one, other)
