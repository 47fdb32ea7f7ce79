"""What the estimators take: tables, targets, weights; and the rows that networks are judged by."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import column_or_1d
from sklearn.utils.validation import _check_sample_weight

from gpumlp import checks
from gpumlp.rows.weights import scaled_weights
from gpumlp.tables import Frame, as_frame

__all__ = ["check_weights", "read_frame", "read_values", "same_columns"]


def read_frame(est: Any, X: Any) -> Frame:
    """`X` as a frame of at least one row and one column.

    Raises
    ------
    ValueError, TypeError
        With scikit-learn's words where it has some.
    """
    name = type(est).__name__
    if X is None:
        raise ValueError(f"{name} needs a table, and X is None")
    X = _plain(X)
    if isinstance(X, np.ndarray) and X.ndim == 1:
        raise ValueError(
            "Expected 2D array, got 1D array instead. Reshape your data either using array.reshape(-1, 1) if "
            "your data has a single feature or array.reshape(1, -1) if it contains a single sample."
        )
    dtype = getattr(X, "dtype", None)
    if getattr(dtype, "kind", "") == "c":
        raise ValueError(f"Complex data not supported by {name}")
    shape = getattr(X, "shape", ())
    if len(shape) == 2 and not hasattr(X, "tocsr"):
        for n, what in zip(shape, ("sample", "feature"), strict=True):
            if n == 0:
                raise ValueError(
                    f"Found array with 0 {what}(s) (shape={tuple(shape)}) while a minimum of 1 is required "
                    f"by {name}."
                )
    frame = as_frame(X)
    if frame.n_rows == 0 or not frame.columns:
        what = "row" if frame.columns else "column"
        raise ValueError(f"X has no {what}s; {name} needs at least one")
    return frame


def _plain(X: Any) -> Any:
    """Lists, and whatever only NumPy understands, as an array; tables and arrays as they are."""
    if isinstance(X, (list, tuple)) and not (len(X) and isinstance(X[0], (list, tuple, dict))):
        return np.asarray(X)
    if not hasattr(X, "__array__"):
        return X
    table = any(hasattr(X, name) for name in ("columns", "__arrow_c_stream__", "__cuda_array_interface__"))
    return X if table else np.asarray(X)


def same_columns(est: Any, frame: Frame) -> Frame:
    """The columns that the estimator was fitted on, in its order.

    A table with names may have them in any order, and others besides; one without must have as many.
    """
    names, named = est.encoder_.names, est.encoder_.named
    if frame.named and named:
        lacking = [name for name in names if name not in frame.names]
        if lacking:
            raise ValueError(
                f"X lacks {'a column' if len(lacking) == 1 else 'columns'} that {type(est).__name__} was "
                f"fitted on: {checks.some(map(repr, lacking), 5)}"
            )
        return frame.select(names)
    if len(frame.columns) != len(names):
        raise ValueError(
            f"X has {len(frame.columns)} features, but {type(est).__name__} is expecting {len(names)} "
            "features as input"
        )
    return Frame([_renamed(c, name) for c, name in zip(frame.columns, names, strict=True)], frame.n_rows)


def _renamed(column: Any, name: str) -> Any:
    return column if column.name == name else column.__class__(**{**vars(column), "name": name})


def read_values(y: Any, name: str = "y", columns: bool = False) -> np.ndarray:
    """A target on the host, (n,) or, if `columns`, perhaps (n, n_outputs)."""
    if y is None:
        raise ValueError(f"requires y to be passed, but the target {name} is None")
    if hasattr(y, "__cuda_array_interface__"):
        y = y.get() if hasattr(y, "get") else y
    if hasattr(y, "to_numpy") and not isinstance(y, np.ndarray):
        try:
            y = y.to_numpy()
        except Exception:  # Arrow's chunks of text
            y = np.asarray(y, object)
    values = np.asarray(y)
    if columns and values.ndim == 2 and values.shape[1] > 1:
        return values
    return column_or_1d(values, warn=True)


def check_weights(w: Any, n_rows: int, name: str = "sample_weight") -> np.ndarray | None:
    """Weights of rows as float64 (n,), None stays None."""
    if w is None:
        return None
    if hasattr(w, "__cuda_array_interface__"):
        w = w.get() if hasattr(w, "get") else w
    checked = _check_sample_weight(w, np.broadcast_to(np.float64(0), n_rows), dtype=np.float64)
    return scaled_weights(checked, name)
