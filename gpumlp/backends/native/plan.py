"""Plans of the native executor: operations packed for the C++ runtime, which replays them."""

from __future__ import annotations

import ctypes
import functools
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpumlp.backends.base import Plan, Steps
from gpumlp.backends.lane import here
from gpumlp.backends.native import build
from gpumlp.backends.native.call import (
    Function,
    functions_of,
    narrow_columns,
    pack,
    pack_gemm,
    pack_members,
    pack_segments,
    pack_together,
    real_dtype,
)
from gpumlp.backends.native.phases import by_rows, phases, useful_threads
from gpumlp.backends.native.text import runtime_source
from gpumlp.backends.numpy import address_of
from gpumlp.backends.operations import AllReduce, Computation, Gemm, Launch, Op

__all__ = ["Batch", "DividedPlan", "NativePlan", "Runtime", "runtime"]

_REPLAYS, _JOB_WORDS = 4, 9  # see operations.h
_SHORT_SECONDS = 100e-6  # less than it takes to get Python's lock back from another thread that wants it
_BURST_SECONDS = 0.2  # longest time in C: Ctrl-C is noticed between bursts


class Runtime:
    """The loaded replay loop."""

    def __init__(self) -> None:
        library = build.load(runtime_source())
        self.threads = build.thread_count()
        integer, pointer = ctypes.c_longlong, ctypes.c_void_p
        names = "gpumlp_setup", "gpumlp_run", "gpumlp_replay"
        setup, self.run, self.replay = (build.symbol(library, name) for name in names)
        setup.argtypes = [integer]
        self.run.argtypes = [pointer]
        kinds: list[Any] = [pointer, pointer, integer, pointer, *[integer] * 4]
        self.replay.argtypes = kinds
        # the same, but it keeps Python's lock
        self.replay_short = ctypes.PYFUNCTYPE(None, *kinds)(ctypes.cast(self.replay, pointer).value or 0)
        setup.restype = self.run.restype = self.replay.restype = None
        setup(self.threads)


@functools.cache
def runtime() -> Runtime:
    """The loaded runtime, the same at every call."""
    return Runtime()


class NativePlan(Plan):
    def __init__(self, ops: Sequence[Computation], steps: Steps) -> None:
        self.ops, self.steps = list(ops), steps
        self.runtime = runtime()
        table = steps.table
        self.reads_table = False
        launches = [op for op in ops if isinstance(op, Launch)]
        wanted = [
            (op.kernel, real_dtype(op.kernel, op.arrays, table.dtype), narrow_columns(op)) for op in launches
        ]
        functions = iter(functions_of(wanted))
        self.held: list[Any] = [self.ops]
        calls: list[bytes] = []
        whole: list[
            Computation
        ] = []  # what is shared among threads; of members each, unless there are enough of them
        for op in self.ops:
            function = None if isinstance(op, Gemm) else next(functions)
            if op.members is None:
                whole.append(op)
                calls.append(self._pack(op, function))
                continue
            each: list[Computation] = [op.member(j) for j in range(op.members)]
            packed = [self._pack(one, function, j * len(steps.columns)) for j, one in enumerate(each)]
            if op.members < self.runtime.threads:
                whole += each
                calls += packed
            else:
                whole.append(op)
                words, *arrays = pack_members(packed)
                calls.append(words)
                self.held += arrays
        self.ops = whole
        self.words, self.addresses = pack_together(calls)
        self.first = any(op.tick == "first" for op in launches)
        self.last = any(op.tick == "last" for op in launches)
        self._table = address_of(table), table.strides[0] if table.ndim > 1 else 0
        self._alone = self._arguments(np.array([[0, len(whole), 1]], np.int64))
        self._together: tuple[int, ...] | None = None
        self.burst, self._least = 1, 1.0

    def _arguments(self, spans: np.ndarray) -> tuple[int, ...]:
        """Those of the replay of the phases `spans`."""
        self.held.append(spans)
        return (address_of(self.addresses), address_of(spans), len(spans), *self._table)

    def _shared(self) -> tuple[int, ...]:
        """The arguments for all threads; made when they are needed."""
        if self._together is None:
            self._together = self._arguments(self.phases)
        return self._together

    @functools.cached_property
    def phases(self) -> np.ndarray:
        """See `phases.py`; of no use to a thread that runs all by itself."""
        return phases(self.ops, useful_threads(self.ops, runtime().threads))

    def _pack(self, op: Computation, function: Function | None, first_column: int = 0) -> bytes:
        if isinstance(op, Gemm):
            return pack_gemm(op)
        assert function is not None
        self.reads_table |= bool(function.stepped)
        segments = pack_segments(op.segments)
        self.held += [function, segments]
        columns = [first_column + self.steps.columns.index(name) for name in function.stepped]
        return pack(
            function, op.arrays, op.scalars, (op.rows, op.cols), columns, segments, by_rows=by_rows(op)
        )

    def run(self, n: int = 1) -> None:
        step, advance = self.steps.step, self.first and self.last
        if self.reads_table:
            end = int(step[0]) + (n if advance else min(n, 1))
            if end > len(self.steps.table):
                raise IndexError(
                    f"{n} steps from step {int(step[0])}, but the step table has {len(self.steps.table)} rows"
                )
        lane = here.lane
        if lane is not None and lane.later is not None:
            self._later(n, advance, lane.later)
            return
        while n > 0:
            if lane is not None:
                lane.check()
            count = min(n, self.burst)
            replay: Any = self.runtime.replay
            if lane is not None and lane.alone:
                arguments = self._alone
                if count * self._least < _SHORT_SECONDS:
                    replay = self.runtime.replay_short
            else:
                arguments = self._shared()
            k = int(step[0]) if self.first else int(step[1]) - 1  # see Launch.tick
            start = time.perf_counter()
            try:
                replay(*arguments, k, advance, count)
            finally:  # an interrupt that came meanwhile is raised when they have been done
                if self.first:
                    step[1] = k + (count if advance else 1)
                if self.last:
                    step[0] = step[1]
            each = (time.perf_counter() - start) / count
            self._least = min(self._least, each)
            self.burst = max(1, min(16 * count, int(_BURST_SECONDS / max(each, 1e-7))))
            n -= count

    def _later(self, n: int, advance: bool, batch: Batch) -> None:
        """Put `n` runs into `batch`; the counters are then as after them."""
        step = self.steps.step
        k = int(step[0]) if self.first else int(step[1]) - 1  # see Launch.tick
        batch.add(self, (*self._alone, k, advance, n, 0))
        if self.first:
            step[1] = k + (n if advance else 1)
        if self.last:
            step[0] = step[1]


