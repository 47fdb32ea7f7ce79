"""What a kernel or a product requires of its arrays, the same for every executor.

Compiled code sees addresses only, so this is the one place where types, shapes and strides are compared with
what will be read and written.  It raises TypeError for a wrong kind or dtype, and ValueError for a wrong
shape, layout or value; the message says what was given and what was expected.

It runs whenever an operation is made, so the functions below ask each array for each property once, and build
messages only when something is wrong.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from gpumlp.kernels.kernel import FIXED, Kernel

__all__ = [
    "Extents",
    "check_elementwise",
    "check_gemm",
    "check_launch",
    "check_stepped",
    "of_member",
    "real_types",
]

Extents = Mapping[str, tuple[int, ...]]
_F32, _F64 = np.dtype(np.float32), np.dtype(np.float64)
#: T -> C; types of 16 bits, which only CUDA computes with, are float16 and uint16, the bits of bfloat16
_COMPUTE = {_F32: _F32, _F64: _F64, np.dtype(np.float16): _F32, np.dtype(np.uint16): _F32}
_REALS = frozenset((_F32, _F64))  # not a tuple: NumPy takes None for float64 in comparisons
_FIXED = {name: np.dtype(name) for name in FIXED}
_REAL = "float32 or float64"


def of_member(value: Any, j: int) -> Any:
    """The number that member `j` has: one for all, or one of a sequence, as a number of Python."""
    return np.asarray(value).tolist()[j] if np.ndim(value) else value


def real_types(kernel: Kernel, arrays: Mapping[str, Any]) -> tuple[np.dtype | None, np.dtype | None]:
    """What T and C stand for, None if no array says."""
    stored = computed = None
    for spec in kernel.arrays:
        if spec.ctype == "T" and stored is None:
            stored = arrays[spec.name].dtype
        elif spec.ctype == "C" and computed is None:
            computed = arrays[spec.name].dtype
    if stored is not None:
        computed = _COMPUTE.get(stored)
    wrong = stored if computed is None else computed
    if wrong is not None and computed not in _REALS:
        raise TypeError(f"{kernel.name}: arrays of {wrong}; expected {_REAL}")
    return stored, computed


def check_launch(
    kernel: Kernel,
    arrays: dict[str, Any],
    scalars: dict[str, Any],
    rows: int,
    cols: int,
    segments: Sequence[tuple[int, int, float]] | None = None,
    extents: Extents | None = None,
    members: int | None = None,
    shared: Collection[str] = (),
) -> None:
    """Raise unless `kernel` may run over `rows` x `cols` on `arrays` (see `Launch`)."""
    _check_kernel(kernel, arrays, scalars)
    if members is not None or shared:
        _check_members(kernel, arrays, scalars, members, shared)
    if rows < 0 or cols < 0:
        raise ValueError(f"{kernel.name}: an index space of ({rows}, {cols}); expected none below 0")
    raws = []
    for spec in kernel.arrays:
        array, name = arrays[spec.name], spec.name
        shape, strides = array.shape, array.strides
        if members is not None and name not in shared:
            shape, strides = shape[1:], strides[1:]
        problem = _layout_problem(array, shape, strides)
        if spec.role.startswith("raw"):
            raws.append(name)
            problem = problem or _extent_problem(shape, extents.get(name) if extents else None)
        elif rows and cols and not problem:
            problem = _space_problem(array, shape, strides, rows, cols, spec.role != "in")
        if problem:
            each = "" if members is None else " for each member"
            raise ValueError(f"{kernel.name}: array {name!r} has {problem}{each}")
    if extents and not set(extents).issubset(raws):
        raise ValueError(f"{kernel.name}: extents of {sorted(extents)}; its raw arrays are {sorted(raws)}")
    if segments is not None:
        _check_segments(kernel, segments, cols)


def check_elementwise(
    kernel: Kernel, arrays: dict[str, Any], scalars: dict[str, Any], stepped: Mapping[str, float]
) -> None:
    """Raise unless `kernel` may run on every element of `arrays`, which are of one shape and any strides."""
    _check_kernel(kernel, arrays, scalars)
    check_stepped(kernel, stepped)
    shapes = {}
    for spec in kernel.arrays:
        array = arrays[spec.name]
        if not spec.role.startswith("raw"):
            shapes[spec.name] = array.shape
        elif problem := _layout_problem(array, array.shape, array.strides):
            raise ValueError(f"{kernel.name}: array {spec.name!r} has {problem}")
    if len(set(shapes.values())) > 1:
        given = ", ".join(f"{name!r} {shape}" for name, shape in shapes.items())
        raise ValueError(f"{kernel.name}: arrays of shapes {given}; expected equal ones")


def check_stepped(kernel: Kernel, given: Mapping[str, Any], members: int | None = None) -> None:
    """Raise unless `given` has the kernel's per-step values."""
    for name in kernel.stepped:
        if name not in given:
            raise TypeError(
                f"{kernel.name}: per-step values {sorted(given)}, expected {sorted(kernel.stepped)}"
            )
    if members is not None:
        _check_values(kernel, {name: given[name] for name in kernel.stepped}, members)


