"""From the columns of a table to the matrix that a network takes, as learnt from the training rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpumlp import checks
from gpumlp.tables.frame import Column, Frame, factorize
from gpumlp.tables.words import shortest, typed
from gpumlp.tabular.columns import Category, Codes, Date, Flag, Number

__all__ = ["Encoder", "Roles"]

#: kinds of a column, as the user names them and as `Encoder.kinds` has them
KINDS = ("number", "flag", "category", "date")
_BLOCK = 1 << 18  # rows that are encoded at a time
_IDENTIFIER = 0.9  # share of distinct texts from which on a text column names its rows


@dataclass(frozen=True)
class Roles:
    """What the user says of columns: names, or numbers of columns from 0."""

    categorical: Sequence[Any] = ()
    numeric: Sequence[Any] = ()
    drop: Sequence[Any] = ()

    def by_name(self, names: Sequence[str]) -> dict[str, str]:
        """Name of a column -> "category", "number" or "drop".

        Raises
        ------
        ValueError
            A column that is not there, or that is named twice.
        """
        found: dict[str, str] = {}
        for role, word in (("categorical", "category"), ("numeric", "number"), ("drop", "drop")):
            for given in getattr(self, role):
                name = _column_named(role, given, names)
                if found.setdefault(name, word) != word:
                    raise ValueError(f"{role}={given!r}: column {name!r} is also given as {found[name]}")
        return found


def _column_named(role: str, given: Any, names: Sequence[str]) -> str:
    if isinstance(given, str) and given in names:
        return given
    if isinstance(given, (int, np.integer)) and not isinstance(given, bool) and 0 <= given < len(names):
        return names[int(given)]
    raise ValueError(f"{role}={given!r}; expected names of columns: {checks.some(map(repr, names))}")


class Encoder:
    """Columns to inputs: first all numbers that may be embedded, then codes of categories, then the rest.

    Attributes
    ----------
    columns : dict of str to Number, Flag, Category, Codes or Date
        What was learnt of each column that is used, by its name.
    dropped : dict of str to str
        Columns that are not used, and why.
    names : list of str
        All columns of the table, in their order.
    named : bool
        Whether they are the table's own names.
    """

    def __init__(
        self, names: Sequence[str], named: bool, columns: dict[str, Any], dropped: dict[str, str]
    ) -> None:
        self.names, self.named, self.columns, self.dropped = list(names), named, columns, dropped

    @classmethod
    def fit(cls, frame: Frame, rows: np.ndarray, weights: np.ndarray | None, roles: Roles) -> Encoder:
        """Learn from the training rows.

        Parameters
        ----------
        frame : Frame
        rows : int array
            Numbers of the training rows.
        weights : float array (n,), optional
            Of all rows of the frame.
        roles : Roles
        """
        wanted = roles.by_name(frame.names)
        columns: dict[str, Any] = {}
        dropped: dict[str, str] = {}
        w = None if weights is None else weights[rows]
        for column in frame.columns:
            role = wanted.get(column.name)
            if role == "drop":
                dropped[column.name] = "was not wanted"
                continue
            learnt = _learn(column.take(rows), role, w)
            if isinstance(learnt, str):
                dropped[column.name] = learnt
            else:
                columns[column.name] = learnt
        if not columns:
            reasons = checks.some([f"{name!r} {why}" for name, why in dropped.items()], 5)
            raise ValueError(f"no column can be used: {reasons}")
        return cls(frame.names, frame.named, columns, dropped)

    # ---- what goes into a network -----------------------------------------------
    @property
    def n_numbers(self) -> int:
        """The first so many inputs are numbers that may be embedded."""
        return sum(column.n_numbers for column in self.columns.values())

    @property
    def code_sizes(self) -> list[int]:
        """The next inputs are codes of categories: how many each has."""
        return [column.size for column in self._codes().values()]

    def _codes(self) -> dict[str, Codes]:
        return {name: column for name, column in self.columns.items() if isinstance(column, Codes)}

    def inputs(self) -> list[str]:
        """Names of the inputs, in their order."""
        codes = self._codes()
        pairs = [column.names(name) for name, column in self.columns.items() if name not in codes]
        return (
            [n for numbers, _ in pairs for n in numbers]
            + [*codes]
            + [n for _, others in pairs for n in others]
        )

    def transform(self, frame: Frame) -> np.ndarray:
        """The inputs, float32 (n, n_inputs).

        Raises
        ------
        ValueError
            A column holds something else than in training.
        """
        given = {column.name: column for column in frame.columns}
        out = np.empty((frame.n_rows, len(self.inputs())), np.float32)
        for start in range(0, frame.n_rows, _BLOCK):  # what is made on the way is larger than the result
            rows = slice(start, start + _BLOCK)
            self._fill(out[rows], {name: given[name].take(rows) for name in self.columns})
        return out

    def _fill(self, out: np.ndarray, given: dict[str, Column]) -> None:
        number, code = 0, self.n_numbers
        other = code + len(self._codes())
        for name, column in self.columns.items():
            first, others = _encoded(given[name], column)
            if isinstance(column, Codes):
                out[:, code] = first[:, 0]
                code += 1
                continue
            out[:, number : number + first.shape[1]] = first
            out[:, other : other + others.shape[1]] = others
            number, other = number + first.shape[1], other + others.shape[1]

    def kinds(self) -> dict[str, str]:
        """Name of each used column -> one of `KINDS`."""
        return {
            name: "category" if isinstance(column, Codes) else type(column).__name__.lower()
            for name, column in self.columns.items()
        }

    def modes(self) -> dict[str, str]:
        """How columns of text files are to be read (`read_frame`) so that their categories are found: as text
        where known ones would be taken for something else, as "007" for a number."""
        found = {}
        for name, column in self.columns.items():
            known = column.known if isinstance(column, (Category, Codes)) else []
            if any(_codes(typed(name, np.zeros(1, np.int32), [word]))[1] != [word] for word in known):
                found[name] = "text"
        return found

    def summary(self) -> str:
        """How many columns there are of each kind."""
        kinds = list(self.kinds().values())
        parts = [f"{kinds.count(kind)} {kind}" for kind in KINDS if kind in kinds]
        dropped = f", {len(self.dropped)} not used" if self.dropped else ""
        return f"columns: {', '.join(parts)}{dropped}; {len(self.inputs())} inputs"

    def __repr__(self) -> str:
        return f"Encoder({self.summary()})"


def missing_of(column: Column) -> np.ndarray:
    """Which are missing, as truth values (n,)."""
    return np.zeros(len(column.values), bool) if column.missing is None else column.missing


def _learn(column: Column, role: str | None, weights: np.ndarray | None) -> Any:
    """What is learnt of a column, or the reason why it is not used."""
    if role is None and column.kind == "text":
        column = _as_in_files(column)
    missing, values = missing_of(column), column.values
    if missing.all():
        return "is empty"
    learnt: Any
    if role == "number" or (role is None and column.kind == "number"):
        numbers = _numbers(column)
        lacking = missing | np.isnan(numbers)
        learnt = Flag.fit(numbers, lacking) if not lacking.any() else None
        learnt = learnt or Number.fit(numbers, lacking, weights)
    elif role == "category" or column.kind in ("text", "category"):
        codes, texts = _codes(column)
        if role is None and column.kind == "text" and _identifies(codes):
            return "has a text of its own in nearly every row"
        learnt = Category.fit(codes, texts)
    elif column.kind == "boolean":
        learnt = Flag.fit(values.astype(np.float64), missing)
        if learnt is None and missing.any():
            learnt = Category.fit(*_codes(column))
    else:
        learnt = Date.fit(values, missing, weights)
    return "has one value only" if learnt is None else learnt


def _identifies(codes: np.ndarray) -> bool:
    """Whether nearly every row has a code of its own; -1 is missing."""
    there = codes[codes >= 0]
    distinct = len(np.unique(there))
    return distinct > 20 and distinct > _IDENTIFIER * len(there)


def _as_in_files(column: Column) -> Column:
    """Texts that all say dates as dates, as the readers of files take them; so too those that say numbers,
    if nearly every row has another. Other texts, and numbers that may be codes, stay as they are."""
    for words in (column.words[:20], column.words):  # the first ones settle most columns
        said = typed(
            column.name, column.values if words is column.words else np.arange(len(words)), [*words, ""]
        )
        if said.kind != "date" and not (said.kind == "number" and _identifies(column.values)):
            return column
    return said


def _encoded(column: Column, learnt: Any) -> tuple[np.ndarray, np.ndarray]:
    missing = missing_of(column)
    if isinstance(learnt, (Category, Codes)):
        return learnt.transform(*_codes(column))
    if isinstance(learnt, Date):
        dates = _dates(column)
        return learnt.transform(dates, missing | np.isnat(dates))
    numbers = _numbers(column)
    return learnt.transform(numbers, missing | np.isnan(numbers))


def _numbers(column: Column) -> np.ndarray:
    """The values as float64; a text that a file's reader takes for a number counts as that."""
    if column.kind in ("text", "category"):
        return _said(column, ("number", "boolean"), "numbers")
    if column.kind == "date" and not missing_of(column).all():
        raise _other_kind(column, "numbers")
    return column.floats()


