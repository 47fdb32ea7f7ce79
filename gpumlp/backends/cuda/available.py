"""Whether CUDA can be used here, and if not, why.  CuPy is imported when that is asked, not before."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import Any

__all__ = ["FORKED", "cuda_problem", "driver_problem", "forked", "version_text"]

FORKED = (
    "this process was made by fork after its parent had started CUDA, which works only in the process that "
    "started it; make processes with multiprocessing.get_context('spawn'), or before anything uses the GPU"
)
_INITIALIZATION_ERROR = 3  # of CUDA's runtime
_imported_in = os.getpid()
_asked_in: list[int] = []  # the process that asked CUDA for its devices and found some, which starts it


def forked() -> bool:
    """Whether CUDA was started here by a process that this one was forked from."""
    return bool(_asked_in) and _asked_in[0] != os.getpid()


def cuda_problem(device: int = 0) -> str | None:
    """Why CUDA device number `device` cannot be used, or None if it can.

    The text names what is missing (CuPy, its libraries, the driver, the device) and what to do.
    """
    if "cupy" not in sys.modules and importlib.util.find_spec("cupy") is None:
        return (
            "CuPy is not installed: pip install 'cupy-cuda12x[ctk]', or the CuPy package for your CUDA "
            "version, such as cupy-cuda13x[ctk]"
        )
    if forked():
        return FORKED
    try:
        import cupy
        from cupy.cuda import runtime
    except Exception as error:  # a broken installation can raise anything
        return f"CuPy is installed but cannot be imported ({type(error).__name__}: {error})"
    return driver_problem(cupy, runtime, device) or _library_problem(cupy) or _header_problem(cupy, runtime)


def driver_problem(cupy: Any, runtime: Any, device: int) -> str | None:
    """What is wrong with the driver or with device number `device`."""
    try:
        count = runtime.getDeviceCount()
    except Exception as error:
        try:
            driver = runtime.driverGetVersion()
        except Exception:
            driver = 0
        if driver == 0:
            return f"CuPy {cupy.__version__} is installed, but no NVIDIA driver is ({error})"
        if getattr(error, "status", None) == getattr(runtime, "cudaErrorInsufficientDriver", 35):
            return (
                f"the NVIDIA driver (for CUDA {version_text(driver)}) is older than "
                f"CuPy {cupy.__version__} needs: update the driver, or install CuPy for an older CUDA version"
            )
        if getattr(error, "status", None) == _INITIALIZATION_ERROR and os.getpid() != _imported_in:
            return FORKED
        count, detail = 0, f" ({error})"
    else:
        detail = ""
        if count and not _asked_in:
            _asked_in.append(os.getpid())
    if count == 0:
        return (
            f"CuPy and a driver are installed, but there is no CUDA device{detail}; see CUDA_VISIBLE_DEVICES"
        )
    if device >= count:
        some = (
            "is 1 CUDA device, cuda:0"
            if count == 1
            else f"are {count} CUDA devices, cuda:0 to cuda:{count - 1}"
        )
        return f"there {some}"
    return None


def _library_problem(cupy: Any) -> str | None:
    try:
        from cupy_backends.cuda.libs import nvrtc

        nvrtc.getVersion()
        from cupy_backends.cuda.libs import cublas  # noqa: F401
    except Exception as error:
        return (
            f"CuPy {cupy.__version__} and a driver are installed, but a CUDA library is missing "
            f"({' '.join(str(error).split())}): install it with CuPy's [ctk] extra, such as "
            "pip install 'cupy-cuda12x[ctk]'"
        )
    return None


def _header_problem(cupy: Any, runtime: Any) -> str | None:
    """CuPy looks for CUDA's headers before it compiles a kernel, once; this is the answer it will get."""
    try:
        from cupy._core import core

        find = core.assemble_cupy_compiler_options
    except (ImportError, AttributeError):  # a version that looks elsewhere
        return None
    try:
        find(())
    except Exception as error:
        return (
            f"CuPy {cupy.__version__} and a driver are installed, but CUDA's headers, which every kernel is "
            f"compiled with, are missing ({' '.join(str(error).split())}): install them with CuPy's [ctk] "
            f"extra, such as pip install 'cupy-cuda{runtime.runtimeGetVersion() // 1000}x[ctk]'"
        )
    return None


def version_text(number: int) -> str:
    """CUDA's number of a version, 12040, as "12.4"."""
    return f"{number // 1000}.{number % 1000 // 10}"
