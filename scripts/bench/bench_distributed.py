"""What ranks cost on the CPU: an all-reduce between two of them, and training steps on one and two.

    python scripts/bench/bench_distributed.py [--repeats 7] [--steps 200] [--rows 8192]

Starts itself under mpiexec.  The all-reduce is of 10^6 float32, by plain mpi4py, by the communicator, and by
the fixed tree that makes training reproducible.  A step is that of a network on a batch: of one process with
all processors and no communicator; of one rank, and of two ranks with half of them each; the sums in any
order, and reproducibly.  A figure is the median over the turns of the slowest rank.  Ranks wait by spinning,
so processors that others use make all of it slow.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.shared.command import command_line, default, whole
from scripts.shared.show import duration, table
from scripts.shared.timing import interleave

ELEMENTS = 10**6
#: name -> layer sizes, rows per step
NETWORKS = {
    "small": ([64, 64, 10], 128),
    "medium": ([784, 256, 128, 10], 256),
    "wide": ([784, 512, 512, 10], 512),
}


def timed(communicator: Any, repeats: int, turns: dict[str, Callable[[], float]]) -> dict[str, float]:
    """Seconds of each turn: the median over the repeats, of the slowest rank each time."""

    def together(turn: Callable[[], float]) -> Callable[[], float]:
        def run() -> float:
            communicator.barrier()
            return max(communicator.gather(turn()))

        return run

    ready = {name: together(turn) for name, turn in turns.items()}
    interleave(ready, 1)  # to warm up
    return {name: statistics.median(times) for name, times in interleave(ready, repeats).items()}


def all_reduces(communicator: Any, repeats: int, calls: int = 20) -> dict[str, float]:
    """Seconds of one, by how."""
    from mpi4py import MPI

    buffer, scratch = np.ones(ELEMENTS, np.float32), np.empty(ELEMENTS, np.float32)

    def turn(call: Callable[[], Any]) -> Callable[[], float]:
        def run() -> float:
            buffer[:] = 1e-30
            start = time.perf_counter()
            for _ in range(calls):
                call()
            return (time.perf_counter() - start) / calls

        return run

    ways = {
        "mpi4py": turn(lambda: MPI.COMM_WORLD.Allreduce(MPI.IN_PLACE, buffer)),
        "communicator": turn(lambda: communicator.all_reduce(buffer)),
        "tree": turn(lambda: communicator.add_doubling(buffer, scratch)),
    }
    return timed(communicator, repeats, ways)


def steps(communicator: Any, ways: dict[str, dict[str, Any]], rows: int, args: Any) -> dict[str, float]:
    """Seconds of a step, by network and way of training."""
    import gpumlp

    found = {}
    for name, (sizes, batch) in NETWORKS.items():
        rng = np.random.default_rng(0)
        X, y = rng.standard_normal((rows, sizes[0]), np.float32), rng.integers(0, sizes[-1], rows)
        count = rows // batch

        def turn(
            options: dict[str, Any], sizes: Any = sizes, batch: int = batch, X: Any = X, y: Any = y
        ) -> Callable[[], float]:
            model = gpumlp.MLP(sizes, device="cpu")
            given = {"loss": "softmax_cross_entropy", "optimizer": "adam", "batch_size": batch, **options}
            trainer = gpumlp.Trainer(model, **given)
            epochs = max(1, args.steps * batch // len(X))

            def run() -> float:
                history = trainer.fit(X, y, epochs=epochs, progress=False)
                return statistics.median(history.seconds) * batch / len(X)

            return run

        for way, seconds in timed(
            communicator, args.repeats, {way: turn(options) for way, options in ways.items()}
        ).items():
            found[f"{name}: {way}"] = seconds
        assert count * batch == rows, f"{rows} rows are not a multiple of {batch}"
    return found


def work(args: Any) -> None:
    """What a rank does: rank 0 prints its figures as JSON."""
    import gpumlp.distributed

    communicator = gpumlp.distributed.get_communicator("auto")
    shared: dict[str, Any] = {"communicator": communicator}
    found = {}
    if communicator.size > 1:
        found["all-reduce"] = all_reduces(communicator, args.repeats)
        ways = {"plain": {**shared, "reproducible": False}, "reproducible": shared}
    else:
        ways = {"alone": {}, "reproducible": shared}
    found["steps"] = steps(communicator, ways, args.rows, args)
    if communicator.rank == 0:
        print(json.dumps(found))


def started(ranks: int, argv: list[str]) -> dict[str, dict[str, float]]:
    """The figures of `ranks` of this program (0: without a launcher)."""
    launcher: list[str] = []
    if ranks:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        found = shutil.which("mpiexec", path=path)
        if found is None:
            raise SystemExit("error: there is no mpiexec: pip install 'gpumlp[distributed]'")
        launcher = [found, "-n", str(ranks)]
    program = [sys.executable, str(Path(__file__).resolve()), "--rank", *argv]
    answer = subprocess.run([*launcher, *program], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(answer.stdout)


def main(argv: list[str] | None = None) -> int:
    """Print the tables."""
    parser = command_line(__doc__)
    parser.add_argument("--repeats", type=whole, default=7, help=default("turns"))
    parser.add_argument("--steps", type=whole, default=100, help=default("steps of a turn"))
    parser.add_argument("--rows", type=whole, default=8192, help=default("rows, a multiple of all batches"))
    parser.add_argument("--rank", action="store_true", help="be one of the ranks; for this program itself")
    args = parser.parse_args(argv)
    if args.rank:
        work(args)
        return 0
    given = [f"--{name}={getattr(args, name)}" for name in ("repeats", "steps", "rows")]
    one, two = started(0, given), started(2, given)
    ways = ["mpi4py", "communicator", "tree"]
    print(f"all-reduce of {ELEMENTS:,} float32 between 2 ranks")
    print(table(ways, [[duration(two["all-reduce"][way]) for way in ways]]))
    rows = []
    for name, (sizes, batch) in NETWORKS.items():
        cells = [one["steps"][f"{name}: {way}"] for way in ("alone", "reproducible")]
        cells += [two["steps"][f"{name}: {way}"] for way in ("plain", "reproducible")]
        rows.append(["-".join(map(str, sizes)), str(batch), *map(duration, cells)])
    print("\na step")
    header = ["network", "batch", "no ranks", "1 rank, reproducible", "2 ranks", "2 ranks, reproducible"]
    print(table(header, rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
