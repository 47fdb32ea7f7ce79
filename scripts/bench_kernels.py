"""Time every optimiser kernel on every executor, beside PyTorch's optimisers and a plain memory copy.

Each candidate updates one float32 array of n parameters.  "update" is `optimizer.update(p, g)`, as a user
calls it; "plan" is the same kernel replayed from a recorded plan, as in training.  Candidates take turns.
The table shows the median time of one call and, in percent, the speed relative to the fastest plain copy of
the bytes that the formula must move: SGD 12 per parameter, momentum, AdaGrad and RMSProp 20, Adam 28.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from _tools import (
    COLORS,
    backends,
    check_writable,
    cpu_count,
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
from gpumlp.kernels.kernel import Kernel

import gpumlp
from gpumlp.backends.base import Launch, Steps

LR = 1e-4
COPY = "copy"
Run = Callable[[int], None]


@dataclass
class Candidate:
    """Something that updates n parameters: `run(k)` does it k times, `clock(run, k)` gives the seconds."""

    name: str
    run: Run
    clock: Callable[[Run, int], float]


@dataclass
class Result:
    """One cell of the table; times in seconds, `share` is the time of the copy over this one's."""

    rule: str
    size: int
    candidate: str
    seconds: float
    spread: float
    gb_per_s: float
    share: float

    @property
    def key(self) -> tuple[str, int, str]:
        """What identifies the cell in another run."""
        return self.rule, self.size, self.candidate


def rules() -> dict[str, Callable[[], gpumlp.optimizers.Optimizer]]:
    """Every registered rule with its defaults, and the forms of SGD with memory."""
    found: dict[str, Callable[[], gpumlp.optimizers.Optimizer]] = {
        name: functools.partial(cls, lr=LR) for name, cls in gpumlp.optimizers.OPTIMIZERS.items()
    }
    found["momentum"] = functools.partial(gpumlp.SGD, lr=LR, momentum=0.9)
    found["nesterov"] = functools.partial(gpumlp.SGD, lr=LR, momentum=0.9, nesterov=True)
    return found


def bytes_moved(rule: str, size: int) -> int:
    """Bytes that one update must read and write: p and each state array both ways, g once."""
    return size * (12 + 8 * len(rules()[rule]().state_names()))


# ---- clocks ------------------------------------------------------------------------------------------------
def host_clock(run: Run, k: int) -> float:
    """Wall time."""
    start = time.perf_counter()
    run(k)
    return time.perf_counter() - start


def cuda_clock(backend: Any) -> Callable[[Run, int], float]:
    """Time between two CUDA events on the executor's stream."""
    cuda = backend.xp.cuda
    stream = getattr(backend, "stream", None) or cuda.get_current_stream()

    def clock(run: Run, k: int) -> float:
        start, stop = cuda.Event(), cuda.Event()
        backend.synchronize()
        start.record(stream)
        run(k)
        stop.record(stream)
        stop.synchronize()
        return cuda.get_elapsed_time(start, stop) / 1e3

    return clock


def _clock(backend: Any) -> Callable[[Run, int], float]:
    return host_clock if backend.xp is np else cuda_clock(backend)


