"""Training and evaluating on rows that do not fit on the device: chunks through two device buffers.

Rows stay on the host.  The order of an epoch is the same permutation as for resident data
(`inputs.epoch_order`); the host gathers the rows of the next chunk, in that order, while the device works on
the present one, and a copy stream carries them over.  A chunk is a whole number of batches, so batches, steps
and dropout masks, and with them all parameters, are those of resident training.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from gpumlp.plans.operations import forward_bytes, forward_rows, sum_ops
from gpumlp.rows.checked import Rows, resident_dtype
from gpumlp.training.epochs import Data, Evaluation, Objective, Session

if TYPE_CHECKING:
    from gpumlp.model.mlp import MLP
    from gpumlp.optimizers import Optimizer
    from gpumlp.plans.precision import Precision

__all__ = ["StreamEvaluation", "StreamSession", "fixed_bytes", "plan_memory", "row_bytes"]

_MIB = 1 << 20
_CHUNK_BYTES = 256 * _MIB  # the host makes a copy of every chunk
_SHARE = 0.9  # of the available memory that is planned for: pools round sizes up


def row_bytes(model: MLP, rows: Rows) -> int:
    """Bytes of one row of data on the model's device."""
    X, y, w = rows.X, rows.y, rows.w
    per_target = y.dtype.itemsize * (y.shape[1] if y.ndim > 1 else 1)
    per_input = resident_dtype(X, model.backend, model.dtype).itemsize
    return per_input * X.shape[1] + per_target + (0 if w is None else w.dtype.itemsize)


def fixed_bytes(
    model: MLP, optimizer: Optimizer, batch: int, precision: Precision | None = None, evaluated: int = 0
) -> int:
    """Estimate of what training needs besides the rows: parameters, gradients, state, activations; and those
    of `evaluated` validation rows."""
    size = model.dtype.itemsize
    half = 0 if precision is None or precision.half is None else precision.half.nbytes
    arrays = 3 + len(optimizer.state_names())  # parameters, gradients, the best parameters; and the state
    widths = sum(3 * (n + 8) for n in model.layer_sizes)
    evaluation = forward_bytes(model, min(evaluated, forward_rows(model)))
    return half + size * (arrays * model.flat_size + widths * batch) + evaluation


