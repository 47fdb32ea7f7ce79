"""CSV files with a header row, read in chunks; every error names line and column."""

from __future__ import annotations

import csv
import gzip
import itertools
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from gpumlp.errors import suggest
from gpumlp.tables.base import Table, TableError, counted, some

__all__ = ["CsvReader"]

_LINE = 1 << 26  # characters that a line may have
CHUNK = 400_000  # cells that are held as Python strings at a time
_MISSING = {"", "NA", "N/A", "#N/A", "<NA>", "NaN", "nan", "null", "NULL"}  # what pandas, R, SQL, Excel write
_BOOLEANS = {"true": "1", "false": "0"}
_GZIP_ERRORS = (gzip.BadGzipFile, EOFError, zlib.error)
_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}


class CsvReader:
    """Reads one file; see `gpumlp.tables.read.read_table`."""

    def __init__(self, path: str) -> None:
        self.path = path

    def read(
        self, target: str | None, features: Sequence[str] | None, drop: Sequence[str], need_target: bool
    ) -> Table:
        try:
            with self._open() as file:
                rows = self._rows(file)
                header = self._header(rows)
                chosen, target_at, skipped = self._choose(header, target, features, drop, need_target)
                blocks, labels = [], []
                for lines, chunk in self._chunks(rows, header):
                    columns = list(zip(*chunk, strict=True))
                    blocks.append(self._numbers(columns, chosen, header, lines))
                    if target_at is not None:
                        labels.extend(self._labels(columns[target_at], header[target_at], lines))
        except UnicodeDecodeError:
            raise self._undecodable() from None
        except _GZIP_ERRORS as error:
            raise TableError(f"{self.path!r} is not a gzip file, or is damaged or cut off: {error}") from None
        if not blocks:
            raise TableError(f"{self.path!r} has a header and no rows below it")
        y = None if target_at is None else _numeric_or_text(labels)
        return Table(
            self.path,
            np.concatenate(blocks),
            [header[j] for j in chosen],
            True,
            y,
            "" if target_at is None else header[target_at],
            skipped=skipped,
        )

    def _open(self) -> Any:
        if self.path.lower().endswith(".gz"):
            return gzip.open(self.path, "rt", newline="", encoding="utf-8-sig")
        return open(self.path, newline="", encoding="utf-8-sig")

    def _error(self, line: int, text: str) -> TableError:
        return TableError(f"{self.path!r}, line {line}: {text}")

    def _rows(self, file: Any) -> Iterator[tuple[int, list[str]]]:
        """(line number of the row's last line, cells) of the rows that are not blank."""
        lines = self._lines(file)
        start = list(itertools.islice(lines, 1))  # not seek(0) afterwards: a pipe cannot
        while start and not start[-1].strip() and (line := next(lines, "")):
            start.append(line)
        first = start[-1] if start and start[-1].strip() else ""
        if not first:
            raise TableError(
                f"{self.path!r} is empty; expected a header row with column names and rows of numbers below"
            )
        try:
            delimiter = max(_DELIMITERS, key=lambda d: len(next(csv.reader([first], delimiter=d))))
        except csv.Error:  # reported with its line number below
            delimiter = ","
        self.delimiter = delimiter
        reader = csv.reader(
            itertools.chain(start, lines),
            delimiter=delimiter,
            skipinitialspace=delimiter != "\t",
            strict=True,
        )
        try:
            for row in reader:
                if row:
                    yield reader.line_num, row
        except csv.Error as error:
            hint = (
                " (is a closing quote missing?)"
                if "quote" in str(error)
                or "limit" in str(error)
                or "end of data" in str(error)
                or "expected after" in str(error)
                else ""
            )
            raise self._error(reader.line_num, f"{error}{hint}") from None

    def _lines(self, file: Any) -> Iterator[str]:
        for number in itertools.count(1):
            line = file.readline(_LINE)
            if not line:
                return
            if len(line) == _LINE and line[-1] not in "\r\n":
                raise self._error(number, f"has more than {_LINE} characters; this is not a table")
            if "\0" in line:
                raise self._error(
                    number, "holds a NUL byte; this is not a text file, or it is damaged or UTF-16"
                )
            yield line

    def _header(self, rows: Iterator[tuple[int, list[str]]]) -> list[str]:
        line, row = next(rows)
        header = [cell.strip() for cell in row]
        if all(_is_number(cell) for cell in header):
            raise self._error(
                line,
                f"no header: all cells are numbers ({some(header, 3)}); the first row must name the columns",
            )
        for number, name in enumerate(header, 1):
            if not name:
                raise self._error(
                    line,
                    f"column {number} has no name in the header; name it or remove it (pandas writes such "
                    "an index column unless to_csv is given index=False)",
                )
        counts = Counter(header)
        twice = [name for name in header if counts[name] > 1]
        if twice:
            places = [str(n) for n, name in enumerate(header, 1) if name == twice[0]]
            raise self._error(
                line,
                f"column name {twice[0]!r} is there {len(places)} times (columns {', '.join(places)}); "
                "every column needs a name of its own",
            )
        return header

    def _choose(
        self,
        header: list[str],
        target: str | None,
        features: Sequence[str] | None,
        drop: Sequence[str],
        need_target: bool,
    ) -> tuple[list[int], int | None, list[str]]:
        """Positions of the features and of the target, and the names of the columns that are not used."""
        one = (
            " (This is one column: if its header should be several, note that the delimiters understood are "
            "comma, semicolon, tab and |)"
            if len(header) == 1
            else ""
        )
        if need_target and target is None:
            raise TableError(
                f"{self.path!r}: say which column to learn with --target; columns: {some(header)}{one}"
            )
        known, left_out = set(header), set(drop)
        if need_target and target not in known:
            hint = (
                " (The first row looks like data: is the header missing?)"
                if any(map(_is_number, header))
                else ""
            )
            raise TableError(
                f"{self.path!r} has no target column: {suggest('column', target, header)}{hint or one}"
            )
        unknown = [name for name in (*drop, *(features or ())) if name not in known]
        if unknown:
            text = (
                suggest("column", unknown[0], header)
                if len(unknown) == 1
                else f"columns {', '.join(map(repr, unknown[:10]))}. Known: {some(header)}."
            )
            raise TableError(f"{self.path!r} lacks {len(unknown)} of the feature columns: {text}{one}")
        if target in drop:
            raise TableError(f"{self.path!r}: column {target!r} cannot be the target and be dropped")
        both = [name for name in features or () if name in left_out]
        if both:
            raise TableError(f"{self.path!r}: column {both[0]!r} cannot be a feature and be dropped")
        if features is None:
            features = [name for name in header if name != target and name not in left_out]
        elif target in features:
            raise TableError(f"{self.path!r}: column {target!r} cannot be the target and a feature")
        if not features:
            raise TableError(f"{self.path!r} has no feature columns besides {target!r}{one}")
        used = {*features, target}
        place = {name: n for n, name in enumerate(header)}
        target_at = place[target] if need_target and target is not None else None
        return [place[name] for name in features], target_at, [name for name in header if name not in used]

    def _chunks(
        self, rows: Iterator[tuple[int, list[str]]], header: list[str]
    ) -> Iterator[tuple[list[int], list[list[str]]]]:
        while block := list(itertools.islice(rows, max(1, CHUNK // len(header)))):
            lines, chunk = [line for line, _ in block], [row for _, row in block]
            if set(map(len, chunk)) != {len(header)}:
                line, row = next((line, row) for line, row in block if len(row) != len(header))
                raise self._error(
                    line,
                    f"{counted(len(row), 'cell')}, but the header has {counted(len(header), 'column')} "
                    f"({some(header, 6)}; delimiter {_DELIMITERS[self.delimiter]})",
                )
            yield lines, chunk

    def _numbers(
        self, columns: list[tuple[str, ...]], chosen: list[int], header: list[str], lines: list[int]
    ) -> np.ndarray:
        block = np.empty((len(lines), len(chosen)))
        for j, at in enumerate(chosen):
            try:
                block[:, j] = np.fromiter(map(float, columns[at]), float, len(lines))
            except ValueError:
                block[:, j] = np.fromiter(map(_value, columns[at]), float, len(lines))
        if not np.isfinite(block).all():
            suspects = [chosen[j] for j in np.flatnonzero(~np.isfinite(block).all(axis=0))]
            for line, *cells in zip(lines, *(columns[at] for at in suspects), strict=True):
                for at, cell in zip(suspects, cells, strict=True):
                    if not math.isfinite(_value(cell)):
                        raise self._error(line, f"column {header[at]!r}: {_why(cell)}")
        return block

    def _labels(self, cells: Sequence[str], name: str, lines: list[int]) -> list[str]:
        labels = [cell.strip() for cell in cells]
        fine = {c for c in set(labels) - _MISSING if not _is_number(c) or math.isfinite(float(c))}
        for line, label in zip(lines, labels, strict=True):
            if label not in fine:
                raise self._error(line, f"target column {name!r}: {_why(label)}")
        return labels

    def _undecodable(self) -> TableError:
        zipped = self.path.lower().endswith(".gz")
        with suppress(*_GZIP_ERRORS), gzip.open(self.path) if zipped else open(self.path, "rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(_LINE), b""), 1):
                try:
                    line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    byte = line[error.start]
                    hint = (
                        " (it looks like UTF-16)"
                        if number == 1 and line[:2] in (b"\xff\xfe", b"\xfe\xff")
                        else ""
                    )
                    return self._error(
                        number, f"byte 0x{byte:02x} is not UTF-8 text{hint}; save the file as UTF-8"
                    )
        return TableError(f"{self.path!r} is not UTF-8 text; save the file as UTF-8")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _value(cell: str) -> float:
    """The number in a cell, True and False as 1 and 0; NaN for anything else."""
    try:
        return float(_BOOLEANS.get(cell.strip().lower(), cell))
    except ValueError:
        return math.nan


def _why(cell: str) -> str:
    """What is wrong with a cell that should hold a finite number."""
    cell = cell.strip()
    if cell in _MISSING:
        what = repr(cell) if cell else "the cell is empty"
        return f"missing value ({what}); fill it or remove the row"
    if _is_number(cell):
        return f"{cell!r} is not a finite number; fill it or remove the row"
    if re.fullmatch(r"[+-]?[1-9]\d{0,2},\d{3}", cell):
        plain, point = cell.replace(",", ""), cell.replace(",", ".")
        return f"{cell!r} may be {plain} or {point}; write numbers without a comma"
    if re.fullmatch(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?", cell):
        return f"{cell!r} has commas between thousands; write {cell.replace(',', '')}"
    if _is_number(cell.replace(",", ".")):
        return f"{cell!r} has a decimal comma; write numbers with a point"
    return f"{cell!r} is text where a number is expected; encode it, or leave the column out with --drop"


def _numeric_or_text(labels: list[str]) -> np.ndarray:
    try:
        return np.fromiter(map(float, labels), float, len(labels))
    except ValueError:
        return np.array(labels)
