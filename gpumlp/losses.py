"""Losses by name, and objects for those that have a constant.  Formulas are in `kernels/formulas.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from gpumlp.checks import number
from gpumlp.errors import register_first, suggest
from gpumlp.kernels.entry import same_entry
from gpumlp.kernels.losses import LOSSES, Loss
from gpumlp.verify import check_loss_text, loss_gradients, refuse
from gpumlp.verify.names import admit

__all__ = [
    "LOSSES",
    "BinaryCrossEntropy",
    "Huber",
    "Loss",
    "LossObject",
    "Quantile",
    "SoftmaxCrossEntropy",
    "centre",
    "check_outputs",
    "get_loss",
    "outputs_for",
    "register_loss",
    "saved_loss",
    "take_loss",
]


_PACKAGE = frozenset(LOSSES)
_LINKS = ("identity", "sigmoid", "exp", "sorted")


class LossObject:
    """Base of the losses with a constant: what may be given in the place of a loss's name.

    Each has a `name`, that of its entry in `LOSSES`.
    """

    def entry(self) -> Loss:
        """The entry of `LOSSES`, with this object's constant."""
        raise TypeError(f"{type(self).__name__} must define entry()")


@dataclass(frozen=True)
class Huber(LossObject):
    """The Huber loss with its threshold: quadratic for errors up to `delta`, linear beyond (1 for
    ``loss="huber"``)."""

    name: ClassVar[str] = "huber"
    delta: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "delta", number("Huber: delta", self.delta, 0, open_low=True))

    def entry(self) -> Loss:
        return replace(LOSSES["huber"], delta=self.delta)


@dataclass(frozen=True)
class Quantile(LossObject):
    """The pinball loss: the network learns quantiles of one target, an output for each of `levels`.

    The loss of a row is the mean over the levels, of each as `sklearn.metrics.mean_pinball_loss`.
    Predictions (n_rows, number of levels) never cross: they are the outputs in ascending order, which is
    never worse; see `kernels/formulas.py` for the proof.  "rmse" and "r2" are of the level nearest to 0.5.

    Parameters
    ----------
    levels : sequence of float
        Ascending, each > 0 and < 1.

    Examples
    --------
    >>> import numpy as np, gpumlp
    >>> X = np.repeat(np.linspace(-1, 1, 5), 99).reshape(-1, 1)
    >>> y = np.tile(np.linspace(0.01, 0.99, 99), 5) + X[:, 0]
    >>> model = gpumlp.MLP([1, 3], device="cpu", dtype="float64")
    >>> trainer = gpumlp.Trainer(model, loss=gpumlp.Quantile((0.1, 0.5, 0.9)), optimizer=gpumlp.Adam(lr=0.03))
    >>> history = trainer.fit(X, y, epochs=300, progress=False)
    >>> np.round(model.predict([[0.0], [1.0]]), 1)
    array([[0.1, 0.5, 0.9],
           [1.1, 1.5, 1.9]])
    """

    name: ClassVar[str] = "quantile"
    levels: Sequence[float] = (0.1, 0.5, 0.9)

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", _levels("Quantile: levels", self.levels))

    def entry(self) -> Loss:
        return replace(LOSSES["quantile"], delta=tuple(self.levels))


@dataclass(frozen=True)
class SoftmaxCrossEntropy(LossObject):
    """The softmax cross-entropy with smoothed labels: a row's class is wanted with probability
    ``1 - s + s / K`` and each of the other K - 1 with ``s / K``, s = `label_smoothing` (Szegedy et al. 2016;
    as in PyTorch)."""

    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        _set_smoothing(self)

    @property
    def name(self) -> str:
        """Of the entry in `LOSSES`."""
        return "softmax_cross_entropy" + ("_smoothed" if self.label_smoothing else "")

    def entry(self) -> Loss:
        return replace(LOSSES[self.name], delta=self.label_smoothing or None)


@dataclass(frozen=True)
class BinaryCrossEntropy(LossObject):
    """The binary cross-entropy with smoothed targets, ``(1 - s) y + s / 2`` with s = `label_smoothing`."""

    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        _set_smoothing(self)

    @property
    def name(self) -> str:
        """Of the entry in `LOSSES`."""
        return "binary_cross_entropy" + ("_smoothed" if self.label_smoothing else "")

    def entry(self) -> Loss:
        return replace(LOSSES[self.name], delta=self.label_smoothing or None)


def _set_smoothing(loss: SoftmaxCrossEntropy | BinaryCrossEntropy) -> None:
    value = number(f"{type(loss).__name__}: label_smoothing", loss.label_smoothing, 0, 1)
    object.__setattr__(loss, "label_smoothing", value)


