"""Standard output and error of the command line: they may break, and not everything may go to a terminal."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from gpumlp import distributed
from gpumlp.errors import UsageError
from gpumlp.files.atomic import check_apart, check_writable
from gpumlp.plots import PLOT_ENDINGS, require_matplotlib
from gpumlp.tables.base import printable

__all__ = ["Output", "check_outputs", "check_report", "guarded", "write_data"]


class Output:
    """A text stream for messages.

    Characters that would steer a terminal are written as escapes: names and labels come from files.  After a
    failed write nothing more is written, and Python does not try again when it exits.

    Parameters
    ----------
    stream : text file, or None for one that is closed
    plain : str
        Control characters that are written as they are.

    Attributes
    ----------
    goes_on : bool
        A failed write raises no error: the program has more valuable things to do than to print.
    error : OSError or None
        What the first failing write raised.
    """

    def __init__(self, stream: Any, plain: str) -> None:
        self._stream, self._plain = stream, plain
        self.goes_on = False
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        """Write a message, if that is still possible."""
        text = printable(text, self._plain)
        try:
            self._do("write", text)
        except UnicodeEncodeError as error:
            self._do("write", text.encode(error.encoding, "backslashreplace").decode(error.encoding))
        return len(text)

    def write_data(self, text: str) -> None:
        """Write what is not a message, character by character, except to a terminal."""
        if self.isatty():
            self.write(text)
            return
        try:
            self._do("write", text)
        except UnicodeEncodeError as error:
            raise UsageError(
                f"standard output is {error.encoding} and cannot take {text[error.start]!r}; write to a file "
                "with --output, which is UTF-8"
            ) from None

    def flush(self) -> None:
        """Write what is waiting, if that is still possible."""
        self._do("flush")

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._stream is not None and bool(self._stream.isatty())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _do(self, what: str, *values: str) -> None:
        if self.error is not None or (what == "flush" and self._stream is None):
            return
        try:
            if self._stream is None:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            getattr(self._stream, what)(*values)
        except OSError as error:
            self.error = error
            with suppress(AttributeError, OSError, ValueError):  # it has no descriptor
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            if not self.goes_on:
                raise


@contextmanager
def guarded() -> Iterator[Output]:
    """Standard output and error as `Output` while the block runs; the former is given."""
    for descriptor in (0, 1, 2):  # a file that is opened must not become standard output
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    streams = sys.stdout, sys.stderr
    out, err = Output(sys.stdout, "\n\t"), Output(sys.stderr, "\n\t\r")  # \r: of progress bars
    err.goes_on = True
    sys.stdout, sys.stderr = out, err
    try:
        yield out
    finally:
        sys.stdout, sys.stderr = streams


def write_data(text: str) -> None:
    """Write to standard output what another program may read."""
    (sys.stdout.write_data if isinstance(sys.stdout, Output) else sys.stdout.write)(text)


def check_outputs(arguments: argparse.Namespace, table: str | None = None) -> None:
    """Before anything is read or trained: can the results be written, and not over the data?  Of several
    ranks the first one writes."""
    if distributed.rank():
        return
    report = getattr(arguments, "report", None)
    checkpoint = getattr(arguments, "checkpoint", None)
    outputs = {"--out": arguments.out, "--plot": arguments.plot, "--csv": table, "--report": report}
    outputs["--checkpoint"] = checkpoint
    check_apart(
        [*outputs.items()], [*(("DATA", path) for path in arguments.data), ("--test", arguments.test)]
    )
    check_writable(arguments.out, "the model", (".npz",))
    if checkpoint is not None:
        check_writable(checkpoint, "the checkpoint", (".npz",))
    if table is not None:
        check_writable(table, "the trials")
    if arguments.plot is not None:
        check_writable(arguments.plot, "the learning curves", PLOT_ENDINGS)
    check_report(report)
    if arguments.plot is not None:
        require_matplotlib()


def check_report(path: str | None) -> None:
    """Can the page be written?"""
    if path is not None:
        check_writable(path, "the report", (".html", ".htm"))
        require_matplotlib()
