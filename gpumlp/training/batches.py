"""Single batches: steps and gradients on rows that are given one batch at a time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import numpy as np

from gpumlp.rows import Rows
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
        self, rows: Rows, table: Callable[[np.ndarray], dict[str, np.ndarray]], update: bool
    ) -> ResidentEpochs:
        """One step on `rows`; without `update`, only up to the gradient and the sum of the losses.

        `table` makes the step table from the batch's weight.
        """
        key = (rows.X.shape, rows.y.shape, rows.w is not None, update)
        epochs = self._made.pop(key, None) or self._make(rows, update)
        epochs.load(rows)
        self._made[key] = epochs
        if len(self._made) > _KEPT:
            self._made.popitem(last=False)
        self.engine.precision.refresh()
        (epochs.run_steps if update else epochs.run)(table(epochs.batch_weights()))
        return epochs

    def _make(self, rows: Rows, update: bool) -> ResidentEpochs:
        zeros, dtype = self.engine.backend.zeros, self.engine.network.dtype
        w = None if rows.w is None else zeros(rows.w.shape, dtype)
        buffers = Rows(zeros(rows.X.shape, dtype), zeros(rows.y.shape, rows.y.dtype), w)
        epochs = ResidentEpochs(self.engine, buffers, rows.n_rows, update=update)
        epochs.order[:] = np.arange(rows.n_rows)
        return epochs
