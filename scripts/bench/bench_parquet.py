"""Throughput and peak memory of training from a Parquet file, beside training on arrays in memory.

    python scripts/bench/bench_parquet.py [--gb 0.1] [--features 20] [--group-rows 100000] [--batch 256]

The file has float32 columns of normal numbers, which do not compress, and one of classes.  Each training is
of a network with two hidden layers of 64, in a process of its own; throughput is that of the fastest epoch.
Memory is the largest resident size of the process.  The file is removed at the end.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.shared.command import command_line, default, whole
from scripts.shared.machine import ROOT
from scripts.shared.show import table

MB = 10**6
CHILD = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
import numpy, gpumlp
import pyarrow.parquet
path, how, features, batch, epochs = sys.argv[2], sys.argv[3], *map(int, sys.argv[4:])
size = lambda: 1024 * int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
before, names = size(), [f"x{j}" for j in range(features)]
rows = gpumlp.rows.ParquetRows(path, names, "y")
if how == "memory":
    X, y, at = numpy.empty((rows.n_rows, features), numpy.float32), numpy.empty(rows.n_rows, numpy.int32), 0
    for group in range(len(rows.groups)):
        for X_part, y_part, _ in rows.read(group):
            X[at:at + len(X_part)], y[at:at + len(X_part)] = X_part, y_part
            at += len(X_part)
if how != "reading":
    given = (X, y) if how == "memory" else (rows,)
    model = gpumlp.MLP([features, 64, 64, 2], device="cpu")
    trainer = gpumlp.Trainer(model, loss="softmax_cross_entropy", optimizer="adam", batch_size=batch)
    seconds = min(trainer.fit(*given, epochs=epochs, progress=False).metrics["seconds"])
else:
    start = time.perf_counter()
    for group in range(len(rows.groups)):
        for part in rows.read(group):
            pass
    seconds = time.perf_counter() - start
print(json.dumps([rows.n_rows, seconds, before, size()]))
"""


def write(path: Path, gigabytes: float, features: int, group_rows: int) -> None:
    """A file of about this size, written one row group at a time."""
    import pyarrow as pa
    from pyarrow import parquet

    rng, left = np.random.default_rng(0), round(gigabytes * 1e9 / (4 * features))
    names = [f"x{j}" for j in range(features)]
    schema = pa.schema([*((name, pa.float32()) for name in names), ("y", pa.int8())])
    with parquet.ParquetWriter(path, schema, compression="snappy", use_dictionary=False) as file:
        while left > 0:
            X = rng.standard_normal((features, min(left, group_rows)), np.float32)
            columns = [*X, (X[0] + X[-1] ** 2 > 0.5).astype(np.int8)]
            file.write_table(pa.table(dict(zip([*names, "y"], columns, strict=True)), schema))
            left -= group_rows


def measure(path: Path, how: str, *numbers: int) -> list[Any]:
    """Rows, seconds of an epoch, and bytes before and at most."""
    command = [sys.executable, "-c", CHILD, str(ROOT), str(path), how, *map(str, numbers)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: list[Any] = json.loads(done.stdout)
    return found


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    parser = command_line(__doc__)
    parser.add_argument("--gb", type=float, default=0.1, help=default("size of the file"))
    parser.add_argument("--features", type=whole, default=20, help=default("columns"))
    parser.add_argument("--group-rows", type=whole, default=100_000, help=default("rows of a row group"))
    parser.add_argument("--batch", type=whole, default=256, help=default("rows per step"))
    parser.add_argument("--epochs", type=whole, default=2, help=default("passes over the file"))
    args = parser.parse_args(argv)
    lines: list[list[Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.parquet"
        write(path, args.gb, args.features, args.group_rows)
        print(f"{path.stat().st_size / MB:.0f} MB, row groups of {args.group_rows} rows")
        for how, what in (
            ("file", "training from the file"),
            ("memory", "training in memory"),
            ("reading", "reading the file alone"),
        ):
            n_rows, seconds, before, most = measure(path, how, args.features, args.batch, args.epochs)
            rate = f"{n_rows / seconds / MB:.3f}"
            lines.append([what, f"{seconds:.2f} s", rate, f"{before / MB:.0f}", f"{most / MB:.0f}"])
    print(table(["", "per epoch", "10^6 rows/s", "MB before", "MB at most"], lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
