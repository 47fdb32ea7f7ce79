"""Random tables: the same cells as data frames of each library, as CSV text, and as inputs of ONNX."""

from __future__ import annotations

import csv
import datetime
import importlib.util
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["FORMS", "Cells", "csv_of", "onnx_inputs", "random_table", "target_of"]

UTC = datetime.timezone.utc
WORDS = ["blue", "é", "日本", "x-1", "O'Neil", "1,5", "1;2", "a b", 'say "x"', "two\nlines", "yes", "#1", "k"]
DIGITS = ["007", "7", "1.0", "12", "1e3", "10_1", "0x1F", "2.50"]
DATES = {
    "2020-01-31": datetime.datetime(2020, 1, 31),
    "1970-01-01": datetime.datetime(1970, 1, 1),
    "2024-02-29 12:30": datetime.datetime(2024, 2, 29, 12, 30),
    "2000-01-01T00:00:01Z": datetime.datetime(2000, 1, 1, 0, 0, 1),
}
TEXTS = ("text", "code", "digits", "date text", "truth text")
NO_NUMBER = ["", "NA", "NaN", "-", "?", "null", "n/a", " "]
NO_TEXT = ["", "NA", "N/A", "NaN", "null", "None", " "]


@dataclass
class Cells:
    """A column: its name, what it holds, and Python's values, None where one is missing."""

    name: str
    kind: str
    cells: list[Any]

    def take(self, rows: Any) -> Cells:
        """The same column with these rows."""
        return Cells(self.name, self.kind, [self.cells[row] for row in rows])

    @property
    def full(self) -> bool:
        """Whether nothing is missing."""
        return None not in self.cells


def random_table(rng: np.random.Generator, n: int, new: int) -> tuple[list[Cells], list[Cells]]:
    """Columns to learn from, and the same columns with other rows: some values there were never seen."""
    names = [f"{'c' if rng.random() < 0.8 else 'a, “b” '}{j}" for j in range(int(rng.integers(1, 8)))]
    train, other = [], []
    for name in names:
        kind = str(rng.choice(list(MAKERS)))
        draw = MAKERS[kind](rng)
        rows = [draw(False) for _ in range(n)], [draw(rng.random() < 0.1) for _ in range(new)]
        for cells, share in zip(rows, rng.choice([0, 0, 0.2, 0.9, 1], 2), strict=True):
            for row in np.flatnonzero(rng.random(len(cells)) < share):
                cells[row] = None
        train.append(Cells(name, kind, rows[0]))
        other.append(Cells(name, kind, rows[1]))
    return train, other


def _floats(rng: np.random.Generator) -> Callable[[bool], Any]:
    scale, start = 10.0 ** rng.integers(-12, 12), rng.choice([0.0, 1e6])
    digits = int(rng.choice([1, 3, 17]))

    def draw(unseen: bool) -> float:
        if unseen and rng.random() < 0.3:
            return float(rng.choice([math.inf, -math.inf, 1e300, 0.0]))
        value = start + scale * rng.standard_normal() * (1000 if unseen else 1)
        return float(f"{value:.{digits}g}")

    return draw


def _wholes(rng: np.random.Generator) -> Callable[[bool], Any]:
    ranges = [(0, 1), (0, 2), (0, 5), (-100, 100), (0, 255), (-(2**31), 2**31), (2**53, 2**60)]
    low, high = ranges[rng.integers(len(ranges))]
    return lambda unseen: int(rng.integers(low, high)) + (high - low if unseen else 0)


def _texts(rng: np.random.Generator) -> Callable[[bool], Any]:
    words = rng.choice(WORDS, int(rng.integers(1, 6))).tolist()
    return lambda unseen: "Atlantis" if unseen else str(rng.choice(words))


def _codes(rng: np.random.Generator) -> Callable[[bool], Any]:
    return lambda unseen: f"k{int(rng.integers(90)) + 90 * unseen}"


def _digits(rng: np.random.Generator) -> Callable[[bool], Any]:
    words = rng.choice(DIGITS, int(rng.integers(2, 6))).tolist()
    return lambda unseen: "08" if unseen else str(rng.choice(words))


def _dates_as_text(rng: np.random.Generator) -> Callable[[bool], Any]:
    words = rng.choice(list(DATES), 3).tolist()
    return lambda unseen: "1970-01-01" if unseen else str(rng.choice(words))


