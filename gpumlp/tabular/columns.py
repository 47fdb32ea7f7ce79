"""How one column becomes numbers for a network: each kind with what it has learnt from the training rows.

Their attributes are what a file holds of them; see `gpumlp.tabular.saved`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from gpumlp.tables.words import shortest
from gpumlp.tabular.numbers import normal_scores, quantiles_of

__all__ = ["Category", "Codes", "Date", "Flag", "Number"]

_RARE = 3  # rows that a category needs for an input of its own: the others share one
#: so many categories have an input each; columns with more become codes
MOST_CATEGORIES = 64


@dataclass
class Number:
    """Ranks spread like a normal distribution; a missing one is 0, and an indicator says so.

    Attributes
    ----------
    points, scores : float64 arrays
        See `quantiles_of`.
    indicator : bool
        Whether there is an input that is 1 where a value is missing; only if one was among the training rows.
    """

    points: np.ndarray
    scores: np.ndarray
    indicator: bool

    #: inputs that are embedded as numbers
    n_numbers = 1

    @classmethod
    def fit(cls, values: np.ndarray, missing: np.ndarray, weights: np.ndarray | None) -> Number | None:
        """None for a column that has one value at most."""
        usable = ~missing & np.isfinite(values)
        kept = values[usable].astype(np.float64)
        indicator = bool(missing.any())
        if not len(kept) or (kept.min() == kept.max() and not indicator):
            return None
        points, scores = quantiles_of(kept, None if weights is None else weights[usable])
        return cls(points, scores, indicator)

    def transform(self, values: np.ndarray, missing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(numbers (n, 1), others (n, 0 or 1))."""
        with np.errstate(invalid="ignore"):
            numbers = normal_scores(values, self.points, self.scores)
        numbers[missing | np.isnan(numbers)] = 0
        others = missing[:, None] if self.indicator else np.empty((len(values), 0))
        return numbers[:, None], others

    def names(self, name: str) -> tuple[list[str], list[str]]:
        """Of the inputs."""
        return [name], [f"{name} missing"] if self.indicator else []


