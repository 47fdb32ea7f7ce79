"""Losses by name.  Formulas and kernels are in `kernels/losses.py`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gpumlp.errors import suggest
from gpumlp.kernels.losses import LOSSES, Loss

__all__ = ["LOSSES", "Huber", "Loss", "get_loss"]


@dataclass(frozen=True)
class Huber:
    """The Huber loss with its threshold: quadratic for errors up to `delta`, linear beyond (1 for
    ``loss="huber"``)."""

    delta: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.delta < math.inf:
            raise ValueError(f"Huber: delta={self.delta!r}; expected a finite number > 0")


def get_loss(spec: str | Huber) -> tuple[Loss, float]:
    """(loss, delta) for a name or a `Huber` object."""
    if isinstance(spec, Huber):
        return LOSSES["huber"], spec.delta
    if not isinstance(spec, str):
        raise TypeError(f"loss={spec!r}; expected a name ({', '.join(LOSSES)}) or gpumlp.Huber(delta)")
    if spec not in LOSSES:
        raise ValueError(suggest("loss", spec, LOSSES))
    return LOSSES[spec], 1.0
