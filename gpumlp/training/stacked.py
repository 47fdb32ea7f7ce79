"""Many trainings in one plan: each has a seat in it, and all go through their epochs together.

What a member decides (the order of its rows, its learning rates, early stopping, callbacks) is decided by a
loop of its own, as in its own fit.  The loops are left where the device has work to do; then the plan does an
epoch for all of them: one copy to the device, the steps, the evaluation, one copy back.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from gpumlp.network import Stack
from gpumlp.optimizers import StackedOptimizer
from gpumlp.training.engine import Engine
from gpumlp.training.epochs import ResidentEpochs
from gpumlp.training.evaluation import Reference, ResidentEvaluation
from gpumlp.training.loop import Loop
from gpumlp.training.shared import SharedRows
from gpumlp.training.table import batch_weights
from gpumlp.training.together import all_go_on

__all__ = ["Stacked"]

_EMPTY = 8  # seats are taken out when one of so many is empty: recording takes time, empty seats hardly any


class Stacked:
    """Members that share a plan.

    Parameters
    ----------
    members : sequence of Member
        They fit together, see `gpumlp.training.groups`.
    rows : SharedRows
    plan : int
        Equal for those whose members would share one plan if there were memory for it.
    """

    lanes = 1

    def __init__(self, members: Sequence[Any], rows: SharedRows, plan: int) -> None:
        self.members, self._rows, self.plan = list(members), rows, plan
        self.work = sum(member.work for member in members)
        self._seats: dict[Any, Seat] = {}
        self._plan: _Plan | None = None
        self._parts: list[Stacked] = []
        self._epoch_number = 0

    @property
    def done(self) -> bool:
        """Whether all members are."""
        return all(member.done for member in self.members)

    @property
    def waves(self) -> int:
        """In how many parts they are trained, one after the other."""
        return sum(part.waves for part in self._parts) or 1

    @property
    def wave(self) -> int:
        """Which of them, from 1, is being trained."""
        done = 0
        for part in self._parts:
            if not part.done:
                return done + part.wave
            done += part.waves
        return 1

    def advance(self, turn: Any, until: int) -> None:
        """Train all members to the end of epoch `until`."""
        backend = self.members[0].trainer.model.backend
        with backend.active():
            if not self._parts:
                self._advance(turn, until)
            for part in self._parts:
                part.advance(turn, until)
        if self.done:
            self._rows = SharedRows()  # the device may need the room for others

    def _advance(self, turn: Any, until: int) -> None:
        for member in self.members:
            member.turn = turn
            if member not in self._seats:
                self._seats[member] = Seat(member)
                member.begin(self._seats[member])
        try:
            while self._epoch_number < until and self._sit():
                turn.look()
                self._epoch()
        finally:
            self._rise()

    def _split(self, running: Sequence[Any]) -> None:
        """They do not fit on the device together."""
        half = -(-len(running) // 2)
        for members in (running[:half], running[half:]):
            part = Stacked(members, self._rows, self.plan)
            part._seats = {member: self._seats[member] for member in members}
            part._epoch_number = self._epoch_number
            self._parts.append(part)

    def _sit(self) -> bool:
        """A plan for those that are not done, without many empty seats; False if there is nothing to do."""
        running = [member for member in self.members if not member.done]
        seats = [self._seats[member] for member in running if not self._seats[member].alone]
        taken = len(self._plan.seats) if self._plan else 0
        if (taken - len(seats)) * _EMPTY > taken or not taken:
            self._rise()
            seats = [seat for seat in seats if seat.fits()]
            try:
                self._plan = _Plan(seats, self._rows) if seats else None
            except MemoryError:
                if len(running) > 1:
                    self._split(running)
                    return False
                seats[0].alone = True
        return bool(running)

    def _rise(self) -> None:
        """Bring everything home, and free the plan's memory."""
        with ExitStack() as each:  # all of them, even if one cannot be copied
            for seat in self._plan.seats if self._plan else ():
                each.callback(seat.rise)
            self._plan = None

    def _epoch(self) -> None:
        """An epoch of all that are not done.  An error in one of them comes through when the others have
        finished theirs."""
        all_go_on(self.members, self._run)
        self._epoch_number += 1

    def _run(self) -> None:
        if self._plan and self._plan.waiting:
            self._plan.run()