@dataclass
class Flag:
    """A column of two values: -1 and 1, 0 where missing or neither.

    Attributes
    ----------
    low, high : float
        The two; the first becomes -1.
    """

    low: float
    high: float

    n_numbers = 0

    @classmethod
    def fit(cls, values: np.ndarray, missing: np.ndarray) -> Flag | None:
        """None if the column has not exactly two values."""
        distinct = np.unique(values[~missing & np.isfinite(values)][:1000])
        if len(distinct) > 2:
            return None
        distinct = np.unique(values[~missing & np.isfinite(values)])
        return cls(float(distinct[0]), float(distinct[1])) if len(distinct) == 2 else None

    def transform(self, values: np.ndarray, missing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(numbers (n, 0), others (n, 1))."""
        middle = (self.low + self.high) / 2
        out = np.sign(np.asarray(values, np.float64) - middle)
        out[missing | np.isnan(out)] = 0
        return np.empty((len(values), 0)), out[:, None]

    def names(self, name: str) -> tuple[list[str], list[str]]:
        """Of the inputs."""
        return [], [name]


@dataclass
class Category:
    """One input for each category that enough rows have, one for all rarer ones, one for missing ones.

    A category that no training row has counts as a rare one; where none was rare, all of its inputs are 0.

    Attributes
    ----------
    known : list of str
        Those with an input of their own.
    rare, missing : bool
        Whether there is an input for rare ones, and for missing ones.
    """

    known: list[str]
    rare: bool
    missing: bool

    n_numbers = 0

    @classmethod
    def fit(cls, codes: np.ndarray, texts: list[str], most: int = MOST_CATEGORIES) -> Category | Codes | None:
        """None for a column with one category at most, and no missing ones; those have code -1."""
        counts = np.bincount(codes[codes >= 0], minlength=len(texts))
        seen = int((counts > 0).sum())
        some_missing = bool((codes < 0).any())
        if seen + some_missing < 2:
            return None
        least = min(_RARE, max(1, len(codes) // 100))
        known = sorted(texts[k] for k in np.flatnonzero(counts >= least).tolist())
        if len(known) > most:
            return Codes(known, some_missing)
        return cls(known, len(known) < seen, some_missing)

    def transform(self, codes: np.ndarray, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """(numbers (n, 0), others (n, width))."""
        columns = _looked_up(texts, codes, *self.places())
        out = np.zeros((len(codes), self.width + 1), np.float32)
        out[np.arange(len(codes)), columns] = 1
        return np.empty((len(codes), 0)), out[:, : self.width]

    @property
    def width(self) -> int:
        """Number of inputs."""
        return len(self.known) + self.rare + self.missing

    def places(self) -> tuple[dict[str, int], int, int]:
        """The input of each text, of all other texts and of missing ones; `width` for none."""
        other = len(self.known) if self.rare else self.width
        return _places(self.known), other, self.width - 1 if self.missing else self.width

    def names(self, name: str) -> tuple[list[str], list[str]]:
        """Of the inputs."""
        more = ["rare"] * self.rare + ["missing"] * self.missing
        return [], [f"{name}={text}" for text in self.known] + [f"{name} {word}" for word in more]


@dataclass
class Codes:
    """A code for each category that enough rows have, 0 for all others, the last for missing ones.

    A network learns a vector for each code.

    Attributes
    ----------
    known : list of str
        Those with codes of their own, from 1.
    missing : bool
        Whether missing ones have a code, or 0.
    """

    known: list[str]
    missing: bool

    n_numbers = 0

    @property
    def size(self) -> int:
        """Number of codes."""
        return 1 + len(self.known) + self.missing

    def transform(self, codes: np.ndarray, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """(codes (n, 1), others (n, 0))."""
        columns = _looked_up(texts, codes, *self.places())
        return columns[:, None].astype(np.float64), np.empty((len(codes), 0))

    def places(self) -> tuple[dict[str, int], int, int]:
        """The code of each text, of all other texts and of missing ones."""
        return _places(self.known, 1), 0, self.size - 1 if self.missing else 0

    def names(self, name: str) -> tuple[list[str], list[str]]:
        """Of the inputs."""
        return [name], []


def _places(known: list[str], first: int = 0) -> dict[str, int]:
    """Number of each text, and of those that write the same number or truth value in its shortest form, if
    that is one text's only: of "3" where "3.0" is known, but neither "3" nor "03"."""
    places = {text: k for k, text in enumerate(known, first)}
    numbers = [(shortest(text), k) for text, k in places.items()]
    counts = Counter(number for number, _ in numbers)
    return {**{number: k for number, k in numbers if counts[number] == 1}, **places}


def _looked_up(
    texts: list[str], codes: np.ndarray, places: dict[str, int], other: int, lacking: int
) -> np.ndarray:
    found = [places[t] if t in places else places.get(shortest(t), other) for t in texts]
    return np.array([*found, lacking], np.int64)[codes]


_DAY = 86_400_000_000  # microseconds
#: parts of a date, see `_date_parts`
_PARTS = ("trend", "year day", "month day", "week day", "day hour")


@dataclass
class Date:
    """Its distance from the first one, and its place in year, month, week and day, each a `Number`.

    Attributes
    ----------
    parts : dict of str to Number
        Those of `_PARTS` that are not constant.
    """

    parts: dict[str, Number]

    @property
    def n_numbers(self) -> int:
        """Inputs that are embedded as numbers."""
        return len(self.parts)

    @classmethod
    def of(cls, parts: dict[str, Number]) -> Date:
        """With these parts; ValueError if one is none of a date, or there is none."""
        if (
            not parts
            or not set(parts) <= set(_PARTS)
            or not all(isinstance(p, Number) for p in parts.values())
        ):
            raise ValueError(f"parts of a date are {', '.join(_PARTS)}")
        return cls(parts)

    @classmethod
    def fit(cls, values: np.ndarray, missing: np.ndarray, weights: np.ndarray | None) -> Date | None:
        """None for a column with one date at most."""
        parts: dict[str, Number] = {}
        for name, part in _date_parts(values, missing).items():
            number = Number.fit(part, missing, weights)
            if number is not None and len(number.points) > 1:
                number.indicator &= not parts  # one says it for all parts
                parts[name] = number
        return cls(parts) if parts else None

    def transform(self, values: np.ndarray, missing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(numbers (n, parts), others (n, 0 or 1))."""
        given = _date_parts(values, missing)
        pairs = [number.transform(given[name], missing) for name, number in self.parts.items()]
        return tuple(np.concatenate(each, axis=1) for each in zip(*pairs, strict=True))  # type: ignore[return-value]

    def names(self, name: str) -> tuple[list[str], list[str]]:
        """Of the inputs."""
        pairs = [number.names(f"{name} {part}") for part, number in self.parts.items()]
        return [n for numbers, _ in pairs for n in numbers], [n for _, others in pairs for n in others]


def _date_parts(values: np.ndarray, missing: np.ndarray) -> dict[str, np.ndarray]:
    """Numbers of each part; those of missing dates are 0."""
    dates = np.where(missing, np.datetime64(0, "us"), values.astype("datetime64[us]"))
    days, years, months = (dates.astype(f"datetime64[{unit}]") for unit in "DYM")
    micro = dates.astype(np.int64)
    return {
        "trend": micro / _DAY,
        "year day": (days - years.astype("datetime64[D]")).astype(np.float64),
        "month day": (days - months.astype("datetime64[D]")).astype(np.float64),
        "week day": ((days.astype(np.int64) + 3) % 7).astype(np.float64),
        "day hour": (micro % _DAY) / (_DAY / 24),
    }
