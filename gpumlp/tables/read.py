"""From files to frames of typed columns, and to the matrix of numbers that a plain training takes."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpumlp.errors import suggest
from gpumlp.tables.base import TableError, some
from gpumlp.tables.csv import INDEX, CsvFile, OutOfOrder
from gpumlp.tables.files import Source, files_of
from gpumlp.tables.frame import Column, Frame, retyped
from gpumlp.tables.stack import Stack

__all__ = ["Files", "FrameFile", "Layout", "counts_rows", "open_files", "read_frame"]

#: cells above which numbers are kept as float32, where that loses nothing that matters
_MANY = 10_000_000
_TEXTS = ("text", "words", "raw")
_Chunks = Iterator[list[Column]]


@dataclass(frozen=True)
class Layout:
    """How text files are written.

    Attributes
    ----------
    encoding : str
    delimiter : str
        Empty: the one of comma, semicolon, tab and vertical bar that fits the header.
    decimal : str
        The decimal point.
    """

    encoding: str = "utf-8"
    delimiter: str = ""
    decimal: str = "."


@dataclass
class FrameFile:
    """One open data file: the names of its columns, and their values in chunks of rows.

    Attributes
    ----------
    path : str
    names : list of str
    chunks : callable (modes, names) -> iterator of lists of Column
    n_rows : int
        About so many.
    text : CsvFile, or None for a file that has types of its own
    index : collection of str
        Columns that its owner says are no data.
    plain : bool
        Do not use pyarrow.
    """

    path: str
    names: list[str]
    chunks: Callable[[Mapping[str, str], Collection[str]], _Chunks]
    n_rows: int
    text: CsvFile | None = None
    index: Collection[str] = ()
    plain: bool = False


def open_file(path: str, layout: Layout) -> FrameFile:
    """Open a CSV, Parquet, Arrow or Feather file, packed or not.

    Raises
    ------
    OSError
        The file cannot be opened.
    TableError
        It is something else, or its header cannot be used.
    ModuleNotFoundError
        It needs pyarrow.
    """
    source = Source(path, layout.encoding)
    if source.form != "text":
        try:
            from gpumlp.tables.arrow_files import open_arrow
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                f"{path!r} is a {source.form.title()} file, which needs pyarrow: pip install 'gpumlp[tables]'"
            ) from None
        return FrameFile(path, *open_arrow(source))
    file = CsvFile(source, layout.delimiter, layout.decimal)

    def chunks(modes: Mapping[str, str], names: Collection[str]) -> _Chunks:
        try:
            if made.plain:
                raise ModuleNotFoundError
            from gpumlp.tables.arrow_csv import fast_chunks
        except ModuleNotFoundError:
            return file.chunks(modes, names)
        return fast_chunks(file, modes, names)

    made = FrameFile(path, file.header, chunks, _rows_of(source), file)
    return made


def _rows_of(source: Source) -> int:
    """About how many rows a text file has."""
    with source.open() as file:
        start = file.read(1 << 16)
    size = source.size if not source.packed else 4 * source.size
    return int(1.05 * size * (start.count(b"\n") + 1) / max(1, len(start))) + 1


@dataclass
class Files:
    """Files with the same columns, read one after the other.

    Attributes
    ----------
    files : list of FrameFile
    names : list of str
        Columns of the first.
    source : str
        What they are called in messages.
    others : list of str
        Files in the folders that are no data.
    """

    files: list[FrameFile]
    source: str
    others: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        return self.files[0].names

    def read(self, names: Sequence[str], modes: Mapping[str, str], narrow: bool | None = None) -> Frame:
        """A frame of these columns; see `read_frame`."""
        if narrow is None:
            narrow = sum(file.n_rows * len(file.names) for file in self.files) > _MANY
        stacks, parts = self._stacks(names, modes, narrow)
        mixed = {n: "words" if modes.get(n) == "label" else "text" for n in names if stacks[n].mixed}
        if mixed:  # text further down: the cells above it are needed as they are written
            stacks |= self._stacks(list(mixed), mixed, narrow)[0]
        n_rows = sum(rows for _, rows in parts)
        if not n_rows:
            raise TableError(f"{self.source!r} has a header and no rows below it")
        return Frame([stacks.pop(name).column() for name in names], n_rows, True, self.source, parts)

    def _stacks(
        self, names: Sequence[str], modes: Mapping[str, str], narrow: bool
    ) -> tuple[dict[str, Stack], list[tuple[str, int]]]:
        """The columns, and the number of rows of each file."""
        expected = sum(file.n_rows for file in self.files)
        stacks = {name: Stack(name, expected) for name in names}
        parts = []
        for file in self.files:
            rows = 0
            try:
                for columns in file.chunks(modes, set(names)):
                    rows += len(columns[0])
                    for column in columns:
                        as_text = modes.get(column.name) in _TEXTS and column.kind != "category"
                        chunk = retyped(column, "text") if as_text else column
                        stacks[column.name].append(_narrow(chunk) if narrow else chunk)
            except OutOfOrder:  # the plain reader says why, or reads it
                file.plain = True
                return self._stacks(names, modes, narrow)
            parts.append((file.path, rows))
        return stacks, parts

    def place(self, frame: Frame, row: int) -> tuple[str, dict[str, str]]:
        """("'file', line 3", cells as they are written) of a row, for messages."""
        for file, (path, n_rows) in zip(self.files, frame.parts, strict=True):
            if row < n_rows:
                if file.text is None:
                    return f"{path!r}, row {row} (counted from 0)", {}
                line, cells = file.text.cells(row)
                return f"{path!r}, line {line}", cells
            row -= n_rows
        raise IndexError(row)


def open_files(paths: str | Sequence[str], layout: Layout | None = None) -> Files:
    """Open files and all files of folders; their columns must have the same names."""
    paths = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    found, others = files_of([os.fspath(path) for path in paths])
    files = [open_file(path, layout or Layout()) for path in found]
    for file in files[1:]:
        lacks = [name for name in files[0].names if name not in file.names]
        extra = [name for name in file.names if name not in files[0].names]
        if lacks or extra:
            hint = f"lacks {some(lacks)}" if lacks else f"has {some(extra)} besides"
            raise TableError(
                f"{file.path!r} has other columns than {files[0].path!r}: it {hint}; files that are read "
                "together need the same columns"
            )
    source = found[0] if len(found) == 1 else f"{found[0]} and {len(found) - 1} more"
    return Files(files, source, others)


def read_frame(
    paths: str | Sequence[str],
    *,
    columns: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    modes: Mapping[str, str] | None = None,
    layout: Layout | None = None,
    narrow: bool | None = None,
) -> Frame:
    """Read CSV, TSV, Parquet, Feather or Arrow files into typed columns.

    Parameters
    ----------
    paths : path or sequence of paths
        Files, and folders: all data files in them, in the order of their names.  They need the same column
        names, in any order.
    columns : sequence of str, optional
        What to read, in this order.
    drop : sequence of str
        What to leave out.
    modes : dict of str
        How to read columns of text files: "" by what all their cells look like; "text"; "label" for what is
        to be learnt: numbers if all are clearly numbers, else text as it is written (007, 12E4, 10_1);
        "raw": text as it is written, where nothing is missing.
    layout : Layout, optional
        Encoding, delimiter and decimal point of text files.
    narrow : bool, optional
        Keep numbers as float32 if that loses less than a ten-thousandth of a column's spread, and integers
        as int32; by default if there are more than ten million cells.

    Raises
    ------
    OSError
        A file cannot be opened.
    TableError
        Its content cannot be used; the message names file, line and column.
    ModuleNotFoundError
        It needs pyarrow, which is not installed.
    """
    files = open_files(paths, layout)
    left_out = {*drop, *files.files[0].index}
    chosen = [name for name in files.names if name not in left_out] if columns is None else list(columns)
    for name in (*chosen, *drop):
        if name not in files.names:
            raise TableError(f"{files.source!r}: {suggest('column', name, files.names)}")
    frame = files.read(chosen, modes or {}, narrow)
    if columns is None and counts_rows(frame, INDEX):
        frame = frame.select(name for name in frame.names if name != INDEX)
    return frame


def counts_rows(frame: Frame, name: str) -> bool:
    """Whether a column is 0, 1, 2, ... or 1, 2, 3, ... (in several files: in each)."""
    if name not in frame or frame[name].kind != "number" or frame[name].missing is not None:
        return False
    values, start = frame[name].values, 0
    for _, rows in frame.parts or [("", frame.n_rows)]:
        part = values[start : start + rows]
        if len(part) and not (part[0] in (0, 1, start) and (np.diff(part) == 1).all()):
            return False
        start += rows
    return True


def _narrow(column: Column) -> Column:
    """Numbers in 32 bits, if they fit or lose less than 1e-4 of their spread."""
    values: Any = column.values
    if column.kind != "number" or values.dtype not in (np.int64, np.float64) or not len(values):
        return column
    if values.dtype == np.int64:
        if values.min() >= -(2**31) and values.max() < 2**31:
            column.values = values.astype(np.int32)
        return column
    good = values if column.missing is None else values[~column.missing]
    with np.errstate(over="ignore", invalid="ignore"):
        # rounding errs by 6e-8 of the size
        if len(good) and 6e-8 * np.abs(good).max() <= 1e-4 * good.std() and np.abs(good).max() < 3e38:
            column.values = values.astype(np.float32)
    return column
