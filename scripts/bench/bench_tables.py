"""Scores and seconds on tables: gpumlp's estimators beside trees and networks with their defaults.

    python scripts/bench/bench_tables.py [--data FILE.npz ...] [--sets diabetes wine] [--seeds 3]

Regression: RMSE of test rows; classification: share of right answers.  Mean and standard deviation over the
seeds, which are those of the methods; rows are split once.  Sets are those of scikit-learn and files with the
arrays X and y, or x_train, y_train, x_test and y_test.  A file may hold its split: train_idx, val_idx and
test_idx, row numbers; else a fifth of the rows are test rows (a fixed permutation).  Validation rows of a
file choose networks (gpumlp), or are training rows (all others).  Nothing is chosen on test rows.

Sets made by formulas (--made) are of kinds that scikit-learn's lack.  Seconds are those of the clock, and of
all threads beside them: on a machine that does other things the clock says little.

Peers that are not installed are left out: LightGBM, RealMLP-TD-S (pytabkit).  California housing in ten
minutes:

    python scripts/bench/bench_tables.py --sets --data california_housing.npz --quality best --networks 300 \
        --time-limit 600 --without-peers
"""

from __future__ import annotations

import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.bench.made_tables import MADE
from scripts.shared.command import command_line, default, one_line_errors, whole
from scripts.shared.show import duration, table

OWN = ("diabetes", "breast_cancer", "wine", "digits", "iris")
_MOST_LABELS = 20


@dataclass
class Set:
    """A table, its task, and its rows.  `val` may be empty."""

    name: str
    X: np.ndarray
    y: np.ndarray
    classes: bool
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray

    def score(self, answers: np.ndarray) -> float:
        """Of the test rows."""
        right = self.y[self.test]
        return float(np.mean(answers == right) if self.classes else np.sqrt(np.mean((answers - right) ** 2)))


def own_set(name: str) -> Set:
    """One of scikit-learn's."""
    from sklearn import datasets

    X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return Set(name, X, y, name != "diabetes", *_parts(len(y)))


def made_set(name: str) -> Set:
    """One made by a formula, always the same."""
    X, y, classes = MADE[name](np.random.default_rng(0))
    return Set(name, X, y, classes, *_parts(len(y)))


def file_set(path: str, most: int | None) -> Set:
    """A file's; of more than `most` training rows the first ones."""
    with np.load(path, allow_pickle=False) as archive:
        arrays = {key: archive[key] for key in archive.files}
    if "x_train" in arrays:
        X, y = (np.concatenate([arrays[f"{key}_train"], arrays[f"{key}_test"]]) for key in "xy")
        n = len(arrays["y_train"])
        parts = np.arange(n), np.arange(0), np.arange(n, len(y))
    elif "X" in arrays and "y" in arrays:
        X, y = arrays["X"], arrays["y"]
        keys = ("train_idx", "val_idx", "test_idx")
        parts = tuple(arrays[key].astype(int) for key in keys) if keys[0] in arrays else _parts(len(y))
    else:
        raise ValueError(f"{path!r} has the arrays {', '.join(arrays)}; expected X and y")
    X = X.reshape(len(X), -1)
    classes = y.dtype.kind not in "f" and len(np.unique(y)) <= _MOST_LABELS
    return Set(Path(path).stem, X, y, classes, parts[0][:most], parts[1], parts[2])


