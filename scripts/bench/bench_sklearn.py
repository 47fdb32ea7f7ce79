"""Time of one epoch of gpumlp's estimators against scikit-learn's, same settings and random numbers.

    python scripts/bench/bench_sklearn.py [--device cpu] [--repeats 5] [--epochs 20]

Both fit the same float32 rows from the same random_state, taking turns; a figure is the median over the
turns, and the ratio the median of the ratios of neighbouring turns.  The losses of both are printed: a
faster fit of something else would be worth nothing.
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.shared.command import command_line, default
from scripts.shared.machine import simulated
from scripts.shared.show import duration, table
from scripts.shared.timing import interleave

#: layer sizes, batch size, rows
SHAPES = (([784, 100, 100, 10], 200, 6000), ([20, 64, 64, 2], 200, 10000))
SOLVERS = ("adam", "sgd")


def rows(sizes: list[int], n: int) -> tuple[np.ndarray, np.ndarray]:
    """Learnable rows: classes are the largest of random linear functions."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, sizes[0])).astype(np.float32)
    return X, (X @ rng.normal(size=(sizes[0], sizes[-1]))).argmax(axis=1)


def compare(sizes: list[int], batch: int, n: int, solver: str, args: Any) -> list[str]:
    """One row of the table."""
    from sklearn import neural_network

    import gpumlp

    X, y = rows(sizes, n)
    options = {"hidden_layer_sizes": tuple(sizes[1:-1]), "solver": solver, "batch_size": batch}
    options |= {"max_iter": args.epochs, "random_state": 0, "n_iter_no_change": args.epochs}
    losses: dict[str, float] = {}

    def turn(name: str, module: Any, **more: Any) -> float:
        est = module.MLPClassifier(**options, **more)
        start = time.perf_counter()
        est.fit(X, y)
        seconds = time.perf_counter() - start
        losses[name] = float(est.loss_)
        return seconds / args.epochs

    turns = {
        "theirs": lambda: turn("theirs", neural_network),
        "ours": lambda: turn("ours", gpumlp, device=args.device),
    }
    interleave(turns, 1)  # to warm up
    times = interleave(turns, args.repeats)
    ratio = statistics.median(a / b for a, b in zip(times["theirs"], times["ours"], strict=True))
    shown = [duration(statistics.median(t)) for t in times.values()]
    return ["-".join(map(str, sizes)), solver, *shown, f"{ratio:.2f}", *(f"{losses[n]:.6f}" for n in times)]


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    parser = command_line(__doc__)
    parser.add_argument("--repeats", type=int, default=5, help=default("turns"))
    parser.add_argument("--epochs", type=int, default=20, help=default("epochs per fit"))
    args = parser.parse_args(argv)
    try:
        import sklearn
    except ImportError:
        raise SystemExit("error: this comparison needs scikit-learn: pip install scikit-learn") from None

    import gpumlp

    warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
    facts = gpumlp.get_backend(args.device).info()
    print(
        f"scikit-learn {sklearn.__version__}, gpumlp {gpumlp.__version__}: "
        + ", ".join(f"{k} {v}" for k, v in facts.items())
    )
    if simulated():
        print("The CUDA device is simulated: these times say nothing about a GPU.")
    header = [
        "network, batch 200",
        "solver",
        "scikit-learn/epoch",
        "gpumlp/epoch",
        "ratio",
        "their loss",
        "our loss",
    ]
    print(table(header, [compare(*shape, solver, args) for shape in SHAPES for solver in SOLVERS]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
