"""Executors of this machine, and the facts that a time depends on."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

#: of the checkout
ROOT = Path(__file__).resolve().parents[2]
#: peers must leave the rest of a GPU's memory to others; read when JAX is imported
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


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
        "jaxlib",
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
