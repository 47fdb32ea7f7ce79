"""Frames of what people have in memory: data frames of any library, dicts of arrays, arrays, lists."""

from __future__ import annotations

import datetime
import decimal
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpumlp.tables.base import counted
from gpumlp.tables.frame import Column, Frame, factorize

__all__ = ["as_frame", "column_of"]


def as_frame(data: Any, names: Sequence[str] | None = None) -> Frame:
    """A `Frame` of whatever holds a table.

    Parameters
    ----------
    data : Frame, DataFrame, Arrow table, dict, array or list of rows
        pandas, polars, cuDF, PyArrow and everything with ``__arrow_c_stream__`` (narwhals, DuckDB, Ibis, ...;
        these need pyarrow unless the object gives its columns as NumPy arrays); a dict of columns; a NumPy
        or CuPy array (n_rows, n_columns) of numbers, text, dates or objects.
    names : sequence of str, optional
        Names for the columns of an array, instead of x0, x1, ...

    Raises
    ------
    TypeError
        `data`, or a cell of it, is none of these.
    ValueError
        It has no two dimensions, or columns of different lengths.
    """
    if isinstance(data, Frame):
        return data
    if hasattr(data, "tocsr"):
        raise TypeError("X is a sparse matrix; expected a table or a dense array: pass X.toarray()")
    if hasattr(data, "collect") and hasattr(data, "collect_schema"):
        raise TypeError("X is a lazy frame, which holds no rows yet; pass X.collect()")
    if hasattr(data, "to_frame") and not hasattr(data, "columns"):
        raise ValueError("Expected 2D array, got one column, a Series; pass a table: X.to_frame()")
    if hasattr(data, "to_pandas") and type(data).__module__.split(".")[0] == "cudf":
        data = data.to_pandas()
    if hasattr(data, "iloc") and hasattr(data, "columns"):
        return _of_columns({_text_name(name): data.iloc[:, j] for j, name in enumerate(data.columns)}, data)
    if isinstance(data, Mapping):
        return _of_columns({_text_name(name): values for name, values in data.items()})
    if hasattr(data, "__arrow_c_stream__") or type(data).__module__.split(".")[0] == "pyarrow":
        try:
            from gpumlp.tables.arrow import frame_of_arrow
        except ModuleNotFoundError:
            if not hasattr(data, "columns") or not hasattr(data, "__getitem__"):
                raise
        else:
            return frame_of_arrow(data)
    if hasattr(data, "columns") and hasattr(data, "__getitem__") and not hasattr(data, "ndim"):
        return _of_columns({str(name): data[name] for name in data.columns})
    return _of_array(data, names)


def _text_name(name: Any) -> str:
    return " ".join(map(str, name)) if isinstance(name, tuple) else str(name)


def _of_columns(columns: Mapping[str, Any], owner: Any = None) -> Frame:
    if owner is not None and len(columns) != len(owner.columns):
        names = [_text_name(name) for name in owner.columns]
        Frame([Column(name, "boolean", np.zeros(0, bool)) for name in names], 0)  # says which are there twice
    if not columns:
        raise ValueError("the table has no columns")
    made = [column_of(name, values) for name, values in columns.items()]
    for column in made[1:]:
        if len(column) != len(made[0]):
            raise ValueError(
                f"column {column.name!r} has {counted(len(column), 'row')}, column {made[0].name!r} has "
                f"{len(made[0])}"
            )
    return Frame(made, len(made[0]))


def _of_array(data: Any, names: Sequence[str] | None) -> Frame:
    if hasattr(data, "__cuda_array_interface__"):
        data = data.get() if hasattr(data, "get") else data
    if isinstance(data, np.ma.MaskedArray):
        raise TypeError("X is a masked array; fill or remove the masked entries first")
    if not hasattr(data, "dtype") and isinstance(data, (list, tuple)):
        data = _rows_of(data)
    array = np.asarray(data)
    if array.ndim != 2:
        raise ValueError(
            f"Expected a table of two dimensions, got an array of shape {array.shape}. Reshape your data: "
            "X.reshape(-1, 1) if it is one column, X.reshape(1, -1) if it is one row"
        )
    if names is not None and len(names) != array.shape[1]:
        raise ValueError(f"{len(names)} names for {counted(array.shape[1], 'column')}")
    shown = list(names) if names is not None else [f"x{j}" for j in range(array.shape[1])]
    columns = [column_of(name, array[:, j]) for j, name in enumerate(shown)]
    return Frame(columns, len(array), named=names is not None)


