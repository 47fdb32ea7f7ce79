"""Bare arrays that `Optimizer.update` is given: where they are, and whether they fit together."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["as_list", "check_pair", "is_host", "own", "state_dtype", "to_numpy"]


def as_list(arrays: Any) -> list[Any]:
    """One array, or several, as a list."""
    if type(arrays) is list:
        return arrays
    return list(arrays) if isinstance(arrays, (list, tuple)) else [arrays]


def is_host(array: Any) -> bool:
    """Whether it is a NumPy array."""
    return isinstance(array, np.ndarray)


def to_numpy(array: Any) -> np.ndarray:
    """Copy on the host."""
    return np.array(array.get() if hasattr(array, "get") else array)


def own(array: Any) -> np.ndarray:
    """`array` as an array in memory that may be written to: a copy of what is in a file that is mapped."""
    return array if type(array) is np.ndarray and array.flags.writeable else np.array(array)


def state_dtype(p: Any) -> np.dtype:
    """Type of an optimiser's state for the parameter `p`."""
    return np.dtype(np.float64 if p.dtype == np.float64 else np.float32)


def check_pair(number: int, p: Any, g: Any) -> None:
    """TypeError or ValueError if parameter `p` and gradient `g`, number `number` of a list, do not fit."""
    if not hasattr(p, "dtype") or not hasattr(g, "dtype") or not hasattr(p, "strides"):
        raise TypeError(
            f"params[{number}] is {type(p).__name__} and grads[{number}] is {type(g).__name__}; "
            "expected NumPy or CuPy arrays"
        )
    if is_host(p) is not is_host(g) or getattr(p, "device", None) != getattr(g, "device", None):
        raise TypeError(
            f"params[{number}] is {_where(p)} but grads[{number}] is {_where(g)}; "
            "move one of them so that both are on the same device"
        )
    if p.dtype != g.dtype:
        raise TypeError(f"params[{number}] is {p.dtype} but grads[{number}] is {g.dtype}; cast the gradient")
    if p.dtype not in (np.float32, np.float64):
        raise TypeError(f"params[{number}] is {p.dtype}; supported are float32 and float64")
    if p.shape != g.shape:
        raise ValueError(f"params[{number}] has shape {p.shape} but grads[{number}] has shape {g.shape}")
    if p.size and any(n > 1 and stride == 0 for n, stride in zip(p.shape, p.strides, strict=True)):
        raise ValueError(f"params[{number}] is broadcast: elements share memory; pass a copy")
    if isinstance(p, np.ndarray) and not p.flags.writeable:
        raise ValueError(f"params[{number}] is read-only; pass a writable array (it is updated in place)")


def _where(array: Any) -> str:
    module = type(array).__module__.split(".")[0]
    device = getattr(array, "device", None)
    return f"{module} {type(array).__name__}" + (f" on {device}" if device is not None else "")