def _truth_as_text(rng: np.random.Generator) -> Callable[[bool], Any]:
    words = [["true", "false"], ["True", "no"], ["TRUE", "FALSE"]][rng.integers(3)]
    return lambda unseen: "false" if unseen else str(rng.choice(words))


def _truth(rng: np.random.Generator) -> Callable[[bool], Any]:
    share = rng.choice([0, 0.3, 1])
    return lambda unseen: bool(rng.random() < share) != unseen


def _days(rng: np.random.Generator) -> Callable[[bool], Any]:
    return lambda unseen: (
        datetime.datetime(1960 + 90 * unseen, 1, 1) + datetime.timedelta(days=int(rng.integers(20_000)))
    )


def _moments(rng: np.random.Generator) -> Callable[[bool], Any]:
    step = int(rng.choice([1, 1000, 1_000_000]))
    return lambda unseen: (
        datetime.datetime(2020, 1, 1 + unseen)
        + datetime.timedelta(microseconds=step * int(rng.integers(10**9)))
    )


MAKERS: dict[str, Callable[[np.random.Generator], Callable[[bool], Any]]] = {
    "float": _floats,
    "whole": _wholes,
    "text": _texts,
    "code": _codes,
    "digits": _digits,
    "date text": _dates_as_text,
    "truth text": _truth_as_text,
    "truth": _truth,
    "day": _days,
    "moment": _moments,
}


