"""``gpumlp info`` and ``gpumlp bench``."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from importlib import metadata
from typing import Any

import numpy as np

from gpumlp.backends import cuda_problem, get_backend
from gpumlp.backends.base import Backend
from gpumlp.cli.models import describe
from gpumlp.distributed import launched
from gpumlp.errors import DeviceError
from gpumlp.model import MLP
from gpumlp.optimizers import OPTIMIZERS
from gpumlp.tables.base import counted
from gpumlp.training.trainer import Trainer
from gpumlp.version import __version__

__all__ = ["bench", "info"]

_EXECUTORS = ("numpy", "native", "cuda")
_MPI = "import mpi4py; mpi4py.rc.initialize = False; from mpi4py import MPI; print(MPI.Get_library_version())"
_LAUNCHERS = ("mpiexec", "srun", "torchrun")
_PACKAGES = ("numpy", "cupy", "scikit-learn", "pyarrow", "matplotlib", "tqdm")
#: (layer sizes, batch size) of the measured training steps, and array lengths of the measured updates
_NETWORKS = (([32, 16, 2], 32), ([64, 256, 128, 10], 64), ([784, 256, 128, 10], 128))
_LENGTHS = (10_000, 1_000_000)


def info(arguments: argparse.Namespace) -> None:
    """Print versions, executors and what is missing; or what a model file holds."""
    if arguments.model is not None:
        describe(arguments)
        return
    print(f"gpumlp    {__version__}")
    print(
        f"Python    {platform.python_version()} on {platform.system()} {platform.machine()}, "
        f"{_cpus()} CPU cores usable by this process"
    )
    for name in _PACKAGES:
        print(f"{name:<14}{_package(name)}")
    print(f"{'NumPy BLAS':<14}{_numpy_blas()}\n")
    usable = []
    for name in _EXECUTORS:
        try:
            facts = get_backend(name).info()
        except DeviceError as error:
            print(f"{name}: not usable: {error}")
            continue
        usable.append(name)
        print(f"{name}: usable")
        for key, value in facts.items():
            if key != "executor":
                print(f"    {key:<12}{value}")
    print("\nseveral processes (docs/distributed.md):")
    for name, text in _several().items():
        print(f"    {name:<12}{text}")
    forced = os.environ.get("GPUMLP_DEVICE")
    print()
    if forced:
        print(f'GPUMLP_DEVICE={forced} overrides device="auto"')
    backend = get_backend(arguments.device)
    print(f'device="{arguments.device}" chooses {backend.name} on {backend.device}')


def _several() -> dict[str, str]:
    """What there is to train in several processes with."""
    # beside this Python too: a launcher that pip has installed
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
    launchers = {name: shutil.which(name, path=path) for name in _LAUNCHERS}
    here = launched()
    return {
        "started by": f"{here.launcher}, {here.size} ranks" if here.launcher else "no launcher",
        "launchers": ", ".join(f"{n} ({place})" for n, place in launchers.items() if place) or "none found",
        "mpi4py": _package("mpi4py"),
        "MPI": _mpi(),
        "NCCL": _nccl(),
        "dask": ", ".join(f"{name} {_package(name)}" for name in ("dask", "distributed")),
        "devices": _devices(),
    }


def _mpi() -> str:
    """The MPI library that mpi4py loads; in another process, as a broken one may end it."""
    command = [sys.executable, "-c", _MPI]
    try:
        found = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        return f"not usable: {error}"
    lines = [line.strip() for line in (found.stderr if found.returncode else found.stdout).splitlines()]
    if found.returncode:
        return f"not usable: {lines[-1] if lines else f'exit code {found.returncode}'}"
    return " ".join(lines[0].split()) if lines else "unknown"


def _nccl() -> str:
    """Of CuPy."""
    try:
        with warnings.catch_warnings():  # CuPy's own, of many lines
            warnings.simplefilter("ignore")
            from cupy.cuda import nccl
        number = int(nccl.get_version())
    except Exception:  # whatever a library that is missing or broken raises
        return "not found: pip install nvidia-nccl-cu12"
    major, rest = divmod(number, 10_000) if number >= 10_000 else divmod(number, 1000)
    return f"{major}.{rest // 100}.{rest % 100}"


def _devices() -> str:
    """CUDA devices, one for each rank of this machine."""
    problem = cuda_problem()
    if problem:
        return "no CUDA device; ranks share the processors"
    import cupy

    return counted(int(cupy.cuda.runtime.getDeviceCount()), "CUDA device")


def bench(arguments: argparse.Namespace) -> None:
    """Print the time of a training step and of an optimiser update on each executor."""
    backends = []
    for name in _EXECUTORS if arguments.device == "all" else (arguments.device,):
        try:
            backends.append(get_backend(name))
        except DeviceError as error:
            if arguments.device != "all":
                raise
            print(f"{name}: not usable: {error}")
    print(f"{arguments.optimizer}, float32, {_cpus()} CPU cores; median of repeated runs, microseconds\n")
    print(f"{'':<40}" + "".join(f"{b.name:>12}" for b in backends))
    for sizes, batch in _NETWORKS:
        times = [_step_time(b, sizes, batch, arguments) for b in backends]
        _line(f"training step {'-'.join(map(str, sizes))}, {batch} rows", times)
    for n in _LENGTHS:
        _line(f"update of {n:,} parameters", [_update_time(b, n, arguments) for b in backends])


def _line(label: str, seconds: list[float]) -> None:
    print(f"{label:<40}" + "".join(f"{1e6 * s:>12.1f}" for s in seconds))


def _step_time(backend: Backend, sizes: list[int], batch: int, arguments: argparse.Namespace) -> float:
    """Seconds per training step within `Trainer.fit`, from epochs of 50 steps."""
    steps = 50
    rng = np.random.default_rng(0)
    X = rng.standard_normal((steps * batch, sizes[0]), np.float32)
    y = rng.integers(0, sizes[-1], len(X))
    trainer = Trainer(
        MLP(sizes, device=backend),
        loss="softmax_cross_entropy",
        optimizer=arguments.optimizer,
        batch_size=batch,
    )
    trainer.fit(X, y, epochs=1, progress=False)  # compiles and warms up
    seconds: list[float] = []
    until = time.perf_counter() + arguments.seconds
    while len(seconds) < 3 or time.perf_counter() < until:
        # without what fit() does once, before the first epoch and after the last
        seconds += trainer.fit(X, y, epochs=5, progress=False).seconds[1:-1]
    return statistics.median(seconds) / steps


def _update_time(backend: Backend, n: int, arguments: argparse.Namespace) -> float:
    """Seconds per update of one array of `n` parameters."""
    rng = np.random.default_rng(0)
    rule = OPTIMIZERS[arguments.optimizer]()
    p, g = (backend.asarray(rng.standard_normal(n, np.float32)) for _ in range(2))
    rule.init_state([p], backend)
    kernel = rule.kernel()
    arrays = {"p": p, "g": g, **{name: rule.state[0][name] for name in rule.arrays()}}
    scalars, stepped = rule.scalars(kernel), rule.step_values(10, rule.lr)
    return _median(lambda: backend.elementwise(kernel, arrays, scalars, stepped), backend, arguments.seconds)


def _median(run: Callable[[], Any], backend: Backend, budget: float) -> float:
    run()
    backend.synchronize()
    seconds: list[float] = []
    until = time.perf_counter() + budget
    while len(seconds) < 5 or time.perf_counter() < until:
        start = time.perf_counter()
        for _ in range(10):
            run()
        backend.synchronize()
        seconds.append((time.perf_counter() - start) / 10)
    return statistics.median(seconds)


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _package(name: str) -> str:
    if name != "cupy":
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return "not installed"
    # CuPy is published under one name per CUDA version
    found = [d for d in metadata.distributions() if (d.name or "").lower().startswith("cupy")]
    return (
        ", ".join(f"{d.version} ({d.name})" for d in found)
        or "not installed (GPU: pip install 'gpumlp[gpu]')"
    )


def _numpy_blas() -> str:
    try:
        blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]  # NumPy 1.25 and later
        return f"{blas['name']} {blas.get('version', '')}".strip()
    except (TypeError, KeyError):
        return "unknown"
