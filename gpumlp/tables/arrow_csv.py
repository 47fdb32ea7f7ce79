"""Text tables read by pyarrow, a block of lines at a time.  Importing this module needs pyarrow."""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from gpumlp.tables.arrow import column_of_arrow
from gpumlp.tables.csv import CsvFile, OutOfOrder
from gpumlp.tables.frame import Column
from gpumlp.tables.words import CLEAR, MANY, NULLS, ROUND, typed

__all__ = ["BLOCK", "fast_chunks"]

BLOCK = 1 << 22  # bytes that are read at a time
_QUOTE, _LINE_END = ord('"'), re.compile(rb"\r\n|\n|\r")
_TEXT = pa.dictionary(pa.int32(), pa.string())
_CLEAR = f"^{CLEAR}$"


def fast_chunks(file: CsvFile, modes: Mapping[str, str], names: Collection[str]) -> Iterator[list[Column]]:
    """As `CsvFile.chunks`, in larger chunks.

    Each block is parsed with the types that its own rows have; putting chunks of different kinds together is
    the caller's.

    Raises
    ------
    OutOfOrder
        `CsvFile.chunks` must read the file, or say what is wrong with it.
    """
    wanted = [name for name in file.header if name in names]
    options = arrow_csv.ConvertOptions(
        include_columns=wanted,
        column_types={
            name: pa.string() if modes[name] == "label" else _TEXT for name in wanted if modes.get(name)
        },
        null_values=NULLS,
        true_values=["true", "True", "TRUE"],
        false_values=["false", "False", "FALSE"],
        auto_dict_encode=True,
        auto_dict_max_cardinality=2**31 - 1,
        decimal_point=file.decimal,
    )
    for lines in _whole_lines(file):
        quoted = b'"' in lines
        if b"\0" in lines or (quoted and not _quotes_in_order(lines, file.delimiter)):
            raise OutOfOrder
        try:
            table = arrow_csv.read_csv(
                io.BytesIO(lines),
                arrow_csv.ReadOptions(
                    column_names=file.header,
                    block_size=max(1 << 20, len(lines) // 16),
                    use_threads=len(lines) > 1 << 20,  # one block: its threads may outlive a short program
                ),
                arrow_csv.ParseOptions(
                    delimiter=file.delimiter, quote_char='"' if quoted else False, newlines_in_values=quoted
                ),
                options,
            )
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            if "Empty CSV file" in str(error):  # blank lines
                continue
            raise OutOfOrder from error
        yield [_column(name, table[name], modes.get(name, ""), file.decimal) for name in wanted]


def _column(name: str, array: pa.ChunkedArray, mode: str, decimal: str) -> Column:
    kind = array.type
    if pa.types.is_binary(kind.value_type if pa.types.is_dictionary(kind) else kind):  # not UTF-8
        raise OutOfOrder
    if mode == "label" and decimal == "." and (numbers := _clear_numbers(array)) is not None:
        return column_of_arrow(name, numbers)
    if pa.types.is_string(kind):
        array = pc.dictionary_encode(array)
    if pa.types.is_dictionary(array.type):
        array = array.unify_dictionaries()
        cells = column_of_arrow(name, array)
        return typed(name, cells.values, cells.words, mode, decimal)
    return column_of_arrow(name, array)


def _clear_numbers(texts: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """The numbers that labels are for sure (`gpumlp.tables.words.are_clear`); else None."""
    if not len(texts) or not pc.all(pc.match_substring_regex(texts, _CLEAR)).as_py():
        return None
    if pc.any(pc.match_substring_regex(texts, ROUND)).as_py() and pc.count_distinct(texts).as_py() <= MANY:
        return None
    try:
        return texts.cast(pa.int64())
    except pa.ArrowInvalid:
        return texts.cast(pa.float64())


def _whole_lines(file: CsvFile) -> Iterator[bytes]:
    """Blocks that end where a row ends, without the header."""
    held, skip = b"", file.header_line
    for block in file.source.blocks(BLOCK):
        held = held + block if held else block
        end = _last_row_end(held)
        if not end:
            raise OutOfOrder  # a line longer than a block
        lines, held = held[:end], held[end:]
        if skip:
            ends = _LINE_END.finditer(lines)
            at = [match.end() for match, _ in zip(ends, range(skip), strict=False)]
            if len(at) < skip:
                raise OutOfOrder
            lines, skip = lines[at[-1] :], 0
        if lines:
            yield lines
    if held and not skip:
        yield held


def _last_row_end(block: bytes) -> int:
    """Behind the last line end that is not within quotes; 0 if there is none."""
    end = len(block) - 1 if block.endswith(b"\r") else len(block)  # its \n may come in the next block
    quotes = block.count(b'"', 0, end)
    while end > 0:
        at = max(block.rfind(b"\n", 0, end), block.rfind(b"\r", 0, end))
        quotes -= block.count(b'"', at + 1, end) if at >= 0 else 0
        if at < 0 or quotes % 2 == 0:
            return at + 1
        end = at
    return 0


def _quotes_in_order(lines: bytes, delimiter: str) -> bool:
    """Whether all quotes are at the beginnings and ends of cells, or doubled within them, as far as can be
    seen from a quote's neighbours."""
    edge = np.zeros(256, bool)
    edge[[_QUOTE, 10, 13, *delimiter.encode()]] = True
    text = np.frombuffer(b"\n" + lines + b"\n", np.uint8)
    at = np.flatnonzero(text == _QUOTE)
    spaced = b"" if delimiter.isspace() else delimiter.encode() + b' "'
    return (
        len(at) % 2 == 0
        and bool(edge[text[at[0::2] - 1]].all() and edge[text[at[1::2] + 1]].all())
        and (not spaced or spaced not in lines)
        and not lines.startswith(b' "')
        and b'\n "' not in lines
        and b'\r "' not in lines
    )
