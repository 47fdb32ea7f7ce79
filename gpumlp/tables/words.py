"""What the cells of a text file say: missing values, numbers, truth values, dates, labels, or just text."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpumlp.tables.frame import Column, factorize

__all__ = [
    "CLEAR",
    "MANY",
    "NULLS",
    "ROUND",
    "are_clear",
    "is_missing",
    "is_number",
    "number_of",
    "shortest",
    "typed",
    "why",
]

_ERRORS = ("#n/a", "#na", "#n/a n/a", "#div/0!", "#value!", "#ref!", "#num!", "#name?", "#null!")
_TEXT = {
    "",
    "na",
    "n/a",
    "<na>",
    "nan",
    "null",
    "none",
    "nat",
    "n.a.",
    "\\n",
    "?",
    "(null)",
    "[null]",
    "<null>",
}
_TEXT |= {*_ERRORS, "1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan", "-nan"}
#: in columns of numbers, dates and truth values
_MISSING = _TEXT | {"-", "--", "---", ".", "..", "...", "*", "**", "nil", "missing", "unknown", "undefined"}
#: in columns of labels, where "none" or "?" may be a class
_LABELS = {"", "NA", "N/A", "#N/A", "<NA>", "NaN", "nan", "null", "NULL"}
#: all of `_MISSING` in the usual ways to write them, for readers that compare letter by letter
NULLS = sorted(
    {form for w in _MISSING for form in (w, w.upper(), w.capitalize(), w.title())} | {"NaN", "NaT"}
)
_TRUTH = {"true": 1.0, "false": 0.0}
_NUMBER = re.compile(
    r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?inf(inity)?|0[xX][0-9a-f]{1,16}", re.A | re.I
)
#: numbers as programs write them: no leading zeros, exponents with a sign or a point, exact as float64
CLEAR = r"-?(((0|[1-9][0-9]{0,14})(\.[0-9]+)?|\.[0-9]+)([eE][+-][0-9]{1,3})?|[0-9]\.[0-9]+[eE][0-9]{1,3})"
_CLEAR = re.compile(CLEAR)
#: "1.10" may be another name than "1.1": clear only among so many that they cannot be names
ROUND = r"\.[0-9]*[1-9]0+$"
MANY = 1000
_ROUND = re.compile(ROUND)
_CLOCK = r"\d\d:\d\d(:\d\d(\.\d{1,9})?)?"
_ISO = re.compile(rf"\d{{4}}-\d\d-\d\d([ T](\d\d|{_CLOCK})(Z|[+-]\d\d(:?\d\d)?)?)?|{_CLOCK}", re.A)


def is_missing(word: str) -> bool:
    """Whether a cell, in a column of numbers, says that there is no value."""
    return word.strip().lower() in _MISSING


def is_number(word: str) -> bool:
    """Whether a cell is a number, finite or not."""
    return _NUMBER.fullmatch(word.strip()) is not None


def number_of(word: str) -> float:
    """The number in a cell, truth values as 1 and 0; NaN for anything else."""
    word = word.strip()
    if not _NUMBER.fullmatch(word):
        return _TRUTH.get(word.lower(), math.nan)
    return float(int(word, 16)) if word[1:2] in ("x", "X") else float(word)


def shortest(value: Any) -> str:
    """A NumPy scalar as text, or a word: 3.0 and 003 are "3", true is "True", other words are themselves."""
    if isinstance(value, str):
        if not is_number(value):
            return value.capitalize() if value.lower() in _TRUTH else value
        digits = value.strip()
        value = np.int64(digits) if digits.isdigit() and len(digits) < 19 else np.float64(number_of(value))
    if value.dtype.kind == "f":
        whole = value.is_integer() and abs(value) < 2**53
        return str(int(value)) if whole else str(value)
    return str(value.tolist())


def are_clear(words: Sequence[str]) -> bool:
    """Whether distinct labels are numbers for sure: 1, -2.5 and 1e-05 are; 007, 12E4, 10_1 may be codes, and
    a few like 1.10 names of versions."""
    return all(map(_CLEAR.fullmatch, words)) and (len(words) > MANY or not any(map(_ROUND.search, words)))


def typed(name: str, codes: np.ndarray, words: Sequence[str], mode: str = "", decimal: str = ".") -> Column:
    """A column of what the cells of a text file say.

    Parameters
    ----------
    name : str
    codes : int array (n_rows,)
        Places in `words`.
    words : sequence of str
        The distinct cells.
    mode : str
        "" for what they look like, "text"; "label": numbers if all are clearly numbers, else text;
        "words": labels that are text; "raw": text, where nothing is missing.
    decimal : str
        The decimal point.
    """
    stripped = [word.strip() for word in words]
    if mode == "raw":
        gone = [False] * len(words)
    elif mode in ("label", "words"):
        gone = [word in _LABELS for word in stripped]
    else:
        unknown = _TEXT if mode == "text" else _MISSING
        gone = [word.lower() in unknown for word in stripped]
    if mode in ("", "label"):
        there = [word for word, missing in zip(stripped, gone, strict=True) if not missing]
        if decimal != ".":
            there = [w.replace(decimal, ".") if "." not in w else f"'{w}'" for w in there]
        values = _values(there) if mode == "" else _numbers(there) if are_clear(there) else None
        if values is not None:
            return _spread(name, codes, values, gone)
    if mode == "":
        gone = [word.lower() in _TEXT for word in stripped]
    return _text(name, codes, stripped, gone)


def _values(words: list[str]) -> np.ndarray | None:
    """Numbers, truth values or points in time; None if the words are text."""
    numbers = [is_number(word) for word in words]
    if all(numbers):
        return _numbers(words)
    truth = [word.lower() in _TRUTH for word in words]
    if all(truth):
        return np.array([word.lower() == "true" for word in words])
    if any(truth) and all(n or t for n, t in zip(numbers, truth, strict=True)):
        return _numbers([{"true": "1", "false": "0"}.get(word.lower(), word) for word in words])
    return _moments(words)


def _text(name: str, codes: np.ndarray, words: list[str], gone: list[bool]) -> Column:
    known, distinct = factorize([word for word, missing in zip(words, gone, strict=True) if not missing])
    places = np.full(len(words) + 1, -1, np.int32)
    places[:-1][~np.array(gone, bool)] = known
    values = places[codes]
    missing = values < 0
    return Column(name, "text", values, missing if missing.any() else None, distinct)


def _numbers(words: list[str]) -> np.ndarray:
    """int64 if all are whole, without a plus sign, and fit; else float64."""
    if all(word.removeprefix("-").isdigit() or word[1:2] in ("x", "X") for word in words):
        whole = [int(word, 16 if word[1:2] in ("x", "X") else 10) for word in words]
        if not whole or (min(whole) >= -(2**63) and max(whole) < 2**63):
            return np.array(whole, np.int64) if whole else np.zeros(0)
    return np.array([number_of(word) for word in words])


def _moments(words: list[str]) -> np.ndarray | None:
    """datetime64[us] of dates, times of a day and points in time (in UTC if they have a zone) in ISO forms;
    None if a word is something else."""
    out = np.empty(len(words), "datetime64[us]")
    for n, word in enumerate(words):
        moment = _moment(word)
        if moment is None:
            return None
        out[n] = moment
    return out


def _moment(word: str) -> datetime.datetime | None:
    if not _ISO.fullmatch(word):
        return None
    text = f"1970-01-01T{word}" if word[2] == ":" else word
    main, fraction, rest = re.fullmatch(r"([^.]*)(\.\d+)?(.*)", text).groups()  # type: ignore[union-attr]
    zone = rest.strip()
    if not fraction and (found := re.search(r" ?(Z|[+-]\d\d:?(\d\d)?)$", main[10:])):
        main, zone = main[: 10 + found.start()], found.group(1)
    try:
        moment = datetime.datetime.fromisoformat(main)
        moment += datetime.timedelta(microseconds=int((fraction or ".0")[1:7].ljust(6, "0")))
        if zone not in ("", "Z"):
            hours, minutes = int(zone[1:3]), int(zone[3:].lstrip(":") or 0)
            moment -= datetime.timedelta(hours=hours, minutes=minutes) * (-1 if zone[0] == "-" else 1)
    except (ValueError, OverflowError):
        return None
    return moment


def _spread(name: str, codes: np.ndarray, values: np.ndarray, gone: list[bool]) -> Column:
    """Of the values of the words that are not missing, a column of all rows."""
    kind = {"b": "boolean", "M": "date"}.get(values.dtype.kind, "number")
    fill: dict[str, Any] = {"f": np.nan, "i": 0, "b": False, "M": np.datetime64("NaT")}
    if not len(values):
        return Column(name, "number", np.full(len(codes), np.nan), np.ones(len(codes), bool))
    if not any(gone):
        return Column(name, kind, values[codes])
    mask = np.array(gone)
    table = np.full(len(gone), fill[values.dtype.kind], values.dtype)
    table[~mask] = values
    missing = mask[codes]
    return Column(name, kind, table[codes], missing if missing.any() else None)


def why(cell: str, missing: Callable[[str], bool] = is_missing) -> str:
    """What is wrong with a cell that should hold a finite number."""
    cell = cell.strip()
    if missing(cell):
        what = repr(cell) if cell else "the cell is empty"
        return f"missing value ({what}); fill it or remove the row"
    if is_number(cell):
        return f"{cell!r} is not a finite number; fill it or remove the row"
    if _ISO.fullmatch(cell):
        return (
            f"{cell!r} is a date where a number is expected; make a number of it, or leave it out with --drop"
        )
    text = f"{cell!r} is text where a number is expected; encode it, or leave the column out with --drop"
    return _about_commas(cell) or text


def _about_commas(cell: str) -> str:
    """What is wrong with a number that has commas; empty if the cell is none."""
    if re.fullmatch(r"[+-]?[1-9]\d{0,2},\d{3}", cell):
        plain, point = cell.replace(",", ""), cell.replace(",", ".")
        return f"{cell!r} may be {plain} or {point}; write numbers without a comma, or give --decimal ,"
    if re.fullmatch(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?", cell):
        return f"{cell!r} has commas between thousands; write {cell.replace(',', '')}"
    if is_number(cell.replace(",", ".")):
        return f"{cell!r} has a decimal comma; give --decimal , or write numbers with a point"
    return ""


def is_label_missing(word: str) -> bool:
    """Whether a label says that there is none."""
    return word.strip() in _LABELS
