"""Measure how training grows: time over rows and parameters, peak memory, steps beside a busy process.

rows        20-64-64-2, batch 256: seconds per epoch for 10^3 to 10^6 rows
parameters  20-h-h-2, 1,024 rows, batch 256: seconds per epoch for 10^3 to 10^7 parameters
memory      highest resident size while a network is made and trained in a fresh process, against what is
            allowed: an idle import + data + 5 x parameters + 3 x one batch's activations + 60 MB
            (on CUDA the bytes of the memory pool, against the same without the import)
busy        time per step of gpumlp and PyTorch on the shapes of bench_training.py: alone, while another
            process keeps one core busy, and alone again

float32, ReLU, softmax cross-entropy, Adam.  An epoch's time is the one between the ends of two epochs of one
`fit`: set-up and the first epoch are not in it, shuffling is.  Sizes take turns, so that a slow phase of the
machine bends no line.  A slope is that of log time over log size by least squares, for all points and for the
upper half, where constant costs count for little; linear growth is a slope of 1.  Exit status 1 if a peak
exceeds what is allowed.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _tools import (
    COLORS,
    check_writable,
    command_line,
    duration,
    facts_line,
    interleave,
    load_at_start,
    machine,
    pyplot,
    simulated,
    summary,
    table,
    write_json,
)
from bench_training import EPS, LR, SEED, SHAPES, Task, installed, with_gpumlp, with_torch

import gpumlp

PARTS = ("rows", "parameters", "memory", "busy")
BATCH, FIXED_ROWS = 256, 1024
#: a turn of a size takes at least so long, but no more than so many epochs
TURN_SECONDS, MOST_EPOCHS = 0.05, 50
#: name, layer sizes, rows, batch, type of the rows, fraction held out for validation
CASES: tuple[tuple[str, tuple[int, ...], int, int, str, float | None], ...] = (
    ("small", (20, 64, 64, 2), 100_000, 256, "float32", None),
    ("MNIST", (784, 256, 128, 10), 60_000, 128, "float32", None),
    ("held out", (784, 256, 128, 10), 60_000, 128, "float32", 0.15),
    ("float64", (784, 256, 128, 10), 60_000, 128, "float64", None),
    ("bytes", (784, 256, 128, 10), 60_000, 128, "uint8", 0.15),
    ("narrow", (20, 64, 64, 2), 4_000_000, 256, "float32", None),
    ("wide", (784, 1024, 1024, 10), 100_000, 256, "float32", None),
    ("10^7 parameters", (784, 2792, 2792, 10), 4096, 256, "float32", None),
)
MB = 10**6
FREE_BYTES = 60 * MB
MEMORY_EPOCHS = 2
STATUS = Path("/proc/self/status")
#: the idle size is read before this file and what it imports are loaded
CHILD = """
import sys, gpumlp, numpy
with open("/proc/self/status") as file:
    status = file.read()
sys.path.insert(0, sys.argv[1])
import bench_scaling
bench_scaling.child(status, sys.argv[2])
"""
#: ends by itself if the process that started it was killed and could not end it
SPIN = """
import os, sys
while os.getppid() == int(sys.argv[1]):
    for _ in range(10**6):
        pass
"""
#: a phase of `busy` takes about so long for each shape, in at most so many rounds
PHASE_SECONDS, MOST_ROUNDS = 2.0, 60
#: beside a busy process, at most so many times PyTorch's time
BUSY_LIMIT = 1.1


def rows_and_classes(sizes: Sequence[int], n: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise (n, n_inputs) float32 and random classes (n,) int32, made without temporary arrays."""
    rng = np.random.default_rng(SEED)
    return rng.standard_normal((n, sizes[0]), np.float32), rng.integers(0, sizes[-1], n, np.int32)


def trainer_for(sizes: Sequence[int], batch: int, device: str, **settings: Any) -> gpumlp.Trainer:
    """A new network with its `Trainer`."""
    return gpumlp.Trainer(
        gpumlp.MLP(sizes, seed=SEED, device=device),
        loss="softmax_cross_entropy",
        optimizer=gpumlp.Adam(lr=LR, eps=EPS),
        batch_size=batch,
        seed=SEED,
        **settings,
    )


# ---- time over size ----------------------------------------------------------------------------------------
def epoch_timer(sizes: Sequence[int], n: int, device: str) -> Callable[[], float]:
    """A function that runs one `fit` and gives the median seconds of its epochs but the first."""
    stamps: list[float] = []

    def enough(_trainer: Any, _history: Any) -> bool:
        stamps.append(time.perf_counter())
        done = len(stamps) - 1
        return done >= 1 and (stamps[-1] - stamps[0] >= TURN_SECONDS or done >= MOST_EPOCHS)

    trainer = trainer_for(sizes, BATCH, device, callbacks=[enough])
    X, y = rows_and_classes(sizes, n)

    def turn() -> float:
        stamps.clear()
        # `enough` ends it: the last planned epoch, which draws no further row order, is never reached
        trainer.fit(X, y, epochs=MOST_EPOCHS + 9, progress=False)
        return statistics.median(end - start for start, end in zip(stamps, stamps[1:], strict=False))

    return turn


