"""`ArrayRows`: rows of arrays that lie in files."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np

from gpumlp import checks
from gpumlp.rows.source import Piece, RowSource

__all__ = ["ArrayRows"]

_GROUP_BYTES, _PIECE_BYTES = 4 << 20, 1 << 20


class ArrayRows(RowSource):
    """Rows of arrays that lie in files: ``numpy.load("X.npy", mmap_mode="r")``, or what slices like that.

    `Trainer.fit` takes such an array as it is, too, and then trains exactly as on one in memory; but that
    reads single rows from all over the file.  This source reads blocks of consecutive rows, and lets the
    system forget them after that.

    Parameters
    ----------
    X : array (n_rows, n_features)
        Anything with a shape whose slices NumPy can read.
    y, weight : arrays (n_rows, ...), optional
    rows_per_group : int, optional
        Rows of a block; by default 4 MiB of X.
    window : int, optional
        Rows that are shuffled together; see `RowSource`.

    Examples
    --------
    >>> import gpumlp, numpy as np, os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "X.npy")
    >>> np.save(path, np.linspace(-1, 1, 200).reshape(100, 2))
    >>> X = np.load(path, mmap_mode="r")
    >>> rows = gpumlp.rows.ArrayRows(X, X[:, 0] + X[:, 1])
    >>> model = gpumlp.MLP([2, 1], device="cpu")
    >>> trainer = gpumlp.Trainer(model, loss="squared_error", optimizer="sgd")
    >>> len(trainer.fit(rows, epochs=2).loss), model.predict(rows).shape
    (2, (100,))
    """

    def __init__(
        self,
        X: Any,
        y: Any = None,
        weight: Any = None,
        *,
        rows_per_group: int | None = None,
        window: int | None = None,
    ) -> None:
        self.X, self.y, self.weight = X, y, weight
        if len(getattr(X, "shape", ())) != 2:
            raise ValueError(f"X has shape {getattr(X, 'shape', None)}; expected (n_rows, n_features)")
        n = int(X.shape[0])
        for name, array in (("y", y), ("weight", weight)):
            if array is not None and (not getattr(array, "shape", ()) or array.shape[0] != n):
                raise ValueError(
                    f"X has {n} rows but {name} has shape {getattr(array, 'shape', None)}; expected an array "
                    f"of {n} rows"
                )
        self.n_features, self.window = (
            int(X.shape[1]),
            None if window is None else checks.whole("window", window),
        )
        self._row = max(1, self.n_features * np.dtype(X.dtype).itemsize)
        per_group = max(1, _GROUP_BYTES // self._row)
        if rows_per_group is not None:
            per_group = checks.whole("rows_per_group", rows_per_group)
        self._starts = range(0, n, per_group)
        self.groups = [min(per_group, n - start) for start in self._starts]

    def place(self, group: int) -> str:
        first = self._starts[group]
        return f"ArrayRows, rows {first} to {first + self.groups[group] - 1}"

    def read(self, group: int) -> Iterator[Piece]:
        """See `RowSource`."""
        first, arrays = self._starts[group], (self.X, self.y, self.weight)
        stop, step = first + self.groups[group], max(1, _PIECE_BYTES // self._row)
        for start in range(first, stop, step):
            part = slice(start, min(stop, start + step))
            X, y, w = (None if array is None else np.asarray(array[part]) for array in arrays)
            yield X, y, w
        for array in arrays:
            _forget(array)


def _forget(array: Any) -> None:
    """Give the memory with pages of a mapped file back; they can be read again."""
    shared = False
    while array is not None and not isinstance(array, mmap.mmap):
        if isinstance(array, np.memmap):
            shared = array.mode in ("r", "r+", "w+")  # "c" keeps what was written in memory only
        array = getattr(array, "base", None)
    if shared and array is not None and hasattr(array, "madvise"):
        array.madvise(mmap.MADV_DONTNEED)
