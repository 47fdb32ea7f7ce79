"""`Rows`: what is trained on or evaluated."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpumlp.backends import Backend
from gpumlp.backends.arrays import is_cuda
from gpumlp.rows.arrays import array_module

__all__ = ["Rows", "resident_dtype"]

_SOME = 256


@dataclass(frozen=True)
class Rows:
    """Checked rows of data, on the host or on a device.

    Attributes
    ----------
    X : array (n, n_inputs)
        Its dtype is the model's or one of `gpumlp.kernels.kernel.FIXED`.
    y : array
        int32 (n,) class numbers, or the model's dtype (n, n_outputs).
    w : array (n,) or None
        Weights, where the others are.
    index : int32 array on the host, or None
        Numbers of the selected rows; None: all of them.
    weights : array (n,) on the host, or None
        A copy of `w`; given only if `w` is on a device.
    """

    X: Any
    y: Any
    w: Any = None
    index: np.ndarray | None = None
    weights: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.weights is None and isinstance(self.w, np.ndarray):
            object.__setattr__(self, "weights", self.w)

    @property
    def n_rows(self) -> int:
        """Number of selected rows."""
        return int(self.X.shape[0]) if self.index is None else len(self.index)

    @property
    def weight(self) -> float:
        """Sum of their weights."""
        if self.weights is None:
            return float(self.n_rows)
        return float(self.take(self.weights).sum(dtype=np.float64))

    @property
    def others(self) -> np.ndarray:
        """Numbers of rows of the arrays that are not selected."""
        free = np.full(self.X.shape[0], self.index is not None)
        if self.index is not None:
            free[self.index] = False
        return np.flatnonzero(free)

    def spare(self) -> int:
        """The one of the first `others` whose numbers are smallest: harmless where it counts nothing, also in
        16 bits."""
        some = self.others[:_SOME]
        rows = self.X[array_module(self.X).asarray(some)]
        host = rows if isinstance(rows, np.ndarray) else rows.get()
        return int(some[np.abs(host.astype(np.float64)).max(axis=1).argmin()])

    def take(self, x: Any) -> Any:
        """The selected entries of `x`, which has one per row; `x` itself if all rows are selected."""
        if self.index is None:
            return x
        return x[array_module(x).asarray(self.index)]

    def alone(self) -> Rows:
        """The same rows in arrays of their own."""
        return Rows(self.take(self.X), self.take(self.y), None if self.w is None else self.take(self.w))

    def shares_arrays(self, other: Rows) -> bool:
        """Whether these are rows of the same arrays."""
        return self.X is other.X and self.y is other.y and self.w is other.w

    def on(self, backend: Backend, dtype: np.dtype) -> Rows:
        """The same rows on the device of `backend`, for a model of `dtype`; arrays that are there already are
        not copied."""
        if is_cuda(self.X) and backend.name != "cuda":
            raise TypeError(
                f"X is on a CUDA device but the model is on {backend.device}; use model.to('cuda') or X.get()"
            )
        X = backend.asarray(self.X, resident_dtype(self.X, backend, dtype))
        w = None if self.w is None else backend.asarray(self.w)
        return replace(self, X=X, y=backend.asarray(self.y), w=w)


def resident_dtype(X: Any, backend: Backend, dtype: np.dtype) -> np.dtype:
    """The dtype in which rows `X` are kept on `backend` for a model of `dtype`: their own if they need not be
    copied or take no more room than in `dtype`."""
    return X.dtype if backend.device == "cpu" or is_cuda(X) or X.itemsize <= dtype.itemsize else dtype
