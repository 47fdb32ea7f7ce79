"""The step table: what each of the coming steps needs to know, computed on the host in double precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpumlp.kernels.random import step_parts
from gpumlp.optimizers import Optimizer
from gpumlp.schedules import Constant

__all__ = ["batch_weights", "step_table"]


def batch_weights(w: np.ndarray | None, order: np.ndarray, batch: int) -> np.ndarray:
    """Sum of the weights of each step's rows, float64 (n_steps,); 1 where it is 0, as the gradient is 0
    there."""
    starts = np.arange(0, len(order), batch)
    if w is None:
        return np.minimum(batch, len(order) - starts).astype(float)
    weight = np.add.reduceat(w[order].astype(np.float64), starts)
    weight[weight == 0] = 1.0
    return weight


def step_table(
    optimizer: Optimizer, schedule: Callable, batch_weights: np.ndarray, total: int
) -> dict[str, Any]:
    """Values of the coming steps, one per batch weight, of `total` planned ones: float64 arrays (n_steps,),
    or numbers that are the same for all steps."""
    steps = len(batch_weights)
    optimizer.check()
    t = optimizer.t + np.arange(steps)
    lr = np.full(steps, optimizer.lr, float)
    if type(schedule) is not Constant:
        lr *= _factors(schedule, t, total)
        low, high = lr.min(), lr.max()
        if not (low >= 0 and high < np.inf):  # NaN is neither
            raise ValueError(
                f"the schedule gave learning rates from {low} to {high}; expected finite numbers >= 0"
            )
    return {
        **optimizer.step_values(t + 1, lr),
        "inv_weight": 1 / batch_weights,
        **dict(zip(("t_low", "t_high"), step_parts(t), strict=True)),
        "lr": lr,
    }


def _factors(schedule: Callable, t: np.ndarray, total: int) -> np.ndarray:
    factors = np.asarray(schedule(t.copy(), total), float)  # a function of the user's may write to it
    if factors.shape not in ((), t.shape):
        raise ValueError(f"the schedule gave factors of shape {factors.shape} for steps of shape {t.shape}")
    return factors
