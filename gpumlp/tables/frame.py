"""Tables of typed columns: what files and data frames become before anything is learnt from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from gpumlp.errors import suggest
from gpumlp.tables.base import TableError

__all__ = [
    "KINDS",
    "Column",
    "Frame",
    "factorize",
    "refuse_twice",
    "retyped",
]

#: what a column can hold
KINDS = ("number", "boolean", "text", "category", "date")


@dataclass
class Column:
    """One column of a table.

    Attributes
    ----------
    name : str
    kind : str
        "number", "boolean", "text", "category" (text that its owner declared to be one of a few values) or
        "date" (dates, times of a day on 1970-01-01, points in time in UTC).
    values : array (n_rows,)
        number: float32, float64, int32 or int64 (uint64 for what only that can hold); boolean: bool;
        date: datetime64[us]; text and category: int32, places in `words`.  Where a value is missing: NaN in
        floats, 0 in integers, False, NaT, -1.  May be memory of whoever gave it; do not write to it.
    missing : bool array (n_rows,), or None if nothing is missing
        NaN and NaT are missing.
    words : list of str
        The distinct texts of a text or category column.  Of a category in the order of its owner, perhaps
        with some that no row has.
    """

    name: str
    kind: str
    values: np.ndarray
    missing: np.ndarray | None = None
    words: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: np.ndarray | slice) -> Column:
        """The same column with these rows (numbers or a mask), in this order."""
        missing = None if self.missing is None else self.missing[rows]
        if missing is not None and not missing.any():
            missing = None
        return replace(self, values=self.values[rows], missing=missing)

    def floats(self, dtype: np.dtype | type = np.float64) -> np.ndarray:
        """Numbers, truth values as 1 and 0, and dates as seconds since 1970, NaN where missing."""
        if self.kind in ("text", "category"):
            raise TypeError(f"column {self.name!r} holds text, not numbers")
        values = self.values
        if self.kind == "date":
            values = values.astype(np.int64) / 1e6
        out = values.astype(dtype, copy=self.missing is not None)
        if self.missing is not None:
            out[self.missing] = np.nan
        return out

    def texts(self) -> np.ndarray:
        """Object array (n_rows,): str, and None where missing; numbers in their shortest exact form."""
        if self.kind in ("text", "category"):
            out = np.array([*self.words, None], object)[self.values]
        elif self.kind == "date":
            out = np.array([_date_text(v) for v in self.values], object)
        elif self.values.dtype.kind == "f":
            out = np.array([repr(v) for v in self.values.astype(np.float64).tolist()], object)
        else:
            out = np.array([str(v) for v in self.values.tolist()], object)
        if self.missing is not None:
            out[self.missing] = None
        return out


def _date_text(value: np.datetime64) -> str:
    text = str(value)
    return text[:10] if text.endswith("T00:00:00.000000") else text.removesuffix(".000000")


@dataclass
class Frame:
    """Columns of one length, in order.

    Attributes
    ----------
    columns : list of Column
    n_rows : int
    named : bool
        Whether the names are the table's own; else they are x0, x1, ...
    source : str
        A file's name, for messages; empty for what was given in memory.
    parts : list of (path, number of rows)
        The files that the rows come from, in order.
    """

    columns: list[Column]
    n_rows: int
    named: bool = True
    source: str = ""
    parts: list[tuple[str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for column in self.columns:
            if len(column) != self.n_rows:
                raise ValueError(f"column {column.name!r} has {len(column)} rows, the table {self.n_rows}")
        refuse_twice([column.name for column in self.columns], self.source)

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return [column.name for column in self.columns]

    def __len__(self) -> int:
        return self.n_rows

    def __contains__(self, name: object) -> bool:
        return any(column.name == name for column in self.columns)

    def __getitem__(self, name: str) -> Column:
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(suggest("column", name, self.names))

    def select(self, names: Iterable[str]) -> Frame:
        """A frame of these columns, in this order; nothing is copied."""
        place = {column.name: column for column in self.columns}
        names = list(names)
        unknown = [name for name in names if name not in place]
        if unknown:
            raise KeyError(suggest("column", unknown[0], self.names))
        return replace(self, columns=[place[name] for name in names])

    def take(self, rows: np.ndarray | slice) -> Frame:
        """A frame of these rows (numbers or a mask), in this order."""
        columns = [column.take(rows) for column in self.columns]
        n_rows = len(columns[0]) if columns else len(np.arange(self.n_rows)[rows])
        return replace(self, columns=columns, n_rows=n_rows, parts=[])


def refuse_twice(names: Sequence[str], source: str = "") -> None:
    """Raise TableError if two columns have the same name."""
    counts = Counter(names)
    twice = [name for name in counts if counts[name] > 1]
    if twice:
        places = ", ".join(str(n) for n, name in enumerate(names, 1) if name == twice[0])
        raise TableError(
            f"{f'{source!r}, ' if source else ''}column name {twice[0]!r} is there {counts[twice[0]]} times "
            f"(columns {places}); every column needs a name of its own"
        )


def factorize(texts: Sequence[str] | np.ndarray) -> tuple[np.ndarray, list[str]]:
    """(int32 codes, distinct texts in the order in which they come)."""
    place: dict[str, int] = {}
    codes = np.fromiter((place.setdefault(text, len(place)) for text in texts), np.int32, len(texts))
    return codes, list(place)


def retyped(column: Column, kind: str) -> Column:
    """The column as another kind, if its values allow that without a loss; TableError if they do not.

    Empty columns become anything, everything becomes text, truth values numbers, text and category each
    other.
    """
    if column.kind == kind:
        return column
    n, gone = len(column), column.missing
    if gone is not None and gone.all():
        empty = {
            "number": np.full(n, np.nan),
            "boolean": np.zeros(n, bool),
            "date": np.full(n, "NaT", "datetime64[us]"),
        }.get(kind, np.full(n, -1, np.int32))
        return Column(column.name, kind, empty, gone)
    if {column.kind, kind} == {"text", "category"}:
        return replace(column, kind=kind)
    if kind in ("text", "category"):
        texts = column.texts()
        known = np.ones(n, bool) if gone is None else ~gone
        codes = np.full(n, -1, np.int32)
        codes[known], words = factorize(texts[known])
        return Column(column.name, kind, codes, gone, words)
    if column.kind == "boolean" and kind == "number":
        return Column(column.name, kind, column.values.astype(np.int64), gone)
    raise TableError(f"column {column.name!r} holds {_PLURAL[column.kind]}; expected {_PLURAL[kind]}")


_PLURAL = {
    "number": "numbers",
    "boolean": "truth values",
    "text": "text",
    "category": "categories",
    "date": "dates",
}
