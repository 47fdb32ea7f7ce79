"""What estimators take: scikit-learn's checks for data on the host, the same for data on a CUDA device."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar
from typing import cast as as_type

import numpy as np
from sklearn.utils import _safe_indexing, column_or_1d
from sklearn.utils.validation import _check_sample_weight, validate_data

from gpumlp.backends import backend_of
from gpumlp.backends.arrays import is_cuda
from gpumlp.rows.weights import scaled_weights

__all__ = [
    "Samples",
    "cast",
    "check_X",
    "check_rows",
    "check_weights",
    "dense",
    "take",
    "to_host",
    "unpack",
    "where_rows_are",
]

_Method = TypeVar("_Method", bound=Callable[..., Any])


def unpack(x: Any) -> Any:
    """`x` as a CuPy array if it is on a CUDA device, as NumPy if it only supports DLPack, else as it is."""
    if is_cuda(x):
        return _cupy(x)
    if hasattr(x, "__dlpack__") and not isinstance(x, np.ndarray) and not hasattr(x, "__array__"):
        return np.from_dlpack(x)
    return x


def where_rows_are(method: _Method) -> _Method:
    """Decorator: a method of an estimator runs while the device of its `X`, if that is on one, is current."""

    @functools.wraps(method)
    def run(self: Any, X: Any, *args: Any, **kwargs: Any) -> Any:
        X = unpack(X)
        with backend_of(X).active() if is_cuda(X) else nullcontext():
            return method(self, X, *args, **kwargs)

    return as_type(_Method, run)


def _cupy(x: Any) -> Any:
    import cupy

    if isinstance(x, cupy.ndarray):
        return x
    return cupy.asarray(x) if hasattr(x, "__cuda_array_interface__") else cupy.from_dlpack(x)


def to_host(x: Any) -> Any:
    """`x` on the host; host data as it is."""
    return x.get() if is_cuda(x) else x


def take(x: Any, rows: np.ndarray) -> Any:
    """Some rows of host data of any kind or of a CuPy array."""
    if is_cuda(x):
        import cupy

        return x[cupy.asarray(rows)]
    return _safe_indexing(x, rows)


def dense(X: Any, dtype: np.dtype) -> Any:
    """`X` as a C-contiguous array of `dtype`, from dense or sparse, host or device."""
    if hasattr(X, "toarray"):
        X = X.toarray()
    X = X.astype(dtype, copy=False)
    return X if X.flags.c_contiguous else X.copy(order="C")


@dataclass
class Samples:
    """Checked rows.

    X : float array (n, n_features), dense or csr, on the host or a device.
    y : what `Engine.load_rows` takes.
    w : host array (n,) or None.  given : X and y as the user passed them, for scorers.
    made : what was made of them last, to be the same objects when it is asked for again.
    """

    X: Any
    y: Any
    w: np.ndarray | None
    given: tuple[Any, Any]
    made: dict[str, tuple[Any, Any]] = field(default_factory=dict, repr=False)

    def with_weight(self) -> Samples:
        """Those whose weight is not 0."""
        if self.w is None or self.w.all():
            return self
        return self.take(np.flatnonzero(self.w))

    def take(self, rows: np.ndarray) -> Samples:
        """Some of the rows."""
        X, y = (take(part, rows) for part in self.given)
        return Samples(
            take(self.X, rows), take(self.y, rows), None if self.w is None else self.w[rows], (X, y)
        )

    def split(self, *parts: np.ndarray) -> tuple[Samples, ...]:
        """The rows with these numbers; not to be changed."""
        made = self._once("split", [p.tobytes() for p in parts], lambda: tuple(map(self.take, parts)))
        return tuple(made)

    def of(self, dtype: np.dtype) -> Samples:
        """The same rows as C-contiguous arrays of `dtype`, for a network; not to be changed."""

        def make() -> Samples:
            return Samples(dense(self.X, dtype), cast(self.y, dtype), cast(self.w, dtype), self.given)

        return as_type(Samples, self._once("dtype", dtype.name, make))

    def _once(self, name: str, key: Any, make: Callable[[], Any]) -> Any:
        known, value = self.made.get(name, (None, None))
        if known != key:
            value = make()
            self.made[name] = key, value
        return value


def check_weights(w: Any, n_rows: int, name: str = "sample_weight") -> np.ndarray | None:
    """Sample weights as a host array, float64 (n_rows,), as `scaled_weights` gives them; None stays None."""
    if w is None:
        return None
    w = to_host(unpack(w))
    w = _check_sample_weight(w, np.broadcast_to(np.float64(0), n_rows), dtype=np.float64)
    return scaled_weights(w, name)


def cast(x: Any, dtype: np.dtype) -> Any:
    """Reals to `dtype`; class numbers and None as they are."""
    return x if x is None or x.dtype.kind == "i" else x.astype(dtype, copy=False)


def check_X(est: Any, X: Any) -> Any:
    """`X` for prediction: checked against what `est` was fitted on."""
    if _plainly_good(est, X):  # a single row takes less time than the general check
        return X
    X = unpack(X)
    if is_cuda(X):
        return _check_device(est, X, reset=False)
    checked = validate_data(est, X, accept_sparse=["csr", "csc"], reset=False)
    return checked if checked.dtype.kind in "biuf" else checked.astype(np.float64)  # decimals


def _plainly_good(est: Any, X: Any) -> bool:
    """Whether `X` is a NumPy array in which `validate_data` would find no fault; if False, ask it."""
    if type(X) is not np.ndarray or X.ndim != 2 or X.dtype not in (np.float64, np.float32):
        return False
    if not len(X) or X.shape[1] != getattr(est, "n_features_in_", 0) or hasattr(est, "feature_names_in_"):
        return False
    with np.errstate(all="ignore"):
        return math.isfinite(X.sum())


def check_rows(
    est: Any, X: Any, y: Any, w: Any, reset: bool, numeric: bool, name: str = "sample_weight"
) -> Samples:
    """Samples for fitting or validation, without those of weight 0; y is the user's, as a plain array.

    Raises
    ------
    ValueError, TypeError
        With scikit-learn's messages.
    """
    given = X
    X, y = _check_X_y(est, X, y, reset, numeric)
    if y.ndim == 2 and not (numeric and is_cuda(y)):
        y = to_host(y)
        y = column_or_1d(y, warn=True) if y.shape[1] == 1 else y
    rows = Samples(X, y, check_weights(w, X.shape[0], name), (given if hasattr(given, "columns") else X, y))
    return rows.with_weight()


def _check_X_y(est: Any, X: Any, y: Any, reset: bool, numeric: bool) -> tuple[Any, Any]:
    """`X` and `y` for fitting; X float32 or float64, dense or csr, y as given but for its container.

    Raises
    ------
    ValueError, TypeError
        With scikit-learn's messages.
    """
    X, y = unpack(X), unpack(y)
    if is_cuda(X):
        X = _check_device(est, X, reset)
        if X.dtype not in (np.float32, np.float64):
            X = X.astype(np.float64)
        return X, _check_y_for_device(est, X, y, numeric)
    X, y = validate_data(
        est,
        X,
        to_host(y),
        accept_sparse=["csr", "csc"],
        multi_output=True,
        y_numeric=numeric,
        dtype=(np.float64, np.float32),
        reset=reset,
    )
    return (X.tocsr() if hasattr(X, "tocsr") else X), (y.toarray() if hasattr(y, "toarray") else y)


def _check_device(est: Any, X: Any, reset: bool) -> Any:
    name = type(est).__name__
    if X.dtype.kind not in "biuf":
        raise ValueError(f"X has dtype {X.dtype}; {name} needs real numbers")
    if X.ndim != 2:
        raise ValueError(
            f"Expected 2D array, got {X.ndim}D array instead. Reshape your data either using "
            "array.reshape(-1, 1) if your data has a single feature or array.reshape(1, -1) if it contains "
            "a single sample."
        )
    for n, what in zip(X.shape, ("sample", "feature"), strict=True):
        if n == 0:
            raise ValueError(
                f"Found array with 0 {what}(s) (shape={X.shape}) while a minimum of 1 is required by {name}."
            )
    _check_finite("X", X, est)
    if reset:
        est.n_features_in_ = X.shape[1]
        vars(est).pop("feature_names_in_", None)
    elif X.shape[1] != est.n_features_in_:
        raise ValueError(
            f"X has {X.shape[1]} features, but {name} is expecting {est.n_features_in_} features as input"
        )
    return X


def _check_y_for_device(est: Any, X: Any, y: Any, numeric: bool) -> Any:
    """`y`, on the host or the device, for an `X` on the device."""
    if y is None:
        raise ValueError(f"{type(est).__name__} requires y to be passed, but the target y is None")
    if not is_cuda(y):
        y = validate_data(est, y=y, multi_output=True, y_numeric=numeric)
    if y.shape[0] != X.shape[0]:
        raise ValueError(
            f"Found input variables with inconsistent numbers of samples: [{X.shape[0]}, {y.shape[0]}]"
        )
    if is_cuda(y):
        if y.ndim not in (1, 2):
            raise ValueError(f"y has {y.ndim} dimensions; expected (n_samples,) or (n_samples, n_outputs)")
        _check_finite("y", y, est)
    return y


def _check_finite(name: str, x: Any, est: Any) -> None:
    import cupy

    if x.dtype.kind != "f" or bool(cupy.isfinite(x).all()):
        return
    what = "NaN" if bool(cupy.isnan(x).any()) else f"infinity or a value too large for {x.dtype!r}"
    raise ValueError(f"Input {name} contains {what}.\n{type(est).__name__} does not accept missing values.")
