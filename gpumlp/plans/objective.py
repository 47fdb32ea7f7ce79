"""`Objective`: what is minimised, without the penalties."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gpumlp.kernels.losses import Loss
from gpumlp.losses import centre, take_loss

__all__ = ["Objective"]


@dataclass(frozen=True)
class Objective:
    """A loss with its constants: its `delta`, of quantiles the levels, and the factor on the sum over
    outputs."""

    loss: Loss
    delta: Any
    per_output: float

    @property
    def centre(self) -> int:
        """Which of the levels is nearest to 0.5; 0 for other losses."""
        return centre(self.delta) if self.loss.levels else 0

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the figures of an evaluation."""
        return ("loss", "accuracy") if self.loss.metric == "accuracy" else ("loss", "rmse", "r2")

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        take_loss(self.loss)  # kernels are looked up by its name
