"""Time every optimiser kernel on every executor, beside PyTorch's optimisers, optax and a plain memory copy.

Each candidate updates one float32 array of n parameters.  "update" is `optimizer.update(p, g)`, as a user
calls it; "plan" is the same kernel replayed from a recorded plan, as in training.  Candidates take turns.

The tables show the median time of one call and, in percent, the share of the copy's bandwidth.  Bytes are
those of the formula, each array read once and written once: SGD 12 per parameter, momentum, AdaGrad and
RMSProp 20, Adam 28.  The yardstick is the fastest of all copies that read and write as many bytes together:
by a kernel, by np.copyto, and by np.copyto on one part per CPU at once; it has 100 %.  On a CPU an update
can be faster than that, as "rewrite" shows, which reads and writes one array.

The summary at the end compares with PyTorch's fused optimisers (RMSProp, which has no fused form: with the
fastest other) and counts what misses the limits.
"""

from __future__ import annotations

import argparse
import functools
import gc
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import gpumlp
from scripts.bench.kernel_cells import LR, Result, bytes_moved, rules, states
from scripts.bench.kernels_shown import compare, draw, show, show_summary, verdicts
from scripts.bench.update_peers import COPY, bytes_needed, copies, peers, release
from scripts.shared.command import check_writable, load_baseline, write_json
from scripts.shared.inside import aligned_empty, update_plan
from scripts.shared.machine import backends, facts_line, load_at_start, machine, simulated
from scripts.shared.show import duration
from scripts.shared.timing import (
    Candidate,
    calls_for,
    clock_of,
    interleave,
    one_call,
    others_work,
    repeated,
    summary,
)

SIZES, QUICK = (1e3, 1e4, 1e5, 1e6, 1e7, 1e8), 1e6


