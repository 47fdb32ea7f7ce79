"""Tables in NumPy's files, .npz and .npy; never with pickled objects."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpumlp.errors import suggest
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
_TEST_PAIRS = {"X_train": ("X_test", "y_test"), "x_train": ("x_test", "y_test")}


def _load(path: str) -> Any:
    with open(path, "rb") as file:  # errors about the path itself are OSErrors
        start = file.read(2)
        if not start:
            raise TableError(f"{path!r} is empty")
    if start not in (b"PK", b"\x93N"):
        kind = os.path.splitext(path)[1]
        raise TableError(
            f"{path!r} is no {kind} file: it does not begin like one; a table of text needs the ending .csv"
        )
    try:
        if start == b"PK":
            zipfile.ZipFile(path).close()  # np.load would leave a damaged archive open
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        if "Object arrays" in str(error):
            raise TableError(f"{path!r} holds Python objects, which are never loaded; {_OBJECTS}") from None
        raise TableError(f"{path!r} is no NumPy file, or is damaged or cut off: {error}") from None


def _member(path: str, archive: Any, name: str) -> np.ndarray:
    try:
        return archive[name]
    except (ValueError, EOFError, OSError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        why = (
            f"it holds Python objects, which are never loaded; {_OBJECTS}"
            if "Object arrays" in str(error)
            else f"the file is damaged or cut off ({error})"
        )
        raise TableError(f"{path!r}, array {name!r}: {why}") from None


def read_npz(path: str, target: str | None, features: Sequence[str] | None, need_target: bool) -> Table:
    """Read an archive of arrays; see `gpumlp.tables.read.read_table`."""
    archive = _load(path)
    if not hasattr(archive, "files"):
        raise TableError(f"{path!r} is one array, not an archive; give it the ending .npy")
    with archive:
        names = list(archive.files)
        shown = str(_member(path, archive, "target_name")) if "target_name" in names else ""
        if target == shown and target not in names:  # a model knows its target by that name
            target = None
        x_name, y_name = _pair(path, names, target, features, need_target)
        y = _member(path, archive, y_name) if need_target else None
        table = _from_arrays(path, _member(path, archive, x_name), y, x_name, y_name)
        table.target = shown or table.target
        used = {x_name, y_name, "target_name"}
        if "feature_names" in names:
            given = [str(n) for n in _member(path, archive, "feature_names").ravel()]
            if len(given) == len(table.names) == len(set(given)):
                table.names, table.named = given, True
                used.add("feature_names")
        test = _TEST_PAIRS.get(x_name)
        if test and set(test) <= set(names):
            y = _member(path, archive, test[1]) if need_target else None
            table.test = _from_arrays(path, _member(path, archive, test[0]), y, *test)
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
    array = _load(path)
    if hasattr(array, "files"):
        array.close()
        raise TableError(f"{path!r} is an archive of arrays; give it the ending .npz")
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
    x = x.reshape(len(x), -1)  # images become rows
    if not x.shape[1]:
        raise TableError(f"{path!r}, {x_name}: there are no feature columns")
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
        if y.dtype.kind != "U":
            _check_finite(path, y_name, y)
    return Table(path, x, [f"x{j}" for j in range(x.shape[1])], False, y, y_name)


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
