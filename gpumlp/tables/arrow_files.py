"""Parquet, Arrow and Feather files.  Importing this module needs pyarrow."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import pyarrow as pa
from pyarrow import feather, parquet

from gpumlp.tables.arrow import column_of_arrow
from gpumlp.tables.base import TableError
from gpumlp.tables.files import Source
from gpumlp.tables.frame import Column, refuse_twice

__all__ = ["open_arrow"]

_ROWS = 1 << 15  # of a Parquet file that are decoded at a time
_BUFFER = 1 << 18  # bytes of a column that are read at a time: a row group need not fit into memory
_ERRORS = (
    pa.ArrowException,
    OSError,
    ValueError,
    KeyError,
    IndexError,
)  # what pyarrow raises for damaged files
_Chunks = Callable[[Mapping[str, str], Collection[str]], Iterator[list[Column]]]


def open_arrow(source: Source) -> tuple[list[str], _Chunks, int, None, list[str]]:
    """Names, chunks, number of rows, and the columns that are pandas' index; see `FrameFile`."""
    try:
        opened = _Parquet(source) if source.form == "parquet" else _Arrow(source)
    except _ERRORS as error:
        raise _damaged(source, error) from None
    schema = opened.schema
    refuse_twice(schema.names, source.path)
    return list(schema.names), opened.chunks, opened.n_rows, None, _index(schema)


def _damaged(source: Source, error: BaseException) -> TableError:
    return TableError(
        f"{source.path!r} is a damaged {source.form.title()} file: {str(error).splitlines()[0]}"
    )


def _index(schema: Any) -> list[str]:
    """Columns that pandas wrote because they were the index of a frame."""
    try:
        stored = json.loads((schema.metadata or {}).get(b"pandas", b"{}"))
        return [n for n in stored.get("index_columns", []) if isinstance(n, str) and n in schema.names]
    except (ValueError, AttributeError, TypeError):
        return []


class _Parquet:
    def __init__(self, source: Source) -> None:
        self.source = source
        with source.open() as file:
            about = parquet.ParquetFile(file)
            self.schema, self.n_rows = about.schema_arrow, about.metadata.num_rows

    def chunks(self, modes: Mapping[str, str], names: Collection[str]) -> Iterator[list[Column]]:
        wanted = [name for name in self.schema.names if name in names]
        with self.source.open() as file:
            opened = parquet.ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False)
            batches = opened.iter_batches(_ROWS, columns=wanted)
            yield from _columns(self.source, batches, wanted)


class _Arrow:
    def __init__(self, source: Source) -> None:
        self.source = source
        with source.open() as file:
            table = self._table(file)
            self.schema, self.n_rows = table.schema, table.num_rows
        self._held: Any = table

    def _table(self, file: Any) -> Any:
        if self.source.form == "feather":
            return feather.read_table(file)
        start = file.read(6)
        file.seek(0)
        return (pa.ipc.open_file if start == b"ARROW1" else pa.ipc.open_stream)(file).read_all()

    def chunks(self, modes: Mapping[str, str], names: Collection[str]) -> Iterator[list[Column]]:
        wanted = [name for name in self.schema.names if name in names]
        yield from _columns(self.source, iter([self._held.select(wanted)]), wanted)


def _columns(source: Source, batches: Iterator[Any], names: list[str]) -> Iterator[list[Column]]:
    while True:
        try:
            batch = next(batches, None)
        except _ERRORS as error:
            raise _damaged(source, error) from None
        if batch is None:
            return
        try:
            yield [column_of_arrow(name, batch.column(name)) for name in names]
        except TableError as error:
            raise TableError(f"{source.path!r}: {error}") from None
        except _ERRORS as error:
            raise _damaged(source, error) from None
