"""Arrow's columns as ours, and ours as Arrow's.  Importing this module needs pyarrow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpumlp.tables.base import TableError
from gpumlp.tables.frame import Column, Frame, refuse_twice

__all__ = ["column_of_arrow", "frame_of_arrow", "table_of_frame"]


def frame_of_arrow(data: Any) -> Frame:
    """A `Frame` of a PyArrow table or of any object with ``__arrow_c_stream__``; see `as_frame`.

    Numbers without missing values are Arrow's own memory where they lie in one piece.
    """
    if not isinstance(data, pa.Table):
        data = pa.table({"x0": data}) if isinstance(data, (pa.Array, pa.ChunkedArray)) else pa.table(data)
    refuse_twice(data.column_names)
    columns = [
        column_of_arrow(name, column) for name, column in zip(data.column_names, data.columns, strict=True)
    ]
    return Frame(columns, data.num_rows)


def column_of_arrow(name: str, array: Any) -> Column:
    """A `Column` of a PyArrow array or chunked array.

    Raises
    ------
    TableError
        Its type is none of numbers, text, truth values, dates (a list, for example).
    """
    array = _plain(array)
    kind = array.type
    if pa.types.is_null(kind):
        return Column(name, "number", np.full(len(array), np.nan), np.ones(len(array), bool))
    if pa.types.is_dictionary(kind):
        return _coded(name, array, "category")
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _coded(name, pc.dictionary_encode(array), "text")
    if pa.types.is_boolean(kind):
        values, missing = _bits(array.buffers()[1], array), _missing(array)
        return Column(name, "boolean", values if missing is None else values & ~missing, missing)
    if pa.types.is_temporal(kind) and not pa.types.is_duration(kind):
        return Column(name, "date", *_filled(_moments(array), "datetime64[us]", np.datetime64("NaT")))
    return _number(name, array)


def _bits(buffer: Any, array: Any) -> np.ndarray:
    """Truth values that Arrow keeps in bits."""
    if not len(array):
        return np.zeros(0, bool)
    bits = np.unpackbits(np.frombuffer(buffer, np.uint8), count=array.offset + len(array), bitorder="little")
    return bits[array.offset :].view(bool)


def _missing(array: Any) -> np.ndarray | None:
    return ~_bits(array.buffers()[0], array) if array.null_count else None


def _filled(array: Any, dtype: Any, fill: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """(values, missing) of an array of a fixed width: Arrow's memory if nothing is missing.

    Not by ``array.to_numpy()``, which imports pandas where it is installed.
    """
    dtype, missing = np.dtype(dtype), _missing(array)
    if not len(array):
        return np.zeros(0, dtype), None
    values = np.frombuffer(array.buffers()[1], dtype, len(array), array.offset * dtype.itemsize)
    if missing is not None:
        values = np.where(missing, np.array(fill, dtype), values)
    return values, missing


def _plain(array: Any) -> Any:
    """One Arrow array, without the wrappings of a type that another one says as well."""
    if isinstance(array, pa.ChunkedArray):
        if pa.types.is_dictionary(array.type):
            array = array.unify_dictionaries()
        array = array.combine_chunks() if array.num_chunks != 1 else array.chunk(0)
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    kind = array.type
    if str(kind) in ("string_view", "binary_view"):
        array = array.cast(pa.large_string())
    if str(kind).startswith("run_end_encoded"):
        array = pc.run_end_decode(array)
    return array


def _coded(name: str, array: Any, kind: str) -> Column:
    """Of a dictionary: its words become text."""
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    words = array.dictionary
    codes, missing = _filled(array.indices.cast(pa.int32()), np.int32, -1)
    if words.null_count:  # a missing value may also be a null among the words
        none = np.append(~_bits(words.buffers()[0], words), False)
        missing = none[codes] if missing is None else missing | none[codes]
        codes = np.where(missing, np.int32(-1), codes)
    if not (pa.types.is_string(words.type) or pa.types.is_large_string(words.type)):
        words = words.cast(pa.string())
    return Column(name, kind, codes, missing, [str(word) for word in words.to_pylist()])


def _moments(array: Any) -> Any:
    """Dates, times of a day and points in time as timestamps in microseconds, UTC."""
    kind = array.type
    if pa.types.is_time(kind):
        array = array.cast(pa.time64("us"), safe=False).cast(pa.int64()).cast(pa.timestamp("us"))
    elif pa.types.is_timestamp(kind) and kind.tz is not None:
        array = array.cast(pa.timestamp(kind.unit))
    return array.cast(pa.timestamp("us"), safe=False)


def _number(name: str, array: Any) -> Column:
    kind = array.type
    if pa.types.is_decimal(kind):
        whole = kind.scale <= 0 and kind.precision - kind.scale <= 18
        array = array.cast(pa.int64() if whole else pa.float64())
    elif pa.types.is_duration(kind):
        array = pc.divide(array.cast(pa.duration("us"), safe=False).cast(pa.int64()).cast(pa.float64()), 1e6)
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise TableError(
            f"column {name!r} holds {kind}; a column must hold numbers, text, truth values or dates"
        )
    if pa.types.is_integer(array.type):
        if array.type != pa.uint64() or (pc.max(array).as_py() or 0) < 2**63:
            small = array.type.bit_width < 32 or array.type == pa.int32()
            array = array.cast(pa.int32() if small else pa.int64())
        return Column(name, "number", *_filled(array, array.type.to_pandas_dtype(), 0))
    values, _ = _filled(array, array.type.to_pandas_dtype(), np.nan)
    if values.dtype == np.float16:
        values = values.astype(np.float32)
    nan = np.isnan(values)
    return Column(name, "number", values, nan if nan.any() else None)


def table_of_frame(frame: Frame) -> Any:
    """A PyArrow table of a frame; text becomes strings, categories a dictionary."""
    return pa.table({column.name: _array(column) for column in frame.columns})


def _array(column: Column) -> Any:
    if column.kind not in ("text", "category"):
        return pa.array(column.values, mask=column.missing)
    codes = pa.array(column.values, mask=column.values < 0)
    array = pa.DictionaryArray.from_arrays(codes, pa.array(column.words, pa.string()))
    return array if column.kind == "category" else array.cast(pa.string())
