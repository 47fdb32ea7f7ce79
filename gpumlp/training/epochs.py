"""What a training run keeps on the device: rows, recorded plans, and where their results go."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpumlp.backends.base import Launch, Op, Replay
from gpumlp.kernels.losses import Loss
from gpumlp.kernels.rows import RESET
from gpumlp.plans.operations import Feed, Workspace, evaluation_ops, forward_rows, sum_ops, training_ops

if TYPE_CHECKING:
    from gpumlp.model.mlp import MLP
    from gpumlp.optimizers import Optimizer
    from gpumlp.plans.precision import Precision

__all__ = ["Data", "Evaluation", "Objective", "Session", "batch_weights", "step_table"]

_STEP_BITS = 24  # a float holds integers of so many bits exactly; see kernels/random.py


@dataclass
class Data:
    """Rows on a device.

    X : (n, n_inputs), of the model's dtype or one of `gpumlp.kernels.kernel.FIXED`.
    y : int32 (n,) class numbers, or the model's dtype (n, n_outputs).  w : (n,) weights, or None.
    w_host : the same on the host.  index : int32 on the host, the rows that are meant; None: all.
    """

    X: Any
    y: Any
    w: Any
    w_host: np.ndarray | None
    index: np.ndarray | None = None

    @property
    def n_rows(self) -> int:
        """Number of rows that are meant."""
        return int(self.X.shape[0]) if self.index is None else len(self.index)

    @property
    def weight(self) -> float:
        """Sum of their weights."""
        if self.w_host is None:
            return float(self.n_rows)
        w = self.w_host if self.index is None else self.w_host[self.index]
        return float(w.sum(dtype=np.float64))


@dataclass(frozen=True)
class Objective:
    """A loss with its constants: Huber's `delta`, and the factor on the sum over outputs."""

    loss: Loss
    delta: float
    per_output: float

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of what `Evaluation.figures` gives."""
        return ("loss", "accuracy") if self.loss.metric == "accuracy" else ("loss", "rmse", "r2")


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
) -> dict[str, np.ndarray]:
    """Values of the coming steps, one per batch weight, of `total` planned ones: float64 (n_steps,) each."""
    steps = len(batch_weights)
    optimizer.check()
    t = optimizer.t + np.arange(steps)
    lr = optimizer.lr * np.broadcast_to(np.asarray(schedule(t, total), float), (steps,))
    if not (np.isfinite(lr).all() and (lr >= 0).all()):
        raise ValueError(
            f"the schedule gave learning rates from {lr.min()} to {lr.max()}; expected finite numbers >= 0"
        )
    values = {
        **optimizer.step_values(t + 1, lr),
        "inv_weight": 1 / batch_weights,
        "t_low": t % 2**_STEP_BITS,
        "t_high": t >> _STEP_BITS,
        "lr": lr,
    }
    return {name: np.broadcast_to(np.asarray(v, float), (steps,)) for name, v in values.items()}


class Session:
    """Training plans for one set of rows: one for full batches, one for the shorter last batch.

    Parameters
    ----------
    model : MLP
    objective : Objective
    data : Data
    batch : int
        Rows of a full batch, at most `data.n_rows`.
    grads : array
        Flat buffer that receives the gradient.
    key : int
        Of the dropout masks.
    columns : sequence of str
        Per-step values of the optimiser.
    update : list of operations
        What follows the gradient in every step.
    precision : Precision, optional
    space : Workspace, optional
        Buffers of another session, of at least `batch` rows, that does not run at the same time.
    """

    def __init__(
        self,
        model: MLP,
        objective: Objective,
        data: Data,
        batch: int,
        grads: Any,
        key: int,
        columns: Sequence[str],
        update: list[Op],
        precision: Precision | None = None,
        space: Workspace | None = None,
    ) -> None:
        backend, n = model.backend, data.n_rows
        self.backend, self.data, self.batch = backend, data, batch
        names = ["inv_weight", *(("t_low", "t_high") if any(model.dropouts) else ()), *columns]
        self.n_full, rest = divmod(n, batch)
        self.n_steps = self.n_full + (rest > 0)
        self.feed = Feed(backend, names, model.dtype, self.n_steps, n)
        self.row_loss = backend.zeros(n, model.dtype)
        self._summing = sum_ops(backend, self.row_loss, n, self.row_loss[:1])  # `sum_losses` sets the target
        self.space = space or Workspace(model, batch, training=True, precision=precision)

        def record(rows: int) -> Replay | None:
            if rows == 0:
                return None
            ops = training_ops(self.space, rows, batch, data, self.feed, self.row_loss, grads, objective, key)
            return backend.record([*ops, *update], self.feed.steps)

        self.full = record(batch)
        self.rest = record(rest)

    def run(self) -> None:
        """All steps of an epoch, as `feed` was sent."""
        with self.backend.range("gpumlp:steps"):
            if self.full:
                self.full.run(self.n_full)
            if self.rest:
                self.rest.run()

    def sum_losses(self, sums: Any) -> None:
        """sums[0] = sum of the rows' losses in the last epoch."""
        self._summing[-1].arrays["partial"] = sums[:1]
        for op in self._summing:
            self.backend.launch(op.kernel, op.arrays, op.scalars, rows=op.rows, cols=op.cols)

    @property
    def order(self) -> np.ndarray:
        """Row numbers of the coming epoch, to be written: int32 (n_rows,), on the host."""
        return self.feed.order

    def epoch(self, table: dict[str, np.ndarray], sums: Any) -> None:
        """All steps of an epoch, in `order`, which may be written again then; sums[0] is the sum of the rows'
        losses."""
        self.fill(table)
        self.feed.send()
        self.run()
        self.sum_losses(sums)

    def first_bad_step(self) -> tuple[int, int]:
        """First step of the epoch (twice) whose loss is not finite."""
        bad = np.flatnonzero(~np.isfinite(self.backend.to_numpy(self.row_loss)))
        step = int(bad[0]) // self.batch if len(bad) else 0
        return step, step

    @property
    def n_rows(self) -> int:
        """Rows per epoch."""
        return self.data.n_rows

    @property
    def weight(self) -> float:
        """Sum of their weights."""
        return self.data.weight

    def fill(self, table: dict[str, np.ndarray]) -> None:
        """Write the columns of the step table that the plans read."""
        for j, name in enumerate(self.feed.columns):
            self.feed.table[:, j] = table[name]

    def batch_weights(self) -> np.ndarray:
        """`batch_weights` for the order of `feed`."""
        return batch_weights(self.data.w_host, self.feed.order, self.batch)


