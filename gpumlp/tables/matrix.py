"""Features and target of files: all numbers, as a matrix, or typed columns."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import numpy as np

from gpumlp.errors import suggest
from gpumlp.tables.arrays import read_npy, read_npz
from gpumlp.tables.base import Table, TableError, is_yes_no, some
from gpumlp.tables.convert import as_frame
from gpumlp.tables.csv import INDEX
from gpumlp.tables.frame import Column, Frame
from gpumlp.tables.read import Files, Layout, counts_rows, open_files
from gpumlp.tables.words import is_label_missing, is_number, number_of, why

__all__ = ["read_table"]

_FEW = 20  # in so few rows a column may count them by chance


def read_table(
    path: str | Sequence[str],
    *,
    target: str | None = None,
    features: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    need_target: bool = True,
    n_features: int | None = None,
    layout: Layout | None = None,
    keep: Sequence[str] = (),
    keep_mode: str = "raw",
    narrow: bool | None = None,
    typed: bool = False,
    texts: Sequence[str] = (),
    weight: str | None = None,
) -> Table:
    """Read data files.

    Parameters
    ----------
    path : str or sequence of str
        One .npz or .npy file by its ending; else CSV, Parquet, Arrow and Feather files, and folders of them.
    target : str, optional
        Name of the target column.  .npz: name of the target array (default: y, target, y_train, ...).
        .npy: number of the target column, from 0; negative ones count from the end.
    features : sequence of str, optional
        Names of the feature columns, in this order; other columns are skipped.  .npz: name of the array.
    drop : sequence of str
        Columns to leave out.
    need_target : bool
        If False, the target is neither read nor needed; it is kept out of the features all the same.
    n_features : int, optional
        Expected number of feature columns of a .npy file: with one more column, the target is among them.
    layout : Layout, optional
        Encoding, delimiter and decimal point of text files.
    keep : sequence of str
        Columns to give back as `kept`.
    keep_mode : str
        "raw": as they are written; "": by what their cells look like.
    narrow : bool, optional
        As for `read_frame`.
    typed : bool
        Features may be anything, and `X` is a Frame.
    texts : sequence of str
        Columns that are read as they are written.
    weight : str, optional
        Column with weights of the rows, which is no feature.

    Raises
    ------
    OSError
        A file cannot be opened.
    TableError
        Its content cannot be used.
    """
    paths = [path] if isinstance(path, str) else list(path)
    endings = {os.path.splitext(name)[1].lower() for name in paths}
    if endings & {".npz", ".npy"}:
        given = (("--drop", "leaves out", drop), ("--keep", "copies", keep), ("--weight", "names", weight))
        for option, what, names in given:
            if names:
                raise TableError(
                    f"{paths[0]!r}: {option} {what} columns of a CSV file or of one with named columns"
                )
        table = _read_arrays(paths, target, features, need_target, n_features)
        for part in (table, table.test):
            if typed and part is not None:
                part.X = _frame_of(part)
        return table
    files = open_files(paths, layout)
    chosen, skipped = _choose(files, target, features, drop, keep, need_target, weight)
    asked = [target] if need_target and target is not None else []
    modes = {**dict.fromkeys(texts, "text"), str(target): "label"}
    frame = files.read([*chosen, *asked, *([weight] if weight else [])], modes, narrow)
    notes = [f"not read: {some(files.others, 5)}"] if files.others else []
    for name in [name for name in chosen if counts_rows(frame, name)]:
        if name == INDEX and features is None:
            chosen.remove(INDEX)
            skipped.append(INDEX)
            notes.append("column 1 has no name and counts the rows: an index, left out")
        elif need_target and frame.n_rows > _FEW and not typed:  # who learns from those says so
            notes.append(f"column {name!r} counts the rows; leave it out with --drop {name}")
    if INDEX in chosen and features is None:
        raise TableError(
            f"{files.source!r}, line 1: column 1 has no name in the header, and does not count the rows; "
            "name it or remove it"
        )
    if not chosen:
        raise TableError(f"{files.source!r} has no feature columns besides {target!r}")
    if typed and need_target:
        notes += [note for name in chosen if name not in texts and (note := _doubt(files, frame, name))]
    y = _target(files, frame, asked[0]) if asked else None
    kept = files.read(keep, dict.fromkeys(keep, keep_mode)) if keep else None
    w = _weights(files, frame, weight) if weight else None
    X = frame.select(chosen) if typed else _matrix(files, frame, chosen)
    shown = target if need_target and target else ""
    return Table(files.source, X, chosen, True, y, shown, skipped=skipped, kept=kept, notes=notes, w=w)


def _doubt(files: Files, frame: Frame, name: str) -> str:
    """What should be known of a text column whose words are nearly all numbers; TableError if they all would
    be with another decimal point."""
    column = frame[name]
    if column.kind != "text" or len(column.words) < _FEW:
        return ""
    odd = [word for word in column.words if not is_number(word)]
    commas = [word for word in odd if is_number(word.replace(",", "."))]
    if 5 * len(odd) > len(column.words) > 1.25 * len(commas) or not odd:
        return ""
    word = commas[0] if commas else odd[0]
    place, _ = files.place(frame, int(np.argmax(column.values == column.words.index(word))))
    if len(commas) >= 0.8 * len(column.words):
        raise TableError(f"{place}: column {name!r}: {why(word)}")
    return f"{place}: column {name!r} is text because of {word!r}; nearly all its other cells are numbers"


def _read_arrays(
    paths: list[str],
    target: str | None,
    features: Sequence[str] | None,
    need_target: bool,
    n_features: int | None,
) -> Table:
    if len(paths) > 1:
        raise TableError(f"{some(paths, 3)}: of NumPy's files (.npz, .npy) one is read at a time")
    if os.path.splitext(paths[0])[1].lower() == ".npz":
        return read_npz(paths[0], target, features, need_target)
    return read_npy(paths[0], target, need_target, n_features)


def _frame_of(table: Table) -> Frame:
    frame = as_frame(table.X, table.names if table.named else None)
    frame.source = table.source
    return frame


def _weights(files: Files, frame: Frame, name: str) -> np.ndarray:
    """Those of the rows; TableError if one is no number >= 0."""
    column = frame.columns.pop(frame.names.index(name))
    if column.kind not in ("number", "boolean"):
        raise TableError(f"{files.source!r}: --weight {name}: the column holds no numbers")
    values = column.floats()
    bad = ~(np.isfinite(values) & (values >= 0))
    if bad.any() or not values.any():
        place, _ = files.place(frame, int(np.argmax(bad)))
        what = f"{place}: {values[bad][0]:g} is no" if bad.any() else f"{files.source!r}: all are 0, no"
        raise TableError(f"--weight {name}: {what} weight; expected numbers >= 0, and not all 0")
    return values


def _choose(
    files: Files,
    target: str | None,
    features: Sequence[str] | None,
    drop: Sequence[str],
    keep: Sequence[str],
    need_target: bool,
    weight: str | None = None,
) -> tuple[list[str], list[str]]:
    """Names of the features, and of the columns that are not used."""
    path, names = files.source, files.names
    one = (
        " (This is one column: if its header should be several, note that the delimiters understood are "
        "comma, semicolon, tab and |; give another one with --delimiter)"
        if len(names) == 1 and files.files[0].text
        else ""
    )
    if need_target and target is None:
        raise TableError(f"{path!r}: say which column to learn with --target; columns: {some(names)}{one}")
    known, left_out = set(names), {*drop, *files.files[0].index}
    if need_target and target not in known:
        hint = (
            " (The first row looks like data: is the header missing?)" if any(map(is_number, names)) else ""
        )
        raise TableError(f"{path!r} has no target column: {suggest('column', target, names)}{hint or one}")
    other = [weight] if weight else []
    unknown = [name for name in (*drop, *(features or ()), *keep, *other) if name not in known]
    if unknown:
        text = (
            suggest("column", unknown[0], names)
            if len(unknown) == 1
            else f"columns {', '.join(map(repr, unknown[:10]))}. Known: {some(names)}."
        )
        hint = (
            " (a name with a comma is written in quotes: '\"a, b\",c')"
            if any("," in n for n in names)
            else ""
        )
        what = "the feature columns" if set(unknown) <= set(features or ()) else "the columns that were named"
        raise TableError(f"{path!r} lacks {len(unknown)} of {what}: {text}{hint or one}")
    if target in drop:
        raise TableError(f"{path!r}: column {target!r} cannot be the target and be dropped")
    both = [name for name in features or () if name in drop]
    if both:
        raise TableError(f"{path!r}: column {both[0]!r} cannot be a feature and be dropped")
    if weight and weight in (target, *(features or ())):
        raise TableError(f"{path!r}: column {weight!r} cannot be the weight and be learnt or learnt from")
    if features is None:
        features = [name for name in names if name not in (target, weight) and name not in left_out]
    elif target in features:
        raise TableError(f"{path!r}: column {target!r} cannot be the target and a feature")
    if not features:
        raise TableError(f"{path!r} has no feature columns besides {target!r}{one}")
    used = {*features, target, weight}
    return list(features), [name for name in names if name not in used]


def _target(files: Files, frame: Frame, name: str) -> np.ndarray:
    """Numbers, or text as it is written."""
    column = frame.columns.pop(frame.names.index(name))
    bad = np.zeros(len(column), bool) if column.missing is None else column.missing.copy()
    if column.kind == "number":
        bad |= ~np.isfinite(column.values)
    elif column.kind in ("text", "category"):
        endless = [is_number(word) and not math.isfinite(number_of(word)) for word in column.words]
        bad |= np.array([*endless, True])[column.values]
    if bad.any():
        row = int(np.argmax(bad))
        place, cells = files.place(frame, row)
        cell = cells[name] if cells else str(column.texts()[row] or "")
        raise TableError(f"{place}: target column {name!r}: {why(cell, is_label_missing)}")
    if column.kind == "number":
        exact = column.values.dtype.kind == "f" or np.abs(column.values).max() <= 2**53
        return column.values.astype(np.float64) if exact else column.values
    if column.kind in ("boolean", "date"):
        return column.texts().astype(str)
    words = column.words
    if len(words) > 2 and is_yes_no(words):
        words = [word.capitalize() for word in words]
    return np.array(words)[column.values]


def _matrix(files: Files, frame: Frame, names: Sequence[str]) -> np.ndarray:
    """Numbers (n_rows, n_features), column by column in memory; the frame is emptied."""
    worst = min((bad for name in names if (bad := _first_bad(frame[name])) is not None), default=None)
    if worst is not None:
        name = next(name for name in names if _first_bad(frame[name]) == worst)
        place, cells = files.place(frame, worst)
        cell = cells[name] if cells else str(frame[name].texts()[worst] or "")
        raise TableError(f"{place}: column {name!r}: {why(cell)}")
    columns = {column.name: column for column in frame.columns}
    single = all(_fits_single(columns[name]) for name in names)
    X = np.empty((len(names), frame.n_rows), np.float32 if single else np.float64)
    frame.columns = []
    for j, name in enumerate(names):
        X[j] = columns.pop(name).values
    return X.T


def _fits_single(column: Column) -> bool:
    """Whether the reader has decided for 32 bits and float32 holds it."""
    values = column.values
    if values.dtype == np.int32:
        return bool(values.min() >= -(2**24) and values.max() <= 2**24)
    return values.dtype == np.float32


def _first_bad(column: Column) -> int | None:
    """The first row that holds no finite number, if there is one."""
    if column.kind in ("number", "boolean"):
        good = np.isfinite(column.values) if column.values.dtype.kind == "f" else np.ones(len(column), bool)
        if column.missing is not None:
            good &= ~column.missing
    elif column.kind == "date":
        good = np.zeros(len(column), bool)
    else:
        good = np.array([*map(_is_good, column.words), False])[column.values]
    return None if good.all() else int(np.argmin(good))


def _is_good(word: str) -> bool:
    return math.isfinite(number_of(word))
