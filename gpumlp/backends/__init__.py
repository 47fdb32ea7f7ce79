"""Executors: NumPy, native CPU, CuPy; and how a device name becomes one of them."""

from __future__ import annotations

import os
import re
import sys
import threading
import warnings
from typing import Any

import numpy as np

from gpumlp.backends.base import Backend
from gpumlp.backends.cuda.available import FORKED, cuda_problem, forked
from gpumlp.distributed.launcher import launched
from gpumlp.errors import DeviceError, suggest
from gpumlp.locks import free_after_fork

__all__ = ["Backend", "backend_of", "cuda_problem", "free_memory", "get_backend"]

_NAMES = ("auto", "cpu", "numpy", "native", "cuda", "cuda:0", "cuda:1")
_CUDA = re.compile(r"cuda:(\d{1,4})")
#: the executors that exist, by device
made: dict[str, Backend] = {}
_making = threading.RLock()
free_after_fork(sys.modules[__name__], "_making")
_warned: set[str] = set()


def get_backend(name: str | Backend = "auto") -> Backend:
    """The executor for a device name; the same object for the same device.

    Parameters
    ----------
    name : str or Backend
        "auto": the environment variable ``GPUMLP_DEVICE`` if set, else "cuda" where usable, else "cpu".
        "cpu": "native" where a C++ compiler is found, else "numpy" (a warning says why).  "cuda" is "cuda:0",
        or "cuda:<local rank>" where a launcher has started several processes; "gpu" and "gpu:1" are other
        names of "cuda" and "cuda:1".
        A Backend is returned as is.

    Raises
    ------
    gpumlp.DeviceError
        A named device that cannot be used; the message says which part is missing.
    ValueError
        An unknown name.
    """
    if isinstance(name, Backend):
        return name
    if not isinstance(name, str):
        raise TypeError(f"device={name!r}; expected a name ({', '.join(_NAMES)}) or a Backend")
    wanted = _plain(name)
    if wanted == "auto":
        wanted = _plain(os.environ.get("GPUMLP_DEVICE", "")) or "auto"
        if wanted not in _NAMES and not _CUDA.fullmatch(wanted):
            raise ValueError("GPUMLP_DEVICE: " + suggest("device", wanted, _NAMES))
    if wanted == "auto":
        problem = cuda_problem()
        wanted = "cpu" if problem else "cuda"
        if problem == FORKED:  # the parent has a device that could be used
            _warn_once(f"device='auto' is the CPU here: {FORKED}")
    if wanted == "cpu":
        wanted = _cpu()  # not "native": that one fails where it cannot compile
    if wanted == "cuda":
        wanted = f"cuda:{_own_device()}"
    if wanted.startswith("cuda") and forked():
        raise DeviceError(f"device={wanted!r} cannot be used: {FORKED}")
    if wanted not in made:
        with _making:  # two backends of a device would not know of each other's work
            if wanted not in made:
                made[wanted] = _make(wanted)
    return made[wanted]


def _own_device() -> int:
    """The number of this process's CUDA device: that of its rank on this machine, unless the launcher shows
    each rank only its own."""
    local_rank = launched().local_rank
    return local_rank if local_rank and cuda_problem(local_rank) is None else 0


def _plain(name: str) -> str:
    """In lower case, with "cuda" for "gpu"."""
    name = name.strip().lower()
    return name.replace("gpu", "cuda", 1) if name == "gpu" or name.startswith("gpu:") else name


def _cpu() -> str:
    from gpumlp.backends.native.backend import NativeBackend

    why = NativeBackend.why_not()
    if why is None:
        return "cpu"
    _warn_once(f"the CPU runs NumPy code, not compiled kernels: {why}")
    return "numpy"


def _warn_once(text: str) -> None:
    if text not in _warned:
        _warned.add(text)
        warnings.warn(text, RuntimeWarning, stacklevel=4)


def _make(name: str) -> Backend:
    if name == "numpy":
        from gpumlp.backends.numpy import NumpyBackend

        return NumpyBackend()
    if name == "cpu":
        from gpumlp.backends.native.backend import NativeBackend
        from gpumlp.backends.numpy import NumpyBackend

        return NativeBackend(instead=NumpyBackend())
    if name == "native":
        from gpumlp.backends.native.backend import NativeBackend

        why = NativeBackend.why_not()
        if why is not None:
            why = why.rstrip(".")
            raise DeviceError(f"device='native' cannot be used: {why}. device='numpy' needs no compiler.")
        return NativeBackend()
    match = _CUDA.fullmatch(name)
    if match is None:
        raise ValueError(suggest("device", name, _NAMES))
    number = int(match[1])
    problem = cuda_problem(number)
    if problem:
        raise DeviceError(f"device={name!r} cannot be used: {problem}. device='auto' would use the CPU.")
    from gpumlp.backends.cuda.backend import CupyBackend

    return CupyBackend(number)


def backend_of(array: Any) -> Backend:
    """The executor for a NumPy array ("cpu") or a CuPy array (its device); TypeError for anything else."""
    if isinstance(array, np.ndarray):
        return get_backend("cpu")
    cupy = sys.modules.get("cupy")
    if cupy is not None and isinstance(array, cupy.ndarray):
        return get_backend(f"cuda:{array.device.id}")
    raise TypeError(f"{type(array).__name__} was given; expected a NumPy or CuPy array")


def free_memory() -> None:
    """Give back the GPU memory that CuPy's pools keep for later use; arrays in use stay."""
    for backend in made.values():
        if backend.name == "cuda":
            backend.free_memory()  # type: ignore[attr-defined]
