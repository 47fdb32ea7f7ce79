"""Values of the command line's options: from text, or an error that says what was expected."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from gpumlp.errors import suggest

__all__ = [
    "Span",
    "at_least_two",
    "before_data",
    "class_weight",
    "fraction",
    "hidden",
    "integer",
    "list_of",
    "name_of",
    "not_negative",
    "option",
    "positive",
    "registered",
    "span_of",
]


def _number(text: str, low: float, high: float, *, open_low: bool = False, open_high: bool = False) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    good = (low < value if open_low else low <= value) and (value < high if open_high else value <= high)
    if not good or math.isinf(value):
        span = f"{'>' if open_low else '>='} {low:g}" + (
            f" and {'<' if open_high else '<='} {high:g}" if high < math.inf else ""
        )
        raise argparse.ArgumentTypeError(f"{text!r} is not a number {span}")
    return value


def positive(text: str) -> float:
    """A finite number > 0."""
    return _number(text, 0, math.inf, open_low=True)


def not_negative(text: str) -> float:
    """A finite number >= 0."""
    return _number(text, 0, math.inf)


def fraction(text: str) -> float:
    """A number >= 0 and < 1."""
    return _number(text, 0, 1, open_high=True)


def at_least_two(text: str) -> float:
    """A finite number >= 2."""
    return _number(text, 2, math.inf)


def class_weight(text: str) -> str | dict[str, float]:
    """ "balanced", or CLASS=NUMBER with commas."""
    if text == "balanced":
        return text
    found = {}
    for part in text.split(","):
        name, _, value = part.rpartition("=")
        if not name:
            raise argparse.ArgumentTypeError(f"{text!r}; expected balanced, or CLASS=NUMBER,CLASS=NUMBER")
        found[name.strip()] = positive(value)
    return found


def before_data(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    """Of an option that may be without a value: DATA right after it would be taken for one."""

    def read(text: str) -> Any:
        try:
            return convert(text)
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentTypeError(f"{error} (give DATA before it, or a number after it)") from None

    return read


def integer(low: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if value < low or value >= 2**63:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number >= {low}")
        return value

    return convert


def registered(text: str, kind: str | None = None) -> str:
    """The name of what ``module:name`` stands for, which is registered."""
    from gpumlp.own import register_named

    try:
        return register_named(text, kind)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def name_of(kind: str, known: Iterable[str]) -> Callable[[str], str]:
    """One of the known names; of an activation, a loss or an optimizer also ``module:name``."""

    def convert(text: str) -> str:
        if text not in known and ":" in text and kind in ("activation", "loss", "optimizer"):
            return registered(text, kind)
        if text not in known:
            raise argparse.ArgumentTypeError(suggest(kind, text, known))
        return text

    return convert


def list_of(convert: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    def split(text: str) -> list[Any]:
        parts = [convert(part.strip()) for part in text.split(",") if part.strip()]
        if not parts:
            raise argparse.ArgumentTypeError("the list is empty")
        return parts

    return split


def hidden(text: str) -> list[int]:
    """Sizes of the hidden layers; "none" for a linear model."""
    if text.strip().lower() == "none":
        return []
    try:
        return list_of(integer(1))(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}; for a linear model: none") from None


def option(text: str) -> tuple[str, Any]:
    """NAME=VALUE for a field of an optimiser."""
    name, sign, value = text.partition("=")
    if not sign or not name or not value:
        raise argparse.ArgumentTypeError(f"{text!r}; expected NAME=VALUE, for example momentum=0.9")
    if value.lower() in ("true", "false"):
        return name.strip(), value.lower() == "true"
    try:
        parts = tuple(map(float, value.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}; the value must be a number, true or false, or numbers with commas (betas=0.9,0.99)"
        ) from None
    return name.strip(), parts[0] if len(parts) == 1 else parts


@dataclass(frozen=True)
class Span:
    """What a hyper-parameter is drawn from: a range, or some values.

    Attributes
    ----------
    values : tuple of float
        The ends of the range, or the values.
    is_range : bool
    scale : str
        "log" or "linear".
    whole : bool
        Only whole numbers.
    """

    values: tuple[float, ...]
    is_range: bool = False
    scale: str = "linear"
    whole: bool = False

    def at(self, u: float) -> float:
        """The value for a number u, uniform in [0, 1): uniform as well, or its logarithm is."""
        if not self.is_range:
            return self.values[int(u * len(self.values))]
        low, high = self.values
        if self.whole:  # each number is a bin of width 1
            low, high = low - 0.5, high + 0.5
        value = low * (high / low) ** u if self.scale == "log" else low + (high - low) * u
        low, high = self.values
        value = min(max(value, low), high)  # of rounding
        return round(value) if self.whole else value

    def __str__(self) -> str:
        texts = [f"{value:g}" for value in self.values]
        return (":" if self.is_range else ",").join(texts)


def span_of(
    convert: Callable[[str], Any], scale: str = "linear", whole: bool = False
) -> Callable[[str], Span]:
    """LOW:HIGH, a number, or numbers with commas."""

    def split(text: str) -> Span:
        if ":" not in text:
            return Span(tuple(list_of(convert)(text)), False, scale, whole)
        parts = [convert(part.strip()) for part in text.split(":")]
        if len(parts) != 2 or not parts[0] < parts[1]:
            raise argparse.ArgumentTypeError(
                f"{text!r}; expected LOW:HIGH with LOW < HIGH, a number, or numbers with commas"
            )
        if scale == "log" and parts[0] <= 0:
            raise argparse.ArgumentTypeError(
                f"{text!r}; the logarithm is drawn, so the range must begin above 0 (or give numbers with "
                f"commas: 0,{parts[1]:g})"
            )
        return Span(tuple(parts), True, scale, whole)

    return split
