"""The step table: what each of the coming steps needs to know, computed on the host in double precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpumlp.kernels.random import step_parts
from gpumlp.optimizers import Optimizer
from gpumlp.schedules import learning_rates

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
    lr = learning_rates(schedule, optimizer.lr, t, total)
    return {
        **optimizer.step_values(t + 1, lr),
        "inv_weight": 1 / batch_weights,
        **dict(zip(("t_low", "t_high"), step_parts(t), strict=True)),
        "lr": lr,
    }
