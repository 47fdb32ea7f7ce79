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
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from _tools import (
    COLORS,
    backends,
    check_writable,
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
from _update_peers import COPY, REWRITE, Candidate, bytes_needed, clock_of, copies, peers, release, repeated

import gpumlp
from gpumlp.backends import free_memory
from gpumlp.backends.base import Launch, Steps
from gpumlp.backends.numpy import aligned_empty

LR = 1e-4
SIZES, QUICK = (1e3, 1e4, 1e5, 1e6, 1e7, 1e8), 1e6
SETTLE = 0.002  # seconds: the threads of the candidate before spin that long, on CPUs that the next one needs
NOISY, BUSY = 0.3, 0.1  # spread, and CPUs used by other programs, from which a comparison says little
#: what the summary counts: text, figure of a row of `compare`, limit, range of sizes
LIMITS = (
    ("at most the time of PyTorch fused", "ratio", 1.0, 0, 10**12),
    ("at most 1/3 of PyTorch fused up to 1e5", "ratio", 1 / 3, 0, 10**5),
    ("at least 85 % of the copy's bandwidth from 1e7", "share", 0.85, 10**7, 10**12),
)


@dataclass
class Result:
    """One cell of the tables; times in seconds, `share` is the time of the fastest copy over this one's."""

    rule: str
    size: int
    candidate: str
    seconds: float
    spread: float
    gb_per_s: float
    share: float
    others: float = 0.0  # CPUs that other programs kept busy meanwhile
    times: tuple[float, ...] = ()  # of each round

    def over(self, other: Result) -> float:
        """Time over another one's: the median over the rounds, in which both ran one after the other."""
        if not self.times or not other.times:
            return self.seconds / other.seconds
        return statistics.median(a / b for a, b in zip(self.times, other.times, strict=True))

    @property
    def key(self) -> tuple[str, int, str]:
        """What identifies the cell in another run."""
        return self.rule, self.size, self.candidate

    @property
    def kind(self) -> str:
        """ "update" or "plan" for this package's kernels, "copy", "rewrite", or "peer"."""
        words = self.candidate.split()
        return next((k for k in ("update", "plan", COPY, REWRITE) if k in words), "peer")

    @property
    def on_cuda(self) -> bool:
        """Whether it ran on the GPU."""
        return "cuda" in self.candidate.split()


def rules() -> dict[str, Callable[[], gpumlp.optimizers.Optimizer]]:
    """Every registered rule with its defaults, and the forms of SGD with memory."""
    found: dict[str, Callable[[], gpumlp.optimizers.Optimizer]] = {
        name: functools.partial(cls, lr=LR) for name, cls in gpumlp.optimizers.OPTIMIZERS.items()
    }
    found["momentum"] = functools.partial(gpumlp.SGD, lr=LR, momentum=0.9)
    found["nesterov"] = functools.partial(gpumlp.SGD, lr=LR, momentum=0.9, nesterov=True)
    return found


def states(rule: str) -> int:
    """Number of state arrays."""
    return len(rules()[rule]().state_names())


def bytes_moved(rule: str, size: int) -> int:
    """Bytes that one update must read and write: p and each state array both ways, g once."""
    return size * (12 + 8 * states(rule))


# ---- candidates --------------------------------------------------------------------------------------------
def start_values(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Parameters and gradient, float32, aligned as every library likes it."""
    rng = np.random.default_rng(0)
    p, g = (aligned_empty(size, np.float32) for _ in range(2))
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

    recorded = rules()[rule]()
    recorded.init_state([p], backend)
    kernel = recorded.kernel()
    arrays = {"g": g, "p": p, **{n: recorded.state[0][n] for n in recorded.state_names()}}
    values = recorded.step_values(1, LR)
    step = backend.asarray(np.array([0, 1], np.int64))
    row = backend.asarray(np.array([[values[n] for n in kernel.stepped]], np.float32))
    segments = [(0, p.size, 1.0)] if kernel.masked else None
    launch = Launch(kernel, arrays, recorded.scalars(kernel), 1, p.size, segments)
    replay = backend.record([launch], Steps(step, row, kernel.stepped))
    return [*found, Candidate(f"{name} plan", replay.run, clock)]


# ---- measuring ---------------------------------------------------------------------------------------------
def calls_for(candidate: Candidate, seconds: float) -> int:
    """How many calls last about `seconds`; also warms the candidate up."""
    candidate.run(2)  # the second step of a library may compile again, for the first one's results
    k = 1
    while True:  # the lesser of two: one slow call must not pass for the usual
        used = max(min(candidate.clock(candidate.run, k) for _ in range(2)), 1e-9)
        if used >= seconds / 4 or k >= 1_000_000:
            return max(1, int(k * seconds / used))
        k = max(k + 1, min(10 * k, int(k * seconds / used)))


def one_call(candidate: Candidate, k: int) -> float:
    """Seconds of a call, as the mean of k."""
    time.sleep(SETTLE)
    if k > 1:  # else the call is so long that nothing could be warm
        candidate.run(1)
    return candidate.clock(candidate.run, k) / k


def others_work() -> float:
    """CPU seconds that other programs have used until now; 0 where the system does not tell."""
    try:
        ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return 0.0
    busy = sum(ticks) - ticks[3] - ticks[4]  # without idle and waiting for disks
    return busy / os.sysconf("SC_CLK_TCK") - time.process_time()


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
    counts = {c.name: calls_for(c, args.sample) for c in candidates}
    timers = {c.name: functools.partial(one_call, c, counts[c.name]) for c in candidates}
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
    """Results, and what was skipped for want of memory."""
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
                    free_memory()
                    release()
            if sys.stderr.isatty():
                print(f"\r{rule} {size:,}          ", end="", file=sys.stderr, flush=True)
    return results, skipped


def load_baseline(path: str) -> dict[str, Any]:
    """An older --json file; ends the program with a message if it is none."""
    try:
        with open(path) as file:
            baseline = json.load(file)
        cells = {(r["rule"], r["size"], r["candidate"]): float(r["seconds"]) for r in baseline["results"]}
        return {"machine": dict(baseline["machine"]), "cells": cells}
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: cannot read the baseline {path}: {error}") from None
    except (KeyError, TypeError):
        raise SystemExit(f"error: cannot read the baseline {path}: no --json file of this script") from None


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


# ---- comparing ---------------------------------------------------------------------------------------------
def compare(results: list[Result]) -> list[dict[str, Any]]:
    """Our compiled kernels beside PyTorch's fused form, or its fastest one where there is no fused form.

    `ratio` is our time over PyTorch's (see `Result.over`), None without PyTorch.
    """
    rows = []
    for r in results:
        if (
            r.kind not in ("update", "plan")
            or r.candidate.startswith("numpy")
            or "(simulated)" in r.candidate
        ):
            continue
        same = [o for o in results if (o.rule, o.size, o.on_cuda) == (r.rule, r.size, r.on_cuda)]
        forms = {o.candidate.split()[1]: o for o in same if o.candidate.startswith("torch")}
        form = "fused" if "fused" in forms else min(forms, key=lambda f: forms[f].seconds, default="")
        torch = forms.get(form)
        copy = min((o for o in same if o.kind == COPY), key=lambda o: o.seconds)
        rows.append(
            {
                **asdict(r),
                "torch_form": form,
                "torch_seconds": torch.seconds if torch else None,
                "torch_spread": torch.spread if torch else None,
                "ratio": r.over(torch) if torch else None,
                "noisy": max(o.spread for o in (r, torch, copy) if o) > NOISY or r.others > BUSY,
                "copy": copy.candidate,
                "copy_gb_per_s": copy.gb_per_s,
                "rewrite_gb_per_s": max((o.gb_per_s for o in same if o.kind == REWRITE), default=None),
            }
        )
    return rows


def misses(row: dict[str, Any], figure: str, limit: float) -> bool:
    """Whether a row of `compare` is on the wrong side of a limit."""
    return row[figure] > limit if figure == "ratio" else row[figure] < limit


def verdicts(compared: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per candidate and limit: how many cells it is about, how many miss it, and the worst of them."""
    found = []
    for name in dict.fromkeys(row["candidate"] for row in compared):
        for text, figure, limit, low, high in LIMITS:
            rows = [
                row
                for row in compared
                if row["candidate"] == name and low <= row["size"] <= high and row[figure] is not None
            ]
            if rows:
                worst = (max if figure == "ratio" else min)(rows, key=lambda row: row[figure])
                found.append(
                    {
                        "candidate": name,
                        "limit": text,
                        "cells": len(rows),
                        "missed": sum(misses(row, figure, limit) for row in rows),
                        "noisy": sum(row["noisy"] for row in rows),
                        "worst": worst[figure],
                        "worst_at": f"{worst['rule']}, {worst['size']:,}",
                    }
                )
    return found


# ---- showing -----------------------------------------------------------------------------------------------
def show(results: list[Result]) -> None:
    """One table per rule: candidates down, sizes across."""
    for rule in dict.fromkeys(r.rule for r in results):
        mine = [r for r in results if r.rule == rule]
        sizes = sorted({r.size for r in mine})
        cells = {(r.candidate, r.size): f"{duration(r.seconds)} {r.share:5.0%}" for r in mine}
        largest = {r.candidate: r.gb_per_s for r in mine if r.size == sizes[-1]}
        rows = [
            [name, *(cells.get((name, n), "") for n in sizes), f"{largest.get(name, float('nan')):.1f}"]
            for name in dict.fromkeys(r.candidate for r in mine)
        ]
        bytes_each = bytes_moved(rule, 1)
        print(f"\n{rule} ({bytes_each} bytes per parameter)")
        print(table(["", *(f"n = {n:,}" for n in sizes), "GB/s at the largest"], rows))


def _mark(row: dict[str, Any] | None, figure: str) -> str:
    if row is None or row[figure] is None:
        return ""
    about = [
        (limit, figure) for _, f, limit, low, high in LIMITS if f == figure and low <= row["size"] <= high
    ]
    if not about:  # shares of small arrays say little: the copy is in the cache as well
        return ""
    text = f"{row[figure]:.2g}" if figure == "ratio" else f"{row[figure]:.0%}"
    text += " ?" if row["noisy"] else ""
    return text + (" !" if any(misses(row, f, limit) for limit, f in about) else "")


def show_summary(compared: list[dict[str, Any]], found: list[dict[str, Any]]) -> None:
    """Per executor a line per rule and size, then the verdicts."""
    cells = {(row["rule"], row["size"], row["candidate"]): row for row in compared}

    def timing(seconds: float | None, spread: float | None) -> str:
        return "" if seconds is None else f"{duration(seconds)} +-{spread:.0%}"

    for executor in dict.fromkeys(row["candidate"].split()[0] for row in compared):
        lines = []
        for rule, size in dict.fromkeys((row["rule"], row["size"]) for row in compared):
            pair = [cells.get((rule, size, f"{executor} {kind}")) for kind in ("update", "plan")]
            any_of = next((row for row in pair if row), None)
            if any_of is None:
                continue
            times = [timing(row["seconds"], row["spread"]) if row else "" for row in pair]
            torch = timing(any_of["torch_seconds"], any_of["torch_spread"])
            copy = f"{any_of['copy_gb_per_s']:.1f} {any_of['copy'].split(' by ')[-1]}"
            rewrite = f"{any_of['rewrite_gb_per_s']:.1f}" if any_of["rewrite_gb_per_s"] else ""
            figures = [_mark(row, figure) for figure in ("ratio", "share") for row in pair]
            lines.append([rule, f"{size:,}", *times, torch, any_of["torch_form"], *figures, copy, rewrite])
        header = ["", "n", "update", "plan", "PyTorch", "form", "update/PyTorch", "plan/PyTorch"]
        print(f"\n{executor} (!: misses a limit, ?: large spread, or other programs ran)")
        print(table([*header, "update/copy", "plan/copy", "GB/s of the copy", "of a rewrite"], lines))
    print()
    for v in found:
        worst = f"{v['worst']:.2f} ({v['worst_at']})"
        noisy = f" ({v['noisy']} marked ?)" if v["noisy"] else ""
        good = v["cells"] - v["missed"]
        print(f"{v['candidate']} {v['limit']}: {good} of {v['cells']}{noisy}, worst {worst}")


def _lines(results: list[Result]) -> dict[str, dict[int, float]]:
    """Label -> {size: seconds} of one rule, with the copies (and rewrites) of a device as one line."""
    lines: dict[str, dict[int, float]] = {}
    for r in results:
        plain = r.kind in (COPY, REWRITE)
        label = ("cuda " if r.on_cuda else "") + f"fastest {r.kind}" if plain else r.candidate
        points = lines.setdefault(label, {})
        points[r.size] = min(r.seconds, points.get(r.size, r.seconds))
    return lines


def draw(results: list[Result], file: str) -> None:
    """Time by size, one panel per rule and one for the legend."""
    plt = pyplot()
    names = list(dict.fromkeys(r.rule for r in results))
    columns = min(4, len(names) + 1)
    rows = -(-(len(names) + 1) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.6 * columns, 3.3 * rows), sharex=True, sharey=True, squeeze=False
    )
    labels = list(_lines(results))
    # the same thing on host and GPU has one colour
    things = [" ".join(w for w in label.split() if w not in ("native", "cuda")) for label in labels]
    order = list(dict.fromkeys(t for t in things if "fastest" not in t))
    handles: dict[str, Any] = {}
    for number, (ax, rule) in enumerate(zip(axes.flat, names, strict=False)):
        lines = _lines([r for r in results if r.rule == rule])
        for label, thing in zip(labels, things, strict=True):
            plain = "fastest" in thing
            grey = "0.6" if REWRITE in thing else "0.2"
            style = {
                "color": grey if plain else COLORS[order.index(thing) % len(COLORS)],
                "linestyle": ":" if plain else ("--" if "cuda" in label.split() else "-"),
                "linewidth": 2.0 if thing in ("update", "plan") else 1.1,
            }
            if label in lines:
                sizes, seconds = zip(*sorted(lines[label].items()), strict=True)
                (handles[label],) = ax.plot(sizes, seconds, marker="o", markersize=3, **style)
        ax.set(xscale="log", yscale="log", title=f"{rule} ({bytes_moved(rule, 1)} bytes per parameter)")
        if number + columns >= len(names):  # the lowest of its column
            ax.set_xlabel("parameters")
            ax.tick_params(labelbottom=True)
    for ax in axes[:, 0]:
        ax.set_ylabel("seconds per update")
    for ax in axes.flat[len(names) :]:
        ax.set_axis_off()
    axes.flat[-1].legend(handles.values(), handles.keys(), loc="center", fontsize=11)
    figure.tight_layout()
    figure.savefig(file)
    plt.close(figure)


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
    baseline = load_baseline(args.baseline) if args.baseline else None
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