def check_gemm(a: Any, b: Any, c: Any, trans_a: bool, trans_b: bool, tf32: bool) -> None:
    """Raise unless c = op(a) @ op(b) can be computed (see `Gemm`)."""
    for name, array in (("a", a), ("b", b), ("c", c)):
        _check_is_array("gemm", name, array)
        shape, strides = array.shape, array.strides
        problem = "" if len(shape) in (2, 3) else f"shape {shape}; expected 2-D, or 3-D for members"
        problem = problem or _layout_problem(array, shape[-2:], strides[-2:])
        if not problem and shape[-2] > 1 and strides[-2] < shape[-1] * array.itemsize:
            problem = f"strides {strides}; expected rows in ascending order, apart"
        if not problem and len(shape) == 3:
            problem = _member_problem(array, shape, strides, len(c) if c.ndim == 3 else None, name == "c")
        if problem:
            raise ValueError(f"gemm: array {name!r} has {problem}")
    _check_writable("gemm", "c", c)
    m, k = a.shape[:-3:-1] if trans_a else a.shape[-2:]
    k_b, n = b.shape[:-3:-1] if trans_b else b.shape[-2:]
    if k != k_b or c.shape[-2:] != (m, n):
        left, right = ("^T" if trans else "" for trans in (trans_a, trans_b))
        raise ValueError(f"gemm of shapes {a.shape}{left} and {b.shape}{right} into {c.shape}")
    kind, into = a.dtype, c.dtype
    if kind not in _COMPUTE:
        raise TypeError(f"gemm: array 'a' is {kind}; expected {_REAL}")
    if b.dtype != kind:
        raise TypeError(f"gemm: array 'b' is {b.dtype}; expected {kind}")
    if into not in (kind, _COMPUTE[kind]):
        raise TypeError(f"gemm: array 'c' is {into}; expected {kind}")
    if tf32 and kind != _F32:
        raise TypeError(f"gemm: array 'a' is {kind}; expected float32 with tf32")


def _check_kernel(kernel: Kernel, arrays: dict[str, Any], scalars: dict[str, Any]) -> None:
    """Names, and types of the arrays."""
    kernel.check(arrays, scalars)
    for name, array in arrays.items():
        _check_is_array(kernel.name, name, array)
    stored, computed = real_types(kernel, arrays)
    for spec in kernel.arrays:
        array, ctype = arrays[spec.name], spec.ctype
        wanted = stored if ctype == "T" else computed if ctype == "C" else _FIXED[ctype]
        if array.dtype != wanted:
            raise TypeError(f"{kernel.name}: array {spec.name!r} is {array.dtype}; expected {wanted}")
        if spec.role not in ("in", "raw"):
            _check_writable(kernel.name, spec.name, array)


def _check_is_array(what: str, name: str, array: Any) -> None:
    if type(array) is np.ndarray:
        return
    if not (hasattr(array, "dtype") and hasattr(array, "strides") and hasattr(array, "flags")):
        raise TypeError(f"{what}: array {name!r} is {type(array).__name__}; expected a NumPy or CuPy array")


def _check_writable(what: str, name: str, array: Any) -> None:
    if isinstance(array, np.ndarray) and not array.flags.writeable:
        raise ValueError(f"{what}: array {name!r} is read-only, but it is written")


