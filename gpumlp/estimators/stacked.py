"""Fits of estimators that share a plan on CUDA, as `gpumlp.training.stacked`: scikit-learn's order and scale.

Rows of the folds lie one behind the other on the device.  Each fit is left where it has ordered an epoch; the
plan does that of all, and each goes on with its own figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from gpumlp.backends.operations import Launch, Op
from gpumlp.estimators.engine import FixedEpochs, Passes
from gpumlp.estimators.members import FitMember
from gpumlp.kernels.rows import SUM
from gpumlp.network import Stack
from gpumlp.optimizers import StackedOptimizer, stack_key
from gpumlp.plans import penalty_ops
from gpumlp.rows import Rows
from gpumlp.training.engine import Engine
from gpumlp.training.evaluation import Reference, ResidentEvaluation
from gpumlp.training.groups import may_be_padded, waves_of
from gpumlp.training.loop import RECORDED, WORKING
from gpumlp.training.shared import SharedRows
from gpumlp.training.table import batch_weights

__all__ = ["StackedFits"]

_EMPTY = 8  # see `training.stacked`


class StackedFits:
    """A `Job`: fits on one device, in as few plans as possible.

    Parameters
    ----------
    members : list of FitMember
    """

    lanes = 1

    def __init__(self, members: list[FitMember]) -> None:
        self.members, self.work = members, sum(member.work for member in members)
        for member in members:
            member.together = True
        self._rows = SharedRows()

    @property
    def done(self) -> bool:
        """Whether all have ended."""
        return all(member.done for member in self.members)

    def advance(self, turn: Any, until: int) -> None:
        """Go on with all fits, to the end of epoch `until`."""
        for member in self.members:
            turn.look()
            while not member.done and member.state is not WORKING and len(member.history) < until:
                member.go_on(turn)
        kinds: dict[tuple, list[Any]] = {}
        for member in self.members:
            if member.state is WORKING:
                kinds.setdefault(_kind(member.passes), []).append(_entry(member))
        for entries in kinds.values():
            for waves in waves_of(entries):
                for wave in waves:
                    self._train([entry.member for entry in wave], turn, until)

    def _train(self, members: list[FitMember], turn: Any, until: int) -> None:
        plan: PassesPlan | None = None
        with members[0].passes.model.backend.active():
            try:
                while running := [m for m in members if not m.done and len(m.history) < until]:
                    turn.look()
                    if plan is not None and (len(plan.seats) - len(running)) * _EMPTY > len(plan.seats):
                        plan.rise()  # before the next epoch is ordered
                        plan = None
                    for member in running:
                        if member.state is RECORDED:
                            member.go_on(turn)
                    running = [member for member in running if member.state is WORKING]
                    if running and plan is None:
                        plan = PassesPlan([member.passes for member in running], self._rows)
                    if plan is not None:
                        plan.run()
                    for member in running:
                        member.go_on(turn)
            finally:
                if plan is not None:
                    plan.rise()


def _entry(member: FitMember) -> Any:
    """What `training.groups` asks of a member."""
    passes = member.passes
    trainer = SimpleNamespace(
        model=passes.model,
        optimizer=passes.optimizer,
        engine=passes.engine,
        batch_size=int(passes.sizes[0]),
    )
    return SimpleNamespace(member=member, trainer=trainer, train=passes.train, val=passes.held)


def _kind(passes: Passes) -> tuple:
    """Equal for fits that may share a plan."""
    model, held, train = passes.model, passes.held, passes.train
    assert train is not None
    sizes, steps = model.layer_sizes, len(passes.sizes)
    return (
        str(model.dtype),
        passes.engine.objective,
        (len(sizes), sizes[0], sizes[-1], *(() if may_be_padded(model) else sizes)),
        tuple(model.activations),
        stack_key(passes.optimizer),
        (steps, int(passes.sizes[0]) if steps > 1 else 0),
        (str(train.X.dtype), train.y.shape[1:]),
        None if held is None else (str(held.X.dtype), held.y.shape[1:]),
    )


class PassesPlan:
    """Buffers and recorded steps of several fits.

    Parameters
    ----------
    seats : list of Passes
        That have ordered an epoch.
    rows : SharedRows
    """

    def __init__(self, seats: list[Passes], rows: SharedRows) -> None:
        self.seats, first = seats, seats[0]
        train = [passes.train for passes in seats if passes.train is not None]
        self.stack = Stack([passes.model for passes in seats])
        self.optimizer = StackedOptimizer([passes.optimizer for passes in seats], self.stack)
        backend, dtype, self.n_steps = self.stack.backend, self.stack.dtype, len(first.sizes)
        #: for each fit what `Passes` has: sums of losses, |w|^2 and those of the validation rows
        self._out = backend.zeros((len(seats), 2 * self.n_steps + 2), dtype)
        seeds = [passes.engine.seed for passes in seats]
        self.engine = Engine(
            self.stack, first.engine.objective, self.optimizer, seed=seeds, between=self._between
        )
        together, starts, spare = self._together(train, rows)
        counts = [one.n_rows for one in train]
        batch = max(int(passes.sizes[0]) for passes in seats)
        self.epochs = FixedEpochs(self.engine, together, batch, counts=counts)
        for order, n, row in zip(self.epochs.order, counts, spare, strict=True):
            order[n:] = row
        sums = {"values": self.epochs.row_loss, "partial": self._out[:, : self.n_steps]}
        chunks = {"n": counts, "chunk": batch}
        collect = Launch(SUM, sums, chunks, self.n_steps, batch, members=len(seats))
        self._collect = backend.record([collect], self.epochs.steps)
        self._evaluation = self._evaluate(rows, together)
        shape = self.n_steps, len(seats)
        self._table = {name: np.zeros(shape) for name in self.engine.columns()}
        self._host: np.ndarray | None = None
        for number, passes in enumerate(seats):
            self.stack.put(number, passes.model.flat, self.stack.flat)
            self.optimizer.put(number, passes.optimizer)
            held, evaluation = passes.held, None
            if held is not None:
                evaluation = _Figures(Reference(first.engine.objective, held, backend))
            passes.sit(Seat(self, number, starts[number], passes), evaluation)

    def _between(self) -> Sequence[Op]:
        """See `Passes`."""
        if not any(passes.optimizer.l2 > 0 for passes in self.seats):
            return ()
        return penalty_ops(self.stack, self._out[:, self.n_steps : -2])

    def _together(self, train: list[Rows], rows: SharedRows) -> tuple[Rows, list[int], list[int]]:
        """All rows with the weights of each fit, where each one's begin, and a row that it does not have."""
        bare, starts = rows.several(train, self.stack)
        n, counts = int(bare.X.shape[0]), [one.n_rows for one in train]
        longest = max(counts)
        spare = [(start + count) % n for start, count in zip(starts, counts, strict=True)]
        w = None
        if min(counts) < longest or any(one.weights is not None for one in train):
            host = np.zeros((len(train), n), self.stack.dtype)
            for row, one, start in zip(host, train, starts, strict=True):
                row[start : start + one.n_rows] = 1 if one.weights is None else one.weights
            w = self.stack.backend.asarray(host)
        index = None if longest == n else np.zeros(longest, np.int32)
        return replace(bare, w=w, index=index), starts, spare

    def _evaluate(self, rows: SharedRows, together: Rows) -> ResidentEvaluation | None:
        held = [passes.held for passes in self.seats if passes.held is not None]
        if not held:
            return None
        val, selected = rows.validation(held, together, self.stack)
        objective = self.engine.objective
        return ResidentEvaluation(self.stack, objective, val, self._out[:, -2:], selected=selected)

    def order(self, number: int, order: np.ndarray, table: dict[str, Any]) -> None:
        """An epoch of fit `number`, in this order of rows."""
        self.epochs.order[number, : len(order)] = order
        for name, values in self._table.items():
            values[:, number] = table[name]

    def run(self) -> None:
        """The epoch that all have ordered."""
        self._host = None
        self.epochs.run_steps(self._table)
        self._collect.run()
        if self._evaluation is not None:
            self._evaluation.run()

    def out(self, number: int) -> np.ndarray:
        """The sums of fit `number`; the first call waits for the device."""
        if self._host is None:
            self._host = self.stack.backend.to_numpy(self._out)
        return self._host[number]

    def rise(self) -> None:
        """Bring parameters and state of all that sit here home."""
        for passes in self.seats:
            if passes.seat is not None and passes.seat.plan is self:
                passes.rise()


