"""What a kernel or a product demands of its arrays, the same for every executor.

Compiled code sees addresses only, so this is the one place where types, shapes and strides are compared with
what will be read and written.  It raises TypeError for a wrong kind or dtype, and ValueError for a wrong
shape, layout or value; the message says what was given and what was expected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpumlp.kernels.kernel import Array, Kernel

__all__ = [
    "Extents",
    "check_elementwise",
    "check_gemm",
    "check_launch",
    "check_stepped",
    "device_of",
    "real_types",
]

Extents = Mapping[str, tuple[int, ...]]
#: types of 16 bits, which only CUDA computes with; uint16 holds the bits of bfloat16
_HALF = ("float16", "uint16")
_REAL = ("float32", "float64")


def device_of(array: Any) -> str:
    """Where an array is: "cpu", "cuda:0"; for anything else the name of its type."""
    if isinstance(array, np.ndarray):
        return "cpu"
    number = getattr(getattr(array, "device", None), "id", None)
    return type(array).__name__ if number is None else f"cuda:{number}"


def real_types(kernel: Kernel, arrays: Mapping[str, Any]) -> tuple[str, str]:
    """Names of the types that T and C stand for, "" if no array tells."""
    stored = next((arrays[a.name].dtype.name for a in kernel.arrays if a.ctype == "T"), "")
    compute = "float32" if stored in _HALF else stored
    compute = compute or next((arrays[a.name].dtype.name for a in kernel.arrays if a.ctype == "C"), "")
    for name, known in ((stored, _HALF + _REAL), (compute, _REAL)):
        if name and name not in known:
            raise TypeError(f"{kernel.name}: arrays of {name}; expected {' or '.join(_REAL)}")
    return stored, compute


def check_launch(
    kernel: Kernel,
    arrays: Mapping[str, Any],
    scalars: Mapping[str, Any],
    rows: int,
    cols: int,
    segments: Sequence[tuple[int, int, float]] | None = None,
    extents: Extents | None = None,
) -> None:
    """Raise unless `kernel` may run over `rows` x `cols` on `arrays` (see `Launch`)."""
    _check_kernel(kernel, arrays, scalars)
    if rows < 0 or cols < 0:
        raise ValueError(f"{kernel.name}: an index space of ({rows}, {cols}); expected none below 0")
    raws = {a.name for a in kernel.arrays if a.role.startswith("raw")}
    if extents and not raws.issuperset(extents):
        raise ValueError(f"{kernel.name}: extents of {sorted(extents)}; its raw arrays are {sorted(raws)}")
    for spec in kernel.arrays:
        array = arrays[spec.name]
        where = f"{kernel.name}: array {spec.name!r}"
        _check_strides(where, array)
        if spec.name in raws:
            _check_extent(where, array, (extents or {}).get(spec.name))
        elif rows and cols:
            _check_space(where, spec, array, rows, cols)
    if segments is not None:
        _check_segments(kernel, segments, cols)


def check_elementwise(
    kernel: Kernel, arrays: Mapping[str, Any], scalars: Mapping[str, Any], stepped: Mapping[str, float]
) -> None:
    """Raise unless `kernel` may run on every element of `arrays`, which are of one shape and any strides."""
    _check_kernel(kernel, arrays, scalars)
    check_stepped(kernel, stepped)
    plain = {a.name: arrays[a.name].shape for a in kernel.arrays if not a.role.startswith("raw")}
    for name in arrays.keys() - plain:
        _check_strides(f"{kernel.name}: array {name!r}", arrays[name])
    if len(set(plain.values())) > 1:
        shapes = ", ".join(f"{name!r} {shape}" for name, shape in plain.items())
        raise ValueError(f"{kernel.name}: arrays of shapes {shapes}; expected equal ones")


def check_stepped(kernel: Kernel, given: Mapping[str, float]) -> None:
    """Raise TypeError unless `given` has the kernel's per-step values."""
    if not set(given).issuperset(kernel.stepped):
        raise TypeError(
            f"{kernel.name}: per-step values {sorted(given)}, expected {sorted(set(kernel.stepped))}"
        )


