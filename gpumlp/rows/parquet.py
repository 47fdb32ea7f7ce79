"""`ParquetRows`: rows of a Parquet file, or of all Parquet files in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpumlp import checks
from gpumlp.errors import suggest
from gpumlp.rows.source import Piece, RowSource

__all__ = ["ParquetRows"]

_PIECE, _PIECE_BYTES = 1 << 13, 8 << 20  # most rows that are decoded at a time, and their size
_BUFFER = 1 << 18  # bytes of a column that are read at a time: a row group need not fit into memory

_FEATURES = (
    "features must be numbers or truth values: name the columns to be used (features=), or write text as "
    "codes first"
)
_TARGETS = "expected numbers, or classes=True (or a list of labels) for a target of labels"


class ParquetRows(RowSource):
    """Rows of a Parquet file, or of all Parquet files of a folder, read while they are needed.

    Needs pyarrow (``pip install "gpumlp[tables]"``).  Only the columns that are named are read.  A row group
    of a file is a group of the source; files of a folder (and its folders) come in the order of their names.

    Parameters
    ----------
    path : path
        A file, or a folder with files ``*.parquet``.
    features : sequence of str, optional
        Columns of numbers or truth values, in the order of the network's inputs; by default all but `target`
        and `weight`.
    target : str or sequence of str, optional
        A column, or one per output.  May be left out for predictions.
    weight : str, optional
        A column with a factor >= 0 on each row's loss.
    classes : sequence, or True, optional
        The target holds labels: each is replaced by its place in the sequence.  True: read the column once
        now, and number its labels in ascending order.
    window : int, optional
        Rows that are shuffled together; see `RowSource`.

    Attributes
    ----------
    features : list of str
    classes : list or None
        Label of each class number, for predictions.
    n_features, n_rows, groups, window
        See `RowSource`.

    Raises
    ------
    ValueError, TypeError
        A column is missing, or is not of numbers; a file is damaged, or holds no rows.
    FileNotFoundError
        There is no such file, or none in the folder.
    ImportError
        pyarrow is not installed.

    Notes
    -----
    While rows are read, a missing value, a value that is not finite, and a file that was changed or cannot be
    read are a ValueError that names the file and the row group.

    Examples
    --------
    >>> import gpumlp, numpy as np, os, tempfile, pyarrow as pa, pyarrow.parquet
    >>> path = os.path.join(tempfile.mkdtemp(), "t.parquet")
    >>> x = np.linspace(-1, 1, 300)
    >>> pa.parquet.write_table(pa.table({"a": x, "b": x**2, "y": np.where(x > 0, "yes", "no")}), path)
    >>> rows = gpumlp.rows.ParquetRows(path, features=["a", "b"], target="y", classes=True)
    >>> model = gpumlp.MLP([2, 8, 2], device="cpu")
    >>> trainer = gpumlp.Trainer(model, loss="softmax_cross_entropy", optimizer="adam")
    >>> history = trainer.fit(rows, epochs=2, validation=0.1)
    >>> rows.classes, model.predict(rows).shape
    (['no', 'yes'], (300,))
    """

    def __init__(
        self,
        path: Any,
        features: Sequence[str] | None = None,
        target: str | Sequence[str] | None = None,
        weight: str | None = None,
        *,
        classes: Sequence[Any] | bool | None = None,
        window: int | None = None,
    ) -> None:
        self._pa, self._parquet = _pyarrow()
        self.window = None if window is None else checks.whole("window", window)
        self._single = isinstance(target, str)
        self.targets = [target] if isinstance(target, str) else _names("target", target or [])
        self.weight = weight if weight is None else _names("weight", [weight])[0]
        self.features: list[str] | None = None if features is None else _names("features", features)
        self._state: dict[str, tuple] = {}
        self._footer: tuple[str, Any] = "", None
        self._groups: list[tuple[str, int]] = []
        self.groups: list[int] = []
        self._wide = False  # whether features need double precision
        for file in _files(path):
            self._add(file, classes)
        if not self.groups:
            raise ValueError(f"{os.fspath(path)!r} has no rows; expected at least one")
        assert self.features is not None
        self.n_features = len(self.features)
        self.classes = self._labels(classes)
        self._values = None if self.classes is None else self._pa.array(self.classes)

    # ---- what is there -----------------------------------------------
    def _add(self, file: str, classes: Any) -> None:
        """Check a file's columns, and note its row groups."""
        self._state[file] = _state(file)
        with self._opened(file) as opened:
            schema, about = opened.schema_arrow, opened.metadata
            if self.features is None:
                self.features = [n for n in schema.names if n not in (*self.targets, self.weight)]
                if not self.features:
                    raise ValueError(f"{file!r} has no columns for features besides target and weight")
            for name in (*self.features, *self.targets, *([self.weight] if self.weight else [])):
                if schema.names.count(name) != 1:
                    if name in schema.names:
                        raise ValueError(f"{file!r} has several columns {name!r}; their names must differ")
                    raise ValueError(f"{file!r}: {suggest('column', name, schema.names)}")
            for name in self.features:
                self._wide |= self._check_type(file, schema.field(name), _FEATURES)
            for name in self.targets if classes is None or classes is False else ():
                self._check_type(file, schema.field(name), _TARGETS)
            if self.weight:
                self._check_type(file, schema.field(self.weight), "weights must be numbers")
            sizes = [about.row_group(g).num_rows for g in range(about.num_row_groups)]
        for group, size in enumerate(sizes):
            if size > 0:
                self._groups.append((file, group))
                self.groups.append(size)

    def _check_type(self, file: str, field: Any, expected: str) -> bool:
        """Whether a column of numbers needs double precision; TypeError for other columns."""
        types, kind = self._pa.types, field.type
        if types.is_boolean(kind) or types.is_float16(kind) or types.is_float32(kind):
            return False
        if types.is_integer(kind):
            return bool(kind.bit_width > 16)
        if types.is_float64(kind) or types.is_decimal(kind):
            return True
        raise TypeError(f"{file!r}: column {field.name!r} holds {kind}; {expected}")

    def _labels(self, classes: Any) -> list[Any] | None:
        if classes is None or classes is False:
            return None
        if len(self.targets) != 1:
            raise ValueError(f"classes are for one target; there are {len(self.targets)}")
        if classes is not True:
            labels = list(classes)
            if len(set(labels)) != len(labels) or not labels:
                raise ValueError(f"classes={classes!r}; expected labels that differ, at least one")
            return labels
        found: set[Any] = set()
        for group in range(len(self.groups)):
            for batch in self._batches(group, self.targets):
                column = self._column(group, batch, self.targets[0])
                with _told(self.place(group), self._pa):
                    found.update(column.unique().to_pylist())
        return sorted(found)

    # ---- reading -----------------------------------------------
    def _opened(self, file: str) -> Any:
        """The file, whose footer is read again only if another file has been opened since."""
        last, about = self._footer
        with _told(repr(file), self._pa):
            opened = self._parquet.ParquetFile(
                file, metadata=about if last == file else None, buffer_size=_BUFFER, pre_buffer=False
            )
            self._footer = file, opened.metadata
        return opened

    def place(self, group: int) -> str:
        file, number = self._groups[group]
        return f"{file!r}, row group {number}"

    def _batches(self, group: int, columns: list[str]) -> Iterator[Any]:
        """Record batches of some columns of a group."""
        file, number = self._groups[group]
        self._check_state(file)
        with self._opened(file) as opened:
            most = max(1, min(_PIECE, _PIECE_BYTES // (8 * len(columns))))
            batches = opened.iter_batches(most, row_groups=[number], columns=columns, use_threads=False)
            while True:
                with _told(self.place(group), self._pa):
                    batch = next(batches, None)
                if batch is None:
                    break
                yield batch
        self._check_state(file)

    def _check_state(self, file: str) -> None:
        try:
            same = _state(file) == self._state[file]
        except OSError as error:
            raise ValueError(f"{file!r} can no longer be read: {error}") from None
        if not same:
            raise ValueError(f"{file!r} has changed since it was opened; open it again, and train again")

    def _column(self, group: int, batch: Any, name: str) -> Any:
        """A column of a batch; ValueError if a value is missing."""
        column = batch.column(name)
        if column.null_count:
            raise ValueError(
                f"{self.place(group)}: column {name!r} has missing values ({column.null_count} of "
                f"{len(column)} rows here); fill or remove these rows first"
            )
        return column.dictionary_decode() if self._pa.types.is_dictionary(column.type) else column

    def _numbers(self, group: int, batch: Any, name: str, kind: str) -> np.ndarray:
        """The values of a column, as an Arrow type of numbers."""
        column = self._column(group, batch, name)
        try:
            column = column.cast(kind, safe=kind == "int64")  # large integers as features may be rounded
        except self._pa.ArrowException as error:
            raise TypeError(
                f"{self.place(group)}: column {name!r} ({column.type}) cannot be read as numbers: {error}"
            ) from None
        dtype = np.dtype({"float": "float32", "double": "float64"}.get(kind, kind))
        if not len(column):
            return np.zeros(0, dtype)
        # not by to_numpy(), which imports pandas where it is installed
        return np.frombuffer(column.buffers()[1], dtype, len(column), column.offset * dtype.itemsize)

    def _target(self, group: int, batch: Any) -> np.ndarray | None:
        if self._values is not None:
            import pyarrow.compute as pc

            column = self._column(group, batch, self.targets[0])
            try:
                codes = pc.index_in(column, self._values.cast(column.type))
            except self._pa.ArrowException as error:
                raise TypeError(
                    f"{self.place(group)}: column {self.targets[0]!r} holds {column.type}, to which the "
                    f"classes {checks.some(self.classes or [])} do not fit: {error}"
                ) from None
            if codes.null_count:
                with _told(self.place(group), self._pa):
                    other = column.filter(pc.is_null(codes))[0].as_py()
                raise ValueError(
                    f"{self.place(group)}: column {self.targets[0]!r} holds {other!r}, which is not one of "
                    f"the classes {checks.some(self.classes or [])}"
                )
            return np.frombuffer(codes.buffers()[1], np.int32, len(codes), 4 * codes.offset)
        types = self._pa.types
        parts = []
        for name in self.targets:
            kind = batch.schema.field(name).type
            whole = types.is_integer(kind) or types.is_boolean(kind)
            parts.append(self._numbers(group, batch, name, "int64" if whole else "double"))
        if not parts:
            return None
        return parts[0] if self._single else np.column_stack(parts)

    def read(self, group: int) -> Iterator[Piece]:
        """See `RowSource`."""
        assert self.features is not None
        names = [*self.features, *self.targets, *([self.weight] if self.weight else [])]
        kind = "double" if self._wide else "float"
        for batch in self._batches(group, list(dict.fromkeys(names))):
            X = np.empty((batch.num_rows, self.n_features), "float64" if self._wide else "float32")
            for j, name in enumerate(self.features):
                X[:, j] = self._numbers(group, batch, name, kind)
            w = self._numbers(group, batch, self.weight, "double") if self.weight else None
            yield X, self._target(group, batch), w

    def __repr__(self) -> str:
        return (
            f"ParquetRows({self.n_rows} rows, {self.n_features} features, {len(self.groups)} row groups in "
            f"{len(self._state)} file{'s' * (len(self._state) > 1)})"
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pa": None, "_parquet": None, "_footer": ("", None)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._pa, self._parquet = _pyarrow()


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError(
            f'ParquetRows needs pyarrow ({error}); install it with: pip install "gpumlp[tables]"'
        ) from None
    return pa, parquet


def _names(what: str, given: Any) -> list[str]:
    if isinstance(given, str) or not hasattr(given, "__iter__"):
        raise TypeError(f"{what}={given!r}; expected names of columns")
    names = list(given)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"{what}: {name!r} is not a name of a column; expected text")
    if len(set(names)) != len(names):
        raise ValueError(f"{what}={given!r}; a column is named twice")
    return names


def _files(path: Any) -> list[str]:
    """The files of `path`, by name."""
    place = Path(os.fspath(path))
    if not place.exists():
        raise FileNotFoundError(f"there is no file or folder {str(place)!r}")
    if not place.is_dir():
        return [str(place)]
    hidden = (".", "_")  # what other programs write beside their files
    files = sorted(
        str(file)
        for file in place.rglob("*.parquet")
        if file.is_file() and not any(part.startswith(hidden) for part in file.relative_to(place).parts)
    )
    if not files:
        raise FileNotFoundError(f"the folder {str(place)!r} has no files *.parquet")
    return files


def _state(file: str) -> tuple:
    found = os.stat(file)
    return found.st_size, found.st_mtime_ns, found.st_ino


class _told:
    """Context: what pyarrow raises for damaged files becomes a ValueError that names the file."""

    def __init__(self, place: str, pa: Any) -> None:
        self.place, self.kinds = place, (pa.ArrowException, OSError, ValueError, KeyError, IndexError)

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, self.kinds):
            what = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(f"{self.place} cannot be read as a Parquet file: {what}") from None
