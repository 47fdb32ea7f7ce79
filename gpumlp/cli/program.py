"""The command line: how commands are run and errors reported.  The commands are in the other files here."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from gpumlp import distributed
from gpumlp.cli.output import Output, guarded
from gpumlp.cli.ranks import join, silent, together
from gpumlp.cli.words import COMMANDS, make_parser
from gpumlp.errors import DeviceError, DivergenceError, suggest

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv : sequence of str, optional
        Without the program's name; by default the process's arguments.

    Returns
    -------
    int
        0; 2 after an error, reported in one message on stderr; 130 after an interrupt.  An error on one of
        several ranks ends the processes of all.
    """
    arguments = argparse.Namespace(saved=[], goes_on=False, job=None, agreed=False)
    words = sys.argv[1:] if argv is None else list(argv)
    with guarded() as out:
        try:
            if not join(words, arguments):
                return 0
        except DeviceError as error:  # nobody waits for another one
            return _tell(error, words, arguments, out)
        code = _run(words, arguments, out)
        arguments.agreed = True  # the others have ended as well
        with suppress(OSError):
            out.flush()
        return code if code or out.error is None else _tell(out.error, words, arguments, out)


def _run(words: list[str], arguments: argparse.Namespace, out: Output) -> int:
    """Run a command and report its errors; returns the exit code."""
    try:
        if words:
            with silent():
                together(arguments, lambda: _parse(words, arguments))
                out.goes_on = arguments.goes_on
                with np.errstate(all="ignore"):  # overflow is reported as divergence, in words
                    arguments.command(arguments)
        else:
            make_parser().print_help()
    except KeyboardInterrupt as interrupt:  # a command that saved something says so itself
        saved = f"already saved: {', '.join(arguments.saved)}" if arguments.saved else "nothing was saved"
        told = f"interrupted{str(interrupt) or f'; {saved}'}"
        if arguments.job is not None:
            distributed.end_job(interrupt, told)
        print(f"\ngpumlp: {told}", file=sys.stderr)
        return 130
    except Exception as error:
        return _tell(error, words, arguments, out)
    return 0


def _tell(error: Exception, words: list[str], arguments: argparse.Namespace, out: Output) -> int:
    """Report an error in one message; returns the exit code."""
    if error is out.error and isinstance(error, BrokenPipeError):  # the reader of a pipe has seen enough
        return 141
    with suppress(OSError):
        out.flush()
    saved = f" (already saved: {', '.join(arguments.saved)})" if arguments.saved else ""
    told = f"{_message(error, words, out)}{saved}"
    if arguments.job is not None and not arguments.agreed:
        distributed.end_job(error, told)
    if not distributed.rank():
        print(f"gpumlp: error: {told}", file=sys.stderr)
    return 2


def _message(error: Exception, words: list[str], out: Output) -> str:
    if isinstance(error, OSError):
        # a file that is written names itself (see gpumlp.files.atomic.replacing)
        name = "standard output: " if error is out.error else ""
        if error.filename is not None:
            name = f"{error.filename!r}: "
        return f"{name}{error.strerror or error}"
    if isinstance(error, MemoryError):
        return f"not enough memory ({error}); use fewer rows or a smaller network"
    if isinstance(
        error, (ValueError, DeviceError, DivergenceError, ModuleNotFoundError, distributed.RankError)
    ):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    places = " ".join(f"{os.path.basename(frame.filename)}:{frame.lineno}" for frame in frames)
    return (
        f"this is a fault of gpumlp ({type(error).__name__}: {error}; {places}). Please report it, with the "
        f"command: gpumlp {shlex.join(words)}"
    )


def _parse(words: list[str], arguments: argparse.Namespace) -> None:
    parser = make_parser()
    if not words[0].startswith("-") and words[0] not in COMMANDS:
        parser.error(suggest("command", words[0], COMMANDS))
    _, unknown = parser.parse_known_args(words, arguments)
    arguments.given = arguments.parser.given(words)
    if unknown:
        arguments.parser.refuse(unknown)