def _rows_of(rows: Sequence[Any]) -> np.ndarray:
    """Lists of rows; those of several types stay what they are (NumPy would make text of them)."""
    try:
        array = np.asarray(rows)
    except ValueError:
        raise ValueError("X has rows of different lengths") from None
    return np.asarray(rows, object) if array.dtype.kind in "USO" else array


def column_of(name: str, values: Any) -> Column:
    """A `Column` of a one-dimensional array, a Series of any library, or a list; see `as_frame`."""
    dtype = getattr(values, "dtype", None)
    if hasattr(values, "cat") and hasattr(values.cat, "codes"):
        return _category(name, values.cat.codes.to_numpy(), list(values.cat.categories))
    if hasattr(values, "isna") and not isinstance(dtype, np.dtype):  # a type of pandas' own
        return _extension(name, values)
    if hasattr(values, "__cuda_array_interface__") and hasattr(values, "get"):
        values = values.get()
    if hasattr(values, "to_numpy"):
        as_category = type(dtype).__name__ in ("Categorical", "Enum")  # of polars
        column = _of_numpy(name, np.asarray(values.to_numpy()))
        if as_category and column.kind == "text":
            column.kind = "category"
        return column
    if not hasattr(values, "__array__"):
        try:
            array = np.asarray(values)
        except ValueError:
            array = np.zeros(0, object)
        values = np.array([*values, None], object)[:-1] if array.dtype.kind in "USO" else array
    return _of_numpy(name, np.asarray(values))


def _category(name: str, codes: np.ndarray, categories: list[Any]) -> Column:
    missing = codes < 0
    return Column(
        name,
        "category",
        codes.astype(np.int32),
        missing if missing.any() else None,
        [_text_of(name, category) for category in categories],
    )


def _extension(name: str, series: Any) -> Column:
    """Of a pandas Series with a type that NumPy does not have."""
    kind = getattr(series.dtype, "kind", "O")
    missing = np.asarray(series.isna(), bool)
    gone = missing if missing.any() else None
    if kind in "iu":
        wide = np.uint64 if kind == "u" and getattr(series.dtype, "itemsize", 8) == 8 else np.int64
        return _plain(name, series.to_numpy(dtype=wide, na_value=0), gone)
    if kind == "f":
        return _plain(name, series.to_numpy(dtype=np.float64, na_value=np.nan), gone)
    if kind == "b":
        return Column(name, "boolean", series.to_numpy(dtype=bool, na_value=False), gone)
    if kind == "M" and getattr(series.dt, "tz", None) is not None:
        series = series.dt.tz_convert("UTC").dt.tz_localize(None)
    if kind in "Mm":
        return _of_numpy(name, series.to_numpy(dtype=f"{kind}8[us]"))
    return _of_objects(name, np.asarray(series, object))


def _of_numpy(name: str, array: np.ndarray) -> Column:
    if array.ndim != 1:
        raise ValueError(f"column {name!r} has shape {array.shape}; expected one value per row")
    kind = array.dtype.kind
    if kind == "b":
        return Column(name, "boolean", array)
    if kind in "iuf":
        return _plain(name, array, None)
    if kind == "M":
        values = array.astype("datetime64[us]")
        missing = np.isnat(values)
        return Column(name, "date", values, missing if missing.any() else None)
    if kind == "m":
        seconds = array.astype("timedelta64[us]")
        with np.errstate(invalid="ignore"):
            values = np.where(np.isnat(seconds), np.nan, seconds.astype(np.int64) / 1e6)
        return _plain(name, values, None)
    if kind in "UST":
        texts = [t.decode("utf-8", "replace") if isinstance(t, bytes) else t for t in array.tolist()]
        return _of_objects(name, np.array([*texts, None], object)[:-1])
    if kind == "O":
        return _of_objects(name, array)
    what = "Complex data not supported: " if kind == "c" else ""
    raise ValueError(f"{what}column {name!r} has dtype {array.dtype}; expected numbers, text or dates")


