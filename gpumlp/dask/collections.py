"""Dask's arrays and data frames: their partitions, and answers for them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import dask
import dask.array as da
import numpy as np

__all__ = ["answers", "is_collection", "is_frame", "partitions"]


def is_frame(x: Any) -> bool:
    """Whether `x` is a data frame or series of Dask's."""
    return hasattr(x, "map_partitions") and hasattr(x, "npartitions") and not isinstance(x, da.Array)


def is_collection(x: Any) -> bool:
    """Whether `x` is an array or a data frame of Dask's."""
    return isinstance(x, da.Array) or is_frame(x)


def partitions(X: Any, y: Any, w: Any = None) -> list[Any]:
    """Delayed triples (X, y, weights) of each partition's rows.

    Raises
    ------
    TypeError
        Something is not a Dask array or data frame.
    ValueError
        The partitions do not have the same rows.
    """
    given = {"X": X, "y": y, **({} if w is None else {"sample_weight": w})}
    for name, x in given.items():
        if not is_collection(x):
            raise TypeError(
                f"{name} is a {type(x).__name__}; expected a Dask array or data frame: "
                f"dask.array.from_array({name}, chunks=...), or gpumlp.MLPClassifier and MLPRegressor for "
                "rows in memory"
            )
    parts = {name: _delayed(name, x, X) for name, x in given.items()}
    for name, each in parts.items():
        if len(each) != len(parts["X"]):
            raise ValueError(
                f"X has {len(parts['X'])} partitions and {name} has {len(each)}; expected the same rows in "
                f"each: repartition or rechunk {name} as X"
            )
    columns = [*parts.values()] + ([[None] * len(parts["X"])] if w is None else [])
    return [dask.delayed(_triple, pure=False)(*part) for part in zip(*columns, strict=True)]


def _delayed(name: str, x: Any, X: Any) -> list[Any]:
    """The partitions of `x`, those of an array cut as `X` is, if that is one."""
    if not isinstance(x, da.Array):
        return list(x.to_delayed())
    dimensions = (2,) if name == "X" else (1,) if name == "sample_weight" else (1, 2)
    if x.ndim not in dimensions:
        shape = "(n_rows, n_features)" if name == "X" else "(n_rows,)"
        raise ValueError(f"{name} has shape {x.shape}; expected {shape}")
    if isinstance(X, da.Array):
        rows, wanted = x.shape[0], X.shape[0]
        if not math.isnan(rows) and not math.isnan(wanted):
            if rows != wanted:
                raise ValueError(f"X has {wanted} rows but {name} has {rows}; they must be equal")
            x = x.rechunk({0: X.chunks[0]})
    if x.ndim == 2 and x.numblocks[1] > 1:
        x = x.rechunk({1: -1})
    return list(x.to_delayed().ravel())


def _triple(X: Any, y: Any, w: Any) -> tuple[Any, Any, Any]:
    for name, other in (("y", y), ("sample_weight", w)):
        if other is not None and len(other) != len(X):
            raise ValueError(
                f"a partition of X has {len(X)} rows, that of {name} has {len(other)}; expected the same "
                "rows in each"
            )
    return X, y, w


def answers(
    X: Any, answer: Callable[..., np.ndarray], model: Any, device: str, like: np.ndarray, columns: Any = None
) -> Any:
    """Lazily ``answer(rows, model, device)`` of each partition of `X`, in a collection of the same kind.

    Parameters
    ----------
    like : array with no rows
        Has the shape and dtype of the answers.
    columns : sequence, optional
        For data frames: names of columns of an answer, or the labels that it consists of.
    """
    model = dask.delayed(model, pure=False)
    if is_frame(X):
        import pandas as pd

        if like.ndim == 2:
            meta = pd.DataFrame(like, columns=columns)
        else:
            meta = pd.Series(like if columns is None else columns).iloc[:0]  # pandas has a type for text
        return X.map_partitions(_framed, answer, model, device, meta, meta=meta)
    if X.numblocks[1] > 1:
        X = X.rechunk({1: -1})
    shape = {"drop_axis": 1} if like.ndim == 1 else {"chunks": (X.chunks[0], (like.shape[1],))}
    return X.map_blocks(answer, model=model, device=device, dtype=like.dtype, meta=like, **shape)


def _framed(X: Any, answer: Callable[..., np.ndarray], model: Any, device: str, meta: Any) -> Any:
    import pandas as pd

    values = answer(X, model, device)
    if meta.ndim == 2:
        return pd.DataFrame(values, index=X.index, columns=meta.columns).astype(meta.dtypes)
    return pd.Series(values, index=X.index).astype(meta.dtype)
