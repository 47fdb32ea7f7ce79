"""Time a training step of gpumlp beside PyTorch, JAX, Keras, thinc, scikit-learn: the same arithmetic in all.

float32, ReLU, softmax cross-entropy, Adam (lr 1e-3, eps 1e-8), the same initial values, rows shuffled anew in
every epoch and gathered for each step.  Candidates take turns, after a pause of 0.1 s in which the threads of
the one before go to sleep; each turn is one epoch to warm up and one that is timed, set-up and compilation
excluded, shuffling included.  All but scikit-learn draw the same row orders, so their losses must agree
closely; if they do not, or if gpumlp is slower than --baseline, the exit status is 1.  The peers are
optional: what is not installed is named and left out.
"""

from __future__ import annotations

import argparse
import functools
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.bench.torch_training import sees_cuda, with_torch
from scripts.bench.training_peers import PEERS, installed
from scripts.bench.training_task import SHAPES, Epoch, Task, with_gpumlp
from scripts.shared.command import check_writable, load_baseline, write_json
from scripts.shared.machine import backends, facts_line, load_at_start, machine, simulated
from scripts.shared.show import COLORS, duration, pyplot, table
from scripts.shared.timing import interleave, summary

OWN, NATIVE = "gpumlp", "gpumlp native"
#: seconds; an OpenMP or OpenBLAS thread spins so long after its last work, on a CPU that the next one needs
SETTLE = 0.1
#: how far a loss may be from the others': relatively, and in absolute terms
SAME_ORDER, OWN_ORDER = (0.02, 0.001), (0.25, 0.01)


# ---- candidates --------------------------------------------------------------------------------------------
def candidates(task: Task, found: dict[str, Any], peers: Sequence[str]) -> dict[str, Callable[[], Epoch]]:
    """Name -> what makes the epoch function, for all executors and the peers given."""
    make: dict[str, Callable[[], Epoch]] = {}
    for name, backend in found.items():
        mark = " (simulated)" if name == "cuda" and simulated() else ""
        make[f"{OWN} {name}{mark}"] = functools.partial(with_gpumlp, task, backend)
    for peer in peers:
        make[PEERS[peer].title] = functools.partial(PEERS[peer].make, task)
    if "torch" in peers and "cuda" in found and not simulated() and sees_cuda():
        make["PyTorch cuda"] = functools.partial(with_torch, task, False, "cuda")
    return make


# ---- measuring ---------------------------------------------------------------------------------------------
def unlike(losses: dict[str, float], before: float) -> list[str]:
    """Lines about candidates whose last loss is not like the others', or has not fallen below `before`."""
    middle = statistics.median([loss for loss in losses.values() if math.isfinite(loss)] or [math.nan])
    lines = []
    for name, loss in losses.items():
        relative, absolute = OWN_ORDER if name == "scikit-learn" else SAME_ORDER
        if not abs(loss - middle) <= relative * middle + absolute:
            lines.append(f"{name}: loss {loss:.4f}, the others' median is {middle:.4f}")
        elif not loss < before:
            lines.append(f"{name}: loss {loss:.4f} has not fallen (untrained network: {before:.4f})")
    return lines


def measure(task: Task, found: dict[str, Any], peers: Sequence[str], repeats: int) -> dict[str, Any]:
    """{"shape", "rows": {candidate: {"seconds" per step, "spread", "loss"}}, "ratios", "unlike": lines}."""
    epochs: dict[str, Epoch] = {}
    losses: dict[str, float] = {}

    def timed(name: str) -> float:
        time.sleep(SETTLE)
        seconds, losses[name] = epochs[name]()
        return seconds / task.steps

    for name, make in candidates(task, found, peers).items():
        try:
            epochs[name] = make()
            timed(name)  # compiles and warms up
        except (
            Exception
        ) as error:  # a peer that is installed may not work, as torch.compile without a compiler
            if name.startswith(OWN):
                raise
            print(f"{task.name} without {name}: {error!r:.200}", file=sys.stderr)
            epochs.pop(name, None)
    times = interleave({name: functools.partial(timed, name) for name in epochs}, repeats)
    rows = {
        name: {
            "seconds": summary(values)["median"],
            "spread": summary(values)["spread"],
            "loss": losses[name],
        }
        for name, values in times.items()
    }
    losses = {name: losses[name] for name in rows}
    return {
        "shape": task.name,
        "rows": rows,
        "ratios": ratios(rows),
        "unlike": unlike(losses, task.start_loss()),
    }


