"""Random CSV texts, in order and with every kind of fault."""

from __future__ import annotations

import numpy as np

__all__ = ["csv_text", "same_column"]

CELLS = {
    "whole": ["0", "1", "-3", "+4", "12", " 7", "9007199254740993", "123456789012345678901", "0x1F", "007"],
    "number": ["1.5", "-2e3", ".5", "3.", "1E-7", "1e400", "-inf", "Infinity", "1_0", "\u00a02", "\uff11"],
    "truth": ["true", "False", "TRUE", "tRUE", " true"],
    "missing": ["", " null ", "NA", "NaN", "None", "?", "-", ".", "n/a", "\\N", "#DIV/0!", "--", "NIL"],
    "date": ["2020-01-31", "1600-05-06", "2020-02-30", "9999-12-31", "0001-01-01"],
    "moment": ["2020-01-31T12:30:05", "2020-01-31T12:30:05Z", "2020-01-31T12", "1600-01-01 00:00:00"],
    "more moments": ["2020-01-31 12:30", "2020-01-31 12:30:05.25", "2020-01-31 12:30:05+02:00"],
    "odd moments": ["2020-01-31 12:30", "2020-01-31T12:30:05.123456789-0130", "2020-01-31 25:00"],
    "clock": ["12:30", "00:00:01", "23:59:59.5", "24:00"],
    "text": ["blue", "é", "日本", "x-1", "O'Neil", "1,5", "1;2", "a b", " b ", 'say "x"', "two\nlines"],
    "nearly": ["yes", "10%", "2020-1-1", "0x", "-", "e+5", "1e"],
    "label": ["001", "10_1", "1e5", "12E4", "763158003000004101", "1e-05", "+1", "1.5E5", "-", "none"],
    "number label": ["1", "1.0", "2", "-5", "1.10", "2.50", "1e-05", "0.25"],
}


def csv_text(rng: np.random.Generator) -> bytes:
    """A table of up to 6 columns and 30 rows, of cells of one kind per column with others between them."""
    n_columns, n_rows = int(rng.integers(1, 7)), int(rng.choice([0, 1, 2, 5, 30]))
    delimiter = str(rng.choice([",", ",", ";", "\t", "|"]))
    end = str(rng.choice(["\n", "\n", "\r\n", "\r"]))
    columns = [[f"c{j}" if rng.random() < 0.95 else "", *_cells(rng, n_rows)] for j in range(n_columns)]
    quoting = float(rng.choice([0, 0, 0.3, 1]))
    lines = []
    for cells in zip(*columns, strict=True):
        line = [_quoted(cell, delimiter, rng.random() < quoting) for cell in cells]
        if rng.random() < 0.003:
            line = line[:-1] if rng.random() < 0.5 else [*line, ""]
        lines.append((delimiter + " " * int(rng.random() < 0.02)).join(line))
        if rng.random() < 0.03:
            lines.append("" if rng.random() < 0.8 else "  ")
    text = end.join(lines) + (end if rng.random() < 0.8 else "")
    return _damaged(rng, text)


def _cells(rng: np.random.Generator, n_rows: int) -> list[str]:
    kind = str(rng.choice(list(CELLS)))
    some = rng.choice(CELLS[kind], size=min(n_rows, int(rng.integers(1, 5)))) if n_rows else []
    cells = [str(rng.choice(some)) for _ in range(n_rows)]
    if rng.random() < 0.5:
        for row in np.flatnonzero(rng.random(n_rows) < 0.15):
            cells[row] = str(rng.choice(CELLS["missing"]))
    if rng.random() < 0.2:
        for row in np.flatnonzero(rng.random(n_rows) < 0.1):
            cells[row] = str(rng.choice(CELLS[str(rng.choice(list(CELLS)))]))
    return cells


def _quoted(cell: str, delimiter: str, always: bool) -> str:
    if always or any(c in cell for c in (delimiter, '"', "\n", "\r")):
        return '"' + cell.replace('"', '""') + '"'
    return cell


def _damaged(rng: np.random.Generator, text: str) -> bytes:
    data = text.encode()
    fault = str(rng.choice(["", "", "", "", "bom", "nul", "quote", "latin", "cut", "twice", "utf16"]))
    at = int(rng.integers(0, len(data) + 1))
    if fault == "bom":
        return b"\xef\xbb\xbf" + data
    if fault == "twice":
        return data.replace(b"c1", b"c0", 1)
    if fault == "utf16":
        return text.encode("utf-16") if rng.random() < 0.2 else data
    if fault == "cut":
        return data[:at]
    piece = {"nul": b"\0", "quote": b'"', "latin": b"\xe9"}.get(fault, b"")
    return data[:at] + piece + data[at:]


def same_column(a, b) -> str:
    """What differs between two columns, in words; empty if nothing does."""
    if (a.name, a.kind, len(a)) != (b.name, b.kind, len(b)):
        return f"{a.name}: {a.kind} {len(a)}, {b.name}: {b.kind} {len(b)}"
    gone = [np.zeros(len(c), bool) if c.missing is None else c.missing for c in (a, b)]
    if not np.array_equal(*gone):
        return f"{a.name}: missing {gone[0]}, {gone[1]}"
    if a.kind == "text":
        x, y = a.texts(), b.texts()
        return "" if x.tolist() == y.tolist() else f"{a.name}: {x}, {y}"
    x, y = a.values[~gone[0]], b.values[~gone[0]]
    exact = np.array_equal(x, y) and x.dtype.kind == y.dtype.kind
    return "" if exact else f"{a.name}: {x.dtype} {x}, {y.dtype} {y}"
