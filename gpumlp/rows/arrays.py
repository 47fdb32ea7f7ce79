"""What users pass as arrays: NumPy, CuPy, DLPack, data frames, lists; and which device they are on."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpumlp.backends import backend_of
from gpumlp.backends.arrays import is_cuda
from gpumlp.rows.source import RowSource

__all__ = ["array_module", "check_range", "frame_numbers", "read_array"]


#: the largest number that rounds to a finite one of the type
_LARGEST = {
    np.dtype(np.float32): float(np.nextafter(float(np.finfo(np.float32).max) + 2.0**103, 0)),
    np.dtype(np.float64): float(np.finfo(np.float64).max),
}


def _kind(x: Any) -> str:
    """NumPy's letter for the kind of numbers in `x`; other libraries have their own dtypes."""
    kind = getattr(getattr(x, "dtype", None), "kind", None)
    if kind is None:
        interface = getattr(x, "__cuda_array_interface__", None)
        kind = np.dtype(interface["typestr"]).kind if interface else "f"  # DLPack: seen when it is taken over
    return str(kind)


def frame_numbers(name: str, x: Any) -> Any:
    """The numbers of a data frame; TypeError that names its other columns."""
    kinds = [getattr(dtype, "kind", "") for dtype in x.dtypes]  # "": not a dtype of NumPy or pandas
    bad = [
        f"{c!r} ({d})" for c, d, k in zip(x.columns, x.dtypes, kinds, strict=True) if k and k not in "biuf"
    ]
    if bad:
        more = f" and {len(bad) - 8} more" if len(bad) > 8 else ""
        raise TypeError(
            f"{name} has columns that are not numbers: {', '.join(bad[:8])}{more}; drop or convert them, "
            f"for example with pandas.get_dummies({name})"
        )
    array = np.asarray(x)
    if array.dtype.kind not in "biuf" and all(kinds):  # mixed columns come as objects
        array = x.to_numpy(dtype="float64", na_value=np.nan)
    return array


def read_array(name: str, x: Any, hint: str = "") -> Any:
    """A plain array of `x`: unchanged if CUDA or NumPy, else through NumPy; no objects, no complex numbers.
    `hint` says what to do about text and objects."""
    if x is None:
        raise TypeError(f"{name} is None; expected an array of numbers")
    if isinstance(x, RowSource):
        raise TypeError(
            f"{name} is a {type(x).__name__}; expected an array: sources of rows are read by Trainer.fit, "
            "Trainer.evaluate and MLP.predict"
        )
    if hasattr(x, "tocsr"):
        raise TypeError(f"{name} is a sparse matrix; expected a dense array: pass {name}.toarray()")
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array; fill or remove the masked entries first")
    if hasattr(x, "columns") and hasattr(x, "dtypes") and hasattr(x, "to_numpy"):
        x = frame_numbers(name, x)
    if not is_cuda(x):
        try:
            x = np.asarray(x)
        except (TypeError, ValueError) as error:
            raise TypeError(f"{name} cannot be read as an array: {error}") from None
    kind = _kind(x)
    if kind not in "biuf":
        what = {"O": "Python objects", "c": "complex numbers", "U": "text", "S": "bytes", "M": "dates"}.get(
            kind, "non-numbers"
        )
        raise TypeError(
            f"{name} holds {what} (dtype {getattr(x, 'dtype', '?')}); expected real numbers: "
            + (hint if hint and kind in "OUS" else f"convert it first, for example {name}.astype('float32')")
        )
    return x


def check_range(name: str, x: Any, dtype: np.dtype) -> None:
    """ValueError that names a value that is not finite, or not finite as `dtype`.  Makes no copy of `x`."""
    if x.dtype.kind != "f" or x.size == 0:
        return
    if -_LARGEST[dtype] <= float(x.min()) and float(x.max()) <= _LARGEST[dtype]:  # false if one is NaN
        return
    xp = array_module(x)
    with np.errstate(over="ignore"):
        bad = xp.argwhere(~xp.isfinite(x))
        large = xp.argwhere(~xp.isfinite(x.astype(dtype))) if not len(bad) else bad
    place = tuple(int(i) for i in large[0])
    where = f"row {place[0]}" + (f", column {place[1]}" if len(place) > 1 else "")
    if len(bad):
        raise ValueError(
            f"{name} contains {float(x[place])} ({where}; {len(bad)} such values in all); "
            "remove or fill these rows first"
        )
    raise ValueError(
        f"{name} contains {float(x[place]):g} ({where}), which is too large for {dtype}; "
        "scale the data, or use a model with dtype='float64'"
    )


def array_module(x: Any) -> Any:
    """NumPy or CuPy."""
    return np if type(x) is np.ndarray else backend_of(x).xp
