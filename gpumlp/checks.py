"""Checks of single values that users pass; those of `gpumlp.kernels.checks` are here as well."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from typing import Any

import numpy as np

from gpumlp.kernels.checks import flag, number

__all__ = ["flag", "number", "seed", "some", "whole"]


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


def seed(name: str, value: Any) -> int:
    """`value` as a seed, a Python int; else ValueError."""
    return whole(name, value, 0, 2**63, expected="an integer >= 0 and < 2^63")


def some(names: Iterable[object], limit: int = 12) -> str:
    """The first names, and how many there are."""
    listed = [str(name) for name in names]
    more = f", ... ({len(listed)})" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more if listed else "(none)"