def _plain(name: str, array: np.ndarray, missing: np.ndarray | None) -> Column:
    """A column of integers or floats of any width."""
    if array.dtype.kind == "f":
        if array.dtype.newbyteorder("=") not in (np.float32, np.float64):
            array = array.astype(np.float32 if array.dtype.itemsize < 4 else np.float64)
        nan = np.isnan(array)
        return Column(name, "number", _native(array), nan if nan.any() else missing)
    if array.dtype.newbyteorder("=") == np.uint64:
        fits = not len(array) or array.max() < 2**63
        return Column(name, "number", array.astype(np.int64) if fits else _native(array), missing)
    wide = np.int64 if array.dtype.itemsize == 8 or array.dtype.newbyteorder("=") == np.uint32 else np.int32
    return Column(name, "number", array.astype(wide, copy=False), missing)


def _native(array: np.ndarray) -> np.ndarray:
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _of_objects(name: str, array: np.ndarray) -> Column:
    """Of Python objects: numbers, text, truth values, dates, decimals; None, NaN, NA and NaT are missing."""
    cells = array.tolist()
    missing = np.fromiter(map(_is_missing, cells), bool, len(cells))
    there = [cell for cell, gone in zip(cells, missing.tolist(), strict=True) if not gone]
    gone = missing if missing.any() else None
    types = {type(cell) for cell in there}
    if not there:
        return Column(name, "number", np.full(len(cells), np.nan), gone)
    if types <= {bool, np.bool_}:
        return Column(name, "boolean", _spread(np.array(there, bool), missing, False), gone)
    if all(issubclass(t, (numbers.Real, decimal.Decimal, np.bool_)) for t in types):
        if not all(issubclass(t, numbers.Integral) for t in types):
            return _plain(name, _spread(np.array([float(v) for v in there]), missing, np.nan), gone)
        if max(map(abs, there)) < 2**63:
            return Column(name, "number", _spread(np.array(there, np.int64), missing, 0), gone)
    if all(issubclass(t, (datetime.date, datetime.time, np.datetime64)) for t in types):
        values = np.array([_moment(v) for v in there], "datetime64[us]")
        return Column(name, "date", _spread(values, missing, np.datetime64("NaT")), gone)
    return _text(name, [_text_of(name, cell) for cell in there], missing, gone)


def _text(name: str, there: list[str], missing: np.ndarray, gone: np.ndarray | None) -> Column:
    codes, words = factorize(there)
    return Column(name, "text", _spread(codes, missing, -1), gone, words)


def _spread(there: np.ndarray, missing: np.ndarray, fill: Any) -> np.ndarray:
    """An array of all rows: `there` where nothing is missing, else `fill`."""
    out = np.full(len(missing), fill, there.dtype)
    out[~missing] = there
    return out


def _is_missing(cell: Any) -> bool:
    if cell is None:
        return True
    if isinstance(cell, (str, bytes, bool, int)):
        return False
    if type(cell).__name__ in ("NAType", "NaTType"):
        return True
    try:
        return bool(np.not_equal(cell, cell))  # NaN, in whatever type
    except (TypeError, ValueError):
        return False


def _moment(value: Any) -> Any:
    """A date, a time of a day or a point in time as what NumPy takes: without a zone, in UTC."""
    if isinstance(value, datetime.time):
        value = datetime.datetime.combine(datetime.date(1970, 1, 1), value)
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        return value.astimezone(datetime.timezone.utc).replace(tzinfo=None)
    return value


def _text_of(name: str, cell: Any) -> str:
    if isinstance(cell, bytes):
        return cell.decode("utf-8", "replace")
    if isinstance(cell, (str, numbers.Number, np.bool_, datetime.date, datetime.time, np.datetime64)):
        return str(cell)
    if hasattr(cell, "left") and hasattr(cell, "right"):  # an interval of pandas.cut
        return str(cell)
    raise TypeError(
        f"column {name!r} holds a {type(cell).__name__}; each argument must be a string, a number, a truth "
        "value, a date or missing"
    )
