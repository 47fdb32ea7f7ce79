"""What a launch, a node and an epoch cost, and how many nodes the recorded graphs have."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

import numpy as np

import gpumlp
from scripts.bench.bench_scaling import epoch_timer, trainer_for
from scripts.bench.torch_training import sees_cuda
from scripts.reports import graph_report
from scripts.reports.gpu.part import Part, release
from scripts.reports.gpu.steps import SHAPES
from scripts.shared.graphs import graph_of
from scripts.shared.inside import copy_plan, watched, without_graphs
from scripts.shared.timing import Candidate, calls_for, clock_of, one_call


def fit_line(points: list[tuple[float, float]]) -> tuple[float, float]:
    """(slope, value at 0) of y over x by least squares."""
    x, y = zip(*points, strict=True)
    slope, start = np.polyfit(x, y, 1)
    return float(slope), float(start)


# ---- time per node -----------------------------------------------------------------------------------------
def per_node(part: Part) -> None:
    """Chains of kernels that do nothing worth mentioning: seconds over nodes is a line."""
    backend = gpumlp.get_backend("cuda")
    clock = clock_of(backend)
    a, b = (backend.zeros(64, np.float32) for _ in range(2))
    for way in ("graph", "one by one"):
        points = []
        for nodes in (1, 4, 16) if part.quick else (1, 2, 5, 10, 20, 40, 80):
            with part.attempt(f"chain of {nodes}, {way}"):
                pairs = [((a, b), (b, a))[number % 2] for number in range(nodes)]
                with without_graphs(backend) if way != "graph" else nullcontext():
                    chain = Candidate("chain", copy_plan(backend, pairs), clock)
                sample = 0.001 if part.quick else 0.02
                count = calls_for(chain, sample)
                seconds = min(one_call(chain, count) for _ in range(2 if part.quick else 5))
                points.append((float(nodes), seconds))
                part.row("chain of small kernels", launched=way, kernels=nodes, run_s=seconds)
        if len(points) > 1:
            slope, _ = fit_line(points[len(points) // 2 :])  # of long chains: not the host's time to launch
            part.row("per launch", launched=way, further_kernel_s=slope, one_kernel_s=points[0][1])


def nodes(part: Part) -> None:
    """Time per node; nodes and longest path of the graphs of a step, and the kernels' own times."""
    per_node(part)
    for sizes, batch, _ in SHAPES[:2] if part.quick else SHAPES:
        name = f"{'-'.join(map(str, sizes))} ({batch})"
        if part.out_of_time(name):
            return
        with part.attempt(name):
            _count(part, name, sizes, batch)
    if not part.simulated and sees_cuda():
        for sizes, batch, _ in SHAPES[2:4]:
            with part.attempt(f"profile of {sizes}"):
                _profile(part, sizes, batch)
    release()


def _trained(sizes: tuple[int, ...], batch: int) -> Callable[[], Any]:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((8 * batch, sizes[0]), np.float32)
    y = rng.integers(0, sizes[-1], len(X))
    trainer = trainer_for(sizes, batch, "cuda")
    return lambda: trainer.fit(X, y, epochs=2, progress=False)


def _count(part: Part, name: str, sizes: tuple[int, ...], batch: int) -> None:
    with watched(gpumlp.get_backend("cuda")) as (operations, graphs):
        _trained(sizes, batch)()
    for number, (count, graph) in enumerate(zip(operations, graphs, strict=False)):
        cells: dict[str, Any] = {"network": name, "plan": number + 1, "operations": count}
        dot = getattr(graph, "debug_dot_str", None)
        if dot is None:
            part.row("graphs", **cells, nodes="CuPy cannot tell")
            continue
        try:
            found, longest, kernels = graph_of(dot())
        except Exception as error:
            part.row("graphs", **cells, nodes=f"not told ({type(error).__name__})")
            continue
        if not found:  # a simulator has the call and no answer
            part.row("graphs", **cells, nodes="not told")
            continue
        part.row("graphs", **cells, nodes=found, longest_path=longest)
        part.figures({"network": name, "kernels": dict(kernels)})


def _profile(part: Part, sizes: tuple[int, ...], batch: int) -> None:
    """Kernels by name, by PyTorch's profiler, which sees those of the whole process."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    fit = _trained(sizes, batch)
    fit()
    torch.zeros(1, device="cuda")
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        fit()
        gpumlp.get_backend("cuda").synchronize()
    for event in seen.key_averages():
        total = getattr(event, "device_time_total", None) or getattr(event, "cuda_time_total", 0)
        if total:
            name = event.key if len(event.key) < 70 else event.key[:67] + "..."
            cells = {"kernel": name, "times": event.count, "each_s": total * 1e-6 / event.count}
            part.row(f"kernels of 2 epochs of 8 steps, {'-'.join(map(str, sizes))}", **cells)


# ---- epochs ------------------------------------------------------------------------------------------------
def epochs(part: Part) -> None:
    """Epochs of 1 and of more steps: what an epoch costs beside its steps."""
    for sizes, batch, _ in SHAPES[2:3] if part.quick else (SHAPES[0], SHAPES[2], SHAPES[3]):
        name = f"{'-'.join(map(str, sizes))} ({batch})"
        for device in ("cuda", "native"):
            points = []
            for steps in (1, 4) if part.quick else (1, 10, 100):
                if part.out_of_time(name):
                    return
                with part.attempt(f"{name}, {steps} steps, {device}"):
                    turn = epoch_timer(sizes, steps * batch, device, batch)
                    turn()
                    seconds = min(turn() for _ in range(1 if part.quick else 3))
                    points.append((float(steps), seconds))
                    part.row("epochs", network=name, executor=device, steps=steps, epoch_s=seconds)
            if len(points) > 1:
                step, epoch = fit_line(points)
                part.row("per epoch", network=name, executor=device, epoch_s=max(epoch, 0.0), step_s=step)
    release()


def graphs(part: Part) -> None:
    """Launches, copies and synchronisations of an epoch, as `graph_report.py` counts them."""
    chosen = graph_report.setups()
    for setup in chosen[:3] if part.quick else chosen:
        if part.out_of_time(setup.label):
            return
        with part.attempt(setup.label):
            counts = graph_report.measure(setup)
            cells = {name: value for name, value in asdict(counts).items() if value is not None}
            cells["step_s"] = cells.pop("seconds_per_step")
            part.row("per epoch", **cells, node_limit=setup.node_limit)
            for line in graph_report.problems(setup, counts):
                part.problem(line)
