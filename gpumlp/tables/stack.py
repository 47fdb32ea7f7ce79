"""Columns that grow while a file is read."""

from __future__ import annotations

import numpy as np

from gpumlp.tables.frame import Column, retyped

__all__ = ["Stack"]

_FILL = {"number": np.nan, "boolean": False, "date": np.datetime64("NaT"), "text": -1, "category": -1}


class Stack:
    """One column of which chunks come one after the other.

    Values lie in one array with room for more, so that no chunk is held twice.

    Parameters
    ----------
    name : str
    expected : int
        About so many rows.

    Attributes
    ----------
    mixed : bool
        Chunks hold text here and something else there (or numbers here and dates there); then the column must
        be read again, as text.
    """

    def __init__(self, name: str, expected: int) -> None:
        self.name, self.mixed = name, False
        self._kind = ""  # of what is not missing
        self._dashes = False  # a chunk had nothing but cells like "-", which are missing unless there is text
        self._rows, self._room = 0, expected
        self._values: np.ndarray | None = None
        self._missing: np.ndarray | None = None
        self._place: dict[str, int] = {}

    def append(self, column: Column) -> None:
        """The next rows."""
        rows = slice(self._rows, self._rows + len(column))
        self._rows = rows.stop
        if self.mixed or not len(column):
            return
        empty = column.missing is not None and column.missing.all()
        if not empty:
            column = self._agree(column)
        self._dashes |= bool(empty and column.kind != "text")
        if self.mixed or (self._kind == "text" and self._dashes):
            self.mixed = True
            self._values = self._missing = None
            return
        if column.missing is not None or self._missing is not None:
            self._missing = self._grown(self._missing, np.dtype(bool), False)
            self._missing[rows] = False if column.missing is None else column.missing
        if not self._kind:
            return
        if empty and self._values is not None:
            values = np.full(len(column), _fill(self._kind, self._values), self._values.dtype)
        else:
            values = self._codes(column) if self._kind in ("text", "category") else column.values
        self._values = self._grown(self._values, values.dtype, _fill(self._kind, values))
        self._values[rows] = values

    def column(self) -> Column:
        """The column of all rows."""
        missing = None if self._missing is None else self._missing[: self._rows]
        if self._values is None:
            return Column(self.name, "number", np.full(self._rows, np.nan), np.ones(self._rows, bool))
        values = self._values[: self._rows]
        if missing is not None and values.dtype.kind == "f":  # they may have been zeros of integers
            values[missing] = np.nan
        return Column(self.name, self._kind, values, missing, list(self._place))

    def _agree(self, column: Column) -> Column:
        """The column as a kind that goes with what is here already; or sets `mixed`."""
        kinds = {self._kind or column.kind, column.kind}
        if kinds == {"number", "boolean"}:
            if self._kind == "boolean" and self._values is not None:
                held = Column("", "boolean", self._values, None)
                self._values, self._kind = retyped(held, "number").values, "number"
            return retyped(column, "number")
        if kinds == {"text", "category"}:
            self._kind = "text"
        elif len(kinds) > 1:
            self.mixed = True
        else:
            self._kind = column.kind
        return column

    def _codes(self, column: Column) -> np.ndarray:
        """Places in the words of all chunks."""
        codes = [self._place.setdefault(word, len(self._place)) for word in column.words]
        return np.array([*codes, -1], np.int32)[column.values]

    def _grown(self, array: np.ndarray | None, dtype: np.dtype, fill: object) -> np.ndarray:
        """An array with room for all rows and a type that holds `dtype` besides."""
        if array is None:
            self._room = max(self._room, self._rows)
            array = np.empty(self._room, dtype)
            array[: self._rows] = fill
            return array
        wide = np.promote_types(array.dtype, dtype)
        if len(array) >= self._rows and wide == array.dtype:
            return array
        self._room = max(self._room, self._rows + self._rows // 8)
        out = np.empty(self._room, wide)
        out[: len(array)] = array[: self._room]
        return out


def _fill(kind: str, like: np.ndarray | None) -> object:
    integers = like is not None and like.dtype.kind in "iu"
    return 0 if kind == "number" and integers else _FILL[kind]