def best_peer(rows: dict[str, Any], names: tuple[str, ...] = ("",)) -> str | None:
    """The fastest candidate that is not gpumlp and whose name starts with one of `names`."""
    peers = [name for name in rows if name.startswith(names) and not name.startswith(OWN)]
    return min(peers, key=lambda name: rows[name]["seconds"], default=None)


def ratios(rows: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """{group of peers: {"peer": its fastest on the CPU, "ratio": gpumlp native's time over that one's}}."""
    on_cpu = {name: row for name, row in rows.items() if not name.endswith(" cuda")}
    groups = {
        "best peer": best_peer(on_cpu),
        "best of PyTorch and scikit-learn": best_peer(on_cpu, ("PyTorch", "scikit-learn")),
    }
    return {
        group: {"peer": peer, "ratio": rows[NATIVE]["seconds"] / rows[peer]["seconds"]}
        for group, peer in groups.items()
        if peer and NATIVE in rows
    }


def cells_of(stored: dict[str, Any]) -> dict[tuple[str, str], float]:
    """{(shape, candidate): time of a step} of what --json has written."""
    return {(r["shape"], name): row["seconds"] for r in stored["results"] for name, row in r["rows"].items()}


def regressions(results: list[dict[str, Any]], baseline: dict[str, Any], tolerance: float) -> list[str]:
    """Lines about gpumlp's own times that exceed the baseline's by more than `tolerance` (0.2: 20 %)."""
    lines = []
    for result in results:
        for name, row in result["rows"].items():
            before, now = baseline["cells"].get((result["shape"], name)), row["seconds"]
            if before and name.startswith(OWN) and now > before * (1 + tolerance):
                lines.append(
                    f"{result['shape']}, {name}: {duration(before)} -> {duration(now)} ({now / before:.2f} x)"
                )
    return lines


def facts_of(found: dict[str, Any], load: str) -> dict[str, str]:
    """`machine`, and the threads that the candidates' libraries use."""
    facts = {**machine(), "load at start": load}
    for name in ("OMP_WAIT_POLICY", "BLIS_NUM_THREADS", "XLA_FLAGS"):
        if name in os.environ:
            facts[name] = os.environ[name]
    if "native" in found:
        info = found["native"].info()
        facts |= {f"{NATIVE} {name}": info[name] for name in ("threads", "gemm")}
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return facts
    pools = {f"{pool['prefix']} {pool['num_threads']}" for pool in threadpool_info()}
    return {**facts, "thread pools": ", ".join(sorted(pools))} if pools else facts


# ---- showing -----------------------------------------------------------------------------------------------
def show(result: dict[str, Any]) -> None:
    """The table of one shape."""
    rows = result["rows"]
    peer = best_peer(rows)
    best = rows[peer]["seconds"] if peer else None
    print(f"\n{result['shape']}")
    print(
        table(
            ["", "time per step", "spread", "x best peer", "loss"],
            [
                [
                    name,
                    duration(r["seconds"]),
                    f"{r['spread']:.0%}",
                    f"{r['seconds'] / best:.2f}" if best else "",
                    f"{r['loss']:.4f}",
                ]
                for name, r in sorted(rows.items(), key=lambda item: item[1]["seconds"])
            ],
        )
    )
    for group, found in result["ratios"].items():
        print(f"{NATIVE}: {found['ratio']:.2g} x the time of the {group} ({found['peer']})")
    for line in result["unlike"]:
        print(f"NOT ALIKE  {line}")


def draw(results: list[dict[str, Any]], file: str) -> None:
    """Bars of the step time, one panel per shape, three beside each other; gpumlp on top and coloured."""
    plt = pyplot()
    names = list(dict.fromkeys(name for r in results for name in r["rows"]))
    names.sort(key=lambda name: (name != NATIVE, not name.startswith(OWN)))
    columns = min(3, len(results))
    lines = -(-len(results) // columns)
    size = (3.2 * columns + 1.4, lines * (0.3 * len(names) + 1.0))
    figure, axes = plt.subplots(lines, columns, figsize=size, sharey=True, squeeze=False)
    for ax, result in zip(axes.flat, results, strict=False):
        longest = max(row["seconds"] for row in result["rows"].values())
        unit, scale = ("ms", 1e-3) if longest >= 1e-3 else ("us", 1e-6)
        for place, name in enumerate(names):
            row = result["rows"].get(name)
            if row:
                color = COLORS[0] if name.startswith(OWN) else "0.72"
                ax.barh(place, row["seconds"] / scale, color=color)
                weight = "bold" if name.startswith(OWN) else "normal"
                text = f" {duration(row['seconds'])}"
                ax.text(row["seconds"] / scale, place, text, va="center", fontsize=9, weight=weight)
        ax.set(title=result["shape"], xlabel=f"{unit} per step")
        ax.set_yticks(range(len(names)), names)
        ax.locator_params(axis="x", nbins=4)
        ax.margins(x=0.32)
        ax.grid(False, axis="y")
        ax.set_axisbelow(True)
    for ax in axes.flat[len(results) :]:
        ax.set_visible(False)
    axes[0, 0].invert_yaxis()
    figure.tight_layout()
    figure.savefig(file)
    plt.close(figure)


def shape(text: str) -> tuple[tuple[int, ...], int, int]:
    """'32-16-2:32:300' -> sizes, batch, steps per epoch (left out: 100)."""
    parts = text.split(":")
    try:
        sizes = tuple(int(n) for n in parts[0].split("-"))
        numbers = [*(int(n) for n in parts[1:]), 100][:2]
        if len(sizes) < 2 or len(parts) not in (2, 3) or min(*sizes, *numbers) < 1:
            raise ValueError
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}; expected such as 32-16-2:32:300") from None
    return sizes, numbers[0], numbers[1]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--device", nargs="+", default=["all"], help="all, or some of numpy, native, cuda")
    p.add_argument(
        "--peers",
        nargs="*",
        choices=PEERS,
        default=list(PEERS),
        metavar="PEER",
        help=f"of {', '.join(PEERS)} (default: all that are installed)",
    )
    p.add_argument(
        "--shapes", nargs="+", type=shape, default=SHAPES, help="sizes:batch[:steps], as 32-16-2:32:300"
    )
    p.add_argument("--repeats", type=int, help="rounds (default 9; 3 with --quick)")
    p.add_argument("--quick", action="store_true", help="fewer rounds")
    p.add_argument("--json", metavar="FILE", help="write all figures")
    p.add_argument("--plot", metavar="FILE", help="draw bars")
    p.add_argument(
        "--baseline", metavar="FILE", help="older --json file; exit status 1 if gpumlp is slower now"
    )
    p.add_argument("--tolerance", type=float, default=0.25, help="slowdown that counts (default %(default)s)")
    return p


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and print; returns {"machine", "results", "regressions"}."""
    args = parser().parse_args(argv)
    check_writable(args.json, args.plot)
    baseline = load_baseline(args.baseline, cells_of) if args.baseline else None
    load = load_at_start()
    found = backends(args.device)
    repeats = args.repeats or (3 if args.quick else 9)
    peers = [peer for peer in args.peers if installed(peer)]
    results = []
    for sizes, batch, steps in args.shapes:
        results.append(measure(Task(sizes, batch, steps), found, peers, repeats))
        show(results[-1])
    facts = facts_of(found, load)
    print(f"\n{facts_line(facts)}")
    slower = regressions(results, baseline, args.tolerance) if baseline else []
    if baseline:
        # the last two depend on the peers that were loaded
        varying = dict.fromkeys(("gpumlp", "load at start", "torch threads", "thread pools"))
        if {**baseline["machine"], **varying} != {**facts, **varying}:
            print("\nthe baseline was measured with another machine or other versions")
        print(f"\nslower than the baseline by more than {args.tolerance:.0%}: {len(slower) or 'none'}")
        print("\n".join(slower))
    output = {"machine": facts, "results": results, "regressions": slower}
    if args.json:
        write_json(args.json, output)
    if args.plot:
        draw(results, args.plot)
    return output


if __name__ == "__main__":
    done = main()
    sys.exit(1 if done["regressions"] or any(r["unlike"] for r in done["results"]) else 0)
