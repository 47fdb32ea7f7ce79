"""A table of rows, and the error for files that are not tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpumlp import checks
from gpumlp.checks import printable

__all__ = ["Table", "TableError", "counted", "is_yes_no", "printable", "some"]


class TableError(ValueError):
    """A data file that cannot be used; the message names file, line and column."""


@dataclass
class Table:
    """Rows of a data file.

    Attributes
    ----------
    source : str
        The file, for messages.
    X : array (n_rows, n_features), real numbers, all finite; or a Frame, whose columns hold anything
    names : list of str
        Names of the features; ``x0, x1, ...`` if the file has none.
    named : bool
        Whether the file has feature names.
    y : array (n_rows,), text or finite numbers; None if the target was not asked for
    target : str
        Name of the target column or array, or the column's number in a .npy file.
    test : Table, optional
        Rows that the file itself sets apart for testing.
    skipped : sequence of str
        Columns, or arrays of an .npz file, that are neither features nor target.
    kept : Frame, optional
        Columns that were asked for besides.
    w : float64 array (n_rows,), optional
        Weights of the rows, >= 0.
    notes : sequence of str
        What a user should know about the files.
    """

    source: str
    X: Any
    names: list[str]
    named: bool
    y: np.ndarray | None = None
    target: str = ""
    test: Table | None = None
    skipped: Sequence[str] = ()
    kept: Any = None
    notes: Sequence[str] = ()
    w: np.ndarray | None = None


#: words for yes and no, which programs write in different cases
_YES_NO = [{"true", "false"}, {"yes", "no"}, {"t", "f"}, {"y", "n"}, {"on", "off"}]


def is_yes_no(words: Iterable[str]) -> bool:
    """Whether labels are a pair like True and False, in whatever case."""
    lower = {word.lower() for word in words}
    return any(lower <= pair for pair in _YES_NO)


def counted(number: int, noun: str) -> str:
    """1 row, 2 rows."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def some(names: Sequence[object], limit: int = 12) -> str:
    """The first names, and how many there are; they come from files."""
    return checks.some([printable(str(name)) for name in names], limit)
