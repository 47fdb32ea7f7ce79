"""Time of a search over 16 settings x 4 folds, 20 epochs: gpumlp's, and scikit-learn's over both estimators.

    python scripts/bench/bench_search.py [--device cpu] [--repeats 7] [--settings 16] [--epochs 20]

All of a search is timed: splits, fits and scores, without the last fit on all rows.  scikit-learn searches
over its own estimator in two processes (left out with --without-sklearn).

The candidates take turns; a figure is the median over the turns, in brackets the time of all processors.
Scores of gpumlp's search and of scikit-learn's over gpumlp's estimator are compared.
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


def tasks() -> list[tuple[str, np.ndarray, np.ndarray, int, int]]:
    """Name, X, y, hidden units and batch size."""
    from sklearn.datasets import load_breast_cancer, load_digits

    digits, cancer = load_digits(return_X_y=True), load_breast_cancer(return_X_y=True)
    X = (cancer[0] - cancer[0].mean(axis=0)) / cancer[0].std(axis=0)
    return [("digits", digits[0] / 16, digits[1], 64, 64), ("breast cancer", X, cancer[1], 16, 32)]


def compare(name: str, X: np.ndarray, y: np.ndarray, hidden: int, batch: int, args: Any) -> list[str]:
    """One row of the table."""
    from sklearn.model_selection import GridSearchCV
    from sklearn.neural_network import MLPClassifier

    import gpumlp

    X = X.astype(np.float32)
    rates = np.geomspace(1e-4, 1e-1, args.settings).tolist()
    options = {"hidden_layer_sizes": (hidden,), "batch_size": batch, "max_iter": args.epochs}
    options |= {"n_iter_no_change": args.epochs, "random_state": 0}
    found: dict[str, Any] = {}

    def search(key: str, kind: Any, estimator: Any, **how: Any) -> Callable[[], None]:
        def run() -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that there were as many epochs as wanted
                grid = {"learning_rate_init": rates}
                found[key] = kind(estimator, grid, cv=FOLDS, refit=False, **how).fit(X, y).cv_results_

        return run

    network = gpumlp.MLPClassifier(**options, device=args.device)
    candidates = {
        "gpumlp": search("gpumlp", gpumlp.model_selection.GridSearchCV, network),
        "scikit-learn, gpumlp's": search("single", GridSearchCV, network),
    }
    if not args.without_sklearn:
        candidates["scikit-learn"] = search("theirs", GridSearchCV, MLPClassifier(**options), n_jobs=2)
    used: dict[str, list[float]] = {key: [] for key in candidates}
    turns = {key: timed(run, used[key]) for key, run in candidates.items()}
    interleave(turns, 1)  # to warm up
    times = interleave(turns, args.repeats)
    shown = [
        f"{duration(statistics.median(times[key]))} ({duration(statistics.median(used[key]))})"
        for key in candidates
    ]
    shown += [""] * (3 - len(shown))
    equal = all(
        np.array_equal(found["gpumlp"][key], value)
        for key, value in found["single"].items()
        if key.endswith("test_score")
    )
    sizes = f"{X.shape[1]}-{hidden}-{len(np.unique(y)) if len(np.unique(y)) > 2 else 1}"
    return [name, sizes, str(batch), *shown, "equal" if equal else "different"]


def timed(run: Callable[[], None], used: list[float]) -> Callable[[], float]:
    """`run`, which then returns its wall time; that of this process's processors goes to `used`."""

    def clock() -> float:
        start, cpu = time.perf_counter(), time.process_time()
        run()
        used.append(time.process_time() - cpu)
        return time.perf_counter() - start

    return clock


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    parser = command_line(__doc__)
    parser.add_argument("--repeats", type=whole, default=7, help=default("turns"))
    parser.add_argument("--settings", type=whole, default=16, help=default("learning rates"))
    parser.add_argument("--epochs", type=whole, default=20, help=default("epochs per fit"))
    parser.add_argument("--without-sklearn", action="store_true", help="leave its estimator out")
    args = parser.parse_args(argv)
    try:
        import sklearn
    except ImportError:
        raise SystemExit("error: the searches are scikit-learn's: pip install scikit-learn") from None

    import gpumlp

    facts = gpumlp.get_backend(args.device).info()
    print(
        f"scikit-learn {sklearn.__version__}, gpumlp {gpumlp.__version__}: "
        + ", ".join(f"{k} {v}" for k, v in facts.items())
    )
    if simulated():
        print("The CUDA device is simulated: these times say nothing about a GPU.")
    header = ["data", "network", "batch", "gpumlp", "scikit-learn, gpumlp's", "scikit-learn", "scores"]
    print(table(header, [compare(*task, args) for task in tasks()]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
