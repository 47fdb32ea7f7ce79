"""Losses by name.  Formulas and kernels are in `kernels/losses.py`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from gpumlp.checks import number
from gpumlp.errors import suggest
from gpumlp.kernels.losses import LOSSES, Loss

__all__ = ["LOSSES", "Huber", "Loss", "get_loss", "saved_loss"]


@dataclass(frozen=True)
class Huber:
    """The Huber loss with its threshold: quadratic for errors up to `delta`, linear beyond (1 for
    ``loss="huber"``)."""

    name: ClassVar[str] = "huber"
    delta: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "delta", number("Huber: delta", self.delta, 0, open_low=True))


def get_loss(spec: str | Huber | Loss) -> tuple[Loss, float]:
    """(loss, delta) for a name, a `Huber` object, or a loss of `LOSSES`, maybe with another `delta`."""
    if isinstance(spec, Loss):
        known = LOSSES.get(spec.name)
        if known is None or replace(spec, delta=known.delta) != known:
            raise ValueError(f"loss {spec.name!r} is not known, or not in this form.{_own(spec.name)}")
        return known, 1.0 if known.delta is None else number("delta", spec.delta, 0, open_low=True)
    if not isinstance(spec, (str, Huber)):
        raise TypeError(f"loss={spec!r}; expected a name ({', '.join(LOSSES)}) or gpumlp.Huber(delta)")
    name = spec if isinstance(spec, str) else spec.name
    if name not in LOSSES:
        raise ValueError(suggest("loss", name, LOSSES) + _own(name))
    return get_loss(LOSSES[name] if isinstance(spec, str) else replace(LOSSES[name], delta=spec.delta))


def saved_loss(name: str, delta: float) -> str | Loss:
    """What to pass to `Trainer` for the (loss.name, delta) that a file holds."""
    return name if name not in LOSSES or LOSSES[name].delta is None else replace(LOSSES[name], delta=delta)


def _own(name: str) -> str:
    return f" A loss of your own must be in gpumlp.losses.LOSSES[{name!r}] first."
