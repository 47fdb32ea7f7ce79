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

import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import gpumlp
from scripts.bench.scaling_busy import beside_busy
from scripts.bench.scaling_memory import memory, rows_and_classes, trainer_for
from scripts.shared.command import check_writable, command_line, write_json
from scripts.shared.machine import facts_line, load_at_start, machine, simulated
from scripts.shared.show import COLORS, duration, pyplot, table
from scripts.shared.timing import interleave, summary

PARTS = ("rows", "parameters", "memory", "busy")
BATCH, FIXED_ROWS = 256, 1024
#: least seconds and most epochs of a turn of a size
TURN_SECONDS, MOST_EPOCHS = 0.05, 50


# ---- time over size ----------------------------------------------------------------------------------------
def epoch_timer(sizes: Sequence[int], n: int, device: str, batch: int = BATCH) -> Callable[[], float]:
    """A function that runs one `fit` and gives the median seconds of its epochs but the first."""
    stamps: list[float] = []

    def enough(_trainer: Any, _history: Any) -> bool:
        stamps.append(time.perf_counter())
        done = len(stamps) - 1
        return done >= 1 and (stamps[-1] - stamps[0] >= TURN_SECONDS or done >= MOST_EPOCHS)

    trainer = trainer_for(sizes, batch, device, callbacks=[enough])
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
