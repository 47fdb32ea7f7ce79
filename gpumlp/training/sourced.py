"""Training and evaluating on the rows of a source (`rows.source`), which are read while the device works.

A thread reads one window of consecutive rows after the other (`rows.windows`); each is copied to a buffer of
`streamed.py`, whose plan gathers its rows in a drawn order.  A window is a whole number of batches, and does
not depend on the device, so batches, steps and dropout masks are the same on every executor.
"""

from __future__ import annotations

from contextlib import closing
from typing import Any

import numpy as np

from gpumlp.network import Network
from gpumlp.plans import Objective, check_contract, forward_rows
from gpumlp.rows import Rows, SourceRows
from gpumlp.training.engine import Engine
from gpumlp.training.evaluation import Reference, ResidentEvaluation
from gpumlp.training.memory import check_memory, fixed_bytes, row_bytes
from gpumlp.training.streamed import ChunkSlot, StreamedEpochs
from gpumlp.training.table import batch_weights

__all__ = ["SourceEpochs", "SourceEvaluation"]

_EVALUATED_BYTES = 4 << 20  # of a window that is evaluated


class SourceEpochs(StreamedEpochs):
    """`Epochs` over the rows of a source.

    Parameters
    ----------
    engine : Engine
    rows : SourceRows
    batch : int
        Rows per step.

    Attributes
    ----------
    draw : (int, int)
        Seed and number of the coming epoch, instead of an `order`.
    """

    def __init__(self, engine: Engine, rows: SourceRows, batch: int) -> None:
        check_contract(rows.like, engine.network, engine.objective)
        n, network = rows.n_rows, engine.network
        chunk = min(max(1, rows.source.window_rows() // batch), -(-n // batch)) * batch
        fixed = fixed_bytes(network, engine.optimizer, batch, engine.precision)
        check_memory(network, fixed, 2 * min(chunk, n), row_bytes(network, rows.like), "batch_size, window")
        self.source, self.draw, self.weight = rows, (0, 0), float(n)
        self._windows = rows.windows(chunk)
        self._make(engine, rows.like, n, batch, chunk)

    def batch_weights(self) -> np.ndarray:
        """Numbers of rows: those of their weights are not known before they are read."""
        return batch_weights(None, np.broadcast_to(np.int32(0), self.source.n_rows), self.batch)

    def run(self, table: dict[str, Any]) -> None:
        """See `Epochs`."""
        seed, epoch = self.draw
        rng, weight = np.random.default_rng([seed, 1, epoch]), 0.0
        groups = rng.permutation(len(self.source.source.groups))
        with closing(self._windows.read(groups.tolist())) as windows:
            for number, window in enumerate(windows):
                part = self.parts[number]
                self._slot(number).load(window)
                part.order[:] = rng.permutation(window.n_rows)
                if window.w is not None:
                    step = number * self.chunk // self.batch
                    inverse = 1 / batch_weights(window.w, part.order, self.batch)
                    table["inv_weight"][step : step + part.n_steps] = inverse
                weight += window.weight
                self._run_part(number, table)
        if not weight:
            raise ValueError("the weights of all rows are 0; expected at least one that is larger")
        self.weight = weight
        self._end.run()


class SourceEvaluation:
    """`Evaluation` of the rows of a source; reads two numbers per window.

    Parameters
    ----------
    network, objective, sums
        As for `ResidentEvaluation`.
    rows : SourceRows
    """

    def __init__(self, network: Network, objective: Objective, rows: SourceRows, sums: Any) -> None:
        check_contract(rows.like, network, objective)
        self.backend, self.source, self.sums = network.backend, rows, sums
        self.objective, n = objective, rows.n_rows
        per_row = row_bytes(network, rows.like)
        size = min(n, max(forward_rows(network), _EVALUATED_BYTES // per_row))
        check_memory(network, 0, size, per_row, "the number of features")
        self.slot, self._windows = ChunkSlot(network, rows.like, size), rows.windows(size)
        self._reference = _Running(objective)
        self.parts = {
            count: ResidentEvaluation(network, objective, self.slot.rows(count), sums, self._reference)
            for count in {size, n % size} - {0}
        }
        self.total = np.zeros(2)

    def run(self) -> None:
        """See `Evaluation`."""
        self.total, self._reference = np.zeros(2), _Running(self.objective)
        with closing(self._windows.read(range(len(self.source.source.groups)))) as windows:
            for window in windows:
                self.slot.load(window)
                self.parts[window.n_rows].run()
                self._reference.add(window)  # while the device works
                self.slot.free = self.backend.mark()
                self.total += self.backend.to_numpy(self.sums)
        if not self._reference.weight:
            raise ValueError("the weights of all rows are 0; expected at least one that is larger")

    def figures(self, sums: np.ndarray) -> dict[str, float]:
        """See `Evaluation`; `sums` (of the last window) is not used."""
        return self._reference.figures(self.total)


class _Running(Reference):
    """A `Reference` of rows that come one after the other; means and squares as in Chan, Golub and LeVeque,
    "Updating formulae and a pairwise algorithm for computing sample variances" (1979)."""

    def __init__(self, objective: Objective) -> None:
        self.objective, self.weight, self._mean, self._squares = objective, 0.0, np.zeros(1), np.zeros(1)

    def add(self, rows: Rows) -> None:
        """Take some more rows into account."""
        weight = rows.weight
        if self.objective.loss.metric == "rmse" and weight:
            y = rows.y.astype(np.float64)
            w = None if rows.w is None else rows.w.astype(np.float64)
            mean = np.average(y, axis=0, weights=w)
            squares = weight * np.average((y - mean) ** 2, axis=0, weights=w)
            total = self.weight + weight
            shift = mean - self._mean
            self._squares = self._squares + squares + shift**2 * (self.weight * weight / total)
            self._mean = self._mean + shift * (weight / total)
            self.n_out, self.spread = y.shape[1], float(self._squares.sum()) / total
        self.weight += weight
