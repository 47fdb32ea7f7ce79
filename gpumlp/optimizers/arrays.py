"""Bare arrays that `Optimizer.update` is given: what they are, where, and whether they fit together."""

from __future__ import annotations

import bisect
import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpumlp.backends.accesses import extent
from gpumlp.backends.arrays import is_cuda

__all__ = ["Given", "as_list", "is_host", "open_number", "open_pair", "own", "state_dtype", "to_numpy"]

_KINDS = {np.dtype(name): name for name in ("float32", "float64", "float16")}
_BFLOAT16_NAN = 0x7FFF
_READ_ONLY = "is read-only; pass a writable array (it is updated in place)"


def as_list(arrays: Any) -> list[Any]:
    """One array, or several, as a list."""
    if type(arrays) is list:
        return arrays
    return list(arrays) if isinstance(arrays, (list, tuple, Iterator)) else [arrays]


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


@dataclass(eq=False)
class Given:
    """An array as NumPy's or CuPy's, in the memory of what was given.

    Attributes
    ----------
    array : NumPy or CuPy array
        The bits as uint16 if it is of bfloat16, which neither of them has.
    kind : str
        Name of the dtype; "bfloat16" among them.
    fixed : str
        Why it cannot be written to, with what to do; else empty.
    """

    array: Any
    kind: str
    fixed: str = ""

    @property
    def half(self) -> bool:
        """Whether it has 16 bits."""
        return self.kind in ("float16", "bfloat16")

    def widened(self) -> Any:
        """A C-contiguous copy as float32, of arrays of 16 bits."""
        if self.kind == "float16":
            return self.array.astype(np.float32, order="C")
        return (self.array.astype(np.uint32, order="C") << 16).view(np.float32)

    def narrow(self, values: Any) -> None:
        """Write `values` of float32, rounded to the nearest, ties to even."""
        if self.kind == "float16":
            with np.errstate(over="ignore"):
                self.array[...] = values
            return
        bits = values.view(np.uint32)
        rounded = (bits + (np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1)))) >> 16
        nan = values != values  # noqa: PLR0124
        self.array[...] = rounded * ~nan + nan * np.uint32(_BFLOAT16_NAN)


Pairs = list[tuple[Given, Given]]


def open_pair(number: int, p: Any, g: Any, zero: bool = False) -> tuple[Given, Given]:
    """Parameter and gradient number `number` of a list; TypeError or ValueError if they do not fit.

    They may be of any library that says where its memory is; nothing is copied.  With `zero` the gradient is
    written to as well.
    """
    if not (_is_array(p) and _is_array(g)):
        raise TypeError(
            f"params[{number}] is {type(p).__name__} and grads[{number}] is {type(g).__name__}; "
            "expected NumPy or CuPy arrays, or those of PyTorch or Numba (gradients also of JAX)"
        )
    pair = _opened(f"params[{number}]", p), _opened(f"grads[{number}]", g)
    _check_pair(number, *pair, zero)
    return pair


def open_number(what: str, array: Any) -> Any:
    """An array of one number as NumPy's or CuPy's; ValueError if it is none."""
    given = _opened(what, array).array
    if given.size != 1 or given.dtype.kind != "f":
        raise ValueError(f"{what} has shape {given.shape} and dtype {given.dtype}; expected one real number")
    return given


def _is_array(array: Any) -> bool:
    return isinstance(array, np.ndarray) or hasattr(array, "__dlpack__") or is_cuda(array)


def _opened(what: str, array: Any) -> Given:
    if isinstance(array, np.ndarray) or _is_cupy(array):
        plain = array
    else:
        if getattr(array, "requires_grad", False):
            array = array.detach()  # the same memory; an update is no part of PyTorch's graph
        plain = _shared(what, array)
    kind = _KINDS.get(plain.dtype)
    if kind is None or plain is not array:
        kind = getattr(plain.dtype, "name", "") if plain.dtype.isnative else str(plain.dtype)
        if str(getattr(array, "dtype", "")) == "torch.bfloat16" or kind == "bfloat16":
            plain, kind = plain.view(np.uint16), "bfloat16"
    return Given(plain, kind, _why_fixed(what, array, plain))


def _is_cupy(array: Any) -> bool:
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(array, cupy.ndarray)


