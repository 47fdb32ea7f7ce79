"""What a training loop of one's own costs beside `Trainer.fit`.

    python scripts/bench/bench_own.py [--device cpu] [--repeats 9] [--quick]

Softmax cross-entropy and Adam on the shapes of `bench_training.py`; the loop takes its rows by the same row
numbers, computes the loss's gradient in NumPy (CuPy), and updates all parameters at once.  Seconds per step,
medians over turns, behind them the distance of the quartiles.  Mean losses of the second epoch are compared;
if they are not alike, the exit status is 1.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import gpumlp
from scripts.bench.training_task import EPS, LR, SEED, SHAPES, Epoch, Task, with_gpumlp
from scripts.shared.command import command_line, default, one_line_errors, whole
from scripts.shared.machine import facts_line, load_at_start, machine
from scripts.shared.show import duration, table
from scripts.shared.timing import interleave, summary

#: relative difference of mean losses that roundings may make
ALIKE = 1e-3


def own_loop(task: Task, backend: Any) -> Epoch:
    """The task done by `forward(keep=True)`, `backward` and `update`."""
    model, rule = gpumlp.MLP(task.sizes, seed=SEED, device=backend.name), gpumlp.Adam(lr=LR, eps=EPS)
    xp = backend.xp
    X, y, places = backend.asarray(task.X), backend.asarray(task.y), xp.arange(task.batch)
    done = 0

    def epoch() -> tuple[float, Any]:
        nonlocal done
        total, start = 0.0, time.perf_counter()
        order, done = backend.asarray(task.order(done)), done + 1
        for first in range(0, len(order), task.batch):
            rows = order[first : first + task.batch]
            Y = model.forward(X[rows], keep=True)
            Y -= Y.max(axis=1, keepdims=True)
            p = xp.exp(Y)
            sums, labels = p.sum(axis=1, keepdims=True), y[rows]
            total = total + (xp.log(sums[:, 0]) - Y[places, labels]).sum()
            p /= sums
            p[places, labels] -= 1
            p /= task.batch
            rule.update([*model.weights, *model.biases], model.backward(p))
        backend.synchronize()
        return time.perf_counter() - start, float(total) / len(order)

    def pair() -> tuple[float, Any]:
        epoch()
        return epoch()

    return pair


@one_line_errors
def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Measure and print; returns a dict for each shape."""
    parser = command_line(__doc__)
    parser.add_argument("--repeats", type=whole, default=9, help=default("turns"))
    parser.add_argument("--quick", action="store_true", help="the smallest shape, few steps")
    args = parser.parse_args(argv)
    backend, load = gpumlp.get_backend(args.device), load_at_start()
    found = []
    for sizes, batch, steps in SHAPES[: 1 if args.quick else None]:
        task = Task(sizes, batch, 5 if args.quick else steps)
        runs = {"fit": with_gpumlp(task, backend), "own loop": own_loop(task, backend)}
        losses: dict[str, list[float]] = {name: [] for name in runs}

        def seconds(name: str, runs: Any = runs, losses: Any = losses, task: Task = task) -> float:
            taken, loss = runs[name]()
            losses[name].append(loss)
            return float(taken) / task.steps

        turns = {name: (lambda name=name, seconds=seconds: seconds(name)) for name in runs}
        figures = {name: summary(times) for name, times in interleave(turns, args.repeats).items()}
        a, b = losses["fit"][0], losses["own loop"][0]
        ratio = figures["own loop"]["median"] / figures["fit"]["median"]
        found.append({"name": task.name, **figures, "ratio": ratio, "alike": abs(a - b) <= ALIKE * abs(a)})
    shown = [
        [
            each["name"],
            *(
                f"{duration(each[n]['median'])} ({100 * each[n]['spread']:.0f} %)"
                for n in ("fit", "own loop")
            ),
            f"{each['ratio']:.2f}",
            "" if each["alike"] else "losses differ",
        ]
        for each in found
    ]
    print(table(["network (batch)", "fit", "own loop", "ratio", ""], shown))
    print(f"\n{facts_line({**machine(), 'load at start': load})}")
    return found


if __name__ == "__main__":
    sys.exit(0 if all(each["alike"] for each in main()) else 1)
