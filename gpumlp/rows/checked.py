"""Inputs: checking what users pass, putting it on the device, and the order of rows in an epoch.

Random scheme (all on the host, so equal on every device), for a trainer's `seed`:
``default_rng([seed, 1, epoch])`` shuffles the rows of epoch 0, 1, ... (a permutation of all rows; batches are
consecutive pieces of it), ``default_rng([seed, 2])`` splits off validation rows, and the first 8 bytes of
``SeedSequence([seed, 3])`` are the key of the dropout masks.  `MLP` draws its start values from
``default_rng([seed, 0])``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpumlp.backends import Backend, backend_of
from gpumlp.kernels.kernel import FIXED
from gpumlp.kernels.losses import Loss

__all__ = [
    "Rows",
    "check_features",
    "check_rows",
    "check_targets",
    "check_two_classes",
    "check_weights",
    "dropout_key",
    "epoch_order",
    "frame_numbers",
    "is_cuda",
    "is_number",
    "positive_int",
    "resident_dtype",
    "split_rows",
    "split_validation",
]


_PIECE = 1 << 16


def epoch_order(
    seed: int, epoch: int, n_rows: int, out: np.ndarray | None = None, index: np.ndarray | None = None
) -> np.ndarray:
    """The permutation of epoch `epoch` (from 0), or with `index` that of its entries: int32 (n_rows,),
    written to `out` if given."""
    order = np.empty(n_rows, np.int32) if out is None else out
    pieces = [slice(start, min(n_rows, start + _PIECE)) for start in range(0, n_rows, _PIECE)]
    for piece in pieces:  # large temporary arrays would count
        order[piece] = np.arange(piece.start, piece.stop, dtype=np.int32)
    np.random.default_rng([seed, 1, epoch]).shuffle(order)
    if index is not None:
        for piece in pieces:
            order[piece] = index[order[piece]]
    return order


def split_rows(
    seed: int, n_rows: int, fraction: float, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(training rows, validation rows): a seeded split, int32, each with rows and weight."""
    if not 0 < fraction < 1:
        raise ValueError(f"validation={fraction!r}; expected a fraction > 0 and < 1, or (X_val, y_val)")
    if n_rows < 2:
        raise ValueError(f"cannot split {n_rows} row into training and validation rows")
    order = np.random.default_rng([seed, 2]).permutation(n_rows)
    held = min(n_rows - 1, max(1, round(fraction * n_rows)))
    if weights is not None and not (weights[order[held:]].any() and weights[order[:held]].any()):
        raise ValueError(
            "sample_weight: after the split by `validation` the weights of one side are all 0; "
            "give validation rows yourself"
        )
    return order[held:].astype(np.int32), order[:held].astype(np.int32)


def dropout_key(seed: int) -> int:
    """Key of the dropout generator, as a signed 64-bit number."""
    word = np.random.SeedSequence([seed, 3]).generate_state(1, np.uint64)
    return int(word.view(np.int64)[0])


def is_cuda(x: Any) -> bool:
    """Whether `x` says that it lives on a CUDA device (2 and 10 are kDLCUDA and kDLROCM)."""
    if hasattr(x, "__cuda_array_interface__"):
        return True
    return (
        hasattr(x, "__dlpack__") and hasattr(x, "__dlpack_device__") and x.__dlpack_device__()[0] in (2, 10)
    )


def _kind(x: Any) -> str:
    """NumPy's letter for the kind of numbers in `x`; other libraries have dtypes of their own."""
    kind = getattr(getattr(x, "dtype", None), "kind", None)
    if kind is None:
        interface = getattr(x, "__cuda_array_interface__", None)
        kind = np.dtype(interface["typestr"]).kind if interface else "f"  # DLPack: seen when it is taken over
    return str(kind)


def frame_numbers(name: str, x: Any) -> Any:
    """The numbers of a data frame; TypeError that names its other columns."""
    kinds = [getattr(dtype, "kind", "") for dtype in x.dtypes]  # "": not a dtype as NumPy and pandas have
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
    if array.dtype.kind not in "biuf" and all(kinds):  # a mix of columns comes as objects
        array = x.to_numpy(dtype="float64", na_value=np.nan)
    return array


def _host(name: str, x: Any, hint: str = "") -> Any:
    """A plain array of `x`: unchanged if CUDA or NumPy, else through NumPy; no objects, no complex numbers.
    `hint` says what to do about text and objects."""
    if x is None:
        raise TypeError(f"{name} is None; expected an array of numbers")
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


def _check_range(name: str, x: Any, dtype: np.dtype) -> None:
    """ValueError that names a value which is not finite, or not finite as `dtype`.  Makes no copy of `x`."""
    xp = _xp(x)
    if x.dtype.kind != "f" or x.size == 0:
        return
    with np.errstate(over="ignore"):
        if all(np.isfinite(dtype.type(float(end))) for end in (x.min(), x.max())):  # NaN is both
            return
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