def check_gemm(a: Any, b: Any, c: Any, trans_a: bool, trans_b: bool, tf32: bool) -> None:
    """Raise unless c = op(a) @ op(b) can be computed (see `Gemm`)."""
    for name, array in {"a": a, "b": b, "c": c}.items():
        where = f"gemm: array {name!r}"
        _check_is_array(where, array)
        if array.ndim != 2:
            raise ValueError(f"{where} has shape {array.shape}; expected 2-D")
        _check_strides(where, array)
        if name == "c":
            _check_writable(where, array)
        if array.shape[0] > 1 and array.strides[0] < array.shape[1] * array.itemsize:
            raise ValueError(f"{where} has strides {array.strides}; expected rows in ascending order, apart")
    m, k = a.shape[::-1] if trans_a else a.shape
    k_b, n = b.shape[::-1] if trans_b else b.shape
    if k != k_b or c.shape != (m, n):
        left, right = ("^T" if trans else "" for trans in (trans_a, trans_b))
        raise ValueError(f"gemm of shapes {a.shape}{left} and {b.shape}{right} into {c.shape}")
    kind = a.dtype.name
    wanted = {"a": _REAL + _HALF, "b": (kind,), "c": (kind, "float32") if kind in _HALF else (kind,)}
    for name, array in {"a": a, "b": b, "c": c}.items():
        if array.dtype.name not in wanted[name]:
            raise TypeError(f"gemm: array {name!r} is {array.dtype}; expected {' or '.join(wanted[name])}")
    if tf32 and kind != "float32":
        raise TypeError(f"gemm: array 'a' is {a.dtype}; expected float32 with tf32")


def _check_kernel(kernel: Kernel, arrays: Mapping[str, Any], scalars: Mapping[str, Any]) -> None:
    """Names, and types of the arrays."""
    kernel.check(dict(arrays), dict(scalars))
    for spec in kernel.arrays:
        _check_is_array(f"{kernel.name}: array {spec.name!r}", arrays[spec.name])
    stored, compute = real_types(kernel, arrays)
    for spec in kernel.arrays:
        array, wanted = arrays[spec.name], {"T": stored, "C": compute}.get(spec.ctype, spec.ctype)
        if array.dtype.name != wanted:
            raise TypeError(f"{kernel.name}: array {spec.name!r} is {array.dtype}; expected {wanted}")
        if spec.role not in ("in", "raw"):
            _check_writable(f"{kernel.name}: array {spec.name!r}", array)


def _check_is_array(where: str, array: Any) -> None:
    if not (hasattr(array, "dtype") and hasattr(array, "strides") and hasattr(array, "flags")):
        raise TypeError(f"{where} is {type(array).__name__}; expected a NumPy or CuPy array")


def _check_writable(where: str, array: Any) -> None:
    if isinstance(array, np.ndarray) and not array.flags.writeable:
        raise ValueError(f"{where} is read-only, but it is written")


def _check_strides(where: str, array: Any) -> None:
    if array.ndim not in (1, 2):
        raise ValueError(f"{where} has shape {array.shape}; expected 1-D or 2-D")
    if array.size == 0:
        return
    if array.shape[-1] > 1 and array.strides[-1] != array.itemsize:
        raise ValueError(f"{where} has strides {array.strides}; expected unit stride in its last dimension")
    if array.ndim == 2 and array.shape[0] > 1 and array.strides[0] % array.itemsize:
        raise ValueError(f"{where} has strides {array.strides}; expected whole elements of {array.itemsize}")


def _check_space(where: str, spec: Array, array: Any, rows: int, cols: int) -> None:
    if array.ndim == 1 and rows > 1:
        raise ValueError(f"{where} has shape {array.shape}; expected 2-D for {rows} rows")
    if array.shape[-1] < cols or (array.ndim == 2 and array.shape[0] < rows):
        raise ValueError(f"{where} has shape {array.shape}, smaller than the index space ({rows}, {cols})")
    if spec.role != "in" and rows > 1 and abs(array.strides[0]) < cols * array.itemsize:
        raise ValueError(f"{where} has strides {array.strides}: its rows overlap, but they are written")


def _check_extent(where: str, array: Any, least: tuple[int, ...] | None) -> None:
    if least is None:
        return
    fits = array.ndim == len(least) and all(n >= m for n, m in zip(array.shape, least, strict=True))
    if not fits:
        raise ValueError(f"{where} has shape {array.shape}; expected {tuple(least)} at least")


def _check_segments(kernel: Kernel, segments: Sequence[tuple[int, int, float]], cols: int) -> None:
    at = 0
    for start, stop, _ in segments:
        if start != at or stop < start:
            break
        at = stop
    else:
        if at == cols:
            return
    raise ValueError(
        f"{kernel.name}: segments {_shortened(segments)} of {cols} columns; expected consecutive ranges that "
        f"begin at 0 and end at {cols}"
    )


def _shortened(segments: Sequence[tuple[int, int, float]]) -> str:
    shown = ", ".join(f"{start}:{stop}" for start, stop, _ in segments[:6])
    return shown + (", ..." if len(segments) > 6 else "")
