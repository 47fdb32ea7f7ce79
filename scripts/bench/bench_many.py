"""What it gains to train many networks at once; two tables.

    python scripts/bench/bench_many.py [--device cpu] [--tables fits steps] [--quick]

fits    64 fits, 16 learning rates x 4 folds, 20 epochs: `fit_many`, single fits one after another, and
        scikit-learn's in two processes (left out with --without-sklearn).  Making networks and trainers is
        included.  Parameters of fit_many and of single fits are compared: bits, on CUDA the largest
        difference over the largest parameter.
steps   1 to 256 networks of three shapes, each with its own initial values, learning rate and row order:
        seconds per step of one network, by `fit_many`, by the fit of one network alone, by fits one after
        another on one thread (native executor), by JAX (vmap in a scan) and PyTorch (torch.func).  "gain" is
        one thread each over fit_many.  Set-up and compilation are not included, the drawing of row orders is
        for gpumlp alone.  Mean losses of the first epoch are compared; if they are not alike, the exit status
        is 1.  What is not installed is named and left out.

The candidates take turns; a figure is the median over the turns, behind it the distance of the quartiles.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.bench.many_peers import candidates, usable_peers
from scripts.bench.many_task import MEMBERS, ONE_THREAD, OURS, SHAPES, ManyTask
from scripts.shared.command import command_line, default, whole
from scripts.shared.machine import facts_line, load_at_start, machine, simulated
from scripts.shared.show import duration, table
from scripts.shared.timing import SETTLE, interleave, summary

FOLDS = 4
#: seconds after which the turns of a line of "steps" end
ENOUGH = 4.0


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
    shown = [*map(with_spread, times.values()), *[""] * (3 - len(times))]
    return [name, "-".join(map(str, sizes)), str(batch), *shown, agreement(made["many"], made["single"])]


def agreement(some: Sequence[Any], others: Sequence[Any]) -> str:
    """Of the parameters of trainers: "equal" or "different", on CUDA the largest relative difference."""
    pairs = [
        [trainer.model.backend.to_numpy(trainer.model.flat) for trainer in pair]
        for pair in zip(some, others, strict=True)
    ]
    if some[0].model.device.startswith("cuda"):
        return f"{max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs):.1e}"
    return "equal" if all(np.array_equal(a, b) for a, b in pairs) else "different"


def with_spread(times: Sequence[float]) -> str:
    """Median and spread."""
    found = summary(times)
    return f"{duration(found['median'])} ({found['spread']:.0%})"


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


def steps_line(task: ManyTask, device: str, peers: Sequence[str], repeats: int) -> dict[str, Any]:
    """{candidate: times per step of a network} for one line of the second table."""
    ready: dict[str, Callable[[], float]] = {}
    for name, make in candidates(task, device, peers).items():
        run = make()
        run()  # compiles and warms up
        ready[name] = rested(run)
    start = time.perf_counter()
    return interleave(ready, repeats, lambda: time.perf_counter() - start > ENOUGH)


def rested(run: Callable[[], float]) -> Callable[[], float]:
    """`run`, after a pause in which the threads of others go to sleep."""

    def turn() -> float:
        time.sleep(SETTLE)
        return run()

    return turn


def steps_table(args: Any, peers: Sequence[str]) -> list[str]:
    """Print the second table; returns lines about what is not the same training."""
    lines: list[list[str]] = []
    unlike: list[str] = []
    names: list[str] = []
    for sizes, batch, steps in SHAPES:
        for members in args.members:
            task = ManyTask(sizes, batch, min(steps, 2) if args.quick else steps, members)
            times = steps_line(task, args.device, peers, args.repeats)
            medians = {name: summary(t)["median"] for name, t in times.items()}
            gain = medians[ONE_THREAD] / medians[OURS] if ONE_THREAD in medians else None
            names = list(times)
            shown = [task.name, str(members), *map(with_spread, times.values())]
            lines.append([*shown, *([] if gain is None else [f"{gain:.2f}"])])
            unlike += task.unlike()
    gains = ["gain"] if ONE_THREAD in names else []
    print("\nseconds per step of one network")
    print(table(["network (batch)", "networks", *names, *gains], lines))
    for line in unlike:
        print(f"NOT ALIKE  {line}")
    return unlike


def fits_table(args: Any) -> None:
    """Print the first table."""
    header = ["data", "network", "batch", "fit_many", "single fits", "scikit-learn, n_jobs=2", "parameters"]
    print(table(header, [compare(*task, args) for task in tasks()]), flush=True)


def arguments(argv: list[str] | None) -> Any:
    """The command line."""
    parser = command_line(__doc__)
    parser.add_argument("--tables", nargs="+", choices=["fits", "steps"], default=["fits", "steps"])
    parser.add_argument("--repeats", type=whole, help="turns (default 7, at most; 1 with --quick)")
    parser.add_argument("--fits", type=whole, default=64, help=default("fits: networks"))
    parser.add_argument("--epochs", type=whole, default=20, help=default("fits: epochs of each"))
    parser.add_argument("--without-sklearn", action="store_true", help="fits: leave its processes out")
    parser.add_argument("--members", type=whole, nargs="+", help=f"steps: networks (default {MEMBERS})")
    parser.add_argument(
        "--peers", nargs="*", choices=["jax", "torch"], default=["jax", "torch"], help="steps: beside gpumlp"
    )
    parser.add_argument("--quick", action="store_true", help="few networks and turns: a check of this script")
    args = parser.parse_args(argv)
    args.repeats = args.repeats or (1 if args.quick else 7)
    args.members = args.members or ([1, 3] if args.quick else MEMBERS)
    if args.quick:
        args.fits, args.epochs = min(args.fits, 5), min(args.epochs, 2)
    return args


def main(argv: list[str] | None = None) -> int:
    """Print the tables."""
    args = arguments(argv)
    if "fits" in args.tables:
        try:
            import sklearn  # noqa: F401
        except ImportError:
            raise SystemExit("error: the data sets are scikit-learn's: pip install scikit-learn") from None

    import gpumlp

    load = load_at_start()
    backend = gpumlp.get_backend(args.device)
    args.device = backend.name
    print(facts_line({**machine(), **backend.info(), "load at start": load}))
    if simulated():
        print("The CUDA device is simulated: these times say nothing about a GPU.")
    if "fits" in args.tables:
        fits_table(args)
    if "steps" not in args.tables:
        return 0
    peers = usable_peers(args.device, args.peers, lambda line: print(line, file=sys.stderr))
    return 1 if steps_table(args, peers) else 0


if __name__ == "__main__":
    sys.exit(main())