def plan_memory(
    model: MLP, fixed: int, batch: int, n_rows: int, per_row: int, streaming: bool | None, what: str
) -> int | None:
    """Rows per chunk, a multiple of `batch`, or None if all rows can be on the device.

    Parameters
    ----------
    fixed, per_row : int
        Bytes that are needed besides the rows, and for each row on the device.
    what : str
        For the message: "training" or "evaluation".

    Raises
    ------
    MemoryError
        What is fixed and one batch do not fit; the message says how much is needed and what to lower.
    """
    available = model.backend.available_bytes()
    if available is None:
        return max(batch, n_rows // 4 // batch * batch) if streaming else None
    budget = int(available * _SHARE)
    per_row += model.dtype.itemsize + 4  # its loss, its place in the order
    if not streaming and (streaming is False or fixed + n_rows * per_row <= budget):
        return None
    chunk = (budget - fixed) // 2 // per_row // batch * batch
    if chunk < batch:
        need = fixed + 2 * batch * per_row
        lower = "batch_size or the network's size" if what == "training" else "the network's size"
        raise MemoryError(
            f"{what} needs about {need / _MIB:,.1f} MiB on {model.device} "
            f"({model.n_params:,} parameters, batches of {batch} rows), {max(0, budget) / _MIB:,.1f} MiB can "
            f"be used. Lower {lower}, or call gpumlp.free_memory()"
        )
    chunk = min(chunk, max(1, _CHUNK_BYTES // per_row // batch) * batch)
    return min(chunk, -(-n_rows // batch) * batch)


class _Slot:
    """One of the two device buffers for a chunk."""

    def __init__(self, model: MLP, source: Rows, rows: int) -> None:
        X, y, w = source.X, source.y, source.w
        zeros = model.backend.zeros
        self.X = zeros((rows, X.shape[1]), resident_dtype(X, model.backend, model.dtype))
        self.y = zeros((rows, *y.shape[1:]), y.dtype)
        self.w = None if w is None else zeros(rows, w.dtype)
        self.backend = model.backend
        self.free = self.backend.mark()  # after the last use, here the filling with zeros

    def data(self, rows: int) -> Data:
        """Its first `rows` rows."""
        return Data(self.X[:rows], self.y[:rows], None if self.w is None else self.w[:rows], None)

    def load(self, source: Rows, numbers: np.ndarray | slice) -> None:
        """Copy rows of these numbers in; later work of the backend waits for them."""
        pairs = [(self.X, source.X[numbers]), (self.y, source.y[numbers])]
        if source.w is not None and self.w is not None:
            pairs.append((self.w, source.w[numbers]))
        fitted = [(buffer[: len(part)], part) for buffer, part in pairs]
        self.backend.wait(self.backend.prefetch(fitted, after=self.free))


class StreamSession:
    """Plans for rows on the host.

    Parameters
    ----------
    model : MLP
    rows : Rows
        On the host.
    batch, chunk : int
        Rows per step, and per device buffer (a multiple of `batch`).
    make : callable
        make(data, batch, space=...) -> Session, the recorded plans for one chunk; all share one workspace.
    """

    def __init__(
        self,
        model: MLP,
        rows: Rows,
        batch: int,
        chunk: int,
        make: Callable[..., Session],
    ) -> None:
        self.backend = model.backend
        self.rows, self.batch, self.chunk = rows, batch, chunk
        n = rows.n_rows
        self.n_rows, self.n_steps = n, -(-n // batch)
        self.order = np.empty(n, np.int32)  # as `Session.order`
        self.weight = float(n) if rows.w is None else float(rows.take(rows.w).sum(dtype=np.float64))
        full, rest = divmod(n, chunk)
        self.slots = [_Slot(model, rows, min(chunk, n)) for _ in range(min(2, full + (rest > 0)))]
        sizes = [chunk] * full + [rest] * (rest > 0)
        made: dict[tuple[int, int], Session] = {}
        self.sessions: list[Session] = []
        for number, size in enumerate(sizes):
            key = number % 2, size
            if key not in made:
                space = self.sessions[0].space if self.sessions else None
                made[key] = make(self.slots[key[0]].data(size), min(batch, size), space=space)
                made[key].feed.order[:] = np.arange(size)
            self.sessions.append(made[key])
        self._chunk_sums = model.backend.zeros(len(sizes), model.dtype)

    def epoch(self, table: dict[str, np.ndarray], sums: Any) -> None:
        """As `Session.epoch`."""
        step = 0
        for number, session in enumerate(self.sessions):
            slot = self.slots[number % 2]
            start = number * self.chunk
            slot.load(self.rows, self.order[start : start + session.data.n_rows])
            session.fill({name: values[step : step + session.n_steps] for name, values in table.items()})
            session.feed.send()
            session.run()
            session.sum_losses(self._chunk_sums[number : number + 1])
            slot.free = self.backend.mark()
            step += session.n_steps
        for op in sum_ops(self.backend, self._chunk_sums, len(self.sessions), sums[:1]):
            self.backend.launch(op.kernel, op.arrays, op.scalars, rows=op.rows, cols=op.cols)

    def first_bad_step(self) -> tuple[int, int]:
        """Steps (first, last) of the epoch's first chunk whose loss is not finite."""
        sums = self.backend.to_numpy(self._chunk_sums)
        number = int(np.flatnonzero(~np.isfinite(sums))[0]) if not np.isfinite(sums).all() else 0
        first = number * self.chunk // self.batch
        return first, first + self.sessions[number].n_steps - 1


class StreamEvaluation:
    """`Evaluation` for rows on the host; reads two numbers per chunk."""

    def __init__(self, model: MLP, objective: Objective, rows: Rows, chunk: int, sums: Any) -> None:
        self.backend, self.rows, self.sums = model.backend, rows, sums
        self.n_rows, self.chunk = rows.n_rows, min(chunk, rows.n_rows)
        self.slot = _Slot(model, rows, self.chunk)
        self.parts = {
            size: Evaluation(model, objective, self.slot.data(size), sums)
            for size in {self.chunk, self.n_rows % self.chunk} - {0}
        }
        whole = self.parts[self.chunk]
        whole.set_reference(rows.take(rows.y), None if rows.w is None else rows.take(rows.w))
        self.whole = whole
        self.total = np.zeros(2)

    def run(self) -> None:
        """Evaluate the parameters as they are now."""
        self.total = np.zeros(2)
        for start in range(0, self.n_rows, self.chunk):
            stop = min(self.n_rows, start + self.chunk)
            part = slice(start, stop)
            self.slot.load(self.rows, part if self.rows.index is None else self.rows.index[part])
            self.parts[stop - start].run()
            self.slot.free = self.backend.mark()
            self.total += self.backend.to_numpy(self.sums)

    def figures(self, sums: np.ndarray) -> dict[str, float]:
        """As `Evaluation.figures`; `sums` (of the last chunk) is not used."""
        return self.whole.figures(self.total)
