"""Time per step beside a busy process: a part of `bench_scaling.py`."""

from __future__ import annotations

import contextlib
import functools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import gpumlp
from scripts.bench.torch_training import sees_cuda, with_torch
from scripts.bench.training_peers import installed
from scripts.bench.training_task import SHAPES, Task, with_gpumlp
from scripts.shared.machine import simulated
from scripts.shared.show import duration, table
from scripts.shared.timing import interleave

#: ends by itself if the process that started it was killed and could not end it
SPIN = """
import os, sys
while os.getppid() == int(sys.argv[1]):
    for _ in range(10**6):
        pass
"""
#: seconds that a phase of `busy` takes for each shape, about, and the most rounds
PHASE_SECONDS, MOST_ROUNDS = 2.0, 60
#: the most, as a multiple of PyTorch's time, beside a busy process
BUSY_LIMIT = 1.1


@contextlib.contextmanager
def busy_core() -> Iterator[subprocess.Popen[bytes]]:
    """Another process, which keeps computing meanwhile."""
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", SPIN, str(os.getpid())]) as process:
        try:
            time.sleep(0.3)  # until it has started
            if process.poll() is not None:
                raise SystemExit("error: the process that keeps a core busy has ended")
            yield process
        finally:
            process.kill()


def phases(task: Task, device: str, peer: bool, repeats: int, seconds: float) -> dict[str, Any]:
    """{candidate: {"before", "busy", "after": median seconds per step, "slowdown": busy / idle}}."""
    backend = gpumlp.get_backend(device)
    epochs = {f"gpumlp {backend.name}": with_gpumlp(task, backend)}
    if peer:
        epochs["PyTorch"] = with_torch(task, False, "cuda" if backend.name == "cuda" else "cpu")
    timed = {name: functools.partial(lambda epoch: epoch()[0] / task.steps, e) for name, e in epochs.items()}
    for each in timed.values():  # compiles and warms up
        each()
    start = time.perf_counter()
    interleave(timed, 1)
    rounds = max(repeats, min(MOST_ROUNDS, int(seconds / (time.perf_counter() - start))))
    before = interleave(timed, rounds)
    with busy_core():
        busy = interleave(timed, rounds)
    after = interleave(timed, rounds)
    rows = {}
    for name in timed:
        steps = {
            "before": statistics.median(before[name]),
            "busy": statistics.median(busy[name]),
            "after": statistics.median(after[name]),
        }
        rows[name] = {**steps, "slowdown": steps["busy"] / statistics.median(before[name] + after[name])}
    return rows


def show_busy(result: dict[str, Any]) -> None:
    """The table of one shape."""
    print(f"\n{result['shape']}")
    print(
        table(
            ["time per step", "idle", "busy", "idle again", "slowdown"],
            [
                [name, *(duration(row[p]) for p in ("before", "busy", "after")), f"{row['slowdown']:.2f}"]
                for name, row in result["rows"].items()
            ],
        )
    )
    if result["ratio"] is not None:
        verdict = "pass" if result["ok"] else "FAIL"
        print(f"gpumlp / PyTorch, both busy: {result['ratio']:.2f} (at most {BUSY_LIMIT}): {verdict}")


def beside_busy(device: str, repeats: int, quick: bool) -> list[dict[str, Any]]:
    """Measure and print all shapes of bench_training.py."""
    peer = installed("torch")
    if peer and gpumlp.get_backend(device).name == "cuda":
        peer = sees_cuda() and not simulated()
    results = []
    for sizes, batch, steps in SHAPES:
        task = Task(sizes, batch, max(5, steps // 5) if quick else steps)
        rows = phases(task, device, peer, repeats, PHASE_SECONDS / (10 if quick else 1))
        ours, *others = [row["busy"] for row in rows.values()]
        ratio = ours / others[0] if others else None
        results.append(
            {"shape": task.name, "rows": rows, "ratio": ratio, "ok": ratio is None or ratio <= BUSY_LIMIT}
        )
        show_busy(results[-1])
    return results