def _layout_problem(array: Any, shape: tuple[int, ...], strides: tuple[int, ...]) -> str:
    """Empty if it is 1-D or 2-D, columns are next to each other, and rows are whole elements apart."""
    if len(shape) not in (1, 2):
        return f"shape {shape}; expected 1-D or 2-D"
    if 0 in shape:
        return ""
    if shape[-1] > 1 and strides[-1] != array.itemsize:
        return f"strides {strides}; expected unit stride in its last dimension"
    if shape[0] > 1 and strides[0] % array.itemsize:
        return f"strides {strides}; expected multiples of {array.itemsize}"
    return ""


def _space_problem(
    array: Any, shape: tuple[int, ...], strides: tuple[int, ...], rows: int, cols: int, written: bool
) -> str:
    """Empty if the array has an element of its own for each of the index space."""
    if len(shape) == 1 and rows > 1:
        return f"shape {shape}; expected 2-D for {rows} rows"
    if shape[-1] < cols or (len(shape) == 2 and shape[0] < rows):
        return f"shape {shape}, smaller than the index space ({rows}, {cols})"
    if written and rows > 1 and abs(strides[0]) < cols * array.itemsize:
        return f"strides {strides}: its rows overlap, but they are written"
    return ""


def _check_members(
    kernel: Kernel,
    arrays: dict[str, Any],
    scalars: Mapping[str, Any],
    members: int | None,
    shared: Collection[str],
) -> None:
    """Everything that is said of members but not of one."""
    if members is None or members < 1:
        raise ValueError(f"{kernel.name}: members={members}; expected at least 1")
    readable = sorted(a.name for a in kernel.arrays if a.role == "raw")
    if isinstance(shared, str) or not set(shared).issubset(readable):
        raise ValueError(
            f"{kernel.name}: shared={shared!r}; expected names of raw arrays that are only read: {readable}"
        )
    for spec in kernel.arrays:
        array, written = arrays[spec.name], spec.role not in ("in", "raw")
        if spec.name not in shared:
            problem = _member_problem(array, array.shape, array.strides, members, written)
            if problem:
                raise ValueError(f"{kernel.name}: array {spec.name!r} has {problem}")
    _check_values(kernel, scalars, members)


def _check_values(kernel: Kernel, values: Mapping[str, Any], members: int) -> None:
    for name, value in values.items():
        shape = np.shape(value)
        if shape not in ((), (members,)):
            raise ValueError(
                f"{kernel.name}: {name!r} has shape {shape}; expected a number, or one for each of "
                f"{members} members"
            )


def _member_problem(
    array: Any, shape: tuple[int, ...], strides: tuple[int, ...], members: int | None, written: bool
) -> str:
    """Empty if the first axis is that of members, which are apart where they are written."""
    if len(shape) < 2 or shape[0] != members:
        return f"shape {shape}; expected {'no' if members is None else f'an axis of {members}'} members first"
    if shape[0] > 1 and strides[0] % array.itemsize:
        return f"strides {strides}; expected multiples of {array.itemsize}"
    if written and _overlaps(shape, strides, array.itemsize):
        return f"strides {strides}: its members overlap, but they are written"
    return ""


def _overlaps(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> bool:
    """Whether two elements may share memory: unless each axis steps over all that shorter steps reach."""
    reach = itemsize
    for stride, n in sorted((abs(s), n) for n, s in zip(shape, strides, strict=True) if n > 1):
        if stride < reach:
            return True
        reach += (n - 1) * stride
    return False


def _extent_problem(shape: tuple[int, ...], least: tuple[int, ...] | None) -> str:
    if least is None:
        return ""
    fits = len(shape) == len(least) and all(n >= m for n, m in zip(shape, least, strict=True))
    return "" if fits else f"shape {shape}; expected {tuple(least)} at least"


def _check_segments(kernel: Kernel, segments: Sequence[tuple[int, int, float]], cols: int) -> None:
    at = 0
    for start, stop, _ in segments:
        if start != at or stop < start:
            break
        at = stop
    else:
        if at == cols:
            return
    shown = ", ".join(f"{start}:{stop}" for start, stop, _ in segments[:6])
    raise ValueError(
        f"{kernel.name}: segments {shown}{', ...' if len(segments) > 6 else ''} of {cols} columns; expected "
        f"consecutive ranges that begin at 0 and end at {cols}"
    )
