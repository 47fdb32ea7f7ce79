"""Sample weights, gradient clipping and learning-rate schedules."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from tolerances import RELATIVE, close

import gpumlp
from gpumlp import schedules
from gpumlp.losses import LOSSES
from gpumlp.schedules import SCHEDULES


def data(loss: str, rows: int = 12) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    X = rng.normal(size=(rows, 3))
    if LOSSES[loss].classes:
        return X, rng.integers(0, 2, rows)
    return X, rng.random((rows, LOSSES[loss].targets(2)))


def spec(loss: str) -> Any:
    """The loss, for a network of two outputs."""
    return gpumlp.Quantile((0.3, 0.6)) if loss == "quantile" else loss


def train(
    device: str, loss: str, X: Any, y: Any, w: Any, epochs: int = 4, batch: int = 1000
) -> tuple[list, list]:
    model = gpumlp.MLP([3, 4, 2], "tanh", seed=1, dtype="float64", device=device)
    rule = gpumlp.SGD(lr=0.1, momentum=0.9)
    trainer = gpumlp.Trainer(model, loss=spec(loss), optimizer=rule, batch_size=batch)
    history = trainer.fit(X, y, epochs=epochs, sample_weight=w, progress=False)
    figures = list(trainer.evaluate(X, y, w).values())
    return [a for pair in model.get_parameters() for a in pair], history.loss + figures


def same(a: tuple[list, list], b: tuple[list, list]) -> None:
    for x, y in zip(a[0], b[0], strict=True):
        close(x, y, "network")
    close(a[1], b[1], "network", dtype="float64")


@pytest.mark.parametrize("loss", sorted(LOSSES))
class TestWeights:
    def test_ones_are_none(self, device: str, loss: str) -> None:
        X, y = data(loss)
        same(train(device, loss, X, y, np.ones(12), batch=5), train(device, loss, X, y, None, batch=5))

    def test_scale_does_not_matter(self, device: str, loss: str) -> None:
        X, y = data(loss)
        w = np.random.default_rng(0).random(12)
        same(train(device, loss, X, y, w, batch=5), train(device, loss, X, y, 1000 * w, batch=5))

    def test_zero_removes_a_row(self, device: str, loss: str) -> None:
        X, y = data(loss)
        w = np.ones(12)
        w[[0, 5, 11]] = 0
        keep = w > 0
        same(train(device, loss, X, y, w), train(device, loss, X[keep], y[keep], None))

    def test_two_is_twice(self, device: str, loss: str) -> None:
        X, y = data(loss)
        times = np.array([1, 2] * 6)
        twice = np.repeat(np.arange(12), times)
        same(train(device, loss, X, y, times), train(device, loss, X[twice], y[twice], None))

    def test_batch_without_weight_changes_nothing(self, device: str, loss: str) -> None:
        """The step of a batch whose rows all weigh 0 has no gradient, not 0/0."""
        X, y = data(loss)
        w = np.zeros(12)
        w[3] = 1.0
        model = gpumlp.MLP([3, 4, 2], "tanh", dtype="float64", device=device)
        trainer = gpumlp.Trainer(model, loss=spec(loss), optimizer=gpumlp.SGD(lr=0.1), batch_size=4)
        history = trainer.fit(X, y, epochs=1, sample_weight=w, progress=False)
        one = gpumlp.MLP([3, 4, 2], "tanh", dtype="float64", device=device)
        other = gpumlp.Trainer(one, loss=spec(loss), optimizer=gpumlp.SGD(lr=0.1))
        other.step(X[3:4], y[3:4])
        for (W, b), (W0, b0) in zip(model.get_parameters(), one.get_parameters(), strict=True):
            close(W, W0, "network")
            close(b, b0, "network")
        assert math.isfinite(history.loss[0])


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999, 1.001, 100.0])
def test_clipping(device: str, dtype: Any, share: float) -> None:
    """SGD moves by lr min(1, limit / |g|) g, of the data loss alone; penalties come on top."""
    X, y = data("squared_error")
    model = gpumlp.MLP([3, 4, 2], "tanh", seed=1, dtype=dtype, device=device)
    before = model.get_parameters()
    _, grads = gpumlp.Trainer(model, loss="squared_error", optimizer="sgd").loss_and_grads(X, y)
    norm = math.sqrt(sum(float(np.square(g.astype(float)).sum()) for pair in grads for g in pair))
    trainer = gpumlp.Trainer(
        model, loss="squared_error", optimizer=gpumlp.SGD(lr=0.5), l2=0.1, clip_norm=share * norm
    )
    trainer.step(X, y)
    factor = min(1.0, share)
    for (W, b), (W0, b0), (dW, db) in zip(model.get_parameters(), before, grads, strict=True):
        close(W, W0 - 0.5 * (factor * dW + 0.1 * W0), "network")
        close(b, b0 - 0.5 * factor * db, "network")


def test_clipping_of_a_zero_gradient(device: str) -> None:
    model = gpumlp.MLP([3, 1], init=0.0, dtype="float64", device=device)
    trainer = gpumlp.Trainer(model, loss="squared_error", optimizer="sgd", clip_norm=1.0)
    trainer.step(np.ones((2, 3)), np.zeros(2))
    assert (model.get_parameters()[0][0] == 0).all()


def _onecycle(t: int, total: int, rise: float = 0.3, first: float = 1 / 25, last: float = 1e-5) -> float:
    part = t / max(1, total - 1)
    if part < rise:
        return first + (1 - first) * (1 - math.cos(math.pi * part / rise)) / 2
    return last + (1 - last) * (1 + math.cos(math.pi * (part - rise) / (1 - rise))) / 2


#: name -> factor at step t of `total`, with the defaults
FACTORS: dict[str, Any] = {
    "constant": lambda t, total: 1.0,
    "step": lambda t, total: 0.1 ** (t // math.ceil(total / 3)),
    "exponential": lambda t, total: 0.9999**t,
    "invscaling": lambda t, total: 1 / math.sqrt(1 + t),
    "cosine": lambda t, total: (1 + math.cos(math.pi * t / total)) / 2,
    "warmup": lambda t, total: min(1.0, (t + 1) / max(1, total // 20)),
    "onecycle": _onecycle,
}

OPTIONS: list[tuple[Any, Any]] = [
    (schedules.Step(gamma=0.5, every=4), lambda t, n: 0.5 ** (t // 4)),
    (schedules.Exponential(gamma=0.5), lambda t, n: 0.5**t),
    (schedules.InverseScaling(power=2.0, decay=0.1), lambda t, n: 1 / (1 + 0.1 * t) ** 2),
    (schedules.Cosine(final=0.2), lambda t, n: 0.2 + 0.4 * (1 + math.cos(math.pi * t / n))),
    (schedules.Cosine(steps=10), lambda t, n: (1 + math.cos(math.pi * min(t, 10) / 10)) / 2),
    (schedules.Warmup(steps=7), lambda t, n: min(1.0, (t + 1) / 7)),
    (
        schedules.Warmup(steps=5, after=schedules.Cosine()),
        lambda t, n: (t + 1) / 5 if t < 5 else (1 + math.cos(math.pi * (t - 5) / (n - 5))) / 2,
    ),
    (
        schedules.OneCycle(rise=0.5, start_div=10, end_div=100),
        lambda t, n: _onecycle(t, n, rise=0.5, first=0.1, last=0.01),
    ),
    (lambda t, n: 1.0 + t / n, lambda t, n: 1.0 + t / n),
]
ALL = [(name, FACTORS[name]) for name in FACTORS] + OPTIONS
IDS = [*FACTORS, *(str(schedule).split(" ")[0] for schedule, _ in OPTIONS)]


def test_every_schedule_is_tested() -> None:
    assert set(FACTORS) == set(SCHEDULES)


@pytest.mark.parametrize("total", [1, 2, 40, 1000])
@pytest.mark.parametrize(("schedule", "formula"), ALL, ids=IDS)
def test_factors(schedule: Any, formula: Any, total: int) -> None:
    f = schedules.get_schedule(schedule)
    t = np.arange(total)
    expected = [formula(i, total) for i in range(total)]
    np.testing.assert_allclose(
        np.broadcast_to(f(t, total), t.shape), expected, rtol=RELATIVE["few roundings"], atol=1e-15
    )


@pytest.mark.parametrize(("schedule", "formula"), ALL, ids=IDS)
def test_training_follows(device: str, schedule: Any, formula: Any) -> None:
    """One bias: b <- b - lr f(t) (b - y), step by step, over two calls of fit with their own totals."""
    model = gpumlp.MLP([1, 1], init=0.0, dtype="float64", device=device)
    optimizer = gpumlp.SGD(lr=0.1)
    trainer = gpumlp.Trainer(
        model, loss="squared_error", optimizer=optimizer, schedule=schedule, batch_size=2
    )
    X, y = np.zeros((6, 1)), np.full(6, 3.0)
    b, t, rates = 0.0, 0, []
    for epochs in (5, 3):
        total = t + 3 * epochs
        rates += trainer.fit(X, y, epochs=epochs, progress=False).lr
        expected = []
        for _ in range(epochs):
            for _ in range(3):
                b -= 0.1 * formula(t, total) * (b - 3.0)
                t += 1
            expected.append(0.1 * formula(t - 1, total))
        np.testing.assert_allclose(rates[-epochs:], expected, rtol=RELATIVE["few roundings"])
    np.testing.assert_allclose(model.get_parameters()[0][1][0], b, rtol=RELATIVE["few roundings"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.Step(gamma=-1), "gamma=-1; expected a finite number > 0"),
        (lambda: schedules.Step(every=-2), "every=-2"),
        (lambda: schedules.Exponential(gamma=math.nan), "gamma=nan"),
        (lambda: schedules.Exponential(gamma=math.inf), "gamma=inf"),
        (lambda: schedules.InverseScaling(power=math.inf), "power=inf"),
        (lambda: schedules.InverseScaling(decay=-1.0), "decay=-1.0"),
        (lambda: schedules.InverseScaling(power=math.nan), "power=nan"),
        (lambda: schedules.Cosine(final=-0.5), "final=-0.5"),
        (lambda: schedules.Cosine(steps=-5), "steps=-5"),
        (lambda: schedules.Warmup(steps=-5), "steps=-5"),
        (lambda: schedules.OneCycle(rise=0.0), "rise=0.0"),
        (lambda: schedules.OneCycle(end_div=0), "end_div=0"),
        (lambda: schedules.OneCycle(steps=-1), "steps=-1"),
        (lambda: schedules.get_schedule("cosin"), "unknown schedule 'cosin'. Did you mean 'cosine'"),
    ],
)
def test_bad_schedules(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("schedule", ["cosine", "onecycle", "warmup", "step"])
def test_step_cannot_plan(device: str, schedule: str) -> None:
    """`step` does not know how many will follow: an error, not a cycle that is always at its end."""
    model = gpumlp.MLP([1, 1], dtype="float64", device=device)
    trainer = gpumlp.Trainer(model, loss="squared_error", optimizer="sgd", schedule=schedule)
    before = model.get_parameters()[0][0]
    with pytest.raises(ValueError, match=r"depends on the number of planned steps.*steps="):
        trainer.step([[1.0]], [1.0])
    assert (model.get_parameters()[0][0] == before).all() and trainer.optimizer.t == 0


def test_step_follows_a_schedule_with_its_own_length(device: str) -> None:
    model = gpumlp.MLP([1, 1], init=0.0, dtype="float64", device=device)
    optimizer, schedule = gpumlp.SGD(lr=0.1), schedules.Cosine(steps=10)
    trainer = gpumlp.Trainer(model, loss="squared_error", optimizer=optimizer, schedule=schedule)
    b = 0.0
    for t in range(12):
        trainer.step([[0.0]], [3.0])
        b -= 0.1 * (1 + math.cos(math.pi * min(t, 10) / 10)) / 2 * (b - 3.0)
    np.testing.assert_allclose(model.get_parameters()[0][1][0], b, rtol=RELATIVE["few roundings"])


def test_schedule_of_a_wrong_type() -> None:
    with pytest.raises(TypeError, match="schedule=3; expected None, a name"):
        schedules.get_schedule(3)  # type: ignore[arg-type]


def test_function_that_gives_nonsense(device: str) -> None:
    model = gpumlp.MLP([1, 1], dtype="float64", device=device)
    before = model.get_parameters()
    trainer = gpumlp.Trainer(model, loss="squared_error", optimizer="sgd", schedule=lambda t, n: t - 3.0)
    with pytest.raises(ValueError, match=r"schedule gave learning rates from -0.03"):
        trainer.fit(np.ones((4, 1)), np.ones(4), epochs=1, progress=False)
    assert (model.get_parameters()[0][0] == before[0][0]).all()