def _cast(name: str, x: Any, dtype: np.dtype) -> Any:
    """`x` as `dtype`, all finite."""
    _check_range(name, x, dtype)
    return x.astype(dtype, copy=False)


def _xp(x: Any) -> Any:
    return backend_of(x).xp


def check_features(X: Any, n_inputs: int, backend: Backend, dtype: np.dtype, name: str = "X") -> Any:
    """`X` as a C-contiguous array (n, n_inputs), on the device if it was there, else on the host.

    It keeps its dtype, and is not copied, if `kernels.rows.gather_kernel` can read it; else it is converted
    to `dtype`, the model's.  All values are finite as `dtype`.  Objects and complex numbers are refused.
    """
    X = _host(name, X)
    if is_cuda(X):
        if backend.name != "cuda":
            raise TypeError(
                f"{name} is on a CUDA device but the model is on {backend.device}; use "
                f"model.to('cuda') or {name}.get()"
            )
        X = backend.asarray(X)
    if X.ndim != 2:
        hint = ""
        if X.ndim == 1 and n_inputs == 1:
            hint = f"; for one feature use {name}.reshape(-1, 1)"
        elif X.shape == (n_inputs,):
            hint = f"; for one row use {name}.reshape(1, -1)"
        raise ValueError(
            f"{name} has {X.ndim} dimension(s), shape {tuple(X.shape)}; expected 2: "
            f"(n_rows, {n_inputs}){hint}"
        )
    if X.shape[1] != n_inputs:
        raise ValueError(f"{name} has {X.shape[1]} features (columns), the network was built for {n_inputs}")
    _check_range(name, X, dtype)
    if X.dtype.kind == "b":
        X = X.view(np.uint8)
    plain = X.flags.c_contiguous and getattr(X.flags, "aligned", True)  # CuPy's are always aligned
    if plain and X.dtype.name in FIXED and X.dtype.isnative:
        return X
    return X.astype(dtype, order="C")


def resident_dtype(X: Any, backend: Backend, dtype: np.dtype) -> np.dtype:
    """What rows `X` are kept as on `backend` for a model of `dtype`: as they are where they need not be
    copied or need no more room than in `dtype`."""
    return X.dtype if backend.device == "cpu" or is_cuda(X) or X.itemsize <= dtype.itemsize else dtype


def check_targets(
    y: Any,
    n_rows: int,
    n_outputs: int,
    loss: Loss,
    backend: Backend,
    dtype: np.dtype,
    name: str = "y",
    X: Any = None,
) -> Any:
    """`y` as int32 (n,) for class losses, else `dtype` (n, n_outputs); on the host or, if it came from there,
    device."""
    labels = f"number the classes with `classes, {name} = numpy.unique({name}, return_inverse=True)`"
    y = _host(name, y, f"{labels}, or use gpumlp.MLPClassifier" if loss.metric == "accuracy" else "")
    if X is not None and is_cuda(X) != is_cuda(y):
        raise TypeError(
            f"X is {'CuPy' if is_cuda(X) else 'NumPy'} but {name} is {'CuPy' if is_cuda(y) else 'NumPy'}; "
            "pass both from the same device"
        )
    if is_cuda(y):
        y = backend.asarray(y)
    if y.shape[:1] != (n_rows,):
        raise ValueError(
            f"X has {n_rows} rows but {name} has {y.shape[0] if y.ndim else 0}; they must be equal"
        )
    xp = _xp(y)
    _check_range(name, y, np.dtype(np.float64))
    if loss.classes:
        return _class_numbers(y, n_outputs, name, loss, xp)
    if y.ndim == 1:
        y = y.reshape(-1, 1)
    if y.ndim != 2 or y.shape[1] != n_outputs:
        raise ValueError(
            f"{name} has shape {tuple(y.shape)}, the network has {n_outputs} outputs; expected "
            f"({n_rows}, {n_outputs})" + (f" or ({n_rows},)" if n_outputs == 1 else "")
        )
    y = _cast(name, y, dtype)
    if n_rows and loss.link == "sigmoid" and not (float(y.min()) >= 0 and float(y.max()) <= 1):
        raise ValueError(
            f"{name} has values from {float(y.min()):g} to {float(y.max()):g}; "
            "binary_cross_entropy needs targets between 0 and 1"
        )
    if n_rows and loss.link == "exp" and float(y.min()) < 0:
        raise ValueError(
            f"{name} has negative values ({float(y.min()):g}); poisson needs counts or rates >= 0"
        )
    return y if y.flags.c_contiguous else y.copy(order="C")