# ---- candidates --------------------------------------------------------------------------------------------
def start_values(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Parameters and gradient, float32."""
    rng = np.random.default_rng(0)
    return rng.standard_normal(size, np.float32), rng.standard_normal(size, np.float32)


def ours(rule: str, size: int, name: str, backend: Any) -> list[Candidate]:
    """`update` and the replayed kernel on one executor."""
    clock = _clock(backend)
    p, g = (backend.asarray(a) for a in start_values(size))
    optimizer = rules()[rule]()

    # update() on a host array picks the CPU executor itself
    chosen = gpumlp.get_backend("cpu").name if backend.xp is np else backend.name

    def update(k: int) -> None:
        for _ in range(k):
            optimizer.update(p, g)

    found = [Candidate(f"{name} update", update, clock)] if chosen == backend.name else []

    recorded = rules()[rule]()
    q, h = (backend.asarray(a) for a in start_values(size))
    recorded.init_state([q], backend)
    kernel = recorded.kernel()
    arrays = {"g": h, "p": q, **{n: recorded.state[0][n] for n in recorded.state_names()}}
    values = recorded.step_values(1, LR)
    step = backend.asarray(np.array([0, 1], np.int64))
    row = backend.asarray(np.array([[values[n] for n in kernel.stepped]], np.float32))
    segments = [(0, size, 1.0)] if kernel.masked else None
    launch = Launch(kernel, arrays, recorded.scalars(kernel), 1, size, segments)
    replay = backend.record([launch], Steps(step, row, kernel.stepped))
    return [*found, Candidate(f"{name} plan", replay.run, clock)]


def peers(rule: str, size: int, device: str) -> list[Candidate]:
    """PyTorch's optimisers of the same formula, where PyTorch is installed (and has them)."""
    try:
        import torch
    except ImportError:
        return []
    optim, where = torch.optim, {"lr": LR}
    make: dict[str, tuple[Any, dict[str, Any], bool]] = {
        "sgd": (optim.SGD, where, True),
        "momentum": (optim.SGD, {**where, "momentum": 0.9}, True),
        "nesterov": (optim.SGD, {**where, "momentum": 0.9, "nesterov": True}, True),
        "adagrad": (optim.Adagrad, where, True),
        "rmsprop": (optim.RMSprop, {**where, "alpha": 0.9}, False),
        "adam": (optim.Adam, where, True),
        "adamw": (optim.AdamW, where, True),
    }
    if rule not in make or (device == "cuda" and not torch.cuda.is_available()):
        return []
    cls, options, has_fused = make[rule]
    kinds = {"fused": {"fused": True}, "foreach": {"foreach": True}, "for-loop": {"foreach": False}}
    found = []
    for kind, flags in kinds.items():
        if kind == "fused" and not has_fused:
            continue
        p, g = (torch.from_numpy(a).to(device) for a in start_values(size))
        p.grad = g
        try:
            optimizer = cls([p], **options, **flags)
        except (RuntimeError, ValueError):  # this version has no such form for this device
            continue
        found.append(Candidate(f"torch {kind}", _repeated(optimizer.step), _torch_clock(torch, device)))
    return found


def _repeated(call: Callable[[], Any]) -> Run:
    def run(k: int) -> None:
        for _ in range(k):
            call()

    return run


def _torch_clock(torch: Any, device: str) -> Callable[[Run, int], float]:
    if device == "cpu":
        return host_clock

    def clock(run: Run, k: int) -> float:
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        run(k)
        stop.record()
        stop.synchronize()
        return start.elapsed_time(stop) / 1e3

    return clock


def _copy_reference(x: np.ndarray, y: np.ndarray, k: int = 0) -> None:
    y[...] = x


COPY_KERNEL = Kernel("gpumlp_copy", "y = x;", _copy_reference, inputs="T x", outputs="T y")


def copies(n_bytes: int, backend: Any) -> list[Candidate]:
    """Copies that read and write `n_bytes` in all: by a kernel, and the library's, by one thread and by all.

    The fastest of them is what the table calls copy.  On the host the library's is often slower while the
    arrays fit into the cache, because it writes past it.
    """
    n_floats = max(1, n_bytes // 8)
    x, y = (backend.zeros(n_floats, np.float32) for _ in range(2))
    steps = Steps(backend.asarray(np.array([0, 1], np.int64)), backend.zeros((1, 1), np.float32), ())
    replay = backend.record([Launch(COPY_KERNEL, {"x": x, "y": y}, {}, 1, n_floats)], steps)
    by_kernel = Candidate(f"{COPY} by kernel", replay.run, _clock(backend))
    if backend.xp is not np:
        return [by_kernel, Candidate(COPY, _repeated(lambda: backend.copy(y, x)), _clock(backend))]
    found = [by_kernel, Candidate(COPY, _repeated(lambda: np.copyto(y, x)), host_clock)]
    threads = cpu_count()
    if threads > 1 and n_bytes >= 1 << 20:
        pool = ThreadPoolExecutor(threads)
        edges = [n_floats * i // threads for i in range(threads + 1)]
        parts = [(y[a:b], x[a:b]) for a, b in zip(edges[:-1], edges[1:], strict=True)]
        shared = _repeated(lambda: list(pool.map(lambda pair: np.copyto(*pair), parts)))
        found.append(Candidate(f"{COPY} ({threads} threads)", shared, host_clock))
    return found


# ---- measuring ---------------------------------------------------------------------------------------------
def calls_for(candidate: Candidate, seconds: float) -> int:
    """How many calls last about `seconds`; also warms the candidate up."""
    candidate.run(1)
    k = 1
    while (used := candidate.clock(candidate.run, k)) < seconds / 4 and k < 1_000_000:
        k = max(k + 1, min(10 * k, int(k * seconds / max(used, 1e-9))))
    return max(1, int(k * seconds / max(used, 1e-9)))


def measure(
    rule: str, size: int, found: dict[str, Any], args: argparse.Namespace, host: bool
) -> list[Result]:
    """All candidates of one kind of device (host or CUDA), in turns."""
    own = {name: b for name, b in found.items() if (b.xp is np) == host}
    if not own:
        return []
    candidates = [c for name, b in own.items() for c in ours(rule, size, name, b)]
    if not (simulated() and not host):
        candidates += peers(rule, size, "cpu" if host else "cuda")
    n_bytes = bytes_moved(rule, size)
    plain = copies(n_bytes, own.get("native") or next(iter(own.values())))
    counts = {c.name: calls_for(c, args.sample) for c in [*candidates, *plain]}
    timers = {
        c.name: lambda c=c: c.clock(c.run, counts[c.name]) / counts[c.name] for c in [*candidates, *plain]
    }
    times = {name: summary(values) for name, values in interleave(timers, args.repeats).items()}
    best_copy = min((times[c.name] for c in plain), key=lambda t: t["median"])
    mark = "" if host else (" (simulated)" if simulated() else "")
    rows = {c.name: times[c.name] for c in candidates} | {COPY if host else "cuda copy": best_copy}
    return [
        Result(
            rule,
            size,
            name + mark,
            t["median"],
            t["spread"],
            n_bytes / t["median"] / 1e9,
            best_copy["median"] / t["median"],
        )
        for name, t in rows.items()
    ]


def regressions(results: list[Result], baseline: dict[str, Any], tolerance: float) -> list[str]:
    """Lines about results that are slower than the baseline's by more than `tolerance` (0.2: 20 %)."""
    old = {(r["rule"], r["size"], r["candidate"]): r["seconds"] for r in baseline["results"]}
    lines = []
    for r in results:
        before = old.get(r.key)
        if before and not r.candidate.startswith(("torch", COPY)) and r.seconds > before * (1 + tolerance):
            lines.append(
                f"{r.rule}, {r.size:,} parameters, {r.candidate}: "
                f"{duration(before)} -> {duration(r.seconds)} ({r.seconds / before:.2f} x)"
            )
    return lines


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


def draw(results: list[Result], file: str) -> None:
    """Time by size, one panel per rule."""
    plt = pyplot()
    names = list(dict.fromkeys(r.rule for r in results))
    columns = min(4, len(names))
    lines = -(-len(names) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(3.6 * columns, 3.2 * lines), sharex=True, sharey=True, squeeze=False
    )
    candidates = list(dict.fromkeys(r.candidate for r in results))
    for ax, rule in zip(axes.flat, names, strict=False):
        for number, name in enumerate(candidates):
            points = [(r.size, r.seconds) for r in results if r.rule == rule and r.candidate == name]
            style = ":" if name.endswith(COPY) else "-"
            color = "0.4" if name.endswith(COPY) else COLORS[number % len(COLORS)]
            if points:
                ax.plot(*zip(*points, strict=True), style, marker=".", lw=1.4, color=color, label=name)
        ax.set(xscale="log", yscale="log", title=rule)
    for ax in axes.flat[len(names) :]:
        ax.set_visible(False)
    for ax in axes[-1]:
        ax.set_xlabel("parameters")
    for ax in axes[:, 0]:
        ax.set_ylabel("seconds per update")
    handles: dict[str, Any] = {}
    for ax in axes.flat:
        handles.update({label: h for h, label in zip(*ax.get_legend_handles_labels(), strict=True)})
    figure.legend(handles.values(), handles.keys(), loc="lower center", ncols=4, bbox_to_anchor=(0.5, -0.1))
    figure.tight_layout()
    figure.savefig(file)
    plt.close(figure)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--device", nargs="+", default=["all"], help="all, or some of numpy, native, cuda")
    p.add_argument("--rules", nargs="+", choices=sorted(rules()), metavar="RULE", help="default: all")
    p.add_argument("--sizes", nargs="+", type=float, help="parameters (default 1e3 1e4 1e5 1e6 1e7)")
    p.add_argument("--repeats", type=int, help="rounds (default 9; 3 with --quick)")
    p.add_argument("--sample", type=float, help="seconds per sample (default 0.02; 0.004 with --quick)")
    p.add_argument("--quick", action="store_true", help="sizes to 1e6, short samples, few rounds")
    p.add_argument("--json", metavar="FILE", help="write all figures")
    p.add_argument("--plot", metavar="FILE", help="draw time against size")
    p.add_argument("--baseline", metavar="FILE", help="older --json file; exit status 1 if slower now")
    p.add_argument("--tolerance", type=float, default=0.25, help="slowdown that counts (default %(default)s)")
    return p


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and print; returns {"machine", "results", "regressions"}."""
    args = parser().parse_args(argv)
    args.repeats = args.repeats or (3 if args.quick else 9)
    args.sample = args.sample or (0.004 if args.quick else 0.02)
    sizes = [int(n) for n in args.sizes or [1e3, 1e4, 1e5, 1e6, *([] if args.quick else [1e7])]]
    if min(sizes) < 1:
        parser().error("--sizes must be at least 1")
    check_writable(args.json, args.plot)
    baseline = None
    if args.baseline:
        try:
            with open(args.baseline) as file:
                baseline = json.load(file)
        except (OSError, ValueError) as error:
            raise SystemExit(f"error: cannot read the baseline {args.baseline}: {error}") from None
    load = load_at_start()
    found = backends(args.device)
    results: list[Result] = []
    for rule in args.rules or rules():
        for size in sizes:
            for host in (True, False):
                results += measure(rule, size, found, args, host)
            if sys.stderr.isatty():
                print(f"\r{rule} {size:,}          ", end="", file=sys.stderr, flush=True)
    facts = {**machine(), "load at start": load}
    print(facts_line(facts))
    show(results)
    slower = regressions(results, baseline, args.tolerance) if baseline else []
    if baseline:
        varying = {"gpumlp": "", "load at start": ""}
        if {**baseline["machine"], **varying} != {**facts, **varying}:
            print("\nthe baseline was measured with another machine or other versions")
        print(f"\nslower than the baseline by more than {args.tolerance:.0%}: {len(slower) or 'none'}")
        print("\n".join(slower))
    output = {"machine": facts, "results": [asdict(r) for r in results], "regressions": slower}
    if args.json:
        write_json(args.json, output)
    if args.plot:
        draw(results, args.plot)
    return output


if __name__ == "__main__":
    sys.exit(1 if main()["regressions"] else 0)
