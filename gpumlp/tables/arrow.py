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
    missing = np.asarray(pc.is_null(array).to_numpy(zero_copy_only=False), bool) if array.null_count else None
    if pa.types.is_null(kind):
        return Column(name, "number", np.full(len(array), np.nan), np.ones(len(array), bool))
    if pa.types.is_dictionary(kind):
        return _coded(name, array, "category", missing)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _coded(name, pc.dictionary_encode(array), "text", missing)
    if pa.types.is_boolean(kind):
        values = pc.fill_null(array, False).to_numpy(zero_copy_only=False)
        return Column(name, "boolean", np.asarray(values, bool), missing)
    if pa.types.is_temporal(kind) and not pa.types.is_duration(kind):
        values = _moments(array).to_numpy(zero_copy_only=False).astype("datetime64[us]")
        return Column(name, "date", values, missing)
    return _number(name, array, missing)


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


def _coded(name: str, array: Any, kind: str, missing: np.ndarray | None) -> Column:
    """Of a dictionary: its words become text, words that are the same become one."""
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    words = array.dictionary
    codes = pc.fill_null(array.indices.cast(pa.int32()), -1).to_numpy(zero_copy_only=False)
    if words.null_count:  # a missing value may also be a null among the words
        spot = np.append(np.asarray(pc.is_null(words).to_numpy(zero_copy_only=False), bool), False)
        missing = spot[codes] if missing is None else missing | spot[codes]
        codes = np.where(missing, -1, codes).astype(np.int32)
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


def _number(name: str, array: Any, missing: np.ndarray | None) -> Column:
    kind = array.type
    if pa.types.is_decimal(kind):
        whole = kind.scale <= 0 and kind.precision - kind.scale <= 18
        array = array.cast(pa.int64() if whole else pa.float64())
    elif pa.types.is_duration(kind):
        array = pc.divide(array.cast(pa.duration("us"), safe=False).cast(pa.int64()).cast(pa.float64()), 1e6)
    elif pa.types.is_float16(kind):
        array = pa.array(array.to_numpy(zero_copy_only=False).astype(np.float32), mask=missing)
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise TableError(
            f"column {name!r} holds {kind}; a column must hold numbers, text, truth values or dates"
        )
    if pa.types.is_integer(array.type):
        if array.type != pa.uint64() or (pc.max(array).as_py() or 0) < 2**63:
            small = array.type.bit_width < 32 or array.type == pa.int32()
            array = array.cast(pa.int32() if small else pa.int64())
        return Column(name, "number", pc.fill_null(array, 0).to_numpy(zero_copy_only=False), missing)
    values = array.to_numpy(zero_copy_only=False)  # nulls become NaN
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