def target_of(rng: np.random.Generator, n: int, classes: bool) -> Any:
    """Labels, each at least twice, or numbers."""
    if not classes:
        return rng.standard_normal(n) * 10.0 ** rng.integers(-3, 6)
    labels: list[Any] = [["no", "yes"], ["a", "b", "ç"], [0, 1], [3, 7, 11]][rng.integers(4)]
    return np.array(labels)[np.append(np.arange(2 * len(labels)) // 2, rng.integers(len(labels), size=n))[:n]]


# ---- forms ---------------------------------------------------------------------------------------------
def _fits(cells: list[Any], low: int, high: int) -> bool:
    return all(low <= cell < high for cell in cells if cell is not None)


def _integer_type(rng: np.random.Generator, column: Cells) -> str:
    widths = {
        f"{'u' * (not low)}int{bits}": (low, low + (1 << bits))
        for bits in (8, 16, 32, 64)
        for low in (0, -(1 << (bits - 1)))
    }
    return str(rng.choice([name for name, limits in widths.items() if _fits(column.cells, *limits)]))


def as_pandas(rng: np.random.Generator, columns: list[Cells]) -> Any:
    """With types that pandas may have for such cells."""
    import pandas as pd

    return pd.DataFrame({column.name: _series(rng, column) for column in columns})


def _series(rng: np.random.Generator, column: Cells) -> Any:
    import pandas as pd

    cells, kind, how = column.cells, column.kind, rng.random()
    if kind in ("day", "moment") and how > 0.2:
        made = pd.Series(np.array(cells, "datetime64[us]"))
        return made.dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo") if how < 0.5 else made
    dtype: Any = "category" if how < 0.5 else "string"
    if how < 0.2:
        dtype = object
    elif kind == "whole":
        dtype = _integer_type(rng, column)
        if how > 0.7 and _fits(cells, -(2**53), 2**53):
            dtype, cells = float, [math.nan if cell is None else cell for cell in cells]
        elif not column.full:
            dtype = dtype.replace("i", "I").replace("u", "U")
    elif kind == "float":
        dtype = "float64" if how < 0.6 else "Float64"
    elif kind == "truth":
        dtype = bool if column.full and how < 0.6 else "boolean"
    return pd.Series(cells, dtype=dtype)


def as_arrow(rng: np.random.Generator, columns: list[Cells]) -> Any:
    """A PyArrow table."""
    import pyarrow as pa

    def array(column: Cells) -> Any:
        how = rng.random()
        if column.kind == "whole":
            return pa.array(column.cells, getattr(pa, _integer_type(rng, column))())
        if column.kind == "float":
            return pa.array(column.cells, pa.float64())
        if column.kind == "truth":
            return pa.array(column.cells, pa.bool_())
        if column.kind == "day" and how < 0.4:
            return pa.array([None if cell is None else cell.date() for cell in column.cells], pa.date32())
        if column.kind in ("day", "moment"):
            return pa.array(column.cells, pa.timestamp("us", "UTC" if how < 0.7 else None))
        made = pa.array(column.cells, pa.string() if how < 0.7 else pa.large_string())
        return made.dictionary_encode() if how < 0.3 else made

    table = pa.table({column.name: array(column) for column in columns})
    return pa.concat_tables([table[:5], table[5:]]) if rng.random() < 0.3 else table


def as_polars(rng: np.random.Generator, columns: list[Cells]) -> Any:
    """A polars frame."""
    import polars as pl

    return pl.from_arrow(as_arrow(rng, columns))


def as_dict(rng: np.random.Generator, columns: list[Cells]) -> Any:
    """Lists, and arrays of objects."""
    return {
        column.name: np.array([*column.cells, None], object)[:-1] if rng.random() < 0.5 else column.cells
        for column in columns
    }


def _there(*libraries: str) -> bool:
    return all(importlib.util.find_spec(library) for library in libraries)


FORMS: dict[str, Callable[[np.random.Generator, list[Cells]], Any]] = {
    "dict": as_dict,
    **({"pandas": as_pandas} if _there("pandas") else {}),
    **({"arrow": as_arrow} if _there("pyarrow") else {}),
    **({"polars": as_polars} if _there("pyarrow", "polars") else {}),
}


def csv_of(rng: np.random.Generator, columns: list[Cells]) -> str:
    """As a file: values in the ways in which people write them, missing ones by all their words."""
    delimiter = str(rng.choice([",", ";", "\t"])) if len(columns) > 1 else ","
    text = io.StringIO(newline="")
    quoting = csv.QUOTE_ALL if rng.random() < 0.2 else csv.QUOTE_MINIMAL
    writer = csv.writer(
        text, delimiter=delimiter, quoting=quoting, lineterminator=str(rng.choice(["\n", "\r\n"]))
    )
    writer.writerow([column.name for column in columns])
    shown = [_written(rng, column) for column in columns]
    writer.writerows(zip(*shown, strict=True))
    return text.getvalue()


def _written(rng: np.random.Generator, column: Cells) -> list[str]:
    words = [str(rng.choice(NO_TEXT if column.kind in TEXTS else NO_NUMBER)) for _ in "ab"]
    iso = {"day": lambda cell: cell.date().isoformat(), "moment": lambda cell: cell.isoformat(" ")}
    write: Callable[[Any], str] = iso.get(column.kind, str)
    if column.kind == "truth":
        write = [str, lambda cell: str(cell).lower(), lambda cell: str(cell).upper()][rng.integers(3)]
    elif column.kind == "moment" and rng.random() < 0.5:
        write = lambda cell: cell.isoformat("T") + "Z"  # noqa: E731
    elif column.kind == "whole" and rng.random() < 0.3 and _fits(column.cells, -(2**53), 2**53):
        write = lambda cell: f"{cell}.0"  # noqa: E731
    elif column.kind == "float" and rng.random() < 0.3:
        write = lambda cell: f"{cell:.16e}"  # noqa: E731
    return [words[int(rng.integers(2))] if cell is None else write(cell) for cell in column.cells]


def onnx_inputs(inputs: list[Any], columns: list[Cells]) -> dict[str, np.ndarray]:
    """What a graph takes, as `gpumlp.export.tabular` says it."""
    given = {}
    by_name = {column.name: column.cells for column in columns}
    for one in inputs:
        cells = by_name[one.name]
        if one.type == "tensor(string)":
            values = np.array(["" if cell is None else _text(cell) for cell in cells], object)
        else:
            values = np.array([math.nan if cell is None else _number(cell) for cell in cells], np.float64)
        given[one.name] = values[:, None]
    return given


def _text(cell: Any) -> str:
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


def _number(cell: Any) -> float:
    cell = DATES.get(cell, cell)
    if isinstance(cell, str) and cell.lower() in ("true", "false"):
        return float(cell.lower() == "true")
    if isinstance(cell, datetime.datetime):
        return (cell - datetime.datetime(1970, 1, 1)) / datetime.timedelta(seconds=1)
    return float(int(cell, 16) if cell == "0x1F" else cell)
