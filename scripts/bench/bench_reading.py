"""Time and peak memory of reading a CSV and a Parquet file, each in a process of its own.

    python scripts/bench/bench_reading.py [--rows 200000 2000000] [--columns 20] [--repeats 3]

A file has one column of classes, the others hold normal numbers of eight decimals.  Time is the fastest of
the repeats in a new process, imports not included; memory is the largest resident size of the process.
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
from scripts.shared.show import duration, table

MB = 10**6
CHILD = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
from gpumlp.tables import read_frame
try:
    import gpumlp.tables.arrow_csv, gpumlp.tables.arrow_files
except ModuleNotFoundError:
    pass
size = lambda: 1024 * int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
before, start = size(), time.perf_counter()
frame = read_frame(sys.argv[2], modes={"y": "label"})
print(json.dumps([time.perf_counter() - start, before, size(), frame.n_rows]))
"""


def write(path: Path, n_rows: int, n_columns: int) -> None:
    """A file of this size, by its ending."""
    rng = np.random.default_rng(0)
    names = [*(f"x{j}" for j in range(n_columns - 1)), "y"]
    if path.suffix == ".parquet":
        import pyarrow as pa
        from pyarrow import parquet

        X = [rng.normal(size=n_rows).round(8) for _ in names[1:]]
        parquet.write_table(pa.table(dict(zip(names, [*X, (X[0] > 0).astype(int)], strict=True))), path)
        return
    with path.open("w") as file:
        file.write(",".join(names) + "\n")
        for start in range(0, n_rows, 50_000):
            X = rng.normal(size=(min(50_000, n_rows - start), n_columns - 1))
            np.savetxt(file, np.column_stack([X, X[:, 0] > 0]), ["%.8f"] * (n_columns - 1) + ["%d"], ",")


def measure(path: Path, repeats: int) -> tuple[float, float, float]:
    """Seconds, and bytes before and at most."""
    found = []
    for _ in range(repeats):
        done = subprocess.run(
            [sys.executable, "-c", CHILD, str(ROOT), str(path)], capture_output=True, text=True, check=True
        )
        found.append(json.loads(done.stdout))
    return min(f[0] for f in found), max(f[1] for f in found), max(f[2] for f in found)


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    parser = command_line(__doc__)
    parser.add_argument("--rows", type=whole, nargs="+", default=[200_000, 2_000_000], help=default("rows"))
    parser.add_argument("--columns", type=whole, default=20, help=default("columns"))
    parser.add_argument("--repeats", type=whole, default=3, help=default("processes per file"))
    args = parser.parse_args(argv)
    endings = [".csv", ".parquet"]
    try:
        import pyarrow

        print(f"pyarrow {pyarrow.__version__}")
    except ModuleNotFoundError:
        print("without pyarrow")
        endings = [".csv"]
    lines: list[list[Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for n_rows in args.rows:
            for ending in endings:
                path = Path(folder) / f"t{ending}"
                write(path, n_rows, args.columns)
                seconds, before, most = measure(path, args.repeats)
                sizes = [path.stat().st_size, before, most, 4 * n_rows * args.columns]
                lines.append(
                    [
                        f"{ending} {n_rows} x {args.columns}",
                        duration(seconds),
                        *(f"{s / MB:.0f}" for s in sizes),
                    ]
                )
    print(table(["file", "time", "MB on disk", "MB before", "MB at most", "MB as float32"], lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
