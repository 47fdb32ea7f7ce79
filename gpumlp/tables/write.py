"""Frames as CSV text and Parquet files."""

from __future__ import annotations

import csv
import io
from typing import BinaryIO

import numpy as np

from gpumlp.tables.frame import Column, Frame

__all__ = ["csv_text", "require_pyarrow", "write_parquet"]


def csv_text(frame: Frame) -> str:
    """A header and the rows; numbers with all digits that their type carries, empty cells where missing."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(frame.names)
    writer.writerows(zip(*map(_cells, frame.columns), strict=True))
    return text.getvalue()


def _cells(column: Column) -> list[str | None]:
    if column.kind == "number" and column.missing is None and column.values.dtype.kind == "f":
        digits = 9 if column.values.dtype == np.float32 else 17
        return [f"{value:.{digits}g}" for value in column.values.tolist()]
    return list(column.texts())


def write_parquet(frame: Frame, file: BinaryIO) -> None:
    """Write a Parquet file; columns keep their types."""
    from pyarrow import parquet

    from gpumlp.tables.arrow import table_of_frame

    parquet.write_table(table_of_frame(frame), file)


def require_pyarrow(path: str) -> None:
    """ModuleNotFoundError, before work is done, if a Parquet file cannot be written."""
    try:
        import pyarrow  # noqa: F401
    except ModuleNotFoundError:
        raise ModuleNotFoundError(f"{path!r}: Parquet needs pyarrow: pip install 'gpumlp[tables]'") from None
