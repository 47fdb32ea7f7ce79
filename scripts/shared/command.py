"""Options, messages and files of the scripts."""

from __future__ import annotations

import argparse
import functools
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np

Result = TypeVar("Result")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (see --help)\n")


def one_line_errors(main: Callable[..., Result]) -> Callable[..., Result]:
    """What cannot be done with the options or the data ends the program with one line, not a traceback."""

    @functools.wraps(main)
    def run(*args: Any) -> Result:
        import gpumlp

        try:
            return main(*args)
        except (gpumlp.DeviceError, gpumlp.DivergenceError, ValueError) as error:
            raise SystemExit(f"error: {error}") from None

    return run


def whole(text: str) -> int:
    """Value of an option: a whole number >= 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number >= 1")
    return int(text)


def command_line(text: str | None, data: bool = False) -> argparse.ArgumentParser:
    """A parser with the script's docstring as help, --device and, with `data`, the path of an .npz file."""
    parser = _Parser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    if data:
        parser.add_argument("path", metavar="PATH.npz", help="the data, with the arrays named above")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, numpy, native, cuda")
    return parser


def default(text: str = "") -> str:
    """Help text that ends in the option's default."""
    return f"{text} (default %(default)s)".strip()


def load_npz(path: str | Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The named arrays of an .npz file; ends the program with a message if one is not there."""
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in names if name not in file]
            if missing:
                raise SystemExit(
                    f"error: {path} has no array {', '.join(missing)}; "
                    f"expected {', '.join(names)}, found {', '.join(file.files)}"
                )
            return {name: file[name] for name in names}
    except FileNotFoundError:
        raise SystemExit(f"error: no file {path}; give the path of an .npz file") from None
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise SystemExit(f"error: {path} cannot be read as an .npz file of plain arrays: {error}") from None


def check_writable(*paths: str | None) -> None:
    """End the program with a message now, not after the work, if an output cannot be written."""
    for path in filter(None, paths):
        folder = Path(path).resolve().parent
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise SystemExit(f"error: cannot write {path}; {folder} is not a writable folder")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as JSON by an atomic rename, so that an interrupted run leaves the old file whole."""
    target = Path(path)
    handle, name = tempfile.mkstemp(dir=target.resolve().parent, prefix=target.name, suffix=".tmp")
    with os.fdopen(handle, "w") as file:
        json.dump(value, file, indent=1)
        file.write("\n")
    os.replace(name, target)


def load_baseline(path: str, cells: Callable[[dict[str, Any]], dict[Any, float]]) -> dict[str, Any]:
    """{"machine", "cells"} of an older --json file; ends the program with a message if it is not one."""
    try:
        with open(path) as file:
            stored = json.load(file)
        return {"machine": dict(stored["machine"]), "cells": cells(stored)}
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: cannot read the baseline {path}: {error}") from None
    except (LookupError, TypeError, AttributeError):
        raise SystemExit(f"error: cannot read the baseline {path}: no --json file of this script") from None
