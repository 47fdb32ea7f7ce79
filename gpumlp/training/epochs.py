"""Epochs: passes over the training rows, here over rows on the device; see `streamed.py` for the others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from gpumlp.backends.base import Plan, Steps
from gpumlp.backends.operations import Op
from gpumlp.checks import same
from gpumlp.plans import Spaces, Workspace, check_contract, check_order, not_finite_ops, sum_ops
from gpumlp.rows import Rows
from gpumlp.training.engine import Engine
from gpumlp.training.table import batch_weights

__all__ = ["Epochs", "ResidentEpochs"]


class Epochs(Protocol):
    """Passes over training rows.

    Attributes
    ----------
    batch, n_steps : int
        Rows per step, and steps per epoch.
    weight : float
        Sum of the rows' weights.
    hooks : StepHooks or None
        What is called between steps.
    """

    batch: int
    n_steps: int
    weight: float
    hooks: Any

    @property
    def order(self) -> np.ndarray:
        """Row numbers of the coming epoch, int32 (n_rows,) on the host: written before `run`, and free to be
        written again after it."""

    def batch_weights(self) -> np.ndarray:
        """Sum of the weights of the rows of each coming step, float64 (n_steps,)."""

    def run(self, table: dict[str, Any]) -> None:
        """All steps of an epoch with the values of `table`; then the engine's sums[0] is the sum of the rows'
        losses, and sums[3] the number of parameters that are not finite.  The optimiser has counted the
        steps.  The device may still be working."""

    def first_bad_step(self) -> tuple[int, int]:
        """Range of steps (first, last) of the last epoch in which a loss was first not finite."""


class ResidentEpochs:
    """`Epochs` over rows on the device: a plan for full batches, and one for the shorter last batch.

    Parameters
    ----------
    engine : Engine
    rows : Rows
        On the engine's device.
    batch : int
        Rows of a full batch; all rows if there are fewer.
    update : bool
        Whether the steps change the parameters; else they end with the gradient.
    space : Workspace, optional
        Buffers for at least `batch` rows, shared with other epochs that do not run at the same time.
    total : array (1,), optional
        Receives the sum of the losses, if these rows are only a part of an epoch's.
    counts : list of int, optional
        Of a `Stack`, how many rows each member has; `rows` has as many as the longest one.  The others fill
        their last batch up with a row of weight 0.
    """

    def __init__(
        self,
        engine: Engine,
        rows: Rows,
        batch: int,
        *,
        update: bool = True,
        space: Workspace | Spaces | None = None,
        total: Any = None,
        counts: list[int] | None = None,
    ) -> None:
        check_contract(rows, engine.network, engine.objective)
        network, n = engine.network, rows.n_rows
        self.engine, self.rows, self.batch, self.weight = engine, rows, min(batch, n), rows.weight
        self._update = update
        self.hooks: Any = None
        self._n_full, self._n_rest = divmod(n, self.batch)
        self.n_steps = self._n_full + (self._n_rest > 0)
        self.row_loss = engine.backend.zeros((*network.lead, n), network.dtype)
        self.total, self.counts = total, counts
        self._sum: Plan | None = None
        self.space = space or engine.space(self.batch)
        # of all ranks: each has the losses of its own rows, and zeros elsewhere
        self._shared = engine.ranks is not None and engine.ranks.size > 1
        self.losses = self.row_loss
        if self._shared:
            self.losses = engine.backend.zeros(self.row_loss.shape, network.dtype)
        self.steps = self._new_steps()
        self._counts = batch_weights(None, self.order, self.batch)
        self._record()

    def _new_steps(self) -> Steps:
        backend, dtype = self.engine.backend, self.engine.network.dtype
        members = self.engine.network.members
        return Steps(backend, self.engine.columns(), dtype, self.n_steps, self.rows.n_rows, members)

    def _record(self) -> None:
        self._recipe, self._held = self.engine.recipe(), self.engine.held()
        self._full = self._plan(self.batch) if self._n_full else None
        self._rest = self._plan(self._n_rest) if self._n_rest else None
        engine, n = self.engine, self.rows.n_rows
        exchange = engine.exchange_ops() if self._update else []
        self._exchange = engine.backend.record(exchange, self.steps) if exchange else None
        out = engine.sums[..., :1] if self.total is None else self.total
        ops = self._loss_ops(self.counts or n, out)
        if self.total is None:
            ops += not_finite_ops(engine.network, engine.sums[..., 3:4])
        self._end = engine.backend.record(ops, self.steps)

    def _loss_ops(self, n: Any, out: Any) -> list[Op]:
        """out[0] = sum of the losses of all rows."""
        ops: list[Op] = [*sum_ops(self.engine.backend, self.losses, n, out)]
        if self.engine.ranks is None or not self._shared:
            return ops
        return self.engine.ranks.sum_ops(self.row_loss, self.losses) + ops

    def _plan(self, n: int) -> Plan:
        ops = self.engine.step_ops(
            self.space, n, self.batch, self.rows, self.steps, self.row_loss, self._update
        )
        return self.engine.backend.record(ops, self.steps)

    def _follow(self) -> None:
        """Record again if a setting has changed."""
        if same(self.engine.held(), self._held):  # a recipe takes longer than the steps of a small network
            return
        if self.engine.recipe() == self._recipe:
            self._held = self.engine.held()
            return
        if self.engine.columns() != self.steps.columns:
            order, self.steps = self.order, self._new_steps()
            self.order[:] = order
        self._record()

    @property
    def order(self) -> np.ndarray:
        """See `Epochs`."""
        return self.steps.order

    def batch_weights(self) -> np.ndarray:
        """See `Epochs`."""
        weights = self.rows.weights
        return self._counts if weights is None else batch_weights(weights, self.order, self.batch)

    @property
    def part(self) -> float:
        """The share of the last epoch's steps that are done; 0 for a device that would have to be asked."""
        step = self.steps.step
        return float(step[0]) / self.n_steps if isinstance(step, np.ndarray) else 0.0

    def run(self, table: dict[str, Any]) -> None:
        """See `Epochs`."""
        self.run_steps(table)
        self._end.run()

    def run_steps(self, table: dict[str, Any]) -> None:
        """All steps of an epoch; their losses stay in `row_loss`.  The steps done are counted in the
        optimiser's `t`, even if an exception ends them."""
        check_order(self.order, self.rows.X.shape[0])
        self._follow()
        self.steps.fill(table)
        self.steps.send()
        done = self.n_steps
        if self._exchange:
            self._exchange.run()
        try:
            with self.engine.backend.range("gpumlp:steps"):
                if self.hooks is None:
                    self.advance(0, self.n_steps)
                else:
                    self.hooks.drive(self, table["lr"], table["inv_weight"])
        except BaseException:  # Ctrl-C after some of them
            done = int(self.engine.backend.to_numpy(self.steps.step)[0])
            raise
        finally:
            if self._update:
                self.engine.optimizer.t += done
            if self._exchange:
                self._exchange.run()

    def sum_losses(self) -> None:
        """Put the sum of the losses of `run_steps` into the engine's sums[0], as `run` does."""
        if self._sum is None:
            ops = self._loss_ops(self.rows.n_rows, self.engine.sums[:1])
            self._sum = self.engine.backend.record(ops, self.steps)
        self._sum.run()

    def advance(self, first: int, count: int) -> None:
        """Do `count` steps, of which the first one is number `first` of the epoch."""
        full = min(count, self._n_full - first)
        if full > 0 and self._full:
            self._full.run(full)
        if count > full and self._rest:
            self._rest.run()

    def loss_between(self, first: int, last: int) -> float:
        """Sum of the rows' losses of the steps from `first` up to but not including `last`; waits for the
        device."""
        backend = self.engine.backend
        rows = slice(first * self.batch, last * self.batch)
        with backend.active():
            losses = backend.to_numpy(self.row_loss[rows])
            if self.engine.ranks is not None and self._shared:  # each has zeros where others have losses
                losses = np.sum(self.engine.ranks.communicator.gather(losses), axis=0, dtype=losses.dtype)
            return float(losses.sum(dtype=np.float64))

    def load(self, rows: Rows) -> None:
        """Copy `rows`, from the host or the device, into the buffers of the present rows; same number."""
        check_contract(rows, self.engine.network, self.engine.objective)
        backend, own = self.engine.backend, self.rows
        if rows.X.shape != own.X.shape or (rows.w is None) != (own.w is None):
            raise ValueError(f"rows of shape {rows.X.shape} were given; this plan is for {own.X.shape}")
        backend.copy(own.X, rows.X)
        backend.copy(own.y, rows.y)
        if own.w is not None:
            backend.copy(own.w, rows.w)
        self.rows, self.weight = replace(own, weights=rows.weights), rows.weight

    def first_bad_step(self, member: int | None = None) -> tuple[int, int]:
        """See `Epochs`."""
        losses = self.losses if member is None else self.losses[member]
        bad = np.flatnonzero(~np.isfinite(self.engine.backend.to_numpy(losses)))
        step = int(bad[0]) // self.batch if len(bad) else 0
        return step, step
