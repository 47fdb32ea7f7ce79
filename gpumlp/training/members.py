"""Several trainings side by side: each thread takes a whole one through its epochs, and waits for nobody."""

from __future__ import annotations

import contextvars
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack
from typing import Any, Protocol

from gpumlp.backends.lane import Stopped, here
from gpumlp.errors import DivergenceError
from gpumlp.rows import Rows
from gpumlp.training.calls import Call, Errand
from gpumlp.training.groups import plans_text, stacked, wave_text
from gpumlp.training.history import EarlyStopping, History
from gpumlp.training.loop import RECORDED, Loop
from gpumlp.training.progress import Progress
from gpumlp.training.together import together

__all__ = ["SMALL", "Member", "train"]

_LONG = 0.2  # seconds: a longer epoch is not waited for when all are to end, but taken back
#: rows times parameters of an epoch whose operations take about 0.8 ms: below, it is quicker to do those of
#: many networks by one call (measured, bench_many.py on two cores)
SMALL = 16_000_000
_PER_ROW, _PER_STEP = 100, 20_000  # what they cost beside that, in the same unit
_TICK = 0.1  # seconds between looks at what may have been missed


class Member:
    """A training that is to be done: the checked arguments of one `Trainer.fit`.

    Attributes
    ----------
    error : BaseException or None
        What ended it.
    history : History or None
        The trainer's, once it has begun.
    done : bool
    turn : Lane
        That of the thread which trains it.
    """

    def __init__(
        self,
        trainer: Any,
        train: Rows,
        val: Rows | None,
        epochs: int,
        stop: EarlyStopping | None,
        name: str = "",
    ) -> None:
        self.trainer, self.train, self.val = trainer, train, val
        self.epochs, self.stop, self.name = epochs, stop, name
        self.error: BaseException | None = None
        self.history: History | None = None
        self.done = False
        self._running: Generator[str, None, None] | None = None
        self._loop: Loop | None = None
        self.turn: Any = None

    @property
    def work(self) -> int:
        """See `Job`."""
        return self.epochs * self.train.n_rows * self.trainer.model.n_params

    @property
    def lanes(self) -> int:
        """See `Job`: one where an epoch's operations take less time than the
        Python between them, for whose lock threads would only wait."""
        rows, steps = self.train.n_rows, -(-self.train.n_rows // self.trainer.batch_size)
        rows += self.val.n_rows if self.val is not None else 0
        epoch = rows * (self.trainer.model.n_params + _PER_ROW) + steps * _PER_STEP
        return int(self.trainer.model.backend.lanes) if epoch >= SMALL else 1

    def advance(self, turn: _Turn, until: int) -> None:
        """Go on with what `Trainer.fit` does after its checks, to the end of epoch `until`."""
        self.turn = turn
        with self.trainer.model.backend.active():
            if self._running is None:
                self.begin(_Undoable(self, self.trainer, self.train, self.val, self.epochs, None))
            while not self.done:
                if self.go_on() is RECORDED and len(self.history or ()) >= until:
                    return

    @property
    def part(self) -> float:
        """See `Loop.part`."""
        return 0.0 if self._loop is None else self._loop.part

    @property
    def best(self) -> float | None:
        """The validation loss of the best epoch so far."""
        history = self.history
        if history is None or history.best_epoch is None or "val_loss" not in history:
            return None
        return history.val_loss[history.best_epoch]

    def begin(self, loop: Loop) -> None:
        """Train by `loop`, piece by piece."""
        self._loop = loop
        self.trainer.history = self.history = History()
        self._running = loop.pieces(self.stop, self.trainer.callbacks, self._calling)

    def go_on(self) -> str | None:
        """To the next place where the loop can be left; None if it is done."""
        assert self._running is not None
        try:
            return next(self._running)
        except StopIteration:
            self.done = True
        except DivergenceError as error:
            # without the traceback, which holds rows and plans
            self.error, self.done = error.with_traceback(None), True
        except Exception as error:
            if self.name and hasattr(error, "add_note"):  # from Python 3.11 on
                error.add_note(f"raised while {self.name} was trained")
            raise
        return None

    def leave(self) -> None:
        """End at the epoch's end where it is now."""
        if self._running is not None:
            with self.trainer.model.backend.active():
                self._running.close()
                self.trainer.model.backend.mark()  # the stream of this thread waits for the work of others
        self.done = True

    def look(self) -> None:
        """Raise `Stopped` if all are to end."""
        self.turn.look()

    def may_leave(self, now: bool) -> None:
        """Whether the running epoch may be left in the middle."""
        self.turn.may_leave = now

    def _calling(self, function: Callable) -> Callable:
        """`function`, called in the thread of the caller, with its CuPy stream: that waits for the work of
        this thread, which then waits for what the function has done there."""

        def call(trainer: Any, history: History) -> Any:
            backend = trainer.model.backend
            with backend.active():
                backend.mark()
                try:
                    return function(trainer, history)
                finally:
                    backend.mark()

        return lambda *given: self.turn.call(call, *given)


class _Undoable(Loop):
    """A loop whose long epochs can be left in the middle, as if they had not begun."""

    def __init__(self, member: Member, *given: Any) -> None:
        super().__init__(*given)
        self._member, self._seconds = member, _LONG

    def _epoch(self, number: int) -> Generator[str, None, dict[str, float]]:
        self._member.look()
        # a device is not asked in the middle of its work
        kept = _Kept(self.trainer) if self._seconds >= _LONG and self.engine.backend.device == "cpu" else None
        self._member.may_leave(kept is not None)
        try:
            figures = yield from super()._epoch(number)
        except Stopped:
            if kept is not None:
                kept.restore()
            raise
        finally:
            self._member.may_leave(False)
        self._seconds = figures["seconds"]
        return figures


class _Kept:
    """A trainer's parameters, state and counts, to go back to; on the host."""

    def __init__(self, trainer: Any) -> None:
        self._trainer, model, optimizer = trainer, trainer.model, trainer.optimizer
        arrays = [a for entry in optimizer.state for name, a in entry.items() if name != "_shape"]
        self._arrays = [(array, array.copy()) for array in (model.flat, *arrays)]
        self._counts = optimizer.t, trainer.epoch, model.output

    def restore(self) -> None:
        trainer = self._trainer
        for array, values in self._arrays:
            array[...] = values
        trainer.optimizer.t, trainer.epoch, trainer.model.output = self._counts


class _Turn:
    """The `Lane` of one thread."""

    later: Any

    def __init__(self, group: _Group) -> None:
        self._group, self.may_leave, self.later = group, False, None

    @property
    def alone(self) -> bool:
        """See `Lane`: as long as there is work for most threads."""
        return 2 * self._group.left > self._group.threads

    def check(self) -> None:
        """See `Lane`."""
        if self.may_leave:
            self.look()

    def look(self) -> None:
        """Raise `Stopped` if all are to end."""
        if self._group.stopping:
            raise Stopped

    def call(self, function: Callable, *given: Any, **named: Any) -> Any:
        """See `Lane`."""
        request = Call(function, given, named)
        self._group.requests.put(request)
        while not request.done.wait(_TICK):
            self.look()
        if request.error is not None:
            raise request.error
        return request.value

    def ask(self, function: Callable, *given: Any) -> None:
        """The same, without waiting for it."""
        self._group.requests.put(Errand(function, given, {}))


class _Group:
    """What is trained side by side.

    Attributes
    ----------
    left : int
        Jobs that are not done.
    stopping : bool
        All are to end, at the end of an epoch.
    errors : list
        What was raised in them.
    """

    def __init__(self, jobs: Sequence[Job], threads: int, until: int) -> None:
        self._waiting = deque(sorted(jobs, key=lambda job: -job.work))  # long ones at the end idle
        self.jobs, self.threads, self._until = jobs, threads, until
        self.left, self.stopping = len(jobs), False
        self.errors: list[BaseException] = []
        self.requests: queue.SimpleQueue[Call | int] = queue.SimpleQueue()
        self._lock = threading.Lock()

    def work(self, number: int) -> None:
        """What a thread does."""
        here.lane = turn = _Turn(self)
        try:
            while self._waiting and not self.stopping:
                try:
                    job = self._waiting.popleft()
                except IndexError:  # another one took it
                    break
                try:
                    job.advance(turn, self._until)
                except BaseException as error:
                    self.errors.append(error)
                    self.stopping = True
                with self._lock:
                    self.left -= 1
        finally:
            self.requests.put(number)

    def serve(self, threads: Sequence[threading.Thread], tick: Callable[[], None]) -> None:
        """Answer until all threads have ended, and what they have asked for."""
        left = len(threads)
        while left:
            try:
                request = self.requests.get(timeout=_TICK)
            except queue.Empty:
                pass
            else:
                if isinstance(request, Call):
                    request.answer()
                else:
                    threads[request].join()
                    left -= 1
            tick()


class Job(Protocol):
    """What one thread does: a member, or several together.

    Attributes
    ----------
    done : bool
    work : int
        About proportional to the time it takes.
    lanes : int
        How many threads gain from such jobs.
    """

    @property
    def done(self) -> bool: ...
    @property
    def work(self) -> int: ...
    @property
    def lanes(self) -> int: ...

    def advance(self, turn: Any, until: int) -> None:
        """Train to the end of epoch `until`."""


#: what is asked at a pause: of the members that wait there, those that are to end now
Cut = Callable[[list[Member]], Iterable[Member]]


def train(
    members: Sequence[Member],
    bar: Progress,
    pauses: Sequence[int] = (),
    cut: Cut = list,
    jobs: Sequence[Job] | None = None,
) -> str:
    """Train all `members`, side by side where their executor gains from it.

    Divergence of one is left in its `error`.  Anything else that is raised, in a member or in this thread,
    ends all of them at the end of an epoch, and comes through.

    Parameters
    ----------
    members : sequence of Member
    bar : Progress
    pauses : ascending sequence of int
        Numbers of epochs after which members wait for each other.
    cut : callable
        Says then which of them end there.
    jobs : sequence of Job, optional
        What the threads do; by default the members that fit together share a plan.

    Returns
    -------
    str
        How many networks there were, and in how many plans.
    """

    plans = stacked(members) if jobs is None else list(jobs)
    jobs = together(plans, Member)

    def tick() -> None:
        epochs = sum(m.epochs if m.done else len(m.history or ()) + m.part for m in members)
        left = sum(not member.done for member in members)
        best = [value for m in members if (value := m.best) is not None]
        text = f", val_loss {min(best):.4g}" if best else ""
        bar.show(epochs, f"{left} of {plans_text(len(members), plans)}{text}{wave_text(plans)}")

    try:
        for until in (*pauses, sys.maxsize):
            for threads in sorted({job.lanes for job in jobs}, reverse=True):
                some = [job for job in jobs if job.lanes == threads and not job.done]
                _train(_Group(some, threads, until), tick if bar.shown else lambda: None)
            if waiting := [member for member in members if not member.done]:
                for member in cut(waiting):
                    member.leave()
    finally:
        with ExitStack() as each:  # all of them, even if one fails
            for member in members:
                each.callback(member.leave)
    return plans_text(len(members), plans)


def _train(group: _Group, tick: Callable[[], None]) -> None:
    workers = [
        # NumPy's settings for errors are those of this thread
        threading.Thread(target=contextvars.copy_context().run, args=(group.work, n), daemon=True)
        for n in range(min(group.threads, len(group.jobs)))
    ]
    try:
        for worker in workers:
            worker.start()
        group.serve(workers, tick)
    except BaseException:
        group.stopping = True
        _wait(workers)
        raise
    for error in group.errors:
        if not isinstance(error, Stopped):
            raise error


def _wait(threads: Sequence[threading.Thread]) -> None:
    """Until all have ended, however often Ctrl-C is pressed."""
    for thread in threads:
        while thread.is_alive():
            try:
                thread.join(_TICK)
            except KeyboardInterrupt:
                continue
