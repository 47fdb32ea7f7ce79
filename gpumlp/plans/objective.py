"""`Objective`: what is minimised, without the penalties."""

from __future__ import annotations

from dataclasses import dataclass

from gpumlp.kernels.losses import Loss

__all__ = ["Objective"]


@dataclass(frozen=True)
class Objective:
    """A loss with its constants: Huber's `delta`, and the factor on the sum over outputs."""

    loss: Loss
    delta: float
    per_output: float

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the figures of an evaluation."""
        return ("loss", "accuracy") if self.loss.metric == "accuracy" else ("loss", "rmse", "r2")