class _Plan:
    """Buffers and recorded steps of several members.

    Parameters
    ----------
    seats : sequence of Seat
    rows : SharedRows

    Attributes
    ----------
    waiting : list of Seat
        Those that have ordered an epoch.
    """

    def __init__(self, seats: Sequence[Seat], rows: SharedRows) -> None:
        self.seats, trainers = list(seats), [seat.trainer for seat in seats]
        first, train = trainers[0], [seat.train for seat in seats]
        self.stack = Stack([trainer.model for trainer in trainers])
        self.optimizer = StackedOptimizer([trainer.optimizer for trainer in trainers], self.stack)
        limits = [trainer.clip_norm for trainer in trainers]
        self.engine = Engine(
            self.stack,
            first.objective,
            self.optimizer,
            clip_norm=[np.inf if c is None else c for c in limits] if any(limits) else None,
            precision=first.precision,
            seed=[trainer.seed for trainer in trainers],
        )
        together, spare = rows.training(train, self.stack)
        counts = [one.n_rows for one in train]
        batch = max(trainer.batch_size for trainer in trainers)  # the same, or at least as long as the rows
        self.epochs = ResidentEpochs(self.engine, together, batch, counts=counts)
        for order, n, row in zip(self.epochs.order, counts, spare, strict=True):
            order[n:] = row
        self.evaluation: ResidentEvaluation | None = None
        if seats[0].val is not None:
            held, selected = rows.validation([seat.val for seat in seats if seat.val], together, self.stack)
            self.evaluation = ResidentEvaluation(
                self.stack, first.objective, held, self.engine.sums[:, 1:3], selected=selected
            )
        shape = self.epochs.n_steps, len(seats)
        self._table = {name: np.zeros(shape) for name in self.engine.columns()}
        self._sums: np.ndarray | None = None
        self.waiting: list[Seat] = []
        self._stale = False
        for number, seat in enumerate(seats):
            seat.sit(self, number)

    def order(self, number: int, table: dict[str, Any]) -> None:
        """An epoch with these values for member `number`."""
        for name, values in self._table.items():
            values[:, number] = table[name]
        self.waiting.append(self.seats[number])

    def run(self) -> None:
        """The epoch that has been ordered."""
        ordered, self.waiting, self._sums = self.waiting, [], None
        t = self.optimizer.t
        try:
            if self._stale:
                self.engine.precision.refresh()
                self._stale = False
            with self.engine.backend.range("gpumlp:epoch of many"):
                self.epochs.run(self._table)
                if self.evaluation:
                    self.evaluation.run()
        except BaseException:
            for seat in ordered:
                seat.fail(self.optimizer.t - t)
            raise

    def sums(self, number: int) -> np.ndarray:
        """Those of member `number`; the first call waits for the device."""
        if self._sums is None:
            self._sums = self.engine.read_sums()
        return self._sums[number]

    def put(self, number: int, trainer: Any) -> None:
        """Take over everything that belongs to a trainer."""
        self.stack.put(number, trainer.model.flat, self.stack.flat)
        self.optimizer.put(number, trainer.optimizer)
        if self.engine.precision.scaler is not None:
            self._copy(self.engine.precision.scaler[number], trainer.engine.precision.scaler)
        self._stale = True

    def get(self, number: int, trainer: Any) -> None:
        """Give it back."""
        self.get_parameters(number, trainer)
        self.optimizer.get(number, trainer.optimizer)
        if self.engine.precision.scaler is not None:
            self._copy(trainer.engine.precision.scaler, self.engine.precision.scaler[number])

    def get_parameters(self, number: int, trainer: Any) -> None:
        """Give the parameters back."""
        self.stack.get(number, trainer.model.flat, self.stack.flat)

    def _copy(self, dst: Any, src: Any) -> None:
        self.engine.backend.copy(dst, src)


