"""Times of a training step: gpumlp on GPU and CPU, PyTorch, JAX; and where the CPU is the faster one."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import gpumlp
from scripts.bench.torch_training import sees_cuda, with_graph, with_torch
from scripts.bench.training_peers import jax_device, with_jax
from scripts.bench.training_task import Epoch, Task, with_gpumlp
from scripts.reports.gpu.part import Make, Part, release
from scripts.shared.inside import without_graphs

PRECISIONS = ("float32", "tf32", "bfloat16", "float16")
OURS = "gpumlp float32"
#: sizes, batch, steps per epoch
SHAPES = (
    ((32, 16, 2), 32, 300),
    ((8, 64, 64, 2), 256, 200),
    ((64, 128, 10), 64, 200),
    ((784, 256, 128, 10), 128, 200),
    ((784, 1024, 1024, 10), 256, 100),
)
#: networks from small to large: where does the GPU become the faster one?
LADDER = (
    ((32, 16, 2), 32),
    ((32, 16, 2), 256),
    ((64, 128, 10), 64),
    ((8, 64, 64, 2), 256),
    ((64, 256, 10), 128),
    ((128, 256, 10), 256),
    ((256, 256, 128, 10), 128),
    ((784, 256, 128, 10), 128),
    ((784, 512, 512, 10), 128),
    ((784, 1024, 1024, 10), 256),
)


def _task(part: Part, sizes: Sequence[int], batch: int, steps: int) -> Task:
    return Task(sizes, batch, 4 if part.quick else steps)


def _per_step(task: Task, make: Callable[[], Epoch], losses: dict[str, float], name: str) -> Make:
    """The epoch function that `make` gives, as seconds per step; keeps its loss."""

    def ready() -> Callable[[], float]:
        epoch = make()

        def run() -> float:
            seconds, losses[name] = epoch()
            return seconds / task.steps

        return run

    return ready


def _on_cpu(task: Task) -> Epoch:
    return with_gpumlp(task, gpumlp.get_backend("native"))


def _one_by_one(task: Task, precision: str) -> Epoch:
    """As with GPUMLP_GRAPH=0: every kernel is launched by the host."""
    backend = gpumlp.get_backend("cuda")
    with without_graphs(backend):
        epoch = with_gpumlp(task, backend, precision=precision)

    def pair() -> tuple[float, float]:
        with without_graphs(backend):  # a `fit` may record plans
            return epoch()

    return pair


def ours(task: Task, precisions: Sequence[str], eager: bool) -> dict[str, Callable[[], Epoch]]:
    """gpumlp on the GPU with graphs and, with `eager`, without; and on the CPU."""
    backend = gpumlp.get_backend("cuda")
    makes: dict[str, Callable[[], Epoch]] = {}
    for precision in precisions:
        makes[f"gpumlp {precision}"] = functools.partial(with_gpumlp, task, backend, precision=precision)
    for precision in precisions if eager else ():
        makes[f"gpumlp {precision}, no graph"] = functools.partial(_one_by_one, task, precision)
    makes["gpumlp native (CPU)"] = functools.partial(_on_cpu, task)
    return makes


def peers(part: Part, task: Task, more: bool) -> dict[str, Callable[[], Epoch]]:
    """PyTorch and JAX in float32 and, with `more`, in TF32 and bfloat16 as well."""
    makes: dict[str, Callable[[], Epoch]] = {}
    if part.simulated:
        return makes
    if sees_cuda():
        for precision in ("float32", "tf32", "bfloat16") if more else ("float32",):
            makes[f"PyTorch graph {precision}"] = functools.partial(with_graph, task, precision)
        makes["PyTorch eager float32"] = functools.partial(with_torch, task, False, "cuda")
    if jax_device():
        for precision in ("float32", "tf32") if more else ("float32",):
            makes[f"JAX scan {precision}"] = functools.partial(with_jax, task, True, "cuda", precision)
    return makes


def note_missing(part: Part) -> None:
    """Which peers are left out."""
    if part.simulated:
        part.note("Simulated device: PyTorch and JAX are left out.")
        return
    for name, there in (("PyTorch", sees_cuda()), ("JAX", bool(jax_device()))):
        if not there:
            part.note(f"{name} is not installed or sees no CUDA device: left out.")


def compare(part: Part, title: str, task: Task, makes: dict[str, Callable[[], Epoch]], repeats: int) -> None:
    """Rows of one shape."""
    losses: dict[str, float] = {}
    ready = {name: _per_step(task, make, losses, name) for name, make in makes.items()}
    found = part.turns(task.name, ready, repeats)
    own = found.get(OURS, {}).get("median", math.nan)
    for name, t in found.items():
        part.row(
            title,
            network=task.name,
            candidate=name,
            step_s=t["median"],
            spread=f"{t['spread']:.0%}",
            over_ours=f"{t['median'] / own:.2f}",
            loss=f"{losses[name]:.4f}",
        )
    release()


# ---- parts -------------------------------------------------------------------------------------------------
def training(part: Part) -> None:
    """Five networks, all precisions, with and without graphs, beside the peers."""
    note_missing(part)
    shapes = SHAPES[1:3] if part.quick else SHAPES
    for sizes, batch, steps in shapes:
        if part.out_of_time("the step times of " + "-".join(map(str, sizes))):
            return
        with part.attempt(f"{sizes}, {batch}"):
            task = _task(part, sizes, batch, steps)
            makes = {**ours(task, PRECISIONS, eager=True), **peers(part, task, more=True)}
            compare(part, "time per step", task, makes, 7)
    if part.simulated or not sees_cuda():
        return
    for sizes, batch, steps in shapes:  # by itself at the end: it may compile for half a minute, or fail
        if part.out_of_time("torch.compile of " + "-".join(map(str, sizes))):
            return
        with part.attempt(f"torch.compile, {sizes}, {batch}"):
            task = _task(part, sizes, batch, steps)
            makes = ours(task, PRECISIONS[:1], eager=False)
            makes = {OURS: makes[OURS]}
            makes["PyTorch compiled float32"] = functools.partial(with_torch, task, True, "cuda")
            compare(part, "time per step, torch.compile", task, makes, 7)


def agreement(part: Part) -> None:
    """Does the GPU compute what the CPU computes?"""
    losses = {}
    for name in ("cuda", "numpy"):
        task = Task((64, 128, 10), 64, 8)
        epoch = with_gpumlp(task, gpumlp.get_backend(name))
        losses[name] = epoch()[1]
    part.row("GPU against NumPy", what="loss of the second epoch, 64-128-10 (64)", **losses)
    if not abs(losses["cuda"] - losses["numpy"]) <= 1e-4 * abs(losses["numpy"]):
        part.problem(f"the losses of GPU and NumPy differ: {losses}")


def own_steps(part: Part) -> None:
    """Step times of gpumlp in float32, all networks."""
    for shape in SHAPES[:3] if part.quick else SHAPES:
        task = _task(part, *shape)
        with part.attempt(task.name):
            compare(part, "time per step, float32", task, ours(task, PRECISIONS[:1], eager=False), 5)


def peers_steps(part: Part) -> None:
    """Step times in float32 beside the peers."""
    note_missing(part)
    for shape in SHAPES[:3] if part.quick else SHAPES:
        task = _task(part, *shape)
        makes = peers(part, task, more=False)
        if not makes or part.out_of_time(f"the peers' step times of {task.name}"):
            return
        with part.attempt(task.name):
            own = {OURS: ours(task, PRECISIONS[:1], eager=False)[OURS]}
            compare(part, "time per step, float32, beside peers", task, {**own, **makes}, 5)


def auto(part: Part) -> None:
    """At which sizes is the CPU the faster one, though device="auto" takes the GPU?"""
    for sizes, batch in LADDER[:2] if part.quick else LADDER:
        name = f"{'-'.join(map(str, sizes))} ({batch})"
        if part.out_of_time(name):
            break
        with part.attempt(name):
            task = _task(part, sizes, batch, 100)
            makes = ours(task, PRECISIONS[:1], eager=False)
            losses: dict[str, float] = {}
            ready = {which: _per_step(task, make, losses, which) for which, make in makes.items()}
            found = {which: t["median"] for which, t in part.turns(name, ready, 5).items()}
            _faster(part, "training step", network=name, times=found)
    for sizes in ((64, 128, 10), (784, 256, 128, 10)):
        for rows in (1, 100) if part.quick else (1, 100, 10_000, 100_000):
            name = f"prediction of {rows:,} rows, {'-'.join(map(str, sizes))}"
            if part.out_of_time(name):
                return
            with part.attempt(name):
                ready = {d: _predicting(sizes, rows, d) for d in ("cuda", "native")}
                found = {d: t["median"] for d, t in part.turns(name, ready, 5).items()}
                _faster(part, "prediction", network=name, times=found)
    release()


def _predicting(sizes: Sequence[int], rows: int, device: str) -> Make:
    def make() -> Callable[[], float]:
        model = gpumlp.MLP(sizes, seed=0, device=device)
        X = np.random.default_rng(0).standard_normal((rows, sizes[0]), np.float32)

        def run() -> float:
            calls = max(1, 1000 // rows)
            start = time.perf_counter()
            for _ in range(calls):
                model.predict(X)
            return (time.perf_counter() - start) / calls

        return run

    return make


def _faster(part: Part, title: str, network: str, times: dict[str, Any]) -> None:
    gpu = times.get(OURS, times.get("cuda", math.nan))
    cpu = times.get("gpumlp native (CPU)", times.get("native", math.nan))
    verdict = "GPU" if gpu < cpu else "CPU" if cpu < gpu else "?"
    verdict = "simulated" if part.simulated else verdict
    part.row(title, network=network, cpu_s=cpu, gpu_s=gpu, cpu_over_gpu=f"{cpu / gpu:.2f}", faster=verdict)
