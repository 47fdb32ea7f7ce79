"""Checks of single values that users pass, those of `gpumlp.kernels.checks` too; and names in messages."""

from __future__ import annotations

import math
import operator
import unicodedata
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from gpumlp.kernels.checks import flag, number

__all__ = ["Setting", "flag", "number", "printable", "same", "seed", "some", "whole"]


def whole(name: str, value: Any, low: int = 1, high: float = math.inf, *, expected: str | None = None) -> int:
    """`value` as a Python int >= `low` and < `high`; else ValueError.

    NumPy's integers and integer arrays without dimensions are integers; truth values and 3.0 are not.
    """
    if not isinstance(value, (bool, np.bool_)):
        try:
            plain = operator.index(value)
        except TypeError:
            pass
        else:
            if low <= plain < high:
                return plain
    limit = f" and < {high:g}" if high < math.inf else ""
    raise ValueError(f"{name}={value!r}; expected {expected or f'an integer >= {low}{limit}'}")


def same(values: list[Any], others: list[Any]) -> bool:
    """Whether both have the same objects."""
    return len(values) == len(others) and all(map(operator.is_, values, others))


def seed(name: str, value: Any) -> int:
    """`value` as a seed, a Python int; else ValueError."""
    return whole(name, value, 0, 2**63, expected="an integer >= 0 and < 2^63")


def some(names: Iterable[object], limit: int = 12) -> str:
    """The first names, and how many there are."""
    listed = [str(name) for name in names]
    more = f", ... ({len(listed)})" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more if listed else "(none)"


def printable(text: str, plain: str = "") -> str:
    """`text` with escapes for control characters, but those in `plain`, and for others that cannot be seen.

    Spaces of all kinds stay.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in plain or _is_space(c) else repr(c)[1:-1] for c in text)


def _is_space(character: str) -> bool:
    return unicodedata.category(character) == "Zs"


class Setting:
    """An attribute whose values are checked wherever they are assigned, in the constructor as later.

    Parameters
    ----------
    check : callable
        Gives what is to be kept for a value that was assigned, or raises.
    """

    def __init__(self, check: Callable[[Any], Any]) -> None:
        self.check = check

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    if TYPE_CHECKING:  # reading finds what is in the object, without a call

        def __get__(self, obj: Any, owner: type | None = None) -> Any: ...

    def __set__(self, obj: Any, value: Any) -> None:
        vars(obj)[self.name] = self.check(value)
