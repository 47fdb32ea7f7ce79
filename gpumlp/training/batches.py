"""Single batches: steps and gradients on rows that are given one batch at a time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

from gpumlp.plans import GradPairs
from gpumlp.rows import Rows
from gpumlp.rows.arrays import array_module
from gpumlp.training.engine import Engine
from gpumlp.training.epochs import ResidentEpochs

__all__ = ["Batches"]

_KEPT = 4


class Batches:
    """Recorded steps on buffers of their own, for the batch sizes used last.

    Parameters
    ----------
    engine : Engine
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._made: OrderedDict[tuple, ResidentEpochs] = OrderedDict()

    def run(
        self,
        rows: Rows,
        table: Callable[[np.ndarray], dict[str, np.ndarray]],
        update: bool,
        screen: bool = False,
    ) -> ResidentEpochs:
        """One step on `rows`; without `update`, only up to the gradient.

        `table` makes the step table from the batch's weight.  With `screen`, a class number that is none
        makes the loss NaN.
        """
        key = (rows.X.shape, rows.y.shape, rows.w is not None, update)
        epochs = self._made.pop(key, None) or self._make(rows, update)
        epochs.load(rows)
        if screen:
            _screen(epochs.rows, self.engine.network.layer_sizes[-1])
        self._made[key] = epochs
        if len(self._made) > _KEPT:
            self._made.popitem(last=False)
        self.engine.precision.refresh()
        epochs.run_steps(table(epochs.batch_weights()))
        return epochs

    def loss(self, epochs: ResidentEpochs) -> Any:
        """Mean loss of the rows of the last `run`: a scalar on the device, which is not waited for."""
        epochs.sum_losses()
        return self.engine.sums[0] / epochs.weight

    def objective(self, epochs: ResidentEpochs, there: bool) -> tuple[Any, GradPairs]:
        """The loss with its penalties, and the gradient, of the last `run`: on the device if `there`, without
        waiting for it; else on the host."""
        engine, network, opt = self.engine, self.engine.network, self.engine.optimizer
        scaler = engine.precision.scaler
        epochs.sum_losses()
        parts = engine.sums, engine.grads, network.flat, np.ones(1) if scaler is None else scaler
        xp, number = (engine.backend.xp, lambda x: x) if there else (np, float)
        sums, grads, held, scale = parts if there else map(engine.backend.to_numpy, parts)
        value = number(sums[0]) / epochs.weight
        flat = grads / scale[0].astype(grads.dtype)
        for start, stop, decay in network.segments:
            if decay and (opt.l1 or opt.l2):
                w = held[start:stop]
                flat[start:stop] += opt.l2 * w + opt.l1 * xp.sign(w)
                value = value + opt.l1 * number(xp.abs(w).sum()) + 0.5 * opt.l2 * number(xp.square(w).sum())
        return value, GradPairs(network, flat)

    def _make(self, rows: Rows, update: bool) -> ResidentEpochs:
        zeros, dtype = self.engine.backend.zeros, self.engine.network.dtype
        w = None if rows.w is None else zeros(rows.w.shape, dtype)
        buffers = Rows(zeros(rows.X.shape, dtype), zeros(rows.y.shape, rows.y.dtype), w)
        epochs = ResidentEpochs(self.engine, buffers, rows.n_rows, update=update)
        epochs.order[:] = np.arange(rows.n_rows)
        return epochs


def _screen(rows: Rows, classes: int) -> None:
    """Make rows NaN whose class numbers are none, without waiting: kernels index by class numbers."""
    xp = array_module(rows.X)
    labels = rows.y.view(xp.uint32)
    xp.copyto(rows.X, xp.nan, where=(labels >= classes)[:, None])
    xp.minimum(labels, classes - 1, out=labels)
