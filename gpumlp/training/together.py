"""Small networks on the CPU: the Python of their epochs is done in one thread, their steps on all.

What Python does between two epochs of a small network takes longer than the epoch, and only one thread at a
time runs Python.  So a thread goes through many networks; what their plans are to do is put into a batch,
which one call into compiled code then works off on the threads of the pool.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gpumlp.training.hooks import is_stepwise
from gpumlp.training.loop import Loop

__all__ = ["Together", "all_go_on", "together"]

_MOST = 64  # networks of a batch: their buffers stay in the caches, and all are asked often whether to end


def all_go_on(
    members: Sequence[Any], run: Callable[[], None], before: Callable[[], None] = lambda: None
) -> None:
    """An epoch of all members that are not done: their loops, with `before` in front of each, as far as the
    work is ordered; `run`, which does it; and the rest.  An error in one of them comes through when the
    others have finished theirs."""
    running, errors = [member for member in members if not member.done], []

    def go_on() -> None:
        for member in running:
            try:
                if not member.done:
                    before()
                    member.go_on()
            except BaseException as error:
                member.error, member.done = error, True
                errors.append(error)

    go_on()
    run()
    go_on()
    if errors:
        raise errors[0]


class Together:
    """A `Job`: small networks that go through their epochs together.

    Parameters
    ----------
    members : sequence of Member
    batch : Batch
        See `Backend.batch`.
    """

    lanes = 1

    def __init__(self, members: Sequence[Any], batch: Any) -> None:
        self.members, self._batch = list(members), batch
        self.work = sum(member.work for member in members)
        self._begun: list[Any] = []
        self._epochs = 0

    @property
    def done(self) -> bool:
        """Whether all members are."""
        return all(member.done for member in self.members)

    def advance(self, turn: Any, until: int) -> None:
        """Train all members to the end of epoch `until`."""
        for member in self.members[len(self._begun) :]:
            member.turn = turn
            member.begin(Loop(member.trainer, member.train, member.val, member.epochs, None))
            self._begun.append(member)
        for member in self.members:
            member.turn = turn
        while not self.done and self._epochs < until:
            turn.look()
            turn.later = self._batch
            try:
                all_go_on(self.members, lambda: self._run(turn), self._batch.begin)
            finally:
                turn.later = None
            self._epochs += 1

    def _run(self, turn: Any) -> None:
        turn.later = None
        self._batch.run()


def together(jobs: Sequence[Any], kind: Any) -> list[Any]:
    """`jobs`, with those of class `kind` that are too small for a thread of their own in jobs of many."""
    small: list[Any] = []
    others: list[Any] = []
    for job in jobs:
        (small if _is_small(job, kind) else others).append(job)
    parts = [small[start : start + _MOST] for start in range(0, len(small), _MOST)]
    return [*others, *(Together(part, part[0].trainer.model.backend.batch()) for part in parts)]


def _is_small(job: Any, kind: Any) -> bool:
    if type(job) is not kind or is_stepwise(job.trainer.callbacks):
        return False
    return job.lanes == 1 and job.trainer.model.backend.batch() is not None