def _levels(name: str, given: Any) -> tuple[float, ...]:
    values = given if isinstance(given, (list, tuple, np.ndarray)) else ()
    try:
        levels = tuple(float(number("level", v, 0, 1, open_low=True)) for v in values)
    except ValueError:
        levels = ()
    if not levels or any(a >= b for a, b in zip(levels[:-1], levels[1:], strict=True)):
        raise ValueError(f"{name}={given!r}; expected ascending numbers > 0 and < 1, as (0.1, 0.5, 0.9)")
    return levels


def _constant(loss: Loss, given: Any) -> float | tuple[float, ...]:
    """The constant `given` for an entry; 1 for one that has none."""
    if loss.delta is None:
        return 1.0
    if loss.levels:
        return _levels("levels", given)
    return number("delta", given, 0, loss.below, open_low=True)


def get_loss(spec: str | LossObject | Loss) -> tuple[Loss, Any]:
    """(loss, its constant) for a name, an object such as `Huber`, or a `Loss`: one of `LOSSES`, maybe with
    another constant `delta`, or one of the user's, which is registered on the way."""
    if isinstance(spec, type) and issubclass(spec, (Loss, LossObject)):
        raise TypeError(f"loss={spec.__name__} is a class; expected an object of it: {spec.__name__}()")
    if isinstance(spec, Loss):
        known = register_loss(spec)
        return known, _constant(known, spec.delta)
    if isinstance(spec, LossObject):
        return get_loss(spec.entry())
    if not isinstance(spec, str):
        raise TypeError(
            f"loss={spec!r}; expected a name ({', '.join(LOSSES)}), gpumlp.Huber(delta) or a gpumlp.Loss"
        )
    if spec not in LOSSES:
        raise ValueError(suggest("loss", spec, LOSSES) + register_first("gpumlp.losses.LOSSES", spec))
    return get_loss(LOSSES[spec])


def register_loss(loss: Loss, *, check: bool = True, replace: bool = False) -> Loss:
    """See `gpumlp.register`; what is registered is the loss with the constant that it has."""

    def same(one: Loss, other: Loss) -> bool:
        kinds = [None if e.delta is None else isinstance(e.delta, tuple) for e in (one, other)]
        return kinds[0] == kinds[1] and same_entry(one, other, but=("delta",))

    def look() -> None:
        for name in ("value", "gradient"):
            if not isinstance(getattr(loss, name), str):
                raise TypeError(f"loss {loss.name!r}: {name} must be C++ text")
        if not callable(loss.reference):
            raise TypeError(f"loss {loss.name!r}: reference must be a function of (z, y, delta)")
        if loss.link not in _LINKS:
            raise ValueError(f"loss {loss.name!r}: link={loss.link!r}; expected one of {', '.join(_LINKS)}")
        if loss.classes:
            raise ValueError(
                f"loss {loss.name!r}: classes=True is for the package's softmax cross-entropies, whose "
                "text is fixed; give values as targets, for classes a column of 0 and 1 each"
            )
        _constant(loss, loss.delta)
        if check:
            refuse(loss_gradients(loss))
        check_loss_text(loss)

    return admit("loss", LOSSES, _PACKAGE, loss, loss.name, same, look, replace)


def take_loss(loss: Loss) -> None:
    """Register a loss that a pickle has brought along, unless its name is known."""
    LOSSES.setdefault(loss.name, loss)


def check_outputs(loss: Loss, constant: Any, n_outputs: int) -> None:
    """ValueError if a network of `n_outputs` cannot be trained for this."""
    if loss.classes and n_outputs < 2:
        raise ValueError(
            f"{loss.name} needs at least 2 outputs (one per class), the network has {n_outputs}; "
            "for two classes with one output use binary_cross_entropy"
        )
    if loss.levels and n_outputs != len(constant):
        raise ValueError(
            f"{loss.name} has the levels {', '.join(f'{v:g}' for v in constant)} and needs {len(constant)} "
            f"outputs, one for each; the network has {n_outputs}. Other levels: gpumlp.Quantile(levels=...)"
        )


def outputs_for(loss: Loss, constant: Any, n_targets: int) -> int:
    """How many outputs a network needs to learn `n_targets` columns of values; ValueError for too many."""
    if loss.levels and n_targets != 1:
        raise ValueError(f"y has {n_targets} columns; loss={loss.name!r} learns quantiles of one target")
    return len(constant) if loss.levels else n_targets


def centre(levels: tuple[float, ...]) -> int:
    """Which of the levels is nearest to 0.5, the lower one of two."""
    return min(range(len(levels)), key=lambda n: abs(levels[n] - 0.5))


def saved_loss(name: str, delta: Any) -> str | Loss:
    """What to pass to `Trainer` for the (loss.name, constant) that a file holds."""
    if name not in LOSSES:
        raise ValueError(suggest("loss", name, LOSSES) + register_first("gpumlp.losses.LOSSES", name))
    if LOSSES[name].delta is None:
        return name
    return replace(LOSSES[name], delta=tuple(delta) if isinstance(delta, list) else delta)