class DividedPlan(Plan):
    """A plan with exchanges between ranks: what lies between them is replayed by one call each."""

    def __init__(self, ops: Sequence[Op], steps: Steps) -> None:
        self.parts: list[NativePlan | AllReduce] = []
        ours: list[Computation] = []
        for op in ops:
            if isinstance(op, AllReduce):
                self.parts += [NativePlan(ours, steps), op] if ours else [op]
                ours = []
            else:
                ours.append(op)
        if ours:
            self.parts.append(NativePlan(ours, steps))

    def run(self, n: int = 1) -> None:
        for _ in range(n):
            for part in self.parts:
                part.run()


class Batch:
    """Runs of plans that wait: those of each `begin` one after the other, side by side with all others.

    Which thread does them makes no difference to the results.
    """

    def __init__(self) -> None:
        self._runtime = runtime()
        self._jobs: list[int] = []
        self._owners: list[Any] = []
        self._starts = [0]
        self._operation = np.zeros(4, np.int64)  # stays where it is: pool.h keeps the pace by its address
        self._operations = np.array([address_of(self._operation)], np.int64)

    def begin(self) -> None:
        """What is added from now on need not wait for what has been added before."""
        place = len(self._jobs) // _JOB_WORDS
        if place != self._starts[-1]:
            self._starts.append(place)

    def add(self, owner: Any, job: tuple[int, ...]) -> None:
        """The words of a `Job`, see operations.h, and who owns what they point to."""
        self._jobs += job
        self._owners.append(owner)

    def add_launch(self, owner: Any, words: bytes, values_at: int) -> None:
        """A launch, as `pack` gives it; its per-step values are `values_at` bytes behind its start."""
        operation, phase = np.frombuffer(words, np.uint8), np.array([0, 1, 1], np.int64)
        place = address_of(operation)
        operations = np.array([place], np.int64)
        held = owner, operation, operations, phase
        self.add(held, (address_of(operations), address_of(phase), 1, place + values_at, 0, 0, 0, 1, 0))

    def run(self) -> None:
        """All of them, on the threads of the pool."""
        if self._jobs:
            self.begin()  # the end of the last one
            count = len(self._starts) - 1
            jobs, starts = np.array(self._jobs, np.int64), np.array(self._starts, np.int64)
            self._operation[:] = _REPLAYS, count, address_of(starts), address_of(jobs)
            phase = np.array([0, 1, min(count, 4 * self._runtime.threads, 32)], np.int64)
            self._runtime.replay(address_of(self._operations), address_of(phase), 1, 0, 0, 0, 0, 1)
        self._jobs, self._owners, self._starts = [], [], [0]
