"""What the scripts share: .npz files, tables, facts about the machine, interleaved timing, figures."""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np

COLORS = ("#0b6fb8", "#d1495b", "#2e8b57", "#8a5cc2", "#c77d0a", "#3f7f93", "#7a7a7a", "#b0479a")


Result = TypeVar("Result")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (see --help)\n")


def one_line_errors(main: Callable[..., Result]) -> Callable[..., Result]:
    """What cannot be done with the options or the data ends the program with one line, not a traceback."""

    @functools.wraps(main)
    def run(*args: Any) -> Result:
        import gpumlp

        try:
            return main(*args)
        except (gpumlp.DeviceError, gpumlp.DivergenceError, ValueError) as error:
            raise SystemExit(f"error: {error}") from None

    return run


def whole(text: str) -> int:
    """Value of an option: a whole number >= 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number >= 1")
    return int(text)


def whole_ticks(ax: Any) -> None:
    """Epochs are counted: no ticks between them."""
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))


def load_npz(path: str | Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The named arrays of an .npz file; ends the program with a message if one is not there."""
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in names if name not in file]
            if missing:
                raise SystemExit(
                    f"error: {path} has no array {', '.join(missing)}; "
                    f"expected {', '.join(names)}, found {', '.join(file.files)}"
                )
            return {name: file[name] for name in names}
    except FileNotFoundError:
        raise SystemExit(f"error: no file {path}; give the path of an .npz file") from None
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise SystemExit(f"error: {path} cannot be read as an .npz file of plain arrays: {error}") from None


def check_writable(*paths: str | None) -> None:
    """End the program with a message now, not after the work, if an output cannot be written."""
    for path in filter(None, paths):
        folder = Path(path).resolve().parent
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise SystemExit(f"error: cannot write {path}; {folder} is not a writable folder")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as JSON by an atomic rename, so that an interrupted run leaves the old file whole."""
    target = Path(path)
    handle, name = tempfile.mkstemp(dir=target.resolve().parent, prefix=target.name, suffix=".tmp")
    with os.fdopen(handle, "w") as file:
        json.dump(value, file, indent=1)
        file.write("\n")
    os.replace(name, target)


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Aligned text: the first column to the left, all others to the right."""
    cells = [[str(c) for c in row] for row in (header, *rows)]
    widths = [max(len(row[j]) for row in cells) for j in range(len(header))]
    lines = [
        "  ".join(
            c.ljust(w) if j == 0 else c.rjust(w) for j, (c, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    lines.insert(1, "  ".join("-" * w for w in widths))
    return "\n".join(line.rstrip() for line in lines)


def duration(seconds: float) -> str:
    """A time with a unit, three significant digits."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def command_line(text: str | None, data: bool = False) -> argparse.ArgumentParser:
    """A parser with the script's docstring as help, --device and, with `data`, the path of an .npz file."""
    parser = _Parser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    if data:
        parser.add_argument("path", metavar="PATH.npz", help="the data, with the arrays named above")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, numpy, native, cuda")
    return parser


def default(text: str = "") -> str:
    """Help text that ends in the option's default."""
    return f"{text} (default %(default)s)".strip()


# ---- devices and machine -----------------------------------------------------------------------------------
def backends(names: Sequence[str]) -> dict[str, Any]:
    """name -> executor for those of `names` that this machine has; "all" stands for numpy, native, cuda.

    A missing executor is reported on stderr if it was asked for by name.
    """
    import gpumlp

    found = {}
    wanted = ["numpy", "native", "cuda"] if "all" in names else list(names)
    for name in wanted:
        try:
            backend = gpumlp.get_backend(name)
        except gpumlp.DeviceError as error:
            if "all" not in names:
                raise SystemExit(f"error: {error}") from None
            print(f"without {name}: {str(error).splitlines()[0]}", file=sys.stderr)
            continue
        found[backend.name] = backend
    return found


def simulator() -> Any:
    """The module that counts what a simulated CUDA device was asked to do; None on a real one."""
    try:
        import simgpu
    except ImportError:
        return None
    return simgpu if simgpu.active() else None


def simulated() -> bool:
    """Whether the CUDA device is a simulator that runs on the CPU (its times say nothing about a GPU)."""
    return simulator() is not None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def cpu_count() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load_at_start() -> str:
    """The load average, for a benchmark to keep; warns on stderr if other programs are running."""
    if not hasattr(os, "getloadavg"):
        return "unknown"
    load = os.getloadavg()[0]
    if load > cpu_count() / 2:
        print(
            f"warning: load average {load:.1f} on {cpu_count()} CPUs, times are unreliable", file=sys.stderr
        )
    return f"{load:.1f}"


def machine() -> dict[str, str]:
    """Facts that a time depends on: processor, threads, versions."""
    facts = {"python": platform.python_version(), "platform": platform.platform(), "cpus": str(cpu_count())}
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        facts["cpu"] = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        facts["cpu"] = platform.processor() or platform.machine()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        if name in os.environ:
            facts[name] = os.environ[name]
    for name in (
        "gpumlp",
        "numpy",
        "torch",
        "jax",
        "optax",
        "keras",
        "thinc",
        "scikit-learn",
        "cupy-cuda12x",
        "cupy-cuda13x",
    ):
        version = _version(name)
        if version:
            facts[name] = version
    if "torch" in sys.modules:
        facts["torch threads"] = str(sys.modules["torch"].get_num_threads())
    if "cupy" in sys.modules and "cupy-cuda12x" not in facts and "cupy-cuda13x" not in facts:
        facts["cupy"] = sys.modules["cupy"].__version__
    if simulated():
        facts["cuda"] = "simulated"
    return facts


def facts_line(facts: Mapping[str, str]) -> str:
    """`machine` in one line."""
    return ", ".join(f"{k} {v}" for k, v in facts.items())


# ---- timing ------------------------------------------------------------------------------------------------
def interleave(candidates: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Call every candidate once per round, in an order that rotates: {name: [returned times]}.

    So a slow phase of the machine falls on all of them alike, and none runs always after the same neighbour.
    """
    names = list(candidates)
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(repeats):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            times[name].append(candidates[name]())
    return times


def summary(times: Sequence[float]) -> dict[str, float]:
    """{"median", "spread"}: the spread is the distance of the quartiles over the median."""
    median = statistics.median(times)
    if len(times) < 2:
        return {"median": median, "spread": 0.0}
    low, high = np.quantile(times, [0.25, 0.75])
    return {"median": median, "spread": float(high - low) / median}


# ---- figures -----------------------------------------------------------------------------------------------
def pyplot() -> Any:
    """matplotlib.pyplot for files (no display), with the scripts' common look."""
    try:
        import matplotlib
    except ImportError:
        raise SystemExit("error: drawing needs matplotlib; install it, or leave the figure out") from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {
            "figure.dpi": 120,
            "savefig.bbox": "tight",
            "font.size": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.25,
            "axes.titlesize": 11,
            "legend.frameon": False,
        }
    )
    return plt
