"""Reading tables for the command line: CSV, .npz and .npy, with errors that name file, line and column."""

from __future__ import annotations

import os
from collections.abc import Sequence

from gpumlp.tables.arrays import read_npy, read_npz
from gpumlp.tables.base import Table, TableError
from gpumlp.tables.csv import CsvReader

__all__ = ["Table", "TableError", "read_table"]


def read_table(
    path: str,
    *,
    target: str | None = None,
    features: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    need_target: bool = True,
    n_features: int | None = None,
) -> Table:
    """Read a data file.

    Parameters
    ----------
    path : str
        .npz and .npy by their ending; everything else is read as CSV.
    target : str, optional
        CSV: name of the target column.  .npz: name of the target array (default: y, target, y_train, ...).
        .npy: number of the target column, from 0; negative ones count from the end.
    features : sequence of str, optional
        CSV: names of the feature columns, in this order; other columns are skipped.  .npz: name of the array.
    drop : sequence of str
        CSV: columns to leave out.
    need_target : bool
        If False, the target is neither read nor needed; it is kept out of the features all the same.
    n_features : int, optional
        Expected number of feature columns of a .npy file: with one more column, the target is among them.

    Raises
    ------
    OSError
        The file cannot be opened.
    TableError
        Its content cannot be used.
    """
    if os.path.isdir(path):
        raise TableError(f"{path!r} is a directory; give a .csv, .npz or .npy file")
    ending = os.path.splitext(path)[1].lower()
    if drop and ending in (".npz", ".npy"):
        raise TableError(f"{path!r}: --drop leaves out columns of a CSV file; this is not a CSV file")
    if ending == ".npz":
        return read_npz(path, target, features, need_target)
    if ending == ".npy":
        return read_npy(path, target, need_target, n_features)
    return CsvReader(path).read(target, features, drop, need_target)
