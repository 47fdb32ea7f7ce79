"""Time of 64 fits, 16 learning rates x 4 folds, 20 epochs: gpumlp's fit_many, its single fits, scikit-learn.

    python scripts/bench/bench_many.py [--device cpu] [--repeats 7] [--fits 64] [--epochs 20]

Single fits are done one after another, scikit-learn's in two processes (left out with --without-sklearn).

The candidates take turns; a figure is the median over the turns, making networks and trainers included.
Bits of fit_many and of single fits are compared.
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.shared.command import command_line, default, whole
from scripts.shared.machine import simulated
from scripts.shared.show import duration, table
from scripts.shared.timing import interleave

FOLDS = 4


def tasks() -> list[tuple[str, np.ndarray, np.ndarray, list[int], str, int]]:
    """Name, X, y, layer sizes, loss and batch size."""
    from sklearn.datasets import load_breast_cancer, load_digits

    digits, cancer = load_digits(return_X_y=True), load_breast_cancer(return_X_y=True)
    X = (cancer[0] - cancer[0].mean(axis=0)) / cancer[0].std(axis=0)
    return [
        ("digits", digits[0] / 16, digits[1], [64, 64, 10], "softmax_cross_entropy", 64),
        ("breast cancer", X, cancer[1], [30, 16, 1], "binary_cross_entropy", 32),
    ]


def compare(
    name: str, X: np.ndarray, y: np.ndarray, sizes: list[int], loss: str, batch: int, args: Any
) -> list[str]:
    """One row of the table."""
    import gpumlp

    X = X.astype(np.float32)
    part = np.random.default_rng(0).permutation(len(X)) * FOLDS // len(X)
    rows = [np.flatnonzero(part != number % FOLDS) for number in range(args.fits)]
    rates = [1e-3 * (1 + number // FOLDS) for number in range(args.fits)]
    made: dict[str, list[Any]] = {}

    def trainers() -> list[Any]:
        return [
            gpumlp.Trainer(
                gpumlp.MLP(sizes, seed=number, device=args.device),
                loss=loss,
                optimizer=gpumlp.Adam(lr=rate),
                batch_size=batch,
            )
            for number, rate in enumerate(rates)
        ]

    def many() -> None:
        made["many"] = trainers()
        gpumlp.fit_many(made["many"], X, y, epochs=args.epochs, rows=rows, progress=False)

    def single() -> None:
        made["single"] = trainers()
        for trainer, fold in zip(made["single"], rows, strict=True):
            trainer.fit(X[fold], y[fold], epochs=args.epochs, progress=False)

    candidates = {"fit_many": many, "single fits": single}
    if not args.without_sklearn:
        candidates["scikit-learn"] = lambda: processes(X, y, rows, rates, sizes, batch, args.epochs)
    turns = {key: timed(run) for key, run in candidates.items()}
    interleave(turns, 1)  # to warm up
    times = interleave(turns, args.repeats)
    equal = all(
        np.array_equal(*(t.model.backend.to_numpy(t.model.flat) for t in pair))
        for pair in zip(made["many"], made["single"], strict=True)
    )
    medians = [statistics.median(t) for t in times.values()]
    shown = [*map(duration, medians), *[""] * (3 - len(medians))]
    return [name, "-".join(map(str, sizes)), str(batch), *shown, "equal" if equal else "different"]


def timed(run: Callable[[], None]) -> Callable[[], float]:
    """`run`, which then returns its wall time."""

    def clock() -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    return clock


def processes(
    X: np.ndarray,
    y: np.ndarray,
    rows: list[np.ndarray],
    rates: list[float],
    sizes: list[int],
    batch: int,
    epochs: int,
) -> None:
    """scikit-learn's fits in two processes."""
    from joblib import Parallel, delayed
    from sklearn.neural_network import MLPClassifier

    options = {"hidden_layer_sizes": sizes[1:-1], "batch_size": batch, "max_iter": epochs}
    options["n_iter_no_change"] = epochs
    Parallel(n_jobs=2)(
        delayed(_quietly)(MLPClassifier(**options, learning_rate_init=rate, random_state=0), X[fold], y[fold])
        for fold, rate in zip(rows, rates, strict=True)
    )


def _quietly(estimator: Any, X: np.ndarray, y: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there were as many epochs as wanted
        estimator.fit(X, y)


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    parser = command_line(__doc__)
    parser.add_argument("--repeats", type=whole, default=7, help=default("turns"))
    parser.add_argument("--fits", type=whole, default=64, help=default("networks"))
    parser.add_argument("--epochs", type=whole, default=20, help=default("epochs per fit"))
    parser.add_argument("--without-sklearn", action="store_true", help="leave its processes out")
    args = parser.parse_args(argv)
    try:
        import sklearn
    except ImportError:
        raise SystemExit("error: the data sets are scikit-learn's: pip install scikit-learn") from None

    import gpumlp

    facts = gpumlp.get_backend(args.device).info()
    print(
        f"scikit-learn {sklearn.__version__}, gpumlp {gpumlp.__version__}: "
        + ", ".join(f"{k} {v}" for k, v in facts.items())
    )
    if simulated():
        print("The CUDA device is simulated: these times say nothing about a GPU.")
    header = ["data", "network", "batch", "fit_many", "single fits", "scikit-learn, n_jobs=2", "parameters"]
    print(table(header, [compare(*task, args) for task in tasks()]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
