"""Everything about a GPU in one command: tests, bandwidth, launches, training times, memory, start-up.

Runs the GPU tests, times each optimiser kernel against a plain copy on the device (CUDA events) and updates
of many arrays, counts what an epoch launches, times training steps beside PyTorch (eager with fused Adam,
torch.compile, CUDA graph), and measures memory and start-up.  PyTorch is left out where it is missing or sees
no device.  Writes PREFIX.md and PREFIX.json.

A part that fails is reported and the others still run; exit status 1 if a part failed or a figure is outside
its limit (kernels at 90 % of the copy's speed from 10^7 parameters on; the limits of `graph_report.py`).  On
a simulated device it runs to the end as well: its times say nothing about a GPU and are marked as simulated.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import _torch_cuda
import bench_kernels
import bench_training as bt
import graph_report
import numpy as np
from _tools import (
    backends,
    check_writable,
    duration,
    interleave,
    machine,
    simulated,
    summary,
    table,
    write_json,
)
from _update_peers import clock_of, repeated

import gpumlp

ROOT = Path(__file__).parents[1]
COPY_SHARE, LARGE = 0.9, 10_000_000
KERNEL_LIMIT = 12  # different kernels that a training may need
#: sizes, batch, steps per epoch
SHAPES = (
    ((32, 16, 2), 32, 300),
    ((8, 64, 64, 2), 256, 200),
    ((784, 256, 128, 10), 128, 200),
    ((784, 1024, 1024, 10), 256, 100),
)
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


class Part:
    """One section of the report: text for people, figures for programs, and what was outside its limits."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.text = ""
        self.figures: Any = None
        self.problems: list[str] = []


@contextlib.contextmanager
def quiet() -> Iterator[io.StringIO]:
    """Standard output goes to the value."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        yield text


def fenced(text: str) -> str:
    """As a block of Markdown."""
    lines = text.strip("\n")
    return f"```\n{lines}\n```"


# ---- parts -------------------------------------------------------------------------------------------------
def tests(part: Part, quick: bool) -> None:
    """The GPU tests in a process of their own."""
    paths = ["tests/backends/test_cupy.py"] if quick else ["tests"]
    environment = {**os.environ, "GPUMLP_TEST_DEVICE": "cuda"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *paths]
    start = time.perf_counter()
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    lines = (run.stdout + run.stderr).strip().splitlines() or ["no output"]
    counts = {what: int(n) for n, what in re.findall(r"(\d+) (passed|failed|skipped|errors?)", lines[-1])}
    part.figures = {"status": run.returncode, "seconds": time.perf_counter() - start, **counts}
    part.text = f"`pytest {' '.join(paths)}`: {lines[-1]}"
    if run.returncode:
        part.text += "\n\n" + fenced("\n".join(lines[-40:]))
        part.problems.append(f"tests ended with status {run.returncode}")


def bandwidth(part: Part, quick: bool) -> None:
    """Optimiser kernels against a copy of as many bytes."""
    sizes = ["1e4", "1e5"] if quick else ["1e5", "1e6", "1e7", "1e8"]
    rules = ["adam", "rmsprop", "adagrad", "momentum"] if quick else list(bench_kernels.rules())
    given = ["--device", "cuda", "--sizes", *sizes, "--rules", *rules, *(["--quick"] if quick else [])]
    with quiet() as text:
        output = bench_kernels.main(given)
    part.text, part.figures = fenced(text.getvalue()), output["results"]
    for r in [] if simulated() else output["results"]:
        if r["size"] >= LARGE and "plan" in r["candidate"] and r["share"] < COPY_SHARE:
            part.problems.append(
                f"{r['rule']}, {r['size']:,} parameters: {r['share']:.0%} of the copy's speed, "
                f"expected {COPY_SHARE:.0%}"
            )


def lists(part: Part, quick: bool) -> None:
    """`update` on lists of arrays of 64 x 64 parameters: one launch, one for each array, and PyTorch's."""
    backend = gpumlp.get_backend("cuda")
    clock, calls = clock_of(backend), 3 if quick else 100
    lines, part.figures = [], []
    for count in (4, 32) if quick else (4, 32, 256):
        params, grads = ([backend.zeros((64, 64), np.float32) for _ in range(count)] for _ in range(2))
        whole, single = gpumlp.Adam(), [gpumlp.Adam() for _ in params]

        def one_by_one(single: Any = single, params: Any = params, grads: Any = grads) -> None:
            for optimizer, p, g in zip(single, params, grads, strict=True):
                optimizer.update(p, g)

        runs = {
            "gpumlp": functools.partial(whole.update, params, grads),
            "gpumlp, array by array": one_by_one,
        }
        if not simulated() and _torch_cuda.available():
            runs["PyTorch fused"] = _torch_cuda.fused_adam(count, (64, 64))
        for run in (*runs.values(), *runs.values()):  # the second call compiles the launch of a list
            run()
        clocks = {
            name: lambda run=run: clock(repeated(run), calls) / calls  # type: ignore[misc]
            for name, run in runs.items()
        }
        for name, t in interleave(clocks, 2 if quick else 9).items():
            time = summary(t)
            lines.append([f"{count} arrays, {name}", duration(time["median"]), f"{time['spread']:.0%}"])
            part.figures.append({"arrays": count, "candidate": name, **time})
    part.text = fenced(table(["", "time per update", "spread"], lines))


