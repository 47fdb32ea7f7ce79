"""The losses: formulas, C++ text and NumPy references, one entry of `LOSSES` each.

Softmax cross-entropy d2l.ai 4.1 (with the maximum subtracted); binary cross-entropy from logits in the form
max(z, 0) - z y + log(1 + exp(-|z|)); both with smoothed labels (Szegedy et al. 2016), (1 - s) y + s / (number
of classes) in the place of y; squared error 1/2 (z - y)^2 d2l.ai 3.1; absolute error with subgradient
sign(0) = 0; Huber 1964: 1/2 d^2 for |d| <= delta, else delta (|d| - delta/2); Poisson with log link: exp(z) -
y z; quantiles (Koenker & Bassett 1978): the pinball loss max(q (y - z), (q - 1) (y - z)) of level q.

Quantiles do not cross because predictions are the outputs in ascending order.  That never costs anything:
with levels p < q and outputs a > b that cross, giving b to p and a to q lowers the loss of every target y by
(q - p) (a - b), since the pinball loss is q (y - z) + max(z - y, 0), and the second part does not know the
level.  (Chernozhukov, Fernandez-Val & Galichon 2010 show the same of the distance to the true quantiles.)  So
each output is trained for its own level, a convex problem if the network is linear, and figures are those of
the sorted predictions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from gpumlp.kernels.entry import Entry

__all__ = ["ERROR", "LEVEL_ERROR", "LOSSES", "TARGET", "Loss"]


@dataclass(frozen=True, repr=False)
class Loss(Entry):
    """One loss: an object, or a subclass with the same as attributes and methods.

    Parameters
    ----------
    name : str
        Letters, digits and underscores.
    value : str
        C++ expression: the summand of output c, from ``z[c]``, the target ``y[row * ld_y + c]``, and `delta`.
    gradient : str
        C++ statements that declare ``const C gc``, its derivative with respect to ``z[c]``.
    reference : callable
        (z, y, delta) -> (l, g): summands (rows, cols) and gradients (rows, cols), in NumPy.
    link : str
        "identity", "sigmoid", "softmax", "exp" or "sorted": how predictions are made from z.
    classes : bool
        Targets are int32 class indices (rows,) instead of values (rows, cols); `value` and `gradient` are
        those of softmax cross-entropy.  Only for the package's own.
    delta : float or tuple of float, optional
        Default of a constant > 0 that the text reads as `delta`; None if it reads none.  A tuple: one level
        for each output, read as `delta[c]`; all outputs then have one target, `y[row * ld_y]`.
    below : float
        What `delta` must be less than.
    """

    name: str
    value: str
    gradient: str
    reference: Callable[[np.ndarray, np.ndarray, Any], tuple[np.ndarray, np.ndarray]]
    link: str = "identity"
    classes: bool = False
    delta: float | tuple[float, ...] | None = None
    below: float = math.inf

    @property
    def levels(self) -> bool:
        """Whether each output is for another level of one target."""
        return isinstance(self.delta, tuple)

    def targets(self, n_outputs: int) -> int:
        """Columns of targets, which are not class numbers, for a network of `n_outputs`."""
        return 1 if self.levels else n_outputs

    @property
    def metric(self) -> str:
        """ "accuracy" or "rmse"."""
        return "accuracy" if self.link in ("softmax", "sigmoid") else "rmse"


def _softmax(z: np.ndarray, y: np.ndarray, delta: float) -> tuple[np.ndarray, np.ndarray]:
    top = z.max(axis=1, keepdims=True)
    e = np.exp(z - top)
    total = e.sum(axis=1, keepdims=True)
    hot = np.arange(z.shape[1]) == y[:, None]
    return np.where(hot, np.log(total) - (z - top), 0), e / total - hot


def _softmax_smoothed(z: np.ndarray, y: np.ndarray, delta: float) -> tuple[np.ndarray, np.ndarray]:
    top = z.max(axis=1, keepdims=True)
    e = np.exp(z - top)
    total = e.sum(axis=1, keepdims=True)
    wanted = (1 - delta) * (np.arange(z.shape[1]) == y[:, None]) + delta / z.shape[1]
    return wanted * (np.log(total) - (z - top)), e / total - wanted


def _binary(z: np.ndarray, y: np.ndarray, delta: float) -> tuple[np.ndarray, np.ndarray]:
    e = np.exp(-np.abs(z))
    return np.maximum(z, 0) - z * y + np.log1p(e), np.where(z >= 0, 1, e) / (1 + e) - y


def _binary_smoothed(z: np.ndarray, y: np.ndarray, delta: float) -> tuple[np.ndarray, np.ndarray]:
    return _binary(z, y + delta * (0.5 - y), delta)


def _squared(z: np.ndarray, y: np.ndarray, delta: float) -> tuple[np.ndarray, np.ndarray]:
    d = z - y
    return 0.5 * d * d, d


def _absolute(z: np.ndarray, y: np.ndarray, delta: float) -> tuple[np.ndarray, np.ndarray]:
    d = z - y
    return np.abs(d), np.sign(d)


def _huber(z: np.ndarray, y: np.ndarray, delta: float) -> tuple[np.ndarray, np.ndarray]:
    d = z - y
    size = np.abs(d)
    return np.where(size <= delta, 0.5 * d * d, delta * (size - 0.5 * delta)), np.clip(d, -delta, delta)


def _poisson(z: np.ndarray, y: np.ndarray, delta: float) -> tuple[np.ndarray, np.ndarray]:
    rate = np.exp(z)
    return rate - y * z, rate - y


def _quantile(z: np.ndarray, y: np.ndarray, delta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    d = z - y
    slope = np.where(d > 0, 1 - delta, np.where(d < 0, -delta, d))  # 0 at 0, or NaN
    return np.where(d > 0, (1 - delta) * d, -delta * d), slope


_Z, _Y, _D = "const C zc = z[c];", "const C yc = y[row * ld_y + c];", "const C dc = z[c] - y[row * ld_y + c];"
# sums are expressions, so repeated loads are spelled out; they hit the cache
TARGET, ERROR, LEVEL_ERROR = "y[row * ld_y + c]", "(z[c] - y[row * ld_y + c])", "(z[c] - y[row * ld_y])"


def _binary_text(y: str) -> tuple[str, str]:
    """(value, gradient) of the binary cross-entropy, for this text of the target."""
    return (
        f"(z[c] > C(0) ? z[c] : C(0)) - z[c] * {y} + log1p(exp(-fabs(z[c])))",
        f"{_Z}\nconst C yc = {y};\nconst C ec = exp(-fabs(zc));\n"
        "const C gc = (zc >= C(0) ? C(1) : ec) / (C(1) + ec) - yc;",
    )


LOSSES: dict[str, Loss] = {
    loss.name: loss
    for loss in (
        Loss("softmax_cross_entropy", "", "", _softmax, link="softmax", classes=True),
        Loss(
            "softmax_cross_entropy_smoothed",
            *("", "", _softmax_smoothed),
            link="softmax",
            classes=True,
            delta=0.1,
            below=1.0,
        ),
        Loss("binary_cross_entropy", *_binary_text(TARGET), _binary, link="sigmoid"),
        Loss(
            "binary_cross_entropy_smoothed",
            *_binary_text(f"({TARGET} + delta * (C(0.5) - {TARGET}))"),
            _binary_smoothed,
            link="sigmoid",
            delta=0.1,
            below=1.0,
        ),
        Loss("squared_error", f"C(0.5) * {ERROR} * {ERROR}", f"{_D}\nconst C gc = dc;", _squared),
        Loss(
            "absolute_error",
            f"fabs({ERROR})",
            f"{_D}\nconst C gc = dc > C(0) ? C(1) : (dc < C(0) ? C(-1) : dc);",  # 0, or NaN
            _absolute,
        ),
        Loss(
            "huber",
            f"(fabs({ERROR}) <= delta ? C(0.5) * {ERROR} * {ERROR}"
            f" : delta * (fabs({ERROR}) - C(0.5) * delta))",
            f"{_D}\nconst C gc = dc > delta ? delta : (dc < -delta ? -delta : dc);",
            _huber,
            delta=1.0,
        ),
        Loss(
            "poisson",
            f"exp(z[c]) - {TARGET} * z[c]",
            f"{_Z}\n{_Y}\nconst C gc = exp(zc) - yc;",
            _poisson,
            link="exp",
        ),
        Loss(
            "quantile",
            f"({LEVEL_ERROR} > C(0) ? (C(1) - delta[c]) * {LEVEL_ERROR} : -delta[c] * {LEVEL_ERROR})",
            f"const C dc = {LEVEL_ERROR}, level = delta[c];\n"
            "const C gc = dc > C(0) ? C(1) - level : (dc < C(0) ? -level : dc);",
            _quantile,
            link="sorted",
            delta=(0.1, 0.5, 0.9),
            below=1.0,
        ),
    )
}
