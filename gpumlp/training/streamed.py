"""Training and evaluating on rows that do not fit on the device: chunks through two device buffers.

Rows stay on the host.  The order of an epoch is the same permutation as for resident rows
(`rows.epoch_order`); the host gathers the rows of the next chunk, in that order, while the device works on
the current one, and a copy stream carries them over.  A chunk is a whole number of batches, so batches, steps
and dropout masks, and with them all parameters, are those of resident training.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpumlp.backends.base import Steps
from gpumlp.network import Network
from gpumlp.plans import Objective, check_contract, check_order, not_finite_ops, sum_ops
from gpumlp.rows import Rows, resident_dtype
from gpumlp.training.engine import Engine
from gpumlp.training.epochs import ResidentEpochs
from gpumlp.training.evaluation import Reference, ResidentEvaluation
from gpumlp.training.table import batch_weights

__all__ = ["ChunkSlot", "StreamedEpochs", "StreamedEvaluation"]


class ChunkSlot:
    """A device buffer for a chunk of rows."""

    def __init__(self, network: Network, source: Rows, n: int) -> None:
        X, y, w = source.X, source.y, source.w
        zeros = network.backend.zeros
        self.X = zeros((n, X.shape[1]), resident_dtype(X, network.backend, network.dtype))
        self.y = zeros((n, *y.shape[1:]), y.dtype)
        self.w = None if w is None else zeros(n, w.dtype)
        self.backend = network.backend
        self.free = self.backend.mark()  # after the last use, here the filling with zeros

    def rows(self, n: int) -> Rows:
        """Its first `n` rows; the source knows their weights on the host."""
        return Rows(self.X[:n], self.y[:n], None if self.w is None else self.w[:n])

    def load(self, source: Rows, numbers: np.ndarray | slice = slice(None)) -> None:
        """Copy the rows with these numbers in, all by default; later work of the backend waits for them."""
        pairs = [(self.X, source.X[numbers]), (self.y, source.y[numbers])]
        if source.w is not None and self.w is not None:
            pairs.append((self.w, source.w[numbers]))
        fitted = [(buffer[: len(part)], part) for buffer, part in pairs]
        self.backend.wait(self.backend.prefetch(fitted, after=self.free))


class StreamedEpochs:
    """`Epochs` over rows on the host.

    Parameters
    ----------
    engine : Engine
    rows : Rows
        On the host.
    batch, chunk : int
        Rows per step, and per device buffer (a multiple of `batch`).
    """

    def __init__(self, engine: Engine, rows: Rows, batch: int, chunk: int) -> None:
        check_contract(rows, engine.network, engine.objective)
        self.rows, self.weight = rows, rows.weight
        self.order = np.empty(rows.n_rows, np.int32)
        self._make(engine, rows, rows.n_rows, batch, chunk)

    def _make(self, engine: Engine, like: Rows, n: int, batch: int, chunk: int) -> None:
        """Buffers and plans for `n` rows like these."""
        self.engine, self.batch, self.chunk, network = engine, batch, chunk, engine.network
        self.hooks: Any = None
        self.n_steps = -(-n // batch)
        full, rest = divmod(n, chunk)
        # on the CPU a copy is done when `load` returns, so two buffers would not overlap anything
        most = min(1 if engine.backend.device == "cpu" else 2, full + (rest > 0))
        self.slots = [ChunkSlot(network, like, min(chunk, n)) for _ in range(most)]
        sizes = [chunk] * full + [rest] * (rest > 0)
        made: dict[tuple[int, int], ResidentEpochs] = {}
        #: one for each chunk; those of equal size in the same buffer are the same object
        self.parts: list[ResidentEpochs] = []
        for number, size in enumerate(sizes):
            key = number % len(self.slots), size
            if key not in made:
                space = self.parts[0].space if self.parts else None
                rows_here, total = self.slots[key[0]].rows(size), engine.backend.zeros(1, network.dtype)
                made[key] = ResidentEpochs(engine, rows_here, batch, space=space, total=total)
                made[key].order[:] = np.arange(size)
            self.parts.append(made[key])
        self._chunk_sums = engine.backend.zeros(len(sizes), network.dtype)
        end = [
            *sum_ops(engine.backend, self._chunk_sums, len(sizes), engine.sums[:1]),
            *not_finite_ops(network, engine.sums[3:4]),
        ]
        self._end = engine.backend.record(end, Steps(engine.backend))

    def batch_weights(self) -> np.ndarray:
        """See `Epochs`."""
        return batch_weights(self.rows.weights, self.order, self.batch)

    def run(self, table: dict[str, Any]) -> None:
        """See `Epochs`."""
        check_order(self.order, self.rows.X.shape[0])
        for number, part in enumerate(self.parts):
            start = number * self.chunk
            self._slot(number).load(self.rows, self.order[start : start + part.rows.n_rows])
            self._run_part(number, table)
        self._end.run()

    def _slot(self, number: int) -> ChunkSlot:
        """The buffer of a chunk."""
        return self.slots[number % len(self.slots)]

    def _run_part(self, number: int, table: dict[str, Any]) -> None:
        """The steps of a chunk that has been loaded, with their part of the epoch's table."""
        backend, part, step = self.engine.backend, self.parts[number], number * self.chunk // self.batch
        here = slice(step, step + part.n_steps)
        part.hooks = self.hooks
        part.run({name: v[here] if np.ndim(v) else v for name, v in table.items()})
        backend.copy(self._chunk_sums[number : number + 1], part.total)
        self._slot(number).free = backend.mark()

    def first_bad_step(self) -> tuple[int, int]:
        """See `Epochs`: the steps of the first chunk whose loss is not finite."""
        sums = self.engine.backend.to_numpy(self._chunk_sums)
        number = int(np.flatnonzero(~np.isfinite(sums))[0]) if not np.isfinite(sums).all() else 0
        first = number * self.chunk // self.batch
        return first, first + self.parts[number].n_steps - 1


class StreamedEvaluation:
    """`Evaluation` of rows on the host; reads two numbers per chunk.

    Parameters
    ----------
    network, objective, sums
        As for `ResidentEvaluation`.
    rows : Rows
        On the host.
    chunk : int
        Rows on the device at a time.
    """

    def __init__(self, network: Network, objective: Objective, rows: Rows, chunk: int, sums: Any) -> None:
        check_contract(rows, network, objective)
        self.backend, self.rows, self.sums = network.backend, rows, sums
        self.n_rows, self.chunk = rows.n_rows, min(chunk, rows.n_rows)
        self.slot = ChunkSlot(network, rows, self.chunk)
        self._reference = Reference(objective, rows, self.backend)
        self.parts = {
            size: ResidentEvaluation(network, objective, self.slot.rows(size), sums, self._reference)
            for size in {self.chunk, self.n_rows % self.chunk} - {0}
        }
        self.total = np.zeros(2)

    def run(self) -> None:
        """See `Evaluation`."""
        self.total = np.zeros(2)
        for start in range(0, self.n_rows, self.chunk):
            stop = min(self.n_rows, start + self.chunk)
            part = slice(start, stop)
            self.slot.load(self.rows, part if self.rows.index is None else self.rows.index[part])
            self.parts[stop - start].run()
            self.slot.free = self.backend.mark()
            self.total += self.backend.to_numpy(self.sums)

    def figures(self, sums: np.ndarray) -> dict[str, float]:
        """See `Evaluation`; `sums` (of the last chunk) is not used."""
        return self._reference.figures(self.total)