def _dates(column: Column) -> np.ndarray:
    """The values as datetime64[us]; a text that a file's reader takes for a date counts as that."""
    if column.kind == "date":
        return column.values
    if missing_of(column).all():
        return np.full(len(column), "NaT", "datetime64[us]")
    if column.kind not in ("text", "category"):
        raise _other_kind(column, "dates")
    return _said(column, ("date",), "dates")


def _said(column: Column, kinds: tuple[str, ...], expected: str) -> np.ndarray:
    """What the words of a text column say, as `gpumlp.tables.words` reads them: numbers, or dates."""
    out = np.full(len(column.words) + 1, np.nan if "number" in kinds else np.datetime64("NaT", "us"))
    used = np.unique(column.values[column.values >= 0])  # the last entry is for -1, missing
    words = [column.words[code] for code in used.tolist()]
    said = typed(column.name, np.arange(len(words)), words)
    if said.kind in kinds:
        out[used] = said.values if said.kind == "date" else said.floats()
    elif said.missing is None or not said.missing.all():
        alone = (typed(column.name, np.zeros(1, np.int32), [word]) for word in words)
        fits = (one.kind in kinds or one.missing is not None for one in alone)
        raise _other_kind(
            column, expected, next((w for w, fit in zip(words, fits, strict=True) if not fit), None)
        )
    return out[column.values]


def _codes(column: Column) -> tuple[np.ndarray, list[str]]:
    """Codes, -1 where missing, and the texts that they stand for.

    As the readers of files have them: without blanks around, none is missing; and numbers in their shortest
    form, whatever type they come in: 3.0 is "3".
    """
    missing, values = missing_of(column), column.values
    if column.kind in ("text", "category"):
        texts = [word.strip() for word in column.words]
        if all(texts) and texts == column.words:
            return values, texts
        places, distinct = factorize(texts)
        places[[not text for text in texts]] = -1
        return np.append(places, np.int32(-1))[values], distinct
    found, codes = np.unique(values, return_inverse=True)
    texts = [shortest(value) for value in found]
    return np.where(missing, -1, codes.ravel()).astype(np.int32), texts


def _other_kind(column: Column, expected: str, text: str | None = None) -> ValueError:
    what = f"{text!r}" if text is not None else f"values of kind {column.kind!r}"
    return ValueError(f"column {column.name!r} has {what}; expected {expected}")