def _class_numbers(y: Any, n_outputs: int, name: str, loss: Loss, xp: Any) -> Any:
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise ValueError(
            f"{name} has shape {tuple(y.shape)}; {loss.name} needs class numbers of shape (n_rows,): "
            f"for one-hot rows pass {name}.argmax(axis=1)"
        )
    if not len(y):
        return y.astype(np.int32)
    if y.dtype.kind == "f" and bool((y != xp.floor(y)).any()):
        raise ValueError(f"{name} holds fractions; {loss.name} needs whole class numbers 0..{n_outputs - 1}")
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= n_outputs:
        raise ValueError(
            f"{name} has class numbers from {low} to {high}; a network with {n_outputs} outputs needs "
            f"0..{n_outputs - 1}"
        )
    return xp.ascontiguousarray(y.astype(np.int32, copy=False))


def check_two_classes(y: Any) -> None:
    """ValueError if all class numbers are equal."""
    if bool((y == y[0]).all()):
        raise ValueError(
            f"y holds one class only ({int(y[0])}); a classifier needs rows of at least two classes"
        )


def check_weights(
    w: Any, n_rows: int, backend: Backend, dtype: np.dtype, name: str = "sample_weight"
) -> np.ndarray | None:
    """`w` as a host array (n,) of `dtype`, finite and >= 0; None stays None."""
    if w is None:
        return None
    w = _host(name, w)
    if is_cuda(w):
        w = backend.to_numpy(backend.asarray(w))
    if w.shape != (n_rows,):
        raise ValueError(f"{name} has shape {tuple(w.shape)}; expected ({n_rows},), one weight per row")
    w = np.ascontiguousarray(_cast(name, w, dtype))
    if n_rows and (w.min() < 0 or w.max() <= 0):
        raise ValueError(
            f"{name} has values from {w.min():g} to {w.max():g}; weights must be >= 0 and not all 0"
        )
    return w


@dataclass
class Rows:
    """Checked rows of data.

    X : (n, n_inputs), as `check_features` gives it.  y : (n,) or (n, n_outputs).
    w : (n,) on the host, or None.
    index : int32 (n_rows,), on the host: the rows that are meant; None: all of them.
    """

    X: Any
    y: Any
    w: np.ndarray | None
    index: np.ndarray | None = None

    @property
    def n_rows(self) -> int:
        """Number of rows that are meant."""
        return int(self.X.shape[0]) if self.index is None else len(self.index)

    def take(self, x: Any) -> Any:
        """Those of X, y, w or an order of `n_rows` rows that are meant; `x` itself if all are."""
        if self.index is None:
            return x
        return x[backend_of(x).xp.asarray(self.index)]

    def alone(self) -> Rows:
        """The same rows in arrays of their own."""
        return Rows(self.take(self.X), self.take(self.y), None if self.w is None else self.take(self.w))


def check_rows(model: Any, loss: Loss, X: Any, y: Any, w: Any = None, suffix: str = "") -> Rows:
    """At least one row, fit for `model` and `loss`: `check_features`, `check_targets`, `check_weights`."""
    X = check_features(X, model.layer_sizes[0], model.backend, model.dtype, f"X{suffix}")
    if X.shape[0] == 0:
        raise ValueError(f"X{suffix} has no rows; expected at least one")
    n_out = model.layer_sizes[-1]
    y = check_targets(y, X.shape[0], n_out, loss, model.backend, model.dtype, f"y{suffix}", X)
    return Rows(X, y, check_weights(w, X.shape[0], model.backend, model.dtype))


def split_validation(
    model: Any, loss: Loss, rows: Rows, validation: Any, seed: int
) -> tuple[Rows, Rows | None]:
    """(training rows, validation rows or None) for the `validation` argument of `Trainer.fit`."""
    if validation is None:
        return rows, None
    if isinstance(validation, (tuple, list)):
        if len(validation) not in (2, 3):
            raise ValueError(
                f"validation has {len(validation)} parts; expected (X_val, y_val) or (X_val, y_val, weights)"
            )
        X, y, w = (*validation, None)[:3]
        return rows, check_rows(model, loss, X, y, w, "_val")
    if not is_number(validation):
        what = f"validation={validation!r}"
        if hasattr(validation, "shape"):
            what = f"validation is one {type(validation).__name__} of shape {tuple(validation.shape)}"
        elif len(what) > 80:
            what = f"validation is a {type(validation).__name__}"
        raise ValueError(f"{what}; expected a fraction, (X_val, y_val), (X_val, y_val, weights) or None")
    train, held = split_rows(seed, rows.n_rows, validation, rows.w)
    return replace(rows, index=train), replace(rows, index=held)


def is_number(value: Any) -> bool:
    """Whether `value` is an int or float (not a bool)."""
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def positive_int(name: str, value: Any) -> int:
    """`value` as an int >= 1, else ValueError."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name}={value!r}; expected an integer >= 1")
    return int(value)