def decades(most: int) -> list[int]:
    """1000, 3000, 10000, ... up to `most`."""
    return [n for power in range(3, 9) for n in (10**power, 3 * 10**power) if n <= most]


def rows_setup(n: int) -> tuple[tuple[int, ...], int, int]:
    """(layer sizes, rows, the size that is varied) for `n` rows."""
    return (20, 64, 64, 2), n, n


def parameters_setup(n: int) -> tuple[tuple[int, ...], int, int]:
    """(layer sizes, rows, the size that is varied) for about `n` parameters: 20-h-h-2 has h^2 + 24 h + 2."""
    h = max(8, 8 * round((math.sqrt(142 + n) - 12) / 8))
    return (20, h, h, 2), FIXED_ROWS, h * h + 24 * h + 2


def slope(points: Sequence[dict[str, Any]]) -> float:
    """Of log time over log size, by least squares."""
    sizes, seconds = ([math.log(p[key]) for p in points] for key in ("size", "seconds"))
    return float(np.polyfit(sizes, seconds, 1)[0])


def sweep(setup: Callable[[int], Any], most: int, device: str, repeats: int) -> dict[str, Any]:
    """{"points": [{"size", "sizes", "rows", "seconds", "spread"}, ...], "slope", "upper"}."""
    setups = [setup(wanted) for wanted in decades(most)]
    timers = {str(size): epoch_timer(sizes, n, device) for sizes, n, size in setups}
    for timer in timers.values():  # compiles and warms up
        timer()
    times = interleave(timers, repeats)
    points = []
    for sizes, n, size in setups:
        found = summary(times[str(size)])
        point = {"seconds": found["median"], "spread": found["spread"]}
        points.append({"size": size, "sizes": list(sizes), "rows": n, **point})
    return {"points": points, "slope": slope(points), "upper": slope(points[len(points) // 2 :])}


def show_sweep(title: str, result: dict[str, Any]) -> None:
    """The table of one sweep."""
    points = result["points"]
    slopes = ["", *(f"{slope(pair):.2f}" for pair in zip(points, points[1:], strict=False))]
    rows = [
        [
            f"{p['size']:,}",
            "-".join(map(str, p["sizes"])),
            f"{p['rows']:,}",
            duration(p["seconds"]),
            f"{p['spread']:.0%}",
            text,
        ]
        for p, text in zip(points, slopes, strict=True)
    ]
    print(f"\ntime per epoch over {title}")
    print(table([title, "network", "rows", "time per epoch", "spread", "slope from last"], rows))
    print(f"slope {result['slope']:.3f}, upper half {result['upper']:.3f}")


# ---- memory ------------------------------------------------------------------------------------------------
def status_bytes(status: str, name: str) -> int | None:
    """A size in the text of /proc/self/status."""
    found = [line.split()[1] for line in status.splitlines() if line.startswith(f"{name}:")]
    return 1024 * int(found[0]) if found else None


def forget_peak() -> None:
    """Start VmHWM anew from the present size."""
    with contextlib.suppress(OSError):  # then the peak is that since the start; making data needs no more
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """Highest resident size of this process."""
    peak = status_bytes(STATUS.read_text(), "VmHWM")
    if peak is None:  # some sandboxes' /proc lacks it
        import resource

        peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak


def child(status: str, text: str) -> None:
    """What the fresh process does: trains a case and prints its figures in bytes.

    `status` is /proc/self/status after the import of gpumlp, `text` the case as JSON.
    """
    case = json.loads(text)
    X, y = rows_and_classes(case["sizes"], case["rows"])
    X = X if X.dtype == case["dtype"] else (10 * np.abs(X)).astype(case["dtype"])
    backend = gpumlp.get_backend(case["device"])
    forget_peak()
    trainer = trainer_for(case["sizes"], case["batch"], backend.name)
    trainer.fit(X, y, epochs=MEMORY_EPOCHS, validation=case["validation"], progress=False)
    on_cuda = backend.name == "cuda"
    pool = backend.xp.get_default_memory_pool() if on_cuda else None
    figures = {
        "idle": 0 if on_cuda else status_bytes(status, "VmRSS"),
        "data": X.nbytes + y.nbytes,
        "parameters": 4 * trainer.model.n_params,
        "activations": 4 * case["batch"] * sum(case["sizes"]),
        "peak": pool.total_bytes() if pool else peak_bytes(),
    }
    print(json.dumps(figures))


def allowance(figures: dict[str, int]) -> int:
    """Bytes that training may take at most."""
    fixed = figures["idle"] + figures["data"] + FREE_BYTES
    return fixed + 5 * figures["parameters"] + 3 * figures["activations"]


def peak_of(case: dict[str, Any]) -> dict[str, Any]:
    """The figures of `child` from a process of its own, with "allowed" and "ok"."""
    command = [sys.executable, "-c", CHILD, str(Path(__file__).parent), json.dumps(case)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(f"error: the process that measures memory failed:\n{run.stderr}")
    figures = json.loads(run.stdout.splitlines()[-1])
    allowed = allowance(figures)
    return {**case, **figures, "allowed": allowed, "ok": figures["peak"] <= allowed}


def memory(device: str, quick: bool) -> list[dict[str, Any]]:
    """Measure and print all cases."""
    if not STATUS.exists():
        print(f"\npeak memory: not measured, because it is read from {STATUS}, which only Linux has")
        return []
    results = [
        peak_of(
            {
                "case": name,
                "sizes": list(sizes),
                "rows": max(1024, n // 10) if quick else n,
                "batch": batch,
                "dtype": dtype,
                "validation": validation,
                "device": device,
            }
        )
        for name, sizes, n, batch, dtype, validation in CASES
    ]
    columns = ("idle", "data", "parameters", "activations", "peak", "allowed")
    print("\npeak memory of training in MB; parameters and one batch's activations are counted once here")
    print(
        table(
            ["", "network", "rows", "type", "validation", "batch", *columns, ""],
            [
                [
                    r["case"],
                    "-".join(map(str, r["sizes"])),
                    f"{r['rows']:,}",
                    r["dtype"],
                    r["validation"] or "",
                    r["batch"],
                    *(f"{r[name] / MB:.1f}" for name in columns),
                    "pass" if r["ok"] else "FAIL",
                ]
                for r in results
            ],
        )
    )
    return results


# ---- beside a busy process ---------------------------------------------------------------------------------
@contextlib.contextmanager
def busy_core() -> Iterator[subprocess.Popen[bytes]]:
    """Another process, which computes without end meanwhile."""
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
        import torch

        peer = torch.cuda.is_available() and not simulated()
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


# ---- all ---------------------------------------------------------------------------------------------------
def draw(sweeps: dict[str, dict[str, Any]], file: str) -> None:
    """Time per epoch over each size, log-log, with a line of slope 1 through the last point."""
    plt = pyplot()
    figure, axes = plt.subplots(1, len(sweeps), figsize=(4.6 * len(sweeps), 3.6), squeeze=False)
    for ax, (title, result) in zip(axes[0], sweeps.items(), strict=True):
        sizes, seconds = (np.array([p[key] for p in result["points"]]) for key in ("size", "seconds"))
        ax.loglog(sizes, seconds, "o-", color=COLORS[0], markersize=4, label="measured")
        ax.loglog(sizes, seconds[-1] * sizes / sizes[-1], "--", color="0.6", zorder=1, label="slope 1")
        slopes = f"slope {result['slope']:.2f}, upper half {result['upper']:.2f}"
        ax.set(title=slopes, xlabel=title, ylabel="seconds per epoch")
        ax.legend(loc="upper left")
    figure.tight_layout()
    figure.savefig(file)
    plt.close(figure)


def measure(part: str, device: str, repeats: int, quick: bool) -> Any:
    """Measure and print one part."""
    if part == "memory":
        return memory(device, quick)
    if part == "busy":
        return beside_busy(device, repeats, quick)
    setup, most = (rows_setup, 10**6) if part == "rows" else (parameters_setup, 10**7)
    result = sweep(setup, most // 10 if quick else most, device, repeats)
    show_sweep(part, result)
    return result


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and print; returns {"machine", "device", and a key for each part}."""
    parser = command_line(__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts (default: all)")
    parser.add_argument(
        "--busy", dest="only", action="store_const", const=("busy",), help="short for --only busy"
    )
    parser.add_argument(
        "--repeats", type=int, help="turns of each size, least rounds of busy (default 7; 3 with --quick)"
    )
    parser.add_argument("--quick", action="store_true", help="smaller sizes, fewer turns")
    parser.add_argument("--json", metavar="FILE", help="write all figures")
    parser.add_argument("--plot", metavar="FILE", help="draw the times over rows and parameters")
    args = parser.parse_args(argv)
    if args.plot and not {"rows", "parameters"} & set(args.only):
        parser.error("--plot draws rows and parameters, of which --only names neither")
    check_writable(args.json, args.plot)
    try:
        device = gpumlp.get_backend(args.device).name
    except (gpumlp.DeviceError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None
    load = load_at_start()
    repeats = args.repeats or (3 if args.quick else 7)
    print(f"executor {device}{' (simulated)' if device == 'cuda' and simulated() else ''}")
    found = {part: measure(part, device, repeats, args.quick) for part in PARTS if part in args.only}
    facts = {**machine(), "load at start": load}
    print(f"\n{facts_line(facts)}")
    output = {"machine": facts, "device": device, **found}
    if args.json:
        write_json(args.json, output)
    if args.plot:
        draw({part: found[part] for part in ("rows", "parameters") if part in found}, args.plot)
    return output


if __name__ == "__main__":
    sys.exit(0 if all(r["ok"] for r in main().get("memory", [])) else 1)
