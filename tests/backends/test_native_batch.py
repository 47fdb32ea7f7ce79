"""Runs of plans that wait for each other in a batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from gpumlp.kernels.kernel import Kernel

from gpumlp.backends.base import Plan, Steps
from gpumlp.backends.lane import here
from gpumlp.backends.native.backend import NativeBackend
from gpumlp.backends.native.plan import Batch
from gpumlp.backends.numpy import NumpyBackend
from gpumlp.backends.operations import Launch

pytestmark = pytest.mark.skipif(
    NativeBackend.why_not() is not None, reason=f"no native executor: {NativeBackend.why_not()}"
)


class _Later:
    """A lane that puts plans into a batch."""

    alone = True

    def __init__(self) -> None:
        self.later = Batch()

    def check(self) -> None:
        """Nothing ends it."""


@pytest.fixture
def batch() -> Iterator[Batch]:
    here.lane = lane = _Later()
    yield lane.later
    here.lane = None


def _reference(x: np.ndarray, y: np.ndarray, rate: Any, k: int = 0) -> None:
    y += rate * x


ADD = Kernel(
    "gpumlp_test_batch",
    "y += rate * x;",
    _reference,
    inputs="C x",
    inouts="C y",
    stepped=("rate",),
)


def add_plan(backend: Any, x: np.ndarray, y: np.ndarray, rates: list[float]) -> tuple[Plan, Steps]:
    """y += rate x, with the rate of the step."""
    steps = Steps(backend, ("rate",), np.float32, len(rates))
    steps.fill({"rate": np.array(rates)})
    steps.send()
    first = Launch(ADD, {"x": x, "y": y}, {}, 1, x.size, tick="first")
    last = Launch(ADD, {"x": x, "y": y}, {}, 1, x.size, tick="last")
    return backend.record([first, last], steps), steps


def test_runs_of_a_sequence_follow_each_other(batch: Batch) -> None:
    backend, chains = NativeBackend(), []
    for number in range(70):  # more than there are shares
        arrays = [backend.zeros(40 + number, np.float32) for _ in range(3)]
        arrays[0][:] = 1
        plans = [add_plan(backend, *arrays[i : i + 2], [1.0, 2.0, number]) for i in range(2)]
        chains.append((arrays, plans))
    for turn in range(2):
        for arrays, ((one, steps), (other, _)) in chains:
            batch.begin()
            before = arrays[1].copy()
            if turn == 0:
                one.run(2)
                assert steps.step[0] == 2  # as after them
                other.run()
            else:
                one.run()
                other.run(2)
            np.testing.assert_array_equal(arrays[1], before)
        batch.run()
    for number, (arrays, _) in enumerate(chains):
        first = 2 * (1 + 2)  # both launches of a step do the same
        np.testing.assert_array_equal(arrays[1], first + 2 * number)
        np.testing.assert_array_equal(arrays[2], 2 * first + 2 * (2 + number) * (first + 2 * number))


def test_a_batch_is_empty_after_its_run(batch: Batch) -> None:
    backend = NativeBackend()
    x, y = backend.zeros(5, np.float32), backend.zeros(5, np.float32)
    x[:] = 1
    plan, _ = add_plan(backend, x, y, [1.0])
    plan.run()  # without begin
    for _ in range(3):
        batch.run()
    np.testing.assert_array_equal(y, 2)


def test_steps_beyond_the_table_are_refused(batch: Batch) -> None:
    backend = NativeBackend()
    x, y = backend.zeros(5, np.float32), backend.zeros(5, np.float32)
    plan, _ = add_plan(backend, x, y, [1.0, 1.0])
    plan.run()
    with pytest.raises(IndexError, match="2 steps from step 1"):
        plan.run(2)


def test_numpy_code_does_not_overtake(batch: Batch) -> None:
    """A plan that could not be compiled runs at once, after those that wait."""
    backend = NativeBackend()
    x, y, z = (backend.zeros(5, np.float32) for _ in range(3))
    x[:] = 1
    add_plan(backend, x, y, [1.0])[0].run()
    add_plan(NumpyBackend(), y, z, [1.0])[0].run()
    np.testing.assert_array_equal(z, 4)


def test_launches_wait_their_turn(batch: Batch) -> None:
    backend = NativeBackend()
    x, y, z = (backend.zeros(50, np.float32) for _ in range(3))
    x[:] = 1
    add_plan(backend, x, y, [1.0])[0].run()
    backend.launch(ADD, {"x": y, "y": z}, {}, {"rate": 3.0}, rows=1, cols=50)
    add_plan(backend, z, y, [1.0])[0].run()
    assert not y.any() and not z.any()
    batch.run()
    np.testing.assert_array_equal(z, 6)
    np.testing.assert_array_equal(y, 2 + 12)


def test_copies_do_not_overtake(batch: Batch) -> None:
    backend = NativeBackend()
    x, y, z = (backend.zeros(5, np.float32) for _ in range(3))
    x[:] = 1
    add_plan(backend, x, y, [1.0])[0].run()
    backend.copy(z, y)
    np.testing.assert_array_equal(z, 2)