def _why_fixed(what: str, array: Any, plain: Any) -> str:
    if type(array).__module__.startswith("jax"):
        return (
            f"{what} is a JAX array, which cannot be changed; keep parameters in NumPy or CuPy arrays "
            "(np.array(x)), and give gradients of JAX as they are"
        )
    if isinstance(plain, np.ndarray):
        fixed = not plain.flags.writeable
    else:
        fixed = (
            not _is_cupy(array)
            and getattr(array, "__cuda_array_interface__", {"data": (0, False)})["data"][1]
        )
    return f"{what} {_READ_ONLY}" if fixed else ""


def _shared(what: str, array: Any) -> Any:
    """An array of another library as NumPy's or CuPy's, in the same memory."""
    try:
        if str(getattr(array, "dtype", "")) == "torch.bfloat16":
            array = array.view(sys.modules["torch"].int16)
        if is_cuda(array):
            import cupy

            by_interface = hasattr(array, "__cuda_array_interface__")
            return cupy.asarray(array) if by_interface else cupy.from_dlpack(array)
        if hasattr(array, "numpy"):  # PyTorch; NumPy 1 makes read-only arrays of DLPack's
            return array.numpy()
        return np.asarray(array) if type(array).__module__.startswith("jax") else np.from_dlpack(array)
    except Exception as error:  # whatever another library raises
        raise TypeError(
            f"{what} is {type(array).__module__.split('.')[0]} {type(array).__name__}; its memory cannot be "
            f"shared ({error}); expected a dense array of float32, float64, float16 or bfloat16 on the CPU "
            "or a CUDA device"
        ) from error


def _check_pair(number: int, p: Given, g: Given, zero: bool) -> None:
    """TypeError or ValueError if parameter `p` and gradient `g`, number `number` of a list, do not fit."""
    if is_host(p.array) is not is_host(g.array) or (
        getattr(p.array, "device", None) != getattr(g.array, "device", None)
    ):
        raise TypeError(
            f"params[{number}] is {_where(p)} but grads[{number}] is {_where(g)}; "
            "move one of them so that both are on the same device"
        )
    if p.kind not in ("float32", "float64", "float16", "bfloat16"):
        raise TypeError(
            f"params[{number}] is {p.kind}; supported are float32 and float64, and float16 and bfloat16 with "
            "a float32 copy that the optimiser keeps"
        )
    if (
        p.kind != g.kind
        and not (p.kind != "float64" and g.half and not p.half)
        and not (p.half and g.kind == "float32")
    ):
        raise TypeError(f"params[{number}] is {p.kind} but grads[{number}] is {g.kind}; cast the gradient")
    if p.array.shape != g.array.shape:
        raise ValueError(
            f"params[{number}] has shape {p.array.shape} but grads[{number}] has shape {g.array.shape}"
        )
    for given, name in ((p, "params"), *([(g, "grads")] if zero else [])):
        array = given.array
        if array.size and any(n > 1 and s == 0 for n, s in zip(array.shape, array.strides, strict=True)):
            raise ValueError(f"{name}[{number}] is broadcast: elements share memory; pass a copy")
        if given.fixed:
            raise ValueError(given.fixed)


def apart(pairs: Pairs, zero: bool, direct: Callable[[Any], bool]) -> tuple[list[Any], list[int]]:
    """The gradients, and the numbers of those that had to be copied.

    Those are the ones that are not `direct`, or share memory with what is written: parameters, and with
    `zero` the gradients.
    """
    spans = [(*extent(p.array), n) for n, (p, _) in enumerate(pairs)]
    if zero:  # gradients are written as well: they get numbers below 0
        spans += [(*extent(g.array), ~n) for n, (_, g) in enumerate(pairs)]
    spans.sort()
    reach = list(itertools.accumulate((high for _, high, _ in spans), max))
    grads, copied = [], []
    for n, (p, g) in enumerate(pairs):
        low, high = extent(g.array)
        at, as_it_is = bisect.bisect_left(spans, (high,)), direct(g.array)
        while at > 0 and reach[at - 1] > low:
            at -= 1
            first, last, owner = spans[at]
            if last <= low or first == last or owner == ~n:
                continue
            if zero and owner >= 0:
                raise ValueError(
                    f"zero=True, but grads[{n}] and params[{owner}] share memory; pass a copy of the gradient"
                )
            same = owner == n and first == low and g.array.strides == p.array.strides and g.kind == p.kind
            as_it_is = as_it_is and same
        grads.append(g.array if as_it_is else g.array.copy(order="C"))
        copied += [] if as_it_is else [n]
    return grads, copied


def _where(given: Given) -> str:
    array = given.array
    module = type(array).__module__.split(".")[0]
    device = getattr(array, "device", None)
    return f"{module} {type(array).__name__}" + (f" on {device}" if device is not None else "")