class Seat(Loop):
    """The loop of a member, whose epochs are done by a plan that others use as well.

    Parameters
    ----------
    member : Member

    Attributes
    ----------
    alone : bool
        It goes on by plans of its own: a callback has changed something that a plan shares, or there is no
        memory for one.
    """

    def __init__(self, member: Any) -> None:
        self.alone, self._placed, self._number = False, False, 0
        self._plan: _Plan | None = None
        self._home = True  # whether what the trainer has is not older than what the plan has
        super().__init__(member.trainer, member.train, member.val, member.epochs, None)

    def _place(self) -> None:
        if self.alone:
            super()._place()
            self.engine.precision.refresh()
            self._placed = True
            return
        self.engine, self._made_for = self.trainer.engine, self._plans_need()
        self._recipe, self._drawn = self.engine.recipe(), None
        if self.val is not None:
            reference = Reference(self.engine.objective, self.val, self.engine.backend)
            self.evaluation = _SeatEvaluation(reference)
        else:
            self.evaluation = None

    def sit(self, plan: _Plan, number: int) -> None:
        """Take seat `number` of `plan`."""
        self._plan, self._number, self._drawn = plan, number, None
        self.epochs = _SeatEpochs(self, plan, number)
        plan.put(number, self.trainer)

    def order(self, table: dict[str, Any], steps: int) -> None:
        """An epoch with these values; done when all have ordered theirs."""
        assert self._plan is not None
        self._plan.order(self._number, table)
        self.trainer.optimizer.t += steps
        self._home = False

    def fail(self, done: int) -> None:
        """The epoch that was ordered has ended after `done` steps."""
        self.trainer.optimizer.t += done - self.epochs.n_steps
        self.trainer.epoch -= 1

    def _come_home(self) -> None:
        """Bring what belongs to the trainer home, unless it is there, where it may have been changed."""
        if self._plan is not None and not self._home:
            self._plan.get(self._number, self.trainer)
        self._home = True

    def rise(self) -> None:
        """Leave the plan, with everything that belongs to the trainer."""
        if self._plan is not None:
            try:
                self._come_home()
            finally:
                self._plan = None
                del self.epochs  # which would keep the plan's memory

    def fits(self) -> bool:
        """Whether the trainer still is what plans were made for; else it goes on alone."""
        trainer = self.trainer
        try:
            same = trainer.engine is self.engine and self._plans_need() == self._made_for
            self.alone = not (same and self.engine.recipe() == self._recipe)
        except Exception:  # raised again when it goes on
            self.alone = True
        return not self.alone

    def _leave(self) -> None:
        self.rise()

    def _fetch(self) -> None:
        if self._plan is not None and not self._home:
            self._plan.get_parameters(self._number, self.trainer)

    def _read_sums(self) -> np.ndarray:
        return super()._read_sums() if self._plan is None else self._plan.sums(self._number)

    def _follow(self) -> None:
        if self._plan is not None and self._called:  # only callbacks can have changed anything
            if self.fits():
                self._plan.put(self._number, self.trainer)
            else:
                self.rise()
        if self.alone and not self._placed:
            self._place()
        elif self.alone:
            super()._follow()

    def _epoch(self, number: int) -> Generator[str, None, dict[str, float]]:
        figures = yield from super()._epoch(number)
        if self._called:
            self._come_home()
        return figures


class _SeatEpochs:
    """`Epochs` of one member of a plan."""

    hooks: Any = None

    def __init__(self, seat: Seat, plan: _Plan, number: int) -> None:
        self._seat, self._plan, self._number, rows = seat, plan, number, seat.train
        self.batch, self.n_steps, self.weight = plan.epochs.batch, plan.epochs.n_steps, rows.weight
        self.order = plan.epochs.order[number, : rows.n_rows]

    def batch_weights(self) -> np.ndarray:
        """See `Epochs`."""
        return batch_weights(self._seat.train.weights, self.order, self.batch)

    def run(self, table: dict[str, Any]) -> None:
        """See `Epochs`."""
        self._seat.order(table, self.n_steps)

    def first_bad_step(self) -> tuple[int, int]:
        """See `Epochs`."""
        return self._plan.epochs.first_bad_step(self._number)


class _SeatEvaluation:
    """`Evaluation` of one member of a plan, which runs it."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference

    def run(self) -> None:
        """See `Evaluation`; there is nothing left to do."""

    def figures(self, sums: np.ndarray) -> dict[str, float]:
        """See `Evaluation`."""
        return self._reference.figures(sums)