class Evaluation:
    """Loss and metric of a model on resident rows, without dropout and penalties.

    `run` leaves the weighted sums of loss and metric in `sums` (2,), on the device; `figures` reads them.
    """

    def __init__(self, model: MLP, objective: Objective, data: Data, sums: Any) -> None:
        self.backend = backend = model.backend
        n = data.n_rows
        rows = min(forward_rows(model), n)
        self.chunks = -(-n // rows)
        self.objective, self.n_out, self.weight = objective, model.layer_sizes[-1], data.weight
        self.feed = Feed(backend, (), model.dtype, 1, self.chunks * rows)
        # the last chunk is filled up with row 0, which is not summed
        self.feed.order[:n] = np.arange(n) if data.index is None else data.index
        values = [backend.zeros(self.chunks * rows, model.dtype) for _ in range(2)]
        space = Workspace(model, rows, training=False)
        self.forward = backend.record(
            evaluation_ops(space, data, self.feed, values[0], values[1], objective), self.feed.steps
        )
        after: list[Op] = [
            *sum_ops(backend, values[0], n, sums[:1]),
            *sum_ops(backend, values[1], n, sums[1:]),
            Launch(RESET, {"step": self.feed.steps.step}, {}, 1, 1),
        ]
        self.after = backend.record(after, self.feed.steps)
        self.feed.send()
        self.spread = 0.0
        if objective.loss.metric == "rmse":
            y, w, index = backend.to_numpy(data.y), data.w_host, data.index
            if index is not None:
                y, w = y[index], None if w is None else w[index]
            self.set_reference(y, w)

    def set_reference(self, y: np.ndarray, w: np.ndarray | None) -> None:
        """Take these targets and weights, on the host, as reference of R2 and of the means."""
        self.weight = float(len(y)) if w is None else float(w.sum(dtype=np.float64))
        if self.objective.loss.metric == "rmse":
            y = y.astype(np.float64)
            mean = np.average(y, axis=0, weights=w)
            self.spread = float(np.average(((y - mean) ** 2).sum(axis=1), weights=w))

    def run(self) -> None:
        """Evaluate the parameters as they are now."""
        with self.backend.range("gpumlp:evaluation"):
            self.forward.run(self.chunks)
            self.after.run()

    def figures(self, sums: np.ndarray) -> dict[str, float]:
        """{"loss", "accuracy"} or {"loss", "rmse", "r2"} from the two sums, copied to the host."""
        loss, score = (float(s) / self.weight for s in sums)
        if self.objective.loss.metric == "accuracy":
            return {"loss": loss, "accuracy": score}
        r2 = 1 - score / self.spread if self.spread > 0 else float(score == 0)
        return {"loss": loss, "rmse": math.sqrt(max(0.0, score / self.n_out)), "r2": r2}
