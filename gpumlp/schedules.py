"""Learning-rate schedules: a factor on the optimiser's lr for each step.

The trainer evaluates a schedule for all steps of an epoch at once, in double precision on the host, and sends
the values with the permutation; the kernels read them from that table, so a schedule costs nothing inside a
plan and any Python function is a schedule.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from gpumlp.checks import number
from gpumlp.errors import suggest

__all__ = [
    "SCHEDULES",
    "Constant",
    "Cosine",
    "Exponential",
    "InverseScaling",
    "OneCycle",
    "Schedule",
    "Step",
    "Warmup",
    "check_known",
    "get_schedule",
    "learning_rates",
    "schedule_from_dict",
    "schedule_to_dict",
]


def _check(owner: object, name: str, low: float = 0, high: float = math.inf, open_low: bool = False) -> None:
    """Make a Python number of an option of a frozen schedule; ValueError if it is out of its range."""
    value = number(f"{type(owner).__name__}: {name}", getattr(owner, name), low, high, open_low=open_low)
    object.__setattr__(owner, name, value)


@dataclass(frozen=True)
class Schedule:
    """Base class.  ``schedule(t, total)`` is the factor for steps `t` (int64 array, from 0) of `total`
    planned steps."""

    @property
    def needs_total(self) -> bool:
        """Whether the factors depend on `total` (`Trainer.step` cannot know it)."""
        return False

    def __call__(self, t: np.ndarray, total: int) -> np.ndarray:
        """Factors, float64, of the shape of `t`."""
        return np.ones(np.shape(t))


@dataclass(frozen=True)
class Constant(Schedule):
    """1."""


@dataclass(frozen=True)
class Step(Schedule):
    """``gamma ** (t // every)``; `every` in steps (0: a third of the planned steps)."""

    gamma: float = 0.1
    every: int = 0

    def __post_init__(self) -> None:
        _check(self, "gamma", open_low=True)
        _check(self, "every")

    @property
    def needs_total(self) -> bool:
        return not self.every

    def __call__(self, t: np.ndarray, total: int) -> np.ndarray:
        return self.gamma ** (np.asarray(t) // (self.every or max(1, -(-total // 3)))).astype(float)


@dataclass(frozen=True)
class Exponential(Schedule):
    """``gamma ** t``, per step."""

    gamma: float = 0.9999

    def __post_init__(self) -> None:
        _check(self, "gamma", open_low=True)

    def __call__(self, t: np.ndarray, total: int) -> np.ndarray:
        return self.gamma ** np.asarray(t, float)


@dataclass(frozen=True)
class InverseScaling(Schedule):
    """``1 / (1 + decay t) ** power``; decay 1 and power 0.5 are d2l.ai 12.11's square-root schedule (and,
    shifted by one step, scikit-learn's invscaling)."""

    power: float = 0.5
    decay: float = 1.0

    def __post_init__(self) -> None:
        _check(self, "power")
        _check(self, "decay")

    def __call__(self, t: np.ndarray, total: int) -> np.ndarray:
        return (1 + self.decay * np.asarray(t, float)) ** -self.power


@dataclass(frozen=True)
class Cosine(Schedule):
    """From 1 to `final` along half a cosine over `steps` steps, by default all until the end of the present
    `fit`, those of earlier ones included (Loshchilov & Hutter 2017; d2l.ai 12.11).

    So another `fit` goes on at the place of its first step on a longer curve; give `steps` for one curve over
    several fits."""

    final: float = 0.0
    steps: int = 0

    def __post_init__(self) -> None:
        _check(self, "final")
        _check(self, "steps")

    @property
    def needs_total(self) -> bool:
        return not self.steps

    def __call__(self, t: np.ndarray, total: int) -> np.ndarray:
        part = np.minimum(np.asarray(t, float) / max(1, self.steps or total), 1)
        return self.final + (1 - self.final) * 0.5 * (1 + np.cos(math.pi * part))


@dataclass(frozen=True)
class Warmup(Schedule):
    """Linear rise over the first `steps` steps, ``(t + 1) / steps``, then `after`."""

    steps: int = 0
    after: Schedule = Constant()

    def __post_init__(self) -> None:
        _check(self, "steps")
        if not isinstance(self.after, Schedule):
            raise TypeError(f"Warmup: after={self.after!r}; expected an object such as Cosine()")

    @property
    def needs_total(self) -> bool:
        return not self.steps or self.after.needs_total

    def __call__(self, t: np.ndarray, total: int) -> np.ndarray:
        t = np.asarray(t)
        steps = self.steps or max(1, total // 20)
        later = self.after(np.maximum(t - steps, 0), max(1, total - steps))
        return np.where(t < steps, (t + 1) / steps, later)


@dataclass(frozen=True)
class OneCycle(Schedule):
    """Cosine rise from 1/`start_div` to 1 over the first `rise` part of the planned steps, then cosine fall
    to 1/`end_div` (Smith & Topin 2018).  The peak is at step rise (total - 1); PyTorch's OneCycleLR has it
    at rise total - 1, a little earlier."""

    rise: float = 0.3
    start_div: float = 25.0
    end_div: float = 1e5
    steps: int = 0

    def __post_init__(self) -> None:
        _check(self, "start_div", open_low=True)
        _check(self, "end_div", open_low=True)
        _check(self, "steps")
        _check(self, "rise", 0, 1, open_low=True)

    @property
    def needs_total(self) -> bool:
        return not self.steps

    def __call__(self, t: np.ndarray, total: int) -> np.ndarray:
        last = max(1, (self.steps or total) - 1)
        part = np.minimum(np.asarray(t, float) / last, 1)
        up, down = 1 / self.start_div, 1 / self.end_div
        rising = up + (1 - up) * 0.5 * (1 - np.cos(math.pi * part / self.rise))
        falling = down + (1 - down) * 0.5 * (1 + np.cos(math.pi * (part - self.rise) / (1 - self.rise)))
        return np.where(part < self.rise, rising, falling)


SCHEDULES: dict[str, type[Schedule]] = {
    "constant": Constant,
    "step": Step,
    "exponential": Exponential,
    "invscaling": InverseScaling,
    "cosine": Cosine,
    "warmup": Warmup,
    "onecycle": OneCycle,
}


def _check_signature(function: Callable) -> None:
    """TypeError if `function` cannot be called as f(t, total)."""
    import inspect

    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some compiled functions have none to show
        return
    try:
        signature.bind(None, None)
    except TypeError as error:
        raise TypeError(
            f"schedule={function!r} cannot be called as f(t, total) ({error}); expected a function of the "
            "steps t (an int64 array, from 0) and the number of planned steps, for example "
            "lambda t, total: 0.99**t"
        ) from None


def schedule_to_dict(schedule: Callable) -> dict[str, Any] | None:
    """Name and options of one of `SCHEDULES`, for JSON; None for any other function."""
    name = next((n for n, kind in SCHEDULES.items() if type(schedule) is kind), None)
    if name is None:
        return None
    options: dict[str, Any] = {}
    for f in fields(schedule):  # type: ignore[arg-type]
        value = getattr(schedule, f.name)
        options[f.name] = schedule_to_dict(value) if callable(value) else value
        if callable(value) and options[f.name] is None:
            return None
    return {"name": name, "options": options}


def schedule_from_dict(given: dict[str, Any]) -> Schedule:
    """The schedule that `schedule_to_dict` described."""
    options = {n: schedule_from_dict(v) if isinstance(v, dict) else v for n, v in given["options"].items()}
    return SCHEDULES[given["name"]](**options)


def get_schedule(spec: str | Callable | None) -> Callable[[np.ndarray, int], np.ndarray]:
    """A schedule for a name, None (constant), or a callable ``f(t, total) -> factors`` as it is."""
    if spec is None:
        return Constant()
    if isinstance(spec, str):
        if spec not in SCHEDULES:
            raise ValueError(suggest("schedule", spec, SCHEDULES))
        return SCHEDULES[spec]()
    if isinstance(spec, type):
        raise TypeError(f"schedule={spec.__name__} is a class; give an object: {spec.__name__}(...)")
    if callable(spec):
        _check_signature(spec)
        return spec
    raise TypeError(
        f"schedule={spec!r}; expected None, a name ({', '.join(SCHEDULES)}) or a function f(t, total)"
    )


def learning_rates(schedule: Callable, lr: float, t: np.ndarray, total: int) -> np.ndarray:
    """`lr` times the schedule's factors for the steps `t`, float64 of the shape of `t`; ValueError if a rate
    is negative or not finite."""
    rates = np.full(t.shape, lr, float)
    if type(schedule) is Constant:
        return rates
    factors = np.asarray(schedule(t.copy(), total), float)  # a function of the user's may write to it
    if factors.shape not in ((), t.shape):
        raise ValueError(f"the schedule gave factors of shape {factors.shape} for steps of shape {t.shape}")
    rates *= factors
    low, high = rates.min(), rates.max()
    if not (low >= 0 and high < np.inf):  # NaN is neither
        raise ValueError(
            f"the schedule gave learning rates from {low} to {high}; expected finite numbers >= 0"
        )
    return rates


def check_known(schedule: Any, who: str) -> None:
    """ValueError if the schedule depends on the number of planned steps, which `who` does not know."""
    if getattr(schedule, "needs_total", False):
        raise ValueError(
            f"{schedule} depends on the number of planned steps, which {who} does not know; "
            "give it to the schedule, for example gpumlp.schedules.Cosine(steps=1000)"
        )
