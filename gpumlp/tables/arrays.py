"""Tables in NumPy's files, .npz and .npy; never with pickled objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO, TypeVar

import numpy as np

from gpumlp.errors import suggest
from gpumlp.files.npz import BadFile, NpzReader, open_file
from gpumlp.files.npz import read_npy as read_one
from gpumlp.tables.base import Table, TableError, counted, some

__all__ = ["read_npy", "read_npz"]

_PAIRS = (
    ("X", "y"),
    ("x", "y"),
    ("data", "target"),
    ("features", "labels"),
    ("features", "target"),
    ("X_train", "y_train"),
    ("x_train", "y_train"),
)
_OBJECTS = "save an array of numbers (or, for class names, of text: y.astype(str))"
_T = TypeVar("_T")
_TEST_PAIRS = {"X_train": ("X_test", "y_test"), "x_train": ("x_test", "y_test")}


@contextmanager
def _opened(path: str, ending: str) -> Iterator[BinaryIO]:
    """The open file, which begins as one with this ending does."""
    with _read(repr(path), open_file, path) as file:  # errors about the path itself are OSErrors
        start = file.read(2)
        if not start:
            raise TableError(f"{path!r} is empty")
        found = {b"PK": ".npz", b"\x93N": ".npy"}.get(start)
        if found is None:
            raise TableError(
                f"{path!r} is not a {ending} file: it does not begin like one; a table of text needs the "
                "ending .csv"
            )
        if found != ending:
            what = "an archive of arrays" if found == ".npz" else "one array, not an archive"
            raise TableError(f"{path!r} is {what}; give it the ending {found}")
        yield file


def _read(where: str, read: Callable[..., _T], *arguments: object) -> _T:
    try:
        return read(*arguments)
    except BadFile as error:
        if "pickled" in str(error):
            raise TableError(f"{where} holds Python objects, which are never loaded; {_OBJECTS}") from None
        raise TableError(f"{where}: {error}") from None


class _Arrays:
    """The arrays of an open .npz file; errors name file and array."""

    def __init__(self, path: str, file: BinaryIO) -> None:
        self._path = path
        self._npz = _read(repr(path), NpzReader, file)
        self.names = self._npz.names

    def __getitem__(self, name: str) -> np.ndarray:
        where = f"{self._path!r}, array {name!r}"
        array = _read(where, self._npz.read, name)
        if array.dtype.kind == "U" and not _is_text(array):
            raise TableError(f"{where}: it holds numbers that are not characters; the file is damaged")
        return array


def _is_text(array: np.ndarray) -> bool:
    codes = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="))).reshape(-1).view(np.uint32)
    return not ((codes > 0x10FFFF) | ((codes >= 0xD800) & (codes < 0xE000))).any()


def read_npz(path: str, target: str | None, features: Sequence[str] | None, need_target: bool) -> Table:
    """Read an archive of arrays; see `gpumlp.tables.read.read_table`."""
    with _opened(path, ".npz") as file:
        arrays = _Arrays(path, file)
        names = arrays.names
        shown = str(arrays["target_name"]) if "target_name" in names else ""
        if target == shown and target not in names:  # a model knows its target by that name
            target = None
        x_name, y_name = _pair(path, names, target, features, need_target)
        table = _part(path, arrays, x_name, y_name if need_target else "")
        table.target = shown or table.target
        used = {x_name, y_name, "target_name"}
        if "feature_names" in names:
            given = [str(n) for n in arrays["feature_names"].ravel()]
            if len(given) == len(table.names) == len(set(given)):
                table.names, table.named = given, True
                used.add("feature_names")
        test = _TEST_PAIRS.get(x_name)
        if test and set(test) <= set(names):
            table.test = _part(path, arrays, test[0], test[1] if need_target else "")
            if table.test.X.shape[1] != table.X.shape[1]:
                raise TableError(
                    f"{path!r}: {test[0]} has {table.test.X.shape[1]} features, {x_name} {table.X.shape[1]}"
                )
            used.update(test)
            table.test.names, table.test.named = table.names, table.named
            table.test.target = table.target
        table.skipped = [name for name in names if name not in used]
        if table.test is not None:
            table.test.skipped = table.skipped
    return table


def _part(path: str, arrays: _Arrays, x_name: str, y_name: str) -> Table:
    return _from_arrays(path, arrays[x_name], arrays[y_name] if y_name else None, x_name, y_name)


def _pair(
    path: str, names: list[str], target: str | None, features: Sequence[str] | None, need_target: bool
) -> tuple[str, str]:
    for name in (*(features or ()), *([target] if target and need_target else ())):
        if name not in names:
            raise TableError(f"{path!r}: {suggest('array', name, names)}")
    if features is not None:
        if len(features) != 1:
            raise TableError(f"{path!r}: --features names one array of an .npz file, given {some(features)}")
        pairs: Sequence[tuple[str, str]] = [(features[0], y) for x, y in _PAIRS if x == features[0]] or [
            (features[0], y) for _, y in _PAIRS
        ]
    else:
        pairs = _PAIRS
    if target is not None and target in names:
        pairs = [(x, target) for x, y in pairs if y == target] or [(x, target) for x, _ in pairs]
    for x, y in pairs:
        if x in names and y in names:
            return x, y
    if not need_target:
        for x, _ in pairs:
            if x in names:
                return x, ""
    raise TableError(
        f"{path!r} has the arrays {some(names)}; expected X and y (or x_train and y_train, data and "
        "target), or name them with --features and --target"
    )


def read_npy(path: str, target: str | None, need_target: bool, n_features: int | None) -> Table:
    """Read one array; see `gpumlp.tables.read.read_table`."""
    with _opened(path, ".npy") as file:
        array = _read(repr(path), read_one, file)
    if array.ndim != 2:
        raise TableError(f"{path!r} has shape {array.shape}; expected a table (n_rows, n_columns)")
    columns = array.shape[1]
    try:
        index = int(target if target is not None else "")
    except ValueError:
        if not need_target:
            return _from_arrays(path, array, None, "the array", "")
        wanted = f"the number of the column to learn, 0 to {columns - 1} (-1: the last)"
        raise TableError(
            f"{path!r}: give --target, {wanted}"
            if target is None
            else f"{path!r}: --target is {target!r}; expected {wanted}"
        ) from None
    if not need_target and columns == n_features:
        return _from_arrays(path, array, None, "the array", "")
    if not -columns <= index < columns:
        raise TableError(
            f"{path!r} has {counted(columns, 'column')}; --target {index} is not one of 0 to {columns - 1}"
        )
    y = array[:, index] if need_target else None
    return _from_arrays(path, np.delete(array, index, axis=1), y, "the array", str(target))


def _from_arrays(path: str, x: np.ndarray, y: np.ndarray | None, x_name: str, y_name: str) -> Table:
    if x.dtype.kind not in "biuf":
        raise TableError(f"{path!r}, {x_name}: dtype {x.dtype}; expected real numbers")
    if x.ndim < 2:
        raise TableError(f"{path!r}, {x_name}: shape {x.shape}; expected (n_rows, n_features)")
    if not x.shape[0]:
        raise TableError(f"{path!r}, {x_name}: there are no rows")
    if not x.size:
        raise TableError(f"{path!r}, {x_name}: there are no feature columns")
    x = _double(x.reshape(len(x), -1))  # images become rows
    _check_finite(path, x_name, x)
    if y is not None:
        if y.ndim == 2 and y.shape[1] == 1:
            y = y[:, 0]
        if y.shape != (len(x),):
            raise TableError(
                f"{path!r}, {y_name}: shape {y.shape}; expected ({len(x)},), one value per row of {x_name}"
            )
        if y.dtype.kind == "b":
            y = y.astype(str)
        if y.dtype.kind not in "iufU":
            raise TableError(f"{path!r}, {y_name}: dtype {y.dtype}; expected numbers or text")
        y = _double(y)
        if y.dtype.kind != "U":
            _check_finite(path, y_name, y)
    return Table(path, x, [f"x{j}" for j in range(x.shape[1])], False, y, y_name)


def _double(array: np.ndarray) -> np.ndarray:
    """The same; what is more precise than float64 becomes that (what is too large is infinite then)."""
    if array.dtype.kind != "f" or array.dtype.itemsize <= 8:
        return array
    with np.errstate(over="ignore"):
        return array.astype(np.float64)


def _check_finite(path: str, name: str, array: np.ndarray) -> None:
    if array.dtype.kind != "f":
        return
    for start in range(0, len(array), 65536):  # no mask of the size of the data
        good = np.isfinite(array[start : start + 65536])
        if not good.all():
            place = np.argwhere(~good)[0]
            place[0] += start
            column = f", column {place[1]}" if len(place) > 1 else ""
            raise TableError(
                f"{path!r}, {name}: {array[tuple(place)]} in row {place[0]}{column} (counted from 0); "
                "fill it or remove the row"
            )
