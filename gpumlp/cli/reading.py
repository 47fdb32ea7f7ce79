"""How the command line reads data: the options for it, and the files that they name."""

from __future__ import annotations

import argparse
import csv
import json
import math
from typing import Any

import numpy as np

from gpumlp.datasets import load_digits
from gpumlp.tables import Layout, Table, as_frame, read_table

__all__ = ["add_data", "add_layout", "columns", "digits_table", "print_json", "read"]

_NAMED = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "space": " "}


def columns(text: str) -> list[str]:
    """Names with commas between them; one that holds a comma is in quotes or has a backslash before it."""
    try:
        (row,) = csv.reader([text], skipinitialspace=True, escapechar="\\", strict=True)
    except (csv.Error, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of names: {error}") from None
    names = [name.strip() for name in row if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("the list is empty")
    return names


def _delimiter(text: str) -> str:
    text = _NAMED.get(text.lower(), text)
    if len(text) != 1 or text in '"\r\n':
        raise argparse.ArgumentTypeError(f"{text!r} is not one character (or tab)")
    return text


def _decimal(text: str) -> str:
    if text not in (".", ","):
        raise argparse.ArgumentTypeError(f"{text!r} is neither . nor ,")
    return text


def add_data(group: Any, without: str) -> None:
    """DATA and the options for its columns; `without` says what is taken if DATA is left out."""
    group.add_argument(
        "data",
        nargs="*",
        metavar="DATA",
        help=".csv with a header row (or .csv.gz, .zst), .parquet, .feather, or folders of them; .npz or "
        f".npy; {without}",
    )
    group.add_argument("--target", metavar="COL", help="column to learn (.npz: array; .npy: column number)")
    group.add_argument(
        "--features",
        type=columns,
        metavar="COLS",
        help="feature columns, a,b,c (default: all others; .npz: name of the array)",
    )
    group.add_argument("--drop", type=columns, default=[], metavar="COLS", help="columns to leave out, a,b,c")
    add_layout(group)


def add_layout(parser: Any) -> None:
    """The options for text files."""
    parser.add_argument(
        "--encoding",
        default="utf-8",
        metavar="NAME",
        help="of text files: latin-1, cp1252 ... (default: utf-8)",
    )
    parser.add_argument("--delimiter", type=_delimiter, metavar="C", help="between columns (default: found)")
    parser.add_argument(
        "--decimal", type=_decimal, default=".", metavar="C", help="decimal point, . or , (default: .)"
    )


def read(arguments: argparse.Namespace, paths: Any, dtype: Any, **options: Any) -> Table:
    """Read data files for a model of this type; `options` as for `read_table`."""
    layout = Layout(arguments.encoding, arguments.delimiter or "", arguments.decimal)
    options.setdefault("narrow", None if np.dtype(dtype) == np.float32 else False)
    return read_table(paths, layout=layout, **options)


def digits_table(typed: bool = False) -> Table:
    """The embedded digits; `typed` as for `read_table`."""
    X, y = load_digits()
    X = X.astype(np.uint8)
    return Table("digits", as_frame(X) if typed else X, [f"x{j}" for j in range(X.shape[1])], False, y, "y")


def print_json(values: dict[str, Any]) -> None:
    """One object on standard output; figures that are not finite become null."""
    print(json.dumps(_finite(values), ensure_ascii=True))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