class Seat:
    """The `epochs` of one `Passes`, done by a plan."""

    def __init__(self, plan: PassesPlan, number: int, start: int, passes: Passes) -> None:
        assert passes.train is not None
        self.plan, self._number, self._start, self._passes = plan, number, start, passes
        self.rows, self.steps, self.n_steps = passes.train, plan.epochs.steps, plan.n_steps
        self.order = np.arange(self.rows.n_rows, dtype=np.int32)

    def batch_weights(self) -> np.ndarray:
        """See `Epochs`."""
        return batch_weights(self.rows.weights, self.order, int(self._passes.sizes[0]))

    def run_steps(self, table: dict[str, Any]) -> None:
        """Order an epoch; it is done when all have ordered theirs."""
        self.plan.order(self._number, self.order + np.int32(self._start), table)
        self._passes.optimizer.t += self.n_steps

    def run(self) -> None:
        """The sums of the losses: the plan makes them."""

    def out(self) -> np.ndarray:
        """See `PassesPlan.out`."""
        return self.plan.out(self._number)

    def fetch(self) -> None:
        """Bring the parameters to the model."""
        stack = self.plan.stack
        stack.get(self._number, self._passes.model.flat, stack.flat)

    def rise(self) -> None:
        """Bring the parameters and the optimiser's state home."""
        self.fetch()
        self.plan.optimizer.get(self._number, self._passes.optimizer)


class _Figures:
    """The evaluation of one fit, which the plan runs."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference

    def run(self) -> None:
        """Nothing is left to do."""

    def figures(self, sums: np.ndarray) -> dict[str, float]:
        """See `Evaluation`."""
        return self._reference.figures(sums)