# ---- candidates --------------------------------------------------------------------------------------------
def start_values(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Parameters and gradient, float32, aligned well enough for every library."""
    rng = np.random.default_rng(0)
    p, g = (aligned_empty(size) for _ in range(2))
    for a in (p, g):
        rng.standard_normal(out=a, dtype=np.float32)
    return p, g


def ours(rule: str, name: str, backend: Any, p: Any, g: Any) -> list[Candidate]:
    """`update` and the replayed kernel on one executor; both work on `p`."""
    clock = clock_of(backend)
    optimizer = rules()[rule]()

    # update() on a host array picks the CPU executor itself
    chosen = gpumlp.get_backend("cpu").name if backend.xp is np else backend.name
    update = repeated(lambda: optimizer.update(p, g))
    found = [Candidate(f"{name} update", update, clock)] if chosen == backend.name else []

    replay = update_plan(rules()[rule](), LR, backend, p, g)
    return [*found, Candidate(f"{name} plan", replay, clock)]


# ---- measuring ---------------------------------------------------------------------------------------------
def without_room(rule: str, size: int, own: dict[str, Any], host: bool) -> str:
    """Why `measure` would not find enough memory, or ""."""
    if host:
        try:
            lines = Path("/proc/meminfo").read_text().splitlines()
            free = 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
        except (OSError, StopIteration):
            return ""
    else:
        free = next(iter(own.values())).available_bytes()
    n = states(rule)
    needed = 4 * size * (2 + 2 * n * len(own)) + bytes_moved(rule, size) + bytes_needed(size, n)
    if needed <= 0.9 * free:
        return ""
    where = "memory" if host else "device memory"
    return (
        f"without {rule}, {size:,} parameters: {needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB {where} free"
    )


def measure(rule: str, size: int, own: dict[str, Any], args: argparse.Namespace, host: bool) -> list[Result]:
    """All candidates of one kind of device (host or CUDA), in turns."""
    p, g = start_values(size)
    candidates = []
    for name, backend in own.items():
        candidates += ours(rule, name, backend, backend.asarray(p), backend.asarray(g))
    if host or not simulated():
        candidates += peers(rule, LR, p, g, "cpu" if host else "cuda")
    n_bytes = bytes_moved(rule, size)
    candidates += copies(n_bytes, own.get("native") or next(iter(own.values())))
    timers = {}
    for c in candidates:
        try:
            timers[c.name] = functools.partial(one_call, c, calls_for(c, args.sample))
        except Exception as error:  # a peer that is installed may not work
            if c.name.split()[0] not in ("torch", "optax"):
                raise
            print(f"{rule}, {size:,} parameters without {c.name}: {error!r:.200}", file=sys.stderr)
    start, before = time.perf_counter(), others_work()
    rounds = interleave(timers, args.repeats)
    times = {name: summary(values) for name, values in rounds.items()}
    others = max(0.0, others_work() - before) / (time.perf_counter() - start)
    mark = "" if host or not simulated() else " (simulated)"
    results = [
        Result(
            *(rule, size, name + mark, t["median"], t["spread"], n_bytes / t["median"] / 1e9, 0.0, others),
            times=tuple(rounds[name]),
        )
        for name, t in times.items()
    ]
    copy = min(r.seconds for r in results if r.kind == COPY)
    for r in results:
        r.share = copy / r.seconds
    return results


def measure_all(
    names: Sequence[str], sizes: Sequence[int], found: dict[str, Any], args: argparse.Namespace
) -> tuple[list[Result], list[str]]:
    """Results, and what was skipped for lack of memory."""
    results: list[Result] = []
    skipped: list[str] = []
    for rule in names:
        for size in sizes:
            for host in (True, False):
                own = {name: b for name, b in found.items() if (b.xp is np) == host}
                problem = without_room(rule, size, own, host) if own else ""
                if problem:
                    print(problem, file=sys.stderr)
                    skipped.append(problem)
                elif own:
                    results += measure(rule, size, own, args, host)
                    gc.collect()  # the candidates' arrays
                    gpumlp.free_memory()
                    release()
            if sys.stderr.isatty():
                print(f"\r{rule} {size:,}          ", end="", file=sys.stderr, flush=True)
    return results, skipped


def cells_of(stored: dict[str, Any]) -> dict[tuple[str, int, str], float]:
    """{key of a cell: seconds} of what --json has written."""
    return {(r["rule"], r["size"], r["candidate"]): float(r["seconds"]) for r in stored["results"]}


def regressions(results: list[Result], old: dict[tuple[str, int, str], float], tolerance: float) -> list[str]:
    """Lines about our cells that are slower than the baseline's by more than `tolerance` (0.2: 20 %)."""
    lines = []
    for r in results:
        before = old.get(r.key)
        if before and r.kind in ("update", "plan") and r.seconds > before * (1 + tolerance):
            lines.append(
                f"{r.rule}, {r.size:,} parameters, {r.candidate}: "
                f"{duration(before)} -> {duration(r.seconds)} ({r.seconds / before:.2f} x)"
            )
    return lines


# ---- all ---------------------------------------------------------------------------------------------------
def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--device", nargs="+", default=["all"], help="all, or some of numpy, native, cuda")
    p.add_argument("--rules", nargs="+", choices=sorted(rules()), metavar="RULE", help="default: all")
    p.add_argument("--sizes", nargs="+", type=float, help="parameters (default 1e3 1e4 ... 1e8)")
    p.add_argument("--repeats", type=int, help="rounds (default 9; 3 with --quick)")
    p.add_argument("--sample", type=float, help="seconds per sample (default 0.02; 0.004 with --quick)")
    p.add_argument("--quick", action="store_true", help="sizes to 1e6, short samples, few rounds")
    p.add_argument("--json", metavar="FILE", help="write all figures")
    p.add_argument("--plot", metavar="FILE", help="draw time against size")
    p.add_argument("--baseline", metavar="FILE", help="older --json file; exit status 1 if slower now")
    p.add_argument("--tolerance", type=float, default=0.25, help="slowdown that counts (default %(default)s)")
    return p


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and print; returns what --json writes."""
    args = parser().parse_args(argv)
    args.repeats = args.repeats or (3 if args.quick else 9)
    args.sample = args.sample or (0.004 if args.quick else 0.02)
    sizes = [int(n) for n in args.sizes or (n for n in SIZES if n <= QUICK or not args.quick)]
    if min(sizes) < 1:
        parser().error("--sizes must be at least 1")
    check_writable(args.json, args.plot)
    baseline = load_baseline(args.baseline, cells_of) if args.baseline else None
    load = load_at_start()
    results, skipped = measure_all(args.rules or list(rules()), sizes, backends(args.device), args)
    facts = {**machine(), "load at start": load}
    if "optax" in sys.modules:
        facts["optax"] = metadata.version("optax")
    compared = compare(results)
    found = verdicts(compared)
    print(facts_line(facts))
    show(results)
    show_summary(compared, found)
    slower = regressions(results, baseline["cells"], args.tolerance) if baseline else []
    if baseline:
        varying = {"gpumlp": "", "load at start": ""}
        if {**baseline["machine"], **varying} != {**facts, **varying}:
            print("\nthe baseline was measured with another machine or other versions")
        print(f"\nslower than the baseline by more than {args.tolerance:.0%}: {len(slower) or 'none'}")
        print("\n".join(slower))
    output = {
        "machine": facts,
        "results": [asdict(r) for r in results],
        "comparison": compared,
        "verdicts": found,
        "skipped": skipped,
        "regressions": slower,
    }
    if args.json:
        write_json(args.json, output)
    if args.plot and results:
        draw(results, args.plot)
    return output


if __name__ == "__main__":
    sys.exit(1 if main()["regressions"] else 0)
