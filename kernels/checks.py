"""Checks of single values: each returns the value as a Python number, or says what was given and expected."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

__all__ = ["flag", "number"]


def number(
    name: str,
    value: Any,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    open_low: bool = False,
    expected: str | None = None,
) -> int | float:
    """`value` as a Python int or float, finite, >= `low` (> `low` if `open_low`) and < `high`; else
    ValueError.

    NumPy's numbers and arrays without dimensions are numbers; truth values and text are not.

    Parameters
    ----------
    expected : str, optional
        Instead of the range, in the message.
    """
    kind = _kind(value)
    if kind in "iuf":
        try:
            plain = float(value) if kind == "f" else int(value)
            above = low < plain if open_low else low <= plain
            if math.isfinite(plain) and above and plain < high:
                return plain
        except OverflowError:  # an int beyond all floats
            pass
    raise ValueError(f"{name}={value!r}; expected {expected or _span(low, high, open_low)}")


def flag(name: str, value: Any) -> bool:
    """`value` as True or False (0 and 1 are taken for them); else ValueError."""
    if _kind(value) in "biu" and value in (0, 1):
        return bool(value)
    raise ValueError(f"{name}={value!r}; expected True or False")


def _kind(value: Any) -> str:
    """NumPy's letter for the type of a scalar; "O" for anything else."""
    if isinstance(value, float):
        return "f"
    if isinstance(value, int):
        return "b" if isinstance(value, bool) else "i"
    if isinstance(value, (np.generic, np.ndarray)) and value.ndim == 0:
        return value.dtype.kind
    return "O"


def _span(low: float, high: float, open_low: bool) -> str:
    kind = "a number" if high < math.inf else "a finite number"
    bounds = [f"{'>' if open_low else '>='} {low:g}"] if low > -math.inf else []
    bounds += [f"< {high:g}"] if high < math.inf else []
    return " ".join([kind, " and ".join(bounds)]).strip()