def _parts(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    order = np.random.RandomState(0).permutation(n)
    return order[n // 5 :], order[:0], order[: n // 5]


def gpumlp_method(
    quality: str, device: str, limit: float | None, networks: int | None
) -> Callable[[Set, int], np.ndarray]:
    """`TabularClassifier` or `TabularRegressor`."""

    def answers(data: Set, seed: int) -> np.ndarray:
        import gpumlp

        kind = gpumlp.TabularClassifier if data.classes else gpumlp.TabularRegressor
        estimator = kind(
            quality=quality, n_networks=networks, random_state=seed, device=device, time_limit=limit
        )
        val = {"X_val": data.X[data.val], "y_val": data.y[data.val]} if len(data.val) else {}
        return estimator.fit(data.X[data.train], data.y[data.train], **val).predict(data.X[data.test])

    return answers


def peer(make: Callable[[bool, int], Any]) -> Callable[[Set, int], np.ndarray]:
    """A method with scikit-learn's interface; `make` takes whether there are classes, and a seed."""

    def answers(data: Set, seed: int) -> np.ndarray:
        rows = np.concatenate([data.train, data.val])
        return make(data.classes, seed).fit(data.X[rows], data.y[rows]).predict(data.X[data.test])

    return answers


def _trees(classes: bool, seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    return (HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor)(random_state=seed)


def _sklearn_mlp(classes: bool, seed: int) -> Any:
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), (MLPClassifier if classes else MLPRegressor)(random_state=seed))


def _lightgbm(classes: bool, seed: int) -> Any:
    import lightgbm

    kind = lightgbm.LGBMClassifier if classes else lightgbm.LGBMRegressor
    return kind(random_state=seed, verbose=-1)


def _realmlp(classes: bool, seed: int) -> Any:
    import pytabkit

    kind = pytabkit.RealMLP_TD_S_Classifier if classes else pytabkit.RealMLP_TD_S_Regressor
    return kind(random_state=seed, device="cpu")


def methods(args: Any) -> dict[str, Callable[[Set, int], np.ndarray]]:
    """Name -> answers to the test rows of a set."""
    found = {
        f"gpumlp {q}": gpumlp_method(q, args.device, args.time_limit, args.networks) for q in args.quality
    }
    if not args.without_peers:
        found["HistGradientBoosting"] = peer(_trees)
        found["scikit-learn MLP"] = peer(_sklearn_mlp)
        if find_spec("lightgbm"):
            found["LightGBM"] = peer(_lightgbm)
        if find_spec("pytabkit"):
            found["RealMLP-TD-S"] = peer(_realmlp)
    return found


def compare(data: Set, ways: dict[str, Callable[[Set, int], np.ndarray]], seeds: int) -> list[list[str]]:
    """A row for each method."""
    rows = []
    for name, way in ways.items():
        scores, times, busy = [], [], []
        for seed in range(seeds):
            start, begun = time.perf_counter(), time.process_time()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                answers = way(data, seed)
            times.append(time.perf_counter() - start)
            busy.append(time.process_time() - begun)
            scores.append(data.score(np.asarray(answers).reshape(len(data.test))))
        spread = f"{statistics.stdev(scores):.4f}" if seeds > 1 else ""
        seconds = [duration(statistics.median(each)) for each in (times, busy)]
        rows.append([data.name, name, f"{statistics.mean(scores):.4f}", spread, *seconds])
    return rows


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    parser = command_line(__doc__)
    parser.add_argument("--data", nargs="*", default=[], metavar="FILE.npz", help="files with X and y")
    parser.add_argument("--sets", nargs="*", default=OWN, choices=OWN, help="of scikit-learn (default: all)")
    parser.add_argument(
        "--quality", nargs="*", default=["fast", "best"], help="of gpumlp (default: fast best)"
    )
    parser.add_argument("--seeds", type=whole, default=3, help=default("seeds of each method"))
    parser.add_argument(
        "--made", nargs="*", default=[], choices=MADE, help="made by formulas (default: none)"
    )
    parser.add_argument("--networks", type=whole, help="of gpumlp, instead of those of its quality")
    parser.add_argument("--rows", type=whole, help="most training rows of a file")
    parser.add_argument("--time-limit", type=float, help="seconds of a fit of gpumlp")
    parser.add_argument("--without-peers", action="store_true", help="gpumlp alone")
    args = parser.parse_args(argv)

    import gpumlp

    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    facts = gpumlp.get_backend(args.device).info()
    print(f"gpumlp {gpumlp.__version__}: " + ", ".join(f"{k} {v}" for k, v in facts.items()) + load)
    sets = [own_set(name) for name in args.sets] + [made_set(name) for name in args.made]
    sets += [file_set(path, args.rows) for path in args.data]
    ways, rows = methods(args), []
    for data in sets:
        task = "accuracy" if data.classes else "RMSE"
        print(f"{data.name}: {len(data.train)} + {len(data.val)} + {len(data.test)} rows, {task}", flush=True)
        rows += compare(data, ways, args.seeds)
    print(table(["data", "method", "score", "spread", "seconds", "of threads"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
