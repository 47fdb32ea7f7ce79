"""Derivatives against central differences, in double precision, in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpumlp.kernels.activations import Activation
from gpumlp.kernels.losses import Loss

__all__ = [
    "GradientReport",
    "activation_gradients",
    "compared",
    "example_outputs",
    "example_points",
    "example_targets",
    "loss_gradients",
    "refuse",
]

STEP = 1e-6  # of the differences, times the size of the variable if that is above 1
_KINK = 1e-3  # one-sided differences that are farther apart are those of a kink


@dataclass(frozen=True)
class GradientReport:
    """The worst of the derivatives that were compared with differences.

    Attributes
    ----------
    what : str
        What was looked at.
    error : float
        |derivative - difference| / max(1, |difference|); infinite if only one of them is a finite number.
    place : str
        Where that is.
    derivative, difference : float
        The two numbers.
    checked : int
        How many were compared.
    tolerance : float
        The largest error that is taken for rounding.
    """

    what: str
    error: float
    place: str
    derivative: float
    difference: float
    checked: int
    tolerance: float

    @property
    def good(self) -> bool:
        """Whether all agree."""
        return self.error <= self.tolerance

    def __str__(self) -> str:
        return (
            f"{self.what}: worst of {self.checked} at {self.place}: derivative {self.derivative:.9g}, "
            f"central difference {self.difference:.9g}, error {self.error:.2g}"
        )


def refuse(report: GradientReport) -> GradientReport:
    """The report; ValueError if a derivative is wrong."""
    if not report.good:
        raise ValueError(f"wrong derivative of {report} (tolerance {report.tolerance:g})")
    return report


def compared(
    what: str,
    given: np.ndarray,
    left: np.ndarray,
    right: np.ndarray,
    place: Callable[[int], str],
    tolerance: float,
) -> GradientReport:
    """`given` derivatives against the one-sided differences `left` and `right`.

    The central difference is their mean; at a kink everything between them is right.
    """
    with np.errstate(all="ignore"):
        central = 0.5 * (left + right)
        kink = np.abs(left - right) > _KINK * np.maximum(1, np.abs(central))
        between = np.clip(given, np.minimum(left, right), np.maximum(left, right))
        central = np.where(kink, between, central)
        error = np.abs(given - central) / np.maximum(1, np.abs(central))
        error = np.where(np.isfinite(given) & np.isfinite(central), error, np.inf)
        error = np.where(~np.isfinite(given) & ~np.isfinite(central), 0.0, error)
    worst = int(np.argmax(error))
    return GradientReport(
        what,
        float(error[worst]),
        place(worst),
        float(given[worst]),
        float(central[worst]),
        len(error),
        tolerance,
    )


def example_points() -> np.ndarray:
    """Inputs of an activation: both tails, the middle, and 0."""
    rng = np.random.default_rng(0)
    middle = np.linspace(-4, 4, 161) + 1e-3  # off the round numbers where kinks are
    return np.concatenate([middle, rng.uniform(-20, 20, 64), [0.0, 1.0, -1.0]])


def activation_gradients(activation: Activation, z: Any = None, tolerance: float = 1e-6) -> GradientReport:
    """df against differences of f, at the points `z`."""
    z = example_points() if z is None else np.asarray(z, np.float64).ravel()
    what = f"activation {activation.name!r}"
    step = STEP * np.maximum(1, np.abs(z))
    with np.errstate(all="ignore"):
        low, middle, high = (_values(what, "f", activation.f, x, z) for x in (z - step, z, z + step))
        given = _values(what, "df", activation.df, z if activation.needs_z else middle, z)
        left, right = (middle - low) / step, (high - middle) / step
    return compared(what, given, left, right, lambda n: f"z = {z[n]:.9g}", tolerance)


def _values(what: str, name: str, function: Any, x: np.ndarray, like: np.ndarray) -> np.ndarray:
    kept = x.copy()
    try:
        values = np.asarray(function(x))
    except Exception as error:
        raise ValueError(
            f"{what}: {name} of {len(like)} numbers raised {type(error).__name__}: {error}"
        ) from error
    if not np.array_equal(x, kept, equal_nan=True):
        raise ValueError(f"{what}: {name} changes the array that it is given; it must return another one")
    if values.dtype.kind not in "biuf" or values.shape not in ((), like.shape):
        raise ValueError(
            f"{what}: {name} of {len(like)} numbers gave {values.dtype} of shape {values.shape}; "
            "expected as many numbers"
        )
    return np.broadcast_to(values.astype(np.float64), like.shape)


def example_outputs(loss: Loss, rows: int = 40) -> np.ndarray:
    """Outputs of a network for `rows` rows."""
    columns = len(loss.delta) if isinstance(loss.delta, tuple) else 3
    return np.random.default_rng(1).normal(scale=1.5, size=(rows, columns))


def example_targets(loss: Loss, z: np.ndarray) -> np.ndarray:
    """Targets that go with the outputs `z`."""
    rng = np.random.default_rng(2)
    shape = len(z), loss.targets(z.shape[1])
    if loss.classes:
        return rng.integers(0, z.shape[1], len(z)).astype(np.int32)
    if loss.link == "exp":
        return rng.uniform(0.1, 5.0, shape)
    if loss.link == "sigmoid":
        return (rng.uniform(size=shape) < 0.5).astype(np.float64)
    return rng.normal(scale=1.5, size=shape)


def loss_gradients(loss: Loss, z: Any = None, y: Any = None, tolerance: float = 1e-6) -> GradientReport:
    """The gradients of a loss's reference against differences of its values, for outputs `z` (rows, outputs)
    and targets `y`."""
    what = f"loss {loss.name!r}"
    z = example_outputs(loss) if z is None else np.asarray(z, np.float64)
    y = example_targets(loss, z) if y is None else np.asarray(y)
    if not loss.classes:
        y = y.astype(np.float64).reshape(len(z), -1)
    values, given = reference_of(loss, z, y)
    step = STEP * np.maximum(1, np.abs(z))
    left, right = np.empty(z.shape), np.empty(z.shape)
    with np.errstate(all="ignore"):
        for column in range(z.shape[1]):  # an output may change the summands of others
            move = np.zeros(z.shape)
            move[:, column] = step[:, column]
            middle = values.sum(axis=1)
            left[:, column] = (middle - reference_of(loss, z - move, y)[0].sum(axis=1)) / step[:, column]
            right[:, column] = (reference_of(loss, z + move, y)[0].sum(axis=1) - middle) / step[:, column]

    def place(n: int) -> str:
        row, column = divmod(n, z.shape[1])
        target = y[row] if loss.classes else y[row, min(column, y.shape[1] - 1)]
        return f"z = {z[row, column]:.9g}, y = {target:.9g} (row {row}, output {column})"

    return compared(what, given.ravel(), left.ravel(), right.ravel(), place, tolerance)


def reference_of(loss: Loss, z: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a loss's reference gives, as arrays (rows, outputs); ValueError if it is something else."""
    delta = np.asarray(loss.delta, z.dtype) if isinstance(loss.delta, tuple) else loss.delta
    what = f"loss {loss.name!r}: reference(z, y, delta)"
    try:
        with np.errstate(all="ignore"):
            values, gradients = loss.reference(z.copy(), y, 1.0 if delta is None else delta)
    except Exception as error:
        raise ValueError(f"{what} raised {type(error).__name__}: {error}") from error
    for name, array in (("values", values), ("gradients", gradients)):
        if np.shape(array) != z.shape:
            raise ValueError(
                f"{what}: the {name} have shape {np.shape(array)}; expected that of z, {z.shape}: "
                "one for each output"
            )
    return np.asarray(values), np.asarray(gradients)
