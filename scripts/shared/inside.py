"""What the scripts need from inside gpumlp; everywhere else in scripts/ public names are used."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

import gpumlp


def aligned_empty(size: int) -> np.ndarray:
    """Uninitialised float32 array, aligned well enough for every library."""
    from gpumlp.backends.numpy import aligned_empty as made

    return made(size, np.float32)


def epoch_order(seed: int, epoch: int, n: int) -> np.ndarray:
    """Row order (n,) of an epoch, as the `Trainer` draws it."""
    from gpumlp.rows import epoch_order as order

    return order(seed, epoch, n)


def evaluation_launches(sizes: Sequence[int], rows: int) -> int:
    """Graph launches of one evaluation of `rows` rows: its chunks, and the sums."""
    from gpumlp.plans import forward_rows

    return -(-rows // forward_rows(gpumlp.MLP(sizes, device="numpy"))) + 1 if rows else 0


def optimizer_kernel_name(trainer: gpumlp.Trainer) -> str:
    """Name of the kernel that a step of `trainer` ends with."""
    return trainer.optimizer.kernel(clip=trainer.clip_norm is not None).name


def state_count(optimizer: gpumlp.optimizers.Optimizer) -> int:
    """Number of state arrays."""
    return len(optimizer.arrays())


class _OneThread:
    """See `gpumlp.backends.lane.Lane`."""

    alone, later = True, None

    def check(self) -> None:
        """Nothing ends it."""


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Plans of the native executor that the calling thread runs inside run on this thread only."""
    from gpumlp.backends.lane import here

    usual, here.lane = here.lane, _OneThread()
    try:
        yield
    finally:
        here.lane = usual


# ---- plans -------------------------------------------------------------------------------------------------
def update_plan(optimizer: Any, lr: float, backend: Any, p: Any, g: Any) -> Callable[[int], None]:
    """run(k): the kernel of `optimizer` on `p` and `g`, replayed from a recorded plan as in training."""
    from gpumlp.backends.base import Steps
    from gpumlp.backends.operations import Launch

    optimizer.init_state([p], backend)
    kernel = optimizer.kernel()
    arrays = {"g": g, "p": p, **{n: optimizer.state[0][n] for n in optimizer.arrays()}}
    values = optimizer.step_values(1, lr)
    steps = Steps(backend, kernel.stepped, np.float32)
    steps.fill(values)
    steps.send()
    segments = [(0, p.size, 1.0)] if kernel.masked else None
    launch = Launch(kernel, arrays, optimizer.scalars(kernel), 1, p.size, segments)
    return backend.record([launch], steps).run


def _copy_reference(x: np.ndarray, y: np.ndarray, k: int = 0) -> None:
    y[...] = x


def copy_plan(backend: Any, pairs: Sequence[tuple[Any, Any]]) -> Callable[[int], None]:
    """run(k): for each (source, target) of 1-D float32 arrays one launch of a kernel that copies."""
    from gpumlp.kernels.kernel import Kernel

    from gpumlp.backends.base import Steps
    from gpumlp.backends.operations import Launch

    kernel = Kernel("gpumlp_copy", "y = x;", _copy_reference, inputs="T x", outputs="T y")
    ops = [Launch(kernel, {"x": x, "y": y}, {}, 1, x.size) for x, y in pairs]
    return backend.record(ops, Steps(backend)).run


@contextlib.contextmanager
def watched(backend: Any) -> Iterator[tuple[list[int], list[Any]]]:
    """(operations of each plan, CUDA graphs) that `backend` records inside."""
    operations: list[int] = []
    graphs: list[Any] = []
    usual_record, usual_capture = backend.record, getattr(backend, "capture", None)

    def record(ops: Sequence[Any], *rest: Any, **named: Any) -> Any:
        operations.append(len(ops))
        return usual_record(ops, *rest, **named)

    def capture(*given: Any, **named: Any) -> Any:
        graphs.append(usual_capture(*given, **named))
        return graphs[-1]

    backend.record = record
    if usual_capture is not None:
        backend.capture = capture
    try:
        yield operations, graphs
    finally:  # the instance's; the class has its own
        del backend.record
        if usual_capture is not None:
            del backend.capture


@contextlib.contextmanager
def without_graphs(backend: Any) -> Iterator[None]:
    """What is recorded inside is launched one by one, as with GPUMLP_GRAPH=0."""
    usual = backend.graph
    backend.graph = False
    try:
        yield
    finally:
        backend.graph = usual
