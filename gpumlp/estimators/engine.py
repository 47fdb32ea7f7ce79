"""What drives an estimator's network: the engine's plans in scikit-learn's order, scale and stopping rules.

scikit-learn's L2 penalty of a batch is alpha |w|^2 / (2 sum of the batch's weights), so the kernels get it as
a per-step value, and the loss of an epoch is the mean over batches of (loss + penalty), each batch counted by
its rows.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpumlp.backends.operations import Launch, Op
from gpumlp.kernels.rows import SUM
from gpumlp.losses import LossObject, get_loss
from gpumlp.model import MLP
from gpumlp.optimizers import Optimizer
from gpumlp.plans import Objective, penalty_ops
from gpumlp.rows import Rows
from gpumlp.training.engine import Engine
from gpumlp.training.epochs import ResidentEpochs
from gpumlp.training.evaluation import ResidentEvaluation
from gpumlp.training.table import step_table

__all__ = ["AllRows", "FixedEpochs", "Passes"]


#: steps for which a table is made at a time, where they do not depend on the order of the rows
_TABLE_STEPS = 512


class FixedEpochs(ResidentEpochs):
    """Epochs of a fit, in which nothing is changed that plans keep."""

    def _follow(self) -> None:
        pass


class Passes:
    """Passes over the rows of an estimator's `fit`, each driven from outside.

    Parameters
    ----------
    model : MLP
    loss : str or LossObject
    optimizer : Optimizer
        Its state lives on in the estimator.
    alpha, l1 : float
        Penalties, divided by the sum of a batch's weights.
    seed : int
        Seed of the dropout masks.

    Attributes
    ----------
    scale : float
        Factor on the kernels' sum of losses that makes it scikit-learn's.
    evaluation : ResidentEvaluation or None
        Evaluates the validation rows after each pass.
    loaded : tuple or None
        What the rows on the device were made of: for the caller to know.
    waits : bool
        A plan of many fits is to do the passes (see `gpumlp.estimators.stacked`): rows stay on the host, in
        `train` and `held`, and a pass is only `ordered` until there is a plan.
    """

    def __init__(
        self,
        model: MLP,
        loss: str | LossObject,
        optimizer: Optimizer,
        alpha: float,
        l1: float = 0.0,
        seed: int = 0,
    ) -> None:
        kind, delta = get_loss(loss)
        model.output = kind.link
        self.model, self.optimizer = model, optimizer
        self.alpha, self.l1 = float(alpha), float(l1)
        _penalize(optimizer, self.alpha, self.l1)
        n_out, self.scale = model.layer_sizes[-1], 1.0
        # scikit-learn takes the gradient of the sum over outputs; losses that it does not have are means
        summed = kind.metric == "accuracy" or kind.name in ("squared_error", "poisson")
        if kind.name == "squared_error":  # it reports the mean, with the sum's gradient
            self.scale = 1.0 / n_out
        objective = Objective(kind, delta, 1.0 if summed else 1.0 / n_out)
        self.engine = Engine(model, objective, optimizer, seed=seed, between=self._between)
        self.epochs: ResidentEpochs | None = None
        self.evaluation: ResidentEvaluation | None = None
        self.loaded: tuple | None = None
        self.waits = False
        self.train: Rows | None = None
        self.held: Rows | None = None
        self.ordered: tuple[np.ndarray, float] | None = None
        self.seat: Any = None
        self._tables: tuple[float, int, dict[str, Any]] | None = None  # of epochs from step t on, at one rate
        self._kept: tuple | None = None

    # ---- another fit -----------------------------------------------
    def starts_again(self, optimizer: Optimizer, alpha: float, l1: float) -> bool:
        """Whether a fit with a new `optimizer` can use what has been recorded."""
        _penalize(optimizer, alpha, l1)
        fresh = optimizer.t == 0 and not optimizer.state
        return fresh and optimizer.settings() == self.optimizer.settings()

    def optimizer_now(self) -> Optimizer:
        """A copy of the optimizer, with its state."""
        other = copy.copy(self.optimizer)
        with self.engine.backend.active():
            other.state = [
                {name: value if name == "_shape" else value.copy() for name, value in entry.items()}
                for entry in self.optimizer.state
            ]
        return other

    def start_again(self, alpha: float, l1: float) -> Optimizer:
        """Go on as a new object would, with other penalties; the optimizer, as if it were new."""
        optimizer, self.alpha, self.l1 = self.optimizer, alpha, l1
        _penalize(optimizer, alpha, l1)
        start, optimizer.t = optimizer.state_start(), 0
        with self.engine.backend.active():
            for entry in optimizer.state:
                for name in optimizer.state_names():
                    entry[name].fill(start.get(name, 0.0))
        self._tables = None
        return optimizer

    # ---- rows -----------------------------------------------
    def load_rows(
        self, X: Any, y: Any, w: np.ndarray | None, batch: int, keep: bool, constant: np.ndarray | None
    ) -> None:
        """Put training rows on the device and record the plans.

        Parameters
        ----------
        X, y, w : checked rows, as in `Rows`
        batch : rows per step
        keep : bool
            Copy into buffers of this object, which the next call with rows of the same shape uses again.
        constant : array (n_rows,), optional
            A part of each row's loss that does not depend on the network.
        """
        self.constant, self._tables = constant, None
        rows, key = Rows(X, y, w), (X.shape, y.shape, w is None, batch)
        if self.waits:
            self.train, self.held, self.epochs, self._kept = rows, None, None, None
            self._cut(rows.n_rows, batch)
            self.engine.recipe()  # makes the optimiser's state
            return
        if not keep or key != self._kept or self.epochs is None:
            self._prepare(self._buffers(rows) if keep else self._resident(rows), batch)
            self._kept = key if keep else None
        if keep:
            assert self.epochs is not None
            self.epochs.load(rows)

    def _resident(self, rows: Rows) -> Rows:
        return rows.on(self.engine.backend, self.model.dtype)

    def _buffers(self, rows: Rows) -> Rows:
        zeros, dtype = self.engine.backend.zeros, self.model.dtype
        w = None if rows.w is None else zeros(rows.w.shape, dtype)
        return Rows(zeros(rows.X.shape, dtype), zeros(rows.y.shape, rows.y.dtype), w)

    def _prepare(self, rows: Rows, batch: int) -> None:
        backend, n, batch = self.engine.backend, rows.n_rows, min(batch, rows.n_rows)
        self._cut(n, batch)
        n_steps = len(self._starts)
        #: per step: sum of its rows' losses, then |w|^2; then the validation rows' sums of loss, metric
        self._out = backend.zeros(2 * n_steps + 2, self.model.dtype)
        self.epochs = FixedEpochs(self.engine, rows, batch)
        sums = {"values": self.epochs.row_loss, "partial": self._out[:n_steps]}
        collect = Launch(SUM, sums, {"n": n, "chunk": batch}, n_steps, batch)
        self._collect = backend.record([collect], self.epochs.steps)

    def _cut(self, n: int, batch: int) -> None:
        """The first row and the number of rows of each step."""
        self._starts = np.arange(0, n, batch)
        self._sizes = np.minimum(batch, n - self._starts)

    @property
    def sizes(self) -> np.ndarray:
        """Number of rows of each step."""
        return self._sizes

    def load_validation(self, X: Any, y: Any, w: np.ndarray | None) -> None:
        """Put validation rows on the device; each pass evaluates them from now on."""
        if self.waits:
            self.held = Rows(X, y, w)
            return
        rows = self._resident(Rows(X, y, w))
        self.evaluation = ResidentEvaluation(self.model, self.engine.objective, rows, self._out[-2:])

    def _between(self) -> Sequence[Op]:
        """After the gradient: |w|^2 of the step, for the loss that is reported."""
        return penalty_ops(self.model, self._out[len(self._starts) : -2]) if self.optimizer.l2 > 0 else ()

    # ---- epochs -----------------------------------------------
    def start_epoch(self, order: np.ndarray, lr: float) -> None:
        """Give the device one pass over the rows."""
        epochs, opt = self.epochs, self.optimizer
        if epochs is None and self.waits:
            self.ordered = order, lr
            return
        assert epochs is not None
        epochs.order[:] = order
        opt.lr = lr
        table = self._table(epochs)
        epochs.run_steps(table)
        self._collect.run()
        if self.evaluation:
            self.evaluation.run()

    def end_epoch(self) -> tuple[float, dict[str, float]]:
        """Wait for the pass.

        Returns
        -------
        (loss, figures)
            scikit-learn's loss of the epoch, and for validation rows {"loss", "accuracy"} or {"loss", "rmse",
            "r2"}.
        """
        epochs, n_steps = self.epochs, len(self._starts)
        assert epochs is not None
        out = self.engine.backend.to_numpy(self._out) if self.seat is None else self.seat.out()
        out = out.astype(np.float64)
        losses = out[:n_steps] * self.scale + 0.5 * self.optimizer.l2 * out[n_steps:-2]
        if self.constant is not None:
            w = epochs.rows.weights
            weighted = self.constant if w is None else self.constant * w
            losses += np.add.reduceat(weighted[epochs.order], self._starts)
        loss = float(np.dot(losses * self._inv, self._sizes)) / epochs.rows.n_rows
        return loss, self._figures(out[-2:]) if self.evaluation else {}

    # ---- a plan of many fits -----------------------------------------------
    def sit(self, seat: Any, evaluation: Any) -> None:
        """From now on `seat`, which has the methods of `ResidentEpochs` that are used here, does the
        passes."""
        self.seat = self.epochs = self._collect = seat
        self.evaluation = evaluation
        if self.ordered is not None:
            ordered, self.ordered = self.ordered, None
            self.start_epoch(*ordered)

    def fetch(self) -> None:
        """Bring the parameters to the model, if they are elsewhere."""
        if self.seat is not None:
            self.seat.fetch()

    def rise(self) -> None:
        """Leave the plan; parameters and state come home."""
        if self.seat is not None:
            self.seat.rise()
            self.seat = self.epochs = self.evaluation = None

    def _table(self, epochs: ResidentEpochs) -> dict[str, Any]:
        """The step table, penalties divided by the batches' weights; sets 1 / weight, 0 for a weight of 0."""
        opt, w, n = self.optimizer, epochs.rows.weights, epochs.n_steps
        if w is not None:
            weights = epochs.batch_weights()
            self._inv = 1 / weights
            self._inv[np.add.reduceat(w[epochs.order].astype(np.float64), self._starts) == 0] = 0
            return self._penalties(step_table(opt, _constant_rate, weights, n), self._inv)
        lr, start, table = self._tables or (None, 0, {})
        at = opt.t - start
        if lr != opt.lr or not 0 <= at <= len(table["lr"]) - n:
            self._inv = 1 / self._sizes
            some, at = max(1, _TABLE_STEPS // n), 0
            table = step_table(opt, _constant_rate, np.tile(self._sizes.astype(float), some), some * n)
            table = self._penalties(table, np.tile(self._inv, some))
            wanted = {"lr", *epochs.steps.columns}
            table = {name: np.broadcast_to(v, some * n) for name, v in table.items() if name in wanted}
            self._tables = opt.lr, opt.t, table
        return {name: values[at : at + n] for name, values in table.items()}

    def _penalties(self, table: dict[str, Any], inv: np.ndarray) -> dict[str, Any]:
        return {**table, "l1": self.optimizer.l1 * inv, "l2": self.optimizer.l2 * inv}

    def _figures(self, sums: np.ndarray) -> dict[str, float]:
        assert self.evaluation is not None
        figures = self.evaluation.figures(sums)
        figures["loss"] *= self.scale
        return figures


def _penalize(optimizer: Optimizer, alpha: float, l1: float) -> None:
    decoupled = type(optimizer)().weight_decay > 0  # by default, as AdamW's
    optimizer.weight_decay, optimizer.l2 = (alpha, 0.0) if decoupled else (0.0, alpha)
    optimizer.l1 = l1


def _constant_rate(t: np.ndarray, total: int) -> float:
    return 1.0


class AllRows:
    """Loss and gradient over all rows as a function of one vector, for SciPy's minimisers.

    The vector has scikit-learn's order: weights layer by layer, then biases.

    Parameters
    ----------
    passes : Passes
    X, y, w, constant
        As in `Passes.load_rows`.
    """

    def __init__(
        self, passes: Passes, X: Any, y: Any, w: np.ndarray | None, constant: np.ndarray | None
    ) -> None:
        self.passes, self.engine, model = passes, passes.engine, passes.model
        rows = Rows(X, y, w).on(self.engine.backend, model.dtype)
        self.weight = rows.weight
        self.epochs = ResidentEpochs(self.engine, rows, rows.n_rows, update=False)
        self.constant = 0.0
        if constant is not None:
            self.constant = float(np.sum(constant if w is None else constant * w, dtype=np.float64))
        places = [layer.matrix(np.arange(model.flat_size)) for layer in model.layers]
        self.index = np.concatenate([m[:-1].ravel() for m in places] + [m[-1] for m in places])
        self.n_weights = sum(layer.n_in * layer.n_out for layer in model.layers)
        self.flat = np.zeros(model.flat_size, model.dtype)
        self.epochs.order[:] = np.arange(rows.n_rows)
        self.table = step_table(passes.optimizer, _constant_rate, np.array([self.weight]), 1)

    def start(self) -> np.ndarray:
        """The network's parameters as a vector."""
        return self.engine.backend.to_numpy(self.passes.model.flat)[self.index]

    def set(self, x: np.ndarray) -> None:
        """Put a vector into the network."""
        self.flat[self.index] = x
        self.engine.backend.copy(self.passes.model.flat, self.flat)

    def __call__(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """(loss, gradient) at `x`, in double precision."""
        engine, alpha = self.engine, self.passes.alpha
        self.set(x)
        self.epochs.run(self.table)
        grad = engine.backend.to_numpy(engine.grads)[self.index].astype(np.float64)
        weights = x[: self.n_weights]
        grad[: self.n_weights] += alpha / self.weight * weights
        total = self.passes.scale * float(engine.read_sums()[0]) + self.constant
        return (total + 0.5 * alpha * float(np.dot(weights, weights))) / self.weight, grad
