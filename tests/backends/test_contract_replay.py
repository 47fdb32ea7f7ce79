"""Recorded plans: counters, order, step table, tick, repeatability, and the life of their arrays."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
from contract import PLACE, TANH, adam, expected, plan, state
from launching import steps_with
from tolerances import close

from gpumlp.backends.operations import Launch

pytestmark = pytest.mark.memory


def test_a_plan_agrees_with_numpy_and_counts_its_steps(backend: Any, dtype: Any) -> None:
    ops, steps, w = plan(backend, dtype=dtype)
    replay = backend.record(ops, steps)
    assert steps.step.tolist() == [0, 1]  # recording does not step
    replay.run(3)
    assert steps.step.tolist() == [3, 3]
    replay.run()
    close(backend.to_numpy(w), expected(4, dtype), "small plan")
    assert steps.step.tolist() == [4, 4]


def test_recording_changes_nothing_but_outputs_of_products(backend: Any) -> None:
    ops, steps, w = plan(backend)
    before = backend.to_numpy(w)
    backend.record(ops, steps)
    assert np.array_equal(backend.to_numpy(w), before)


@pytest.mark.parametrize("pieces", [(4,), (1, 1, 1, 1), (1, 3), (2, 2)], ids=str)
def test_steps_in_pieces_are_the_same_to_the_bit(backend: Any, pieces: tuple) -> None:
    results = []
    for parts in ((4,), pieces):
        ops, steps, w = plan(backend)
        replay = backend.record(ops, steps)
        for n in parts:
            replay.run(n)
        results.append(backend.to_numpy(w))
    assert np.array_equal(*results)


@pytest.mark.parametrize("tick, counters, k", [("", (4, 5), 4), ("last", (4, 5), 4), ("first", (6, 5), 6)])
def test_k_is_the_number_of_the_running_step(backend: Any, tick: str, counters: Any, k: int) -> None:
    """See `Launch.tick`: who reads and who advances which counter."""
    out = backend.zeros((2, 3), "float64")
    steps = steps_with(backend, ("unused",), np.zeros((9, 1)), counters)
    backend.record([Launch(PLACE, {"out": out}, {"scale": 10}, 2, 3, tick=tick)], steps).run()
    row = np.arange(3) + 1000 * k
    assert backend.to_numpy(out).tolist() == [row.tolist(), (row + 10).tolist()]
    after = {"": counters, "last": (5, 5), "first": (6, 7)}[tick]
    assert tuple(steps.step.tolist()) == after


def test_operations_run_in_their_order(backend: Any) -> None:
    """Each reads what the one before has written, and writes where an earlier one has read."""
    a, b = (backend.asarray(np.full((40, 7), value)) for value in (0.5, 9.0))
    ops = [Launch(TANH, {"z": x, "a": y}, {}, 40, 7) for x, y in ((a, b), (b, a), (a, a), (a, b))]
    backend.record(ops, steps_with(backend)).run(2)
    value = np.float64(0.5)
    for _ in range(2):
        value = np.tanh(np.tanh(np.tanh(value)))
    close(backend.to_numpy(a), np.full((40, 7), value), "elementwise")
    close(backend.to_numpy(b), np.full((40, 7), np.tanh(value)), "elementwise")


def test_a_plan_keeps_its_arrays(backend: Any) -> None:
    ops, steps, w = plan(backend)
    watched = weakref.ref(ops[0].arrays["X"])
    replay = backend.record(ops, steps)
    del ops, steps
    gc.collect()
    assert watched() is not None
    junk = [backend.empty(120, "float32") for _ in range(20)]  # would reuse memory that was given back
    for array in junk:
        array.fill(1e9)
    replay.run(4)
    close(backend.to_numpy(w), expected(4), "small plan")


def test_a_plan_lets_its_arrays_go(backend: Any) -> None:
    ops, steps, w = plan(backend)
    watched = [weakref.ref(array) for op in ops for array in getattr(op, "arrays", {}).values()]
    replay = backend.record(ops, steps)
    replay.run(4)
    backend.synchronize()
    del ops, steps, w, replay
    gc.collect()
    assert [array() for array in watched] == [None] * len(watched)


def test_executors_do_not_keep_kernels_alive(backend: Any) -> None:
    """A kernel's reference may hold an optimiser with all its state."""
    kernel = adam()
    arrays = {n: backend.asarray(a) for n, a in state(5, np.float32).items()}
    backend.elementwise(kernel, arrays, {"beta": 0.9}, {"lr": 0.01})
    watched = weakref.ref(kernel)
    del kernel
    gc.collect()
    assert watched() is None
