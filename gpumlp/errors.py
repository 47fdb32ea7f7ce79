"""Errors and warnings that a caller may want to catch by name, and the wording of name errors."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["DeviceError", "DivergenceError", "ModelFileError", "UsageError", "suggest"]


class DeviceError(RuntimeError):
    """The device that was asked for cannot be used; the message says which part is missing."""


class DivergenceError(FloatingPointError):
    """Training produced a loss that is NaN or infinite; the message names step and epoch and what to try."""


class ModelFileError(ValueError):
    """A file that is no usable model; the message says what is wrong with it."""


class UsageError(ValueError):
    """Command line options that do not fit together or to the data."""


def suggest(kind: str, given: object, known: Iterable[str]) -> str:
    """Text for an unknown name: what was given, the nearest known name, all known names."""
    names = sorted(known)
    near = difflib.get_close_matches(str(given), names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"unknown {kind} {given!r}.{hint} Known: {', '.join(names)}."
