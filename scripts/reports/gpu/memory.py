"""Bandwidth of the optimisers' kernels, updates of lists, streaming, memory, start-up, the tests."""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import gpumlp
from scripts.bench import bench_kernels
from scripts.bench.bench_scaling import trainer_for
from scripts.bench.torch_training import fused_adam, sees_cuda
from scripts.reports import graph_report
from scripts.reports.gpu.part import Part, release
from scripts.shared.machine import ROOT
from scripts.shared.show import duration
from scripts.shared.timing import clock_of, repeated

COPY_SHARE, LARGE = 0.9, 10_000_000
KERNEL_LIMIT = 12  # different kernels that a training may need
_FIRST_STEP = """
import time
start = time.perf_counter()
import numpy as np, gpumlp
imported = time.perf_counter()
model = gpumlp.MLP([784, 256, 128, 10], device="cuda")
trainer = gpumlp.Trainer(model, loss="softmax_cross_entropy", optimizer="adam")
X = np.zeros((256, 784), np.float32)
trainer.fit(X, np.arange(256) % 10, epochs=1, progress=False)
model.backend.synchronize()
done = time.perf_counter()
print("seconds", imported - start, done - imported)
"""


# ---- optimiser kernels -------------------------------------------------------------------------------------
def updates(part: Part, rules: list[str], sizes: list[int]) -> None:
    """Each rule and size: `update`, the replayed kernel and PyTorch's, against a copy of as many bytes."""
    backend = gpumlp.get_backend("cuda")
    args = argparse.Namespace(repeats=2 if part.quick else 5, sample=0.001 if part.quick else 0.01)
    own = {"cuda": backend}
    for size in sizes:
        for rule in rules:
            what = f"{rule}, {size:,} parameters"
            if part.out_of_time(what):
                return
            with part.attempt(what):
                problem = bench_kernels.without_room(rule, size, own, host=False)
                if problem:
                    part.note(problem)
                    continue
                for r in bench_kernels.measure(rule, size, own, args, host=False):
                    cells: dict[str, Any] = {"rule": rule, "parameters": size, "candidate": r.candidate}
                    share = f"{r.share:.0%}"
                    part.row("updates", **cells, call_s=r.seconds, rate_GBs=r.gb_per_s, of_copy=share)
                    low = size >= LARGE and "plan" in r.candidate and r.share < COPY_SHARE
                    if low and not part.simulated:
                        part.problem(f"{what}: {share} of the copy's speed, expected {COPY_SHARE:.0%}")
            release()


def bandwidth(part: Part) -> None:
    """All rules, the largest sizes first."""
    sizes = [10**4, 10**3] if part.quick else [10**power for power in (8, 7, 6, 5, 4, 3)]
    rules = ["adam", "rmsprop"] if part.quick else list(bench_kernels.rules())
    updates(part, rules, sizes)


def lists(part: Part) -> None:
    """`update` on lists of arrays of 64 x 64 parameters: one launch, one for each array, and PyTorch's."""
    backend = gpumlp.get_backend("cuda")
    clock, calls = clock_of(backend), 3 if part.quick else 100
    for count in (4, 32) if part.quick else (4, 32, 256):
        params, grads = ([backend.zeros((64, 64), np.float32) for _ in range(count)] for _ in range(2))
        whole, single = gpumlp.Adam(), [gpumlp.Adam() for _ in params]

        def one_by_one(single: Any = single, params: Any = params, grads: Any = grads) -> None:
            for optimizer, p, g in zip(single, params, grads, strict=True):
                optimizer.update(p, g)

        def timed(call: Callable[[], Any]) -> Callable[[], float]:
            call()  # the second call compiles the launch of a list
            return lambda: clock(repeated(call), calls) / calls

        makes: dict[str, Any] = {
            "gpumlp": functools.partial(timed, functools.partial(whole.update, params, grads)),
            "gpumlp, array by array": functools.partial(timed, one_by_one),
        }
        if not part.simulated and sees_cuda():
            makes["PyTorch fused"] = lambda count=count, timed=timed: timed(fused_adam(count, (64, 64)))
        for name, t in part.turns(f"{count} arrays", makes, 9).items():
            part.row("Adam", arrays=count, candidate=name, update_s=t["median"], spread=f"{t['spread']:.0%}")


# ---- rows and memory ---------------------------------------------------------------------------------------
def _copies(part: Part, n_bytes: int) -> None:
    """Plain copies to the device: what the bus can do."""
    backend = gpumlp.get_backend("cuda")
    cupy = backend.xp
    target = backend.empty(n_bytes, np.uint8)
    pageable = np.zeros(n_bytes, np.uint8)
    pinned = np.frombuffer(cupy.cuda.alloc_pinned_memory(n_bytes), np.uint8, n_bytes)
    clock = clock_of(backend)
    for name, host in (("pinned", pinned), ("pageable", pageable)):
        with part.attempt(f"copy from {name} memory"):
            run = repeated(functools.partial(target.set, host))
            run(1)
            seconds = min(clock(run, 1) for _ in range(3))
            part.row("copies to the device", memory=name, bytes=n_bytes, rate_GBs=n_bytes / seconds / 1e9)


