"""Where arrays are."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["device_of", "is_cuda"]

_DLPACK_GPUS = 2, 10  # kDLCUDA and kDLROCM


def is_cuda(x: Any) -> bool:
    """Whether `x` says, by CUDA's array interface or DLPack, that it is on a CUDA device."""
    if type(x) is np.ndarray:  # the usual case; asking takes time
        return False
    if hasattr(x, "__cuda_array_interface__"):
        return True
    speaks = hasattr(x, "__dlpack__") and hasattr(x, "__dlpack_device__")
    return bool(speaks and x.__dlpack_device__()[0] in _DLPACK_GPUS)


def device_of(array: Any) -> str:
    """Where an array is: "cpu", "cuda:0"; for anything else the name of its type."""
    if isinstance(array, np.ndarray):
        return "cpu"
    number = getattr(getattr(array, "device", None), "id", None)
    return type(array).__name__ if number is None else f"cuda:{number}"
