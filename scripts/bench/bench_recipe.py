"""What each part of the recipe for tables brings: packs without it, or with something else in its place.

    python scripts/bench/bench_recipe.py --data FILE.npz [--sets diabetes] [--made robot_arm] [--networks 8]

Of the rows that are not test rows (see bench_tables.py; those are not used here) a fifth judges; of the
others a fifth chooses among the networks, which are trained on the rest.  Printed is the error of the
judging rows, RMSE or log loss, divided by that of the whole recipe: above 1, the part helps.  All packs of a
seed have the same networks but for the part.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.bench.bench_tables import OWN, Set, file_set, made_set, own_set
from scripts.bench.made_tables import MADE
from scripts.shared.command import command_line, default, one_line_errors, whole
from scripts.shared.show import table

#: part -> the settings of the networks without it
PARTS: dict[str, Callable[[Any], Any]] = {
    "the recipe": lambda each: each,
    "without embedding of numbers": lambda each: replace(each, embedding=None),
    "without averages of the weights": lambda each: replace(each, average=0.0),
    "constant rate": lambda each: replace(each, schedule=None),
    "without dropout": lambda each: replace(each, dropout=0.0),
    "ReLU": lambda each: replace(each, activation="relu"),
    "without smoothing of labels": lambda each: replace(each, smoothing=0.0),
    "half the steps": lambda each: replace(each, epochs=-(-each.epochs // 2), patience=each.epochs),
}


def errors(data: Set, networks: int, seed: int, device: str) -> dict[str, float]:
    """Part -> error of the judging rows; of one network alone if `networks` is 1."""
    import gpumlp
    from gpumlp.tables import as_frame
    from gpumlp.tabular.encoder import Encoder, Roles
    from gpumlp.tabular.pack import Problem
    from gpumlp.tabular.recipe import FEW, settings_of
    from gpumlp.tabular.splits import Split, make_splits

    rows = np.random.default_rng([seed, 77]).permutation(np.concatenate([data.train, data.val]))
    judged, rest = rows[: len(rows) // 5], rows[len(rows) // 5 :]
    y, scale, n_out = data.y, 1.0, 1
    if data.classes:
        labels, y = np.unique(y, return_inverse=True)
        n_out = len(labels)
    else:
        scale = float(y[rest].std())
        y = ((y - y[rest].mean()) / scale)[:, None].astype(np.float32)
    [split] = make_splits(y[rest], n_out if data.classes else 0, 1, FEW, seed)
    split = Split(rest[split.train], None if split.val is None else rest[split.val])
    frame = as_frame(data.X)
    encoder = Encoder.fit(frame, split.train, None, Roles())
    loss = "softmax_cross_entropy" if data.classes else "squared_error"
    y = y.astype(np.int32) if data.classes else y
    backend = gpumlp.get_backend(device)
    problem = Problem(encoder.transform(frame), y, None, n_out, loss, backend, encoder.n_numbers)
    quality = "fast" if networks == 1 else "best"
    settings = settings_of(quality, networks, len(split.train), encoder.n_numbers, seed)
    found = {}
    for name, change in PARTS.items():
        found.update(_errors_of(problem, split, [change(each) for each in settings], judged, name))
    if networks > 1:
        same = [replace(settings[0], seed=each.seed) for each in settings]
        found.update(_errors_of(problem, split, same, judged, "one setting for all"))
    return {name: value * scale if not data.classes else value for name, value in found.items()}


def _errors_of(
    problem: Any, split: Any, settings: Sequence[Any], judged: np.ndarray, name: str
) -> dict[str, float]:
    from gpumlp import Ensemble
    from gpumlp.tabular.pack import train_pack

    pack = train_pack(problem, [split], settings)
    y = problem.y[judged]

    def error(ensemble: Any) -> float:
        answers = ensemble.answers(problem.X[judged])
        if ensemble.output == "softmax":
            right = answers[np.arange(len(y)), y]
            return float(-np.log(np.clip(right, np.finfo(float).eps, 1)).mean())
        return float(np.sqrt(np.mean((answers - y) ** 2)))

    found = {name: error(pack.ensemble)}
    if name == "the recipe" and len(settings) > 1:
        models = [each.model for each in pack.networks]
        found["mean of all instead of the choice"] = error(Ensemble(models))
        found["the networks alone, mean of errors"] = float(np.mean([error(Ensemble([m])) for m in models]))
    return found


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    parser = command_line(__doc__)
    parser.add_argument("--data", nargs="*", default=[], metavar="FILE.npz", help="files with X and y")
    parser.add_argument("--sets", nargs="*", default=[], choices=OWN, help="of scikit-learn")
    parser.add_argument("--made", nargs="*", default=[], choices=MADE, help="made by formulas")
    parser.add_argument("--networks", type=whole, default=8, help=default("of a pack; 1: `fast`"))
    parser.add_argument("--seeds", type=whole, default=1, help=default("splits and networks"))
    parser.add_argument("--rows", type=whole, help="most training rows of a file")
    args = parser.parse_args(argv)
    sets = [own_set(name) for name in args.sets] + [made_set(name) for name in args.made]
    sets += [file_set(path, args.rows) for path in args.data]
    columns: dict[str, list[str]] = {}
    for data in sets:
        runs = [errors(data, args.networks, seed, args.device) for seed in range(args.seeds)]
        whole_recipe = float(np.mean([run["the recipe"] for run in runs]))
        print(f"{data.name}: {whole_recipe:.4g} with the whole recipe", flush=True)
        for name in runs[0]:
            ratio = float(np.mean([run[name] for run in runs])) / whole_recipe
            columns.setdefault(name, []).append(f"{ratio:.3f}")
    print(table(["part", *(data.name for data in sets)], [[name, *row] for name, row in columns.items()]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
