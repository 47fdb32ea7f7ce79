"""Count what a training epoch asks of the CUDA device: launches, copies, synchronisations, allocations.

Trains several networks for a few epochs and shows, for an epoch after the first: graph launches, other kernel
launches, copies to and from the device, copies on it, memsets, synchronisations, cudaMallocs and the bytes
held by the memory pool; and per graph of a full step its nodes and optimiser kernels.  Under a simulator that
counts (the module `simgpu`) all figures are exact; on a GPU only the operations per graph, the pool and the
time per step are known, and the rest is shown as "-".

"nodes" are those of the graph of a full step, "path" its longest path: nodes that wait for each other; all
others run beside.  With --one-branch operations follow each other as they stand in the plan.

Exit status 1 if a figure exceeds its limit: graph launches = steps (and evaluation passes) and one for the
epoch's sums, no other launches, 1 copy each way and 1 synchronisation per epoch, no allocation, no memset,
constant pool bytes, at most 5 nodes per weight layer (2 more with clip_norm), L - 1 of them beside the
longest path, one optimiser kernel per step.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import gpumlp
from scripts.shared.command import check_writable, write_json
from scripts.shared.graphs import graph_of
from scripts.shared.inside import evaluation_launches, optimizer_kernel_name, watched
from scripts.shared.machine import facts_line, machine, simulator
from scripts.shared.show import table

EPOCHS = 4


@dataclass(frozen=True)
class Setup:
    """One training: layer sizes, rows, batch, and arguments of `MLP`, `Trainer` and `fit`."""

    label: str
    sizes: tuple[int, ...]
    rows: int
    batch: int
    optimizer: Callable[[], Any]
    loss: str = "softmax_cross_entropy"
    model: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)
    validation: int = 0

    @property
    def layers(self) -> int:
        """Weight layers."""
        return len(self.sizes) - 1

    @property
    def steps(self) -> int:
        """Per epoch."""
        return -(-self.rows // self.batch)

    @property
    def evaluations(self) -> int:
        """Graph launches of one evaluation: its chunks of rows, and the sums."""
        return evaluation_launches(self.sizes, self.validation)

    @property
    def node_limit(self) -> int:
        """Nodes of the graph of a step."""
        return 5 * self.layers + (2 if "clip_norm" in self.trainer else 0)

    @property
    def path_limit(self) -> int:
        """Nodes on the longest path: gradients of weights, but those of the first layer, are beside it."""
        return self.node_limit - (self.layers - 1)


def setups() -> list[Setup]:
    """What is counted."""
    adam = lambda: gpumlp.Adam(lr=1e-3)  # noqa: E731
    return [
        Setup("784-256-128-10", (784, 256, 128, 10), 1024, 128, adam),
        Setup("784-256-128-10, last batch short", (784, 256, 128, 10), 1000, 128, adam),
        Setup("32-16-2", (32, 16, 2), 640, 32, lambda: gpumlp.RMSProp(lr=1e-3)),
        Setup("784-10", (784, 10), 512, 128, lambda: gpumlp.SGD(lr=0.1)),
        Setup(
            "8-64-64-1 gelu, dropout, l2",
            (8, 64, 64, 1),
            512,
            64,
            lambda: gpumlp.AdaGrad(lr=1e-2),
            "squared_error",
            {"activation": "gelu", "dropout": 0.2},
            {"l2": 1e-4},
        ),
        Setup(
            "20-(32)x4-3, clipped, decay",
            (20, 32, 32, 32, 32, 3),
            512,
            64,
            lambda: gpumlp.AdamW(lr=1e-3, weight_decay=1e-2),
            trainer={"clip_norm": 1.0, "schedule": "cosine"},
        ),
        Setup("784-256-128-10, validation", (784, 256, 128, 10), 1024, 128, adam, validation=300),
    ]


@dataclass
class Counts:
    """Per epoch, and per graph of a full step; None where the device does not say."""

    label: str
    steps: int
    graph_launches: int | None
    other_launches: int | None
    h2d: int | None
    d2h: int | None
    d2d: int | None
    memsets: int | None
    syncs: int | None
    mallocs: int | None
    pool_bytes: int
    pool_growth: int
    operations: int
    nodes: int | None
    path: int | None
    optimizer_kernels: float | None
    seconds_per_step: float


def _data(setup: Setup) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    found = []
    for rows in (setup.rows, setup.validation):
        X = rng.standard_normal((rows, setup.sizes[0]), np.float32)
        y = rng.integers(0, setup.sizes[-1], rows) if setup.sizes[-1] > 1 else X[:, 0] - X[:, 1]
        found.append((X, y))
    return found


def measure(setup: Setup, device: Any = "cuda") -> Counts:
    """Train and count; the figures of the worst epoch after the first."""
    counter = simulator()
    model = gpumlp.MLP(setup.sizes, device=device, **setup.model)
    backend = model.backend
    pool = backend.xp.get_default_memory_pool()
    epochs: list[tuple[dict[str, Any], int]] = []

    def after(trainer: Any, history: Any) -> None:
        epochs.append((counter.counters() if counter else {}, pool.total_bytes()))
        if counter:
            counter.reset()

    trainer = gpumlp.Trainer(
        model,
        loss=setup.loss,
        optimizer=setup.optimizer(),
        batch_size=setup.batch,
        callbacks=[after],
        **setup.trainer,
    )
    with watched(backend) as (operations, graphs):
        train, held = _data(setup)
        start = time.perf_counter()
        history = trainer.fit(
            *train, epochs=EPOCHS, validation=held if setup.validation else None, progress=False
        )
        backend.synchronize()
    seconds = min(history.seconds[1:], default=time.perf_counter() - start) / setup.steps
    step = max(zip(operations, graphs, strict=True), key=lambda each: each[0])  # the longest plan
    return _counts(setup, trainer, epochs[1:], *step, seconds)


def _counts(
    setup: Setup,
    trainer: Any,
    epochs: list[tuple[dict[str, Any], int]],
    operations: int,
    graph: Any,
    seconds: float,
) -> Counts:
    pool = [held for _, held in epochs]

    def worst(*names: str) -> int | None:
        if not epochs[0][0]:
            return None
        return max(sum(int(counts.get(name, 0)) for name in names) for counts, _ in epochs)

    nodes, path, _ = graph_of(getattr(graph, "debug_dot_str", str)())
    if not nodes:  # CuPy or the device does not say
        nodes = path = None
    share = None
    counts = epochs[-1][0]
    if counts and not setup.validation:
        kernel = optimizer_kernel_name(trainer)
        share = counts["graph_kernels_by_name"].get(kernel, 0) / setup.steps
    return Counts(
        setup.label,
        setup.steps,
        worst("graph_launches"),
        worst("kernel_launches"),
        worst("memcpy_h2d_count"),
        worst("memcpy_d2h_count"),
        worst("memcpy_d2d_count"),
        worst("memset_count"),
        worst("stream_syncs", "device_syncs", "event_syncs", "blocking_copies"),
        worst("mallocs"),
        pool[-1],
        max(pool) - min(pool),
        operations,
        nodes,
        path,
        share,
        seconds,
    )


def problems(setup: Setup, counts: Counts) -> list[str]:
    """Which figures exceed their limits."""
    limits: dict[str, float] = {
        "graph_launches": setup.steps + setup.evaluations + 1,
        "other_launches": 0,
        "h2d": 1,
        "d2h": 1,
        "d2d": 0,
        "memsets": 0,
        "syncs": 1,
        "mallocs": 0,
        "pool_growth": 0,
        "operations": setup.node_limit,
        "nodes": setup.node_limit,
        "path": setup.path_limit,
        "optimizer_kernels": 1,
    }
    found = []
    for name, limit in limits.items():
        value = getattr(counts, name)
        if value is not None and value > limit:
            found.append(f"{setup.label}: {name} is {value:g}, at most {limit:g}")
    for name in ("graph_launches", "optimizer_kernels"):
        value = getattr(counts, name)
        if value is not None and value < limits[name]:
            found.append(f"{setup.label}: {name} is {value:g}, not {limits[name]:g}")
    return found


_HEADER = (
    "per epoch",
    "steps",
    "graphs",
    "others",
    "H2D",
    "D2H",
    "D2D",
    "memset",
    "syncs",
    "mallocs",
    "pool MiB",
    "growth",
    "ops",
    "nodes",
    "<=",
    "path",
    "optim.",
)


def report(
    chosen: Sequence[Setup], device: Any, one_branch: bool = False
) -> tuple[str, list[dict[str, Any]], list[str]]:
    """(table, rows, problems)."""
    lines, found, wrong = [], [], []
    for setup in chosen:
        c = measure(setup, device)
        wrong += [] if one_branch else problems(setup, c)
        found.append(asdict(c))
        shown = [
            c.steps,
            c.graph_launches,
            c.other_launches,
            c.h2d,
            c.d2h,
            c.d2d,
            c.memsets,
            c.syncs,
            c.mallocs,
        ]
        shown += [
            f"{c.pool_bytes / 2**20:.2f}",
            c.pool_growth,
            c.operations,
            c.nodes,
            setup.node_limit,
            c.path,
        ]
        optimizers = None if c.optimizer_kernels is None else f"{c.optimizer_kernels:g}"
        lines.append([setup.label, *("-" if v is None else v for v in (*shown, optimizers))])
    return table(_HEADER, lines), found, wrong


def main(argv: Sequence[str] | None = None) -> int:
    """Run the report; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", help="default: cuda")
    parser.add_argument("--one-branch", action="store_true", help="nothing side by side; no limits")
    parser.add_argument("--only", default="", help="trainings whose label contains this text")
    parser.add_argument("--json", metavar="FILE", help="write the figures")
    args = parser.parse_args(argv)
    check_writable(args.json)
    chosen = [s for s in setups() if args.only in s.label]
    if not chosen:
        parser.error(f"no training's label contains {args.only!r}")
    try:
        backend = gpumlp.get_backend(args.device)
    except gpumlp.DeviceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if backend.name != "cuda":
        parser.error(f"--device {args.device} is {backend.device}; this report is about CUDA devices")
    if args.one_branch:
        backend = type(backend)(backend.number, branches=False)
    facts = machine()
    text, found, wrong = report(chosen, backend, args.one_branch)
    print(f"{facts_line(facts)}\n\n{text}\n")
    print("\n".join(["problems:", *wrong]) if wrong else "no problems")
    if args.json:
        write_json(args.json, {"machine": facts, "rows": found, "problems": wrong})
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
