"""Text tables with a header row, read by plain Python; every error names line and column.

Where pyarrow is installed, `gpumlp.tables.arrow_csv` reads what is in order, and this what is not: to say
what is wrong, and to read what pyarrow understands in another way.
"""

from __future__ import annotations

import csv
import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from gpumlp.tables.base import TableError, counted, some
from gpumlp.tables.files import Source
from gpumlp.tables.frame import Column, factorize
from gpumlp.tables.words import is_number, typed

__all__ = ["CHUNK", "INDEX", "LINE", "CsvFile", "OutOfOrder"]

LINE = 1 << 26  # characters that a line may have
CHUNK = 400_000  # cells that are held as Python strings at a time
INDEX = "Unnamed: 0"  # what a first column without a name is called; pandas writes its index so
_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
_LOOKED_AT = 20  # lines below the header, for the delimiter
_DIGITS = str.maketrans("", "", "0123456789+-.eE ")


class OutOfOrder(Exception):
    """Something that pyarrow does not read, or reads in another way than `CsvFile.chunks`."""


class CsvFile:
    """A text table.

    Parameters
    ----------
    source : Source
    delimiter : str
        Empty: the one of comma, semicolon, tab and vertical bar that gives the most columns, of those that
        give the first rows as many cells as the header if there are any.
    decimal : str
        The decimal point.

    Attributes
    ----------
    header : list of str
        Names of the columns.
    header_line : int
        Number of the header's last line.
    """

    def __init__(self, source: Source, delimiter: str = "", decimal: str = ".") -> None:
        self.source, self.path = source, source.path
        self.delimiter, self.decimal = delimiter, decimal
        self.header_line, cells = next(self._rows())
        self.header = self._checked([cell.strip() for cell in cells])

    def chunks(self, modes: Mapping[str, str], names: Collection[str]) -> Iterator[list[Column]]:
        """The columns `names`, some rows at a time; `modes` as for `gpumlp.tables.words.typed`."""
        for block in self._blocks():
            cells = dict(zip(self.header, zip(*(row for _, row in block), strict=True), strict=True))
            yield [
                self._column(name, cells[name], modes.get(name, "")) for name in self.header if name in names
            ]

    def _column(self, name: str, cells: Sequence[str], mode: str) -> Column:
        together = "".join(cells)
        if not mode and self.decimal == "." and together.isascii() and not together.translate(_DIGITS):
            with suppress(ValueError, OverflowError):  # plain numbers, nearly always
                whole = not any(c in together for c in ".eE+")
                kind, convert = (np.int64, int) if whole else (np.float64, float)
                return Column(name, "number", np.fromiter(map(convert, cells), kind, len(cells)))
        return typed(name, *factorize(cells), mode, self.decimal)

    def cells(self, row: int) -> tuple[int, dict[str, str]]:
        """(line, cells by column) of a row, counted from 0."""
        line, cells = next(itertools.islice(self._rows(), row + 1, None))
        return line, dict(zip(self.header, cells, strict=True))

    def lines(self) -> Iterator[tuple[int, dict[str, str]]]:
        """(line, cells by column) of all rows."""
        for line, cells in itertools.islice(self._rows(), 1, None):
            yield line, dict(zip(self.header, cells, strict=True))

    def error(self, line: int, text: str) -> TableError:
        """The error for something in a line."""
        return TableError(f"{self.path!r}, line {line}: {text}")

    def _blocks(self) -> Iterator[list[tuple[int, list[str]]]]:
        rows, n = itertools.islice(self._rows(), 1, None), len(self.header)
        while block := list(itertools.islice(rows, max(1, CHUNK // n))):
            if {len(row) for _, row in block} != {n}:
                line, row = next((line, row) for line, row in block if len(row) != n)
                found = _DELIMITERS.get(self.delimiter, repr(self.delimiter))
                raise self.error(
                    line,
                    f"{counted(len(row), 'cell')}, but the header has {counted(n, 'column')} "
                    f"({some(self.header, 6)}; delimiter {found})",
                )
            yield block

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """(number of the row's last line, cells) of the rows that are not blank, the header first."""
        try:
            with self.source.text() as file:
                yield from self._parsed(file)
        except UnicodeError:
            raise self._undecodable() from None

    def _parsed(self, file: Any) -> Iterator[tuple[int, list[str]]]:
        lines = self._lines(file)
        start = list(itertools.islice(lines, 1))
        while start and not start[-1].strip() and (line := next(lines, "")):
            start.append(line)
        first = start[-1] if start and start[-1].strip() else ""
        if not first:
            raise TableError(
                f"{self.path!r} is empty; expected a header row with column names and rows of values below"
            )
        some_lines = [] if self.delimiter else list(itertools.islice(lines, _LOOKED_AT))
        self.delimiter = self.delimiter or self._found([first, *some_lines])
        reader = csv.reader(
            itertools.chain(start, some_lines, lines),
            delimiter=self.delimiter,
            skipinitialspace=not self.delimiter.isspace(),
            strict=True,
        )
        try:
            for row in reader:
                if row:
                    yield reader.line_num, row
        except csv.Error as error:
            about_quotes = any(w in str(error) for w in ("quote", "limit", "end of data", "expected after"))
            hint = " (is a closing quote missing?)" if about_quotes else ""
            raise self.error(reader.line_num, f"{error}{hint}") from None

    @staticmethod
    def _found(lines: list[str]) -> str:
        """The delimiter of a header and some lines below it."""

        def fit(delimiter: str) -> tuple[bool, int]:
            header = len(next(csv.reader(lines[:1], delimiter=delimiter)))
            with suppress(csv.Error):
                reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=not delimiter.isspace())
                rows = [row for row in reader if row]
                whole = rows[:-1] if len(lines) > _LOOKED_AT else rows  # the last one may go on
                return header > 1 and all(len(row) == len(rows[0]) for row in whole), header
            return False, header

        with suppress(csv.Error):  # reported with its line number later
            return max(_DELIMITERS, key=fit)
        return ","

    def _lines(self, file: Any) -> Iterator[str]:
        for number in itertools.count(1):
            line = file.readline(LINE)
            if not line:
                return
            if len(line) == LINE and line[-1] not in "\r\n":
                raise self.error(number, f"has more than {LINE} characters; this is not a table")
            if "\0" in line:
                raise self.error(
                    number, "holds a NUL byte; this is not a text file, or it is damaged or UTF-16"
                )
            yield line

    def _checked(self, header: list[str]) -> list[str]:
        line = self.header_line
        if all(is_number(cell) for cell in header):
            raise self.error(
                line,
                f"no header: all cells are numbers ({some(header, 3)}); the first row must name the columns",
            )
        if not header[0] and INDEX not in header and len(header) > 1:
            header = [INDEX, *header[1:]]
        for number, name in enumerate(header, 1):
            if not name:
                raise self.error(line, f"column {number} has no name in the header; name it or remove it")
        counts = Counter(header)
        twice = [name for name in header if counts[name] > 1]
        if twice:
            places = [str(n) for n, name in enumerate(header, 1) if name == twice[0]]
            raise self.error(
                line,
                f"column name {twice[0]!r} is there {len(places)} times (columns {', '.join(places)}); "
                "every column needs a name of its own",
            )
        return header

    def _undecodable(self) -> TableError:
        encoding = self.source.encoding.removesuffix("-sig")
        if encoding != "utf-8":
            return TableError(f"{self.path!r} is not {encoding} text; give another --encoding")
        with self.source.open() as file:
            for number, line in enumerate(iter(lambda: file.readline(LINE), b""), 1):
                try:
                    line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    wide = number == 1 and line[:2] in (b"\xff\xfe", b"\xfe\xff")
                    hint, name = (" (it looks like UTF-16)", "utf-16") if wide else ("", "cp1252")
                    return self.error(
                        number,
                        f"byte 0x{line[error.start]:02x} is not UTF-8 text{hint}; save the file as UTF-8, or "
                        f"give its encoding, as --encoding {name}",
                    )
        return TableError(f"{self.path!r} is not UTF-8 text; save the file as UTF-8")
