"""Which operations of a plan run side by side: nothing overtakes what it needs; needs no GPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp.backends.accesses import dependencies
from gpumlp.backends.base import Steps
from gpumlp.backends.cuda.branches import START, Place, branches
from gpumlp.backends.numpy import NumpyBackend
from gpumlp.backends.operations import Gemm, Op

#: sizes, options of the network, options of the trainer, longest chain of a step
PLANS: dict[str, tuple[list[int], dict[str, Any], dict[str, Any], int]] = {
    "one layer": ([7, 3], {}, {}, 5),
    "two layers": ([7, 5, 3], {}, {}, 9),
    "three layers": ([9, 8, 5, 3], {}, {}, 13),
    "z kept, dropout": ([9, 8, 5, 3], {"activation": "gelu", "dropout": 0.2}, {"l2": 1e-3}, 13),
    "no activation": ([9, 8, 5, 3], {"activation": "identity"}, {}, 9),
    "clipped": ([9, 8, 7, 6, 5, 3], {}, {"clip_norm": 1.0}, 4 * 5 + 1 + 2),
}


class Recorder(NumpyBackend):
    """Keeps the plans."""

    def __init__(self) -> None:
        self.plans: list[tuple[Sequence[Op], Steps]] = []

    def record(self, ops: Sequence[Op], steps: Steps) -> Any:
        self.plans.append((list(ops), steps))
        return super().record(ops, steps)


def plans_of(name: str) -> list[tuple[Sequence[Op], Steps]]:
    """All plans of a training: steps of two sizes, evaluation, sums."""
    sizes, network, trainer, _ = PLANS[name]
    backend = Recorder()
    model = gpumlp.MLP(sizes, device=backend, **network)
    X, y = np.random.default_rng(0).normal(size=(20, sizes[0])), np.arange(20) % sizes[-1]
    t = gpumlp.Trainer(model, loss="softmax_cross_entropy", optimizer="adam", batch_size=8, **trainer)
    t.fit(X, y, epochs=1, validation=(X, y), progress=False)
    return backend.plans


def touched(op: Op, steps: Steps) -> tuple[set[int], set[int]]:
    """Addresses of all bytes (of every element, none between them) that are read, and that are written."""
    reads, writes = set[int](), set[int]()
    if isinstance(op, Gemm):
        arrays = [(op.a, reads), (op.b, reads), (op.c, writes)]
    else:
        arrays = []
        for spec in op.kernel.arrays:
            array = op.arrays[spec.name]
            if not spec.role.startswith("raw"):
                array = array[: op.cols] if array.ndim == 1 else array[: op.rows, : op.cols]
            arrays.append((array, reads if spec.role in ("in", "raw") else writes))
        done, running = steps.step[:1], steps.step[1:]
        arrays.append((done if op.tick == "first" else running, reads))
        if op.tick:
            arrays.append((running if op.tick == "first" else done, writes))
    for array, into in arrays:
        places = np.array(array.ctypes.data)
        for n, stride in zip(array.shape, array.strides, strict=True):
            places = places[..., None] + stride * np.arange(n)
        into.update((places[..., None] + np.arange(array.itemsize)).ravel().tolist())
    return reads, writes


def disorder(ops: Sequence[Op], steps: Steps, plan: Sequence[Place]) -> list[tuple[int, int]]:
    """Pairs of operations that touch the same memory, one writing, and may run in the wrong order."""
    ahead: dict[int, set[int]] = {START: set()}
    last: dict[bool, int | None] = {False: None, True: None}
    for place in plan:
        before = set[int]()
        for other in (last[place.side], place.wait):
            if other is not None:
                before |= {other} | ahead[other]
        ahead[place.op], last[place.side] = before, place.op
    uses = [touched(op, steps) for op in ops]
    return [
        (a, b)
        for b, (reads, writes) in enumerate(uses)
        for a, (earlier_reads, earlier_writes) in enumerate(uses[:b])
        if (writes & (earlier_reads | earlier_writes) or reads & earlier_writes) and a not in ahead[b]
    ]


@pytest.mark.parametrize("name", PLANS)
def test_nothing_overtakes_what_it_needs(name: str) -> None:
    for ops, steps in plans_of(name):
        plan = branches(ops, steps)
        assert sorted(place.op for place in plan) == list(range(len(ops)))
        assert disorder(ops, steps, plan) == []


@pytest.mark.parametrize("name", PLANS)
def test_every_wait_is_needed(name: str) -> None:
    """Without any one of them something is out of order, or, at the start of a branch, not in the graph."""
    for ops, steps in plans_of(name):
        plan = branches(ops, steps)
        for n, place in enumerate(plan):
            if place.wait not in (None, START):
                without = [*plan[:n], dataclasses.replace(place, wait=None), *plan[n + 1 :]]
                assert disorder(ops, steps, without), f"{place} waits for nothing"


@pytest.mark.parametrize("name", PLANS)
def test_weight_gradients_run_beside_the_longest_chain(name: str) -> None:
    sizes, *_, chain = PLANS[name]
    ops, steps = next(
        plan for plan in plans_of(name) if any(isinstance(op, Gemm) and op.trans_a for op in plan[0])
    )
    plan = branches(ops, steps)
    beside = [ops[place.op] for place in plan if place.side]
    assert len(ops) - len(beside) == chain
    assert all(isinstance(op, Gemm) and op.trans_a for op in beside) and len(beside) == len(sizes) - 2
    assert [op.a.shape[1] for op in beside] == [n + 1 for n in sizes[-2:0:-1]]  # the last layer's is first
    if beside:
        assert next(place for place in plan if place.side).wait is not None


def test_a_branch_that_needs_nothing_starts_with_the_graph() -> None:
    a, b, c, d, e = (np.ones((4, 4)) for _ in range(5))
    steps = Steps(NumpyBackend())
    ops = [Gemm(a, a, b), Gemm(b, b, c), Gemm(a, a, d), Gemm(c, d, e)]
    assert branches(ops, steps) == [Place(0), Place(2, True, START), Place(1), Place(3, False, 2)]
    assert branches([], steps) == []


def test_the_work_grows_with_the_number_of_operations() -> None:
    """Of a chain, each operation needs its predecessor only, and what is read by all is no reason to wait."""
    buffers = [np.ones((2, 2)) for _ in range(400)]
    shared = np.ones((2, 2))
    steps = Steps(NumpyBackend())
    ops = [Gemm(a, shared, b) for a, b in zip(buffers, buffers[1:], strict=False)]
    assert dependencies([*ops, Gemm(shared, shared, buffers[0])], steps) == [
        set(),
        *({n} for n in range(len(ops) - 1)),
        {0},
    ]