def streaming(part: Part) -> None:
    """Rows that stay on the host, trained on by a network so small that the way of the rows counts."""
    n = 2**11 if part.quick else 2**18
    with part.attempt("copies"):
        _copies(part, 2**20 if part.quick else 2**28)
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.uint8):
        name = np.dtype(dtype).name
        X = rng.integers(0, 255, (n, 1024), np.uint8).astype(dtype)
        y = rng.integers(0, 10, n)
        for way in (True, False):
            if part.out_of_time(f"rows of {name}"):
                return
            with part.attempt(f"rows of {name}, streaming={way}"):
                trainer = trainer_for((1024, 16, 10), 4096 if n > 4096 else 256, "cuda")
                history = trainer.fit(X, y, epochs=4, streaming=way, progress=False)
                seconds = statistics.median(history.seconds[1:])
                where = "streamed" if way else "on the device"
                rate = {"rate_GBs": X.nbytes / seconds / 1e9}
                part.row("epochs over 1,024 columns", rows=where, type=name, epoch_s=seconds, **rate)
        release()


def memory(part: Part) -> None:
    """Bytes that a training holds on the device, beside its data and parameters."""
    large = ((784, 1024, 1024, 10), 60_000, 256)
    sizes, rows, batch = ((784, 256, 128, 10), 1024, 128) if part.quick else large
    setup = graph_report.Setup("memory", sizes, rows, batch, lambda: gpumlp.Adam(lr=1e-3))
    pool = gpumlp.get_backend("cuda").xp.get_default_memory_pool()
    pool.free_all_blocks()
    before = pool.used_bytes()
    counts = graph_report.measure(setup)
    found = {
        "data": rows * (sizes[0] + 1) * 4,
        "parameters": gpumlp.MLP(sizes, device="cpu").n_params * 4,
        "memory pool": counts.pool_bytes,
        "held before": before,
        "growth over the epochs": counts.pool_growth,
    }
    for name, value in found.items():
        part.row("memory", what=name, MiB=f"{value / 2**20:,.2f}")
    part.note("Without copies and activations, Adam needs the data and 4 times the parameters.")


# ---- other processes ---------------------------------------------------------------------------------------
def start_up(part: Part) -> None:
    """Import, and the first epoch with an empty and a filled kernel cache."""
    with tempfile.TemporaryDirectory() as folder:
        for label, repeats in (("first use", 1), ("later use", 1 if part.quick else 3)):
            found = [_first_step(folder) for _ in range(repeats)]
            imported, first = (statistics.median(column) for column in zip(*found, strict=True))
            kernels = len(list(Path(folder).glob("*.cubin")))
            part.row("start-up", which=label, import_s=imported, first_epoch_s=first, kernels=kernels)
            if kernels > KERNEL_LIMIT:
                part.problem(f"{kernels} kernels compiled for one training, at most {KERNEL_LIMIT}")


def _first_step(cache: str) -> tuple[float, float]:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "CUPY_CACHE_DIR": cache, "PYTHONPATH": path}
    command = [sys.executable, "-c", _FIRST_STEP]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    match = re.search(r"seconds (\S+) (\S+)", run.stdout)
    if run.returncode or match is None:
        raise RuntimeError(run.stderr.strip()[-400:] or run.stdout)
    return float(match[1]), float(match[2])


def tests(part: Part) -> None:
    """The tests on the GPU in a process of their own, side by side where pytest-xdist is installed."""
    paths = ["tests/kernels"] if part.quick else ["tests"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *paths]
    if importlib.util.find_spec("xdist") and not part.quick:
        command += ["-n", "4"]
    if part.quick:
        command += ["-k", "sgd", "-x"]
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        run = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "GPUMLP_TEST_DEVICE": "cuda"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.wait(max(1.0, part.left() - 5))
        ended = run.poll() is not None
        run.kill()
        run.wait()
        output.seek(0)
        lines = output.read().strip().splitlines() or ["no output"]
    part.note(f"`pytest {' '.join(command[6:])}`: {lines[-1]} ({duration(time.perf_counter() - start)})")
    if not ended:
        part.problem("the tests took more time than was left")
    elif run.returncode:
        part.problem(f"tests ended with status {run.returncode}")
    if not ended or run.returncode:
        part.note("```\n" + "\n".join(lines[-60:]) + "\n```")