def graphs(part: Part, quick: bool) -> None:
    """Launches, copies and synchronisations of an epoch."""
    chosen = graph_report.setups()
    text, part.figures, part.problems = graph_report.report(chosen[:3] if quick else chosen, "cuda")
    part.text = fenced(text)


def training(part: Part, quick: bool) -> None:
    """Time per step, all candidates in turns."""
    backend = gpumlp.get_backend("cuda")
    peers = not simulated() and _torch_cuda.available()
    lines, part.figures = [], []
    for sizes, batch, steps in SHAPES[:2] if quick else SHAPES:
        task = bt.Task(sizes, batch, 10 if quick else steps)
        epochs = {"gpumlp": bt.with_gpumlp(task, backend), **(_torch_cuda.ways(task) if peers else {})}
        losses: dict[str, float] = {}

        def timed(name: str, epochs: Any = epochs, losses: Any = losses, task: Any = task) -> float:
            seconds, losses[name] = epochs[name]()
            return seconds / task.steps

        for name in epochs:
            timed(name)
        clocks = {name: lambda name=name, timed=timed: timed(name) for name in epochs}
        times = {name: summary(t) for name, t in interleave(clocks, 2 if quick else 9).items()}
        for name, t in times.items():
            lines.append(
                [f"{task.name} {name}", duration(t["median"]), f"{t['spread']:.0%}", f"{losses[name]:.4f}"]
            )
            part.figures.append({"shape": task.name, "candidate": name, **t, "loss": losses[name]})
    part.text = fenced(table(["", "time per step", "spread", "loss"], lines))
    if not peers:
        part.text += "\n\nPyTorch is not installed or sees no CUDA device: no comparison."


def memory(part: Part, quick: bool) -> None:
    """Bytes that a training holds on the device, beside its data and parameters."""
    sizes, rows, batch = ((784, 256, 128, 10), 1024, 128) if quick else ((784, 1024, 1024, 10), 60_000, 256)
    setup = graph_report.Setup("memory", sizes, rows, batch, lambda: gpumlp.Adam(lr=1e-3))
    pool = gpumlp.get_backend("cuda").xp.get_default_memory_pool()
    pool.free_all_blocks()
    before = pool.used_bytes()
    counts = graph_report.measure(setup)
    data = rows * (sizes[0] + 1) * 4
    parameters = gpumlp.MLP(sizes, device="cpu").n_params * 4
    part.figures = {
        "data_bytes": data,
        "parameter_bytes": parameters,
        "pool_bytes": counts.pool_bytes,
        "held_before": before,
        "growth_over_epochs": counts.pool_growth,
    }
    rows_shown = [
        [name.replace("_", " "), f"{value / 2**20:,.2f} MiB"] for name, value in part.figures.items()
    ]
    part.text = fenced(table(["", "bytes"], rows_shown))
    part.text += "\n\nWithout copies and activations, Adam needs the data and 4 times the parameters."


def start_up(part: Part, quick: bool) -> None:
    """Import, and the first epoch with an empty and a filled kernel cache."""
    lines, part.figures = [], {}
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "CUPY_CACHE_DIR": folder}
        for label, repeats in (("empty kernel cache", 1), ("filled kernel cache", 1 if quick else 3)):
            found = []
            for _ in range(repeats):
                run = subprocess.run(
                    [sys.executable, "-c", _FIRST_STEP],
                    env=environment,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                match = re.search(r"seconds (\S+) (\S+)", run.stdout)
                if run.returncode or match is None:
                    raise RuntimeError(run.stderr.strip() or run.stdout)
                found.append((float(match[1]), float(match[2])))
            imported, first = (statistics.median(column) for column in zip(*found, strict=True))
            kernels = len(list(Path(folder).glob("*.cubin")))
            part.figures[label] = {"import": imported, "first_epoch": first, "kernels": kernels}
            lines.append([label, duration(imported), duration(first), kernels])
            if kernels > KERNEL_LIMIT:
                part.problems.append(f"{kernels} kernels compiled for one training, at most {KERNEL_LIMIT}")
    part.text = fenced(table(["", "import", "model, plans, first epoch", "kernels in the cache"], lines))


PARTS: dict[str, tuple[str, Callable[[Part, bool], None]]] = {
    "tests": ("Tests", tests),
    "bandwidth": ("Optimiser kernels against a copy", bandwidth),
    "lists": ("Updates of many arrays", lists),
    "graphs": ("Launches, copies, synchronisations", graphs),
    "training": ("Time per training step", training),
    "memory": ("Memory", memory),
    "start-up": ("Start-up", start_up),
}


# ---- report ------------------------------------------------------------------------------------------------
def run_parts(names: Sequence[str], quick: bool) -> list[Part]:
    """Every part, also after one has failed."""
    found = []
    for name in names:
        title, run = PARTS[name]
        part = Part(title)
        print(f"{title} ...", file=sys.stderr, flush=True)
        try:
            run(part, quick)
        except (Exception, SystemExit) as error:
            part.text = fenced("".join(traceback.format_exception(error)[-6:]))
            part.problems.append(f"{title}: {type(error).__name__}: {str(error).splitlines()[:1]}")
        found.append(part)
    return found


def markdown(facts: dict[str, str], parts: Sequence[Part]) -> str:
    """The report for people."""
    head = "# GPU report\n"
    if simulated():
        head += "\n**Simulated device: counts are exact, times say nothing about a GPU.**\n"
    wrong = [line for part in parts for line in part.problems]
    lines = [head, *(f"- {name}: {value}" for name, value in facts.items()), ""]
    lines += ["Problems: none" if not wrong else "Problems:", *(f"- {line}" for line in wrong), ""]
    for part in parts:
        mark = " (simulated)" if simulated() else ""
        lines += [f"## {part.title}{mark}", "", part.text, ""]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the report; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", default="gpu_report", metavar="PREFIX", help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="small sizes, few tests: a check of this script")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS)
    )
    args = parser.parse_args(argv)
    files = f"{args.output}.md", f"{args.output}.json"
    check_writable(*files)
    backend = backends(["cuda"])["cuda"]
    facts = {**machine(), **backend.info()}
    parts = run_parts(args.parts, args.quick)
    text = markdown(facts, parts)
    Path(files[0]).write_text(text)
    figures = {p.title: {"figures": p.figures, "problems": p.problems} for p in parts}
    write_json(files[1], {"simulated": simulated(), "machine": facts, "parts": figures})
    print(text)
    return 1 if any(part.problems for part in parts) else 0


if __name__ == "__main__":
    sys.exit(main())
