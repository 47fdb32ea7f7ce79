"""Writing files so that an old one is never lost, and finding out early whether a path can be written."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

__all__ = ["PathLike", "check_apart", "check_writable", "replaces", "replacing"]

PathLike = str | os.PathLike[str]


@contextmanager
def replacing(path: PathLike) -> Iterator[BinaryIO]:
    """A binary file that takes the name `path` when the block ends without an exception.

    Until then it has a temporary name in the same directory, so a failing or interrupted write leaves the old
    file as it was and nothing else behind.  A symbolic link is followed, not replaced.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    if not os.path.isdir(folder):  # else the error would name the temporary file
        raise FileNotFoundError(
            errno.ENOENT, f"there is no directory {folder}; make it first", os.fspath(path)
        )
    temporary = _temporary(target)
    # O_EXCL: never follow a link that somebody else put there; 0o666 is cut down by the umask, as for open()
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException as error:
        os.unlink(temporary)
        if isinstance(error, OSError) and error.filename is None:  # as of a full disk
            error.filename = os.fspath(path)
        raise


def check_writable(path: PathLike, what: str, endings: tuple[str, ...] = ()) -> None:
    """Raise ValueError if `replacing` could not write `path`; leaves nothing behind.

    Parameters
    ----------
    path : path
    what : str
        What is to be written there, for the message: "the model".
    endings : tuple of str
        Allowed file name extensions, lower case with dot; none: any.
    """
    name = os.fspath(path)
    target = os.path.realpath(name)
    folder = os.path.dirname(target)
    problem = ""
    if not name:
        problem = "the file name is empty"
    elif endings and os.path.splitext(name)[1].lower() not in endings:
        problem = f"the name must end in {' or '.join(endings)}"
    elif os.path.isdir(target):
        problem = "that is a directory; give a file name"
    elif os.path.exists(target) and not os.path.isfile(target):
        problem = "that is not a regular file"
    elif os.path.exists(target) and not os.access(target, os.W_OK):
        problem = "the file is there and write-protected"
    elif not os.path.isdir(folder):
        problem = f"there is no directory {folder}; make it first"
    else:
        problem = _try(target)
    if problem:
        raise ValueError(f"cannot write {what} to {name!r}: {problem}")


def replaces(path: PathLike) -> str:
    """What to add to the message that `path` was written, asked before it is written."""
    return " (the file that was there is replaced)" if os.path.exists(path) else ""


def check_apart(outputs: Sequence[tuple[str, str | None]], inputs: Sequence[tuple[str, str | None]]) -> None:
    """Raise ValueError if an output is the same file as an input or as another output.

    Parameters
    ----------
    outputs, inputs : sequence of (str, path or None)
        The word of the command line and its value; None: not given.
    """
    for number, (word, path) in enumerate(outputs):
        for other_word, other in (*inputs, *outputs[:number]):
            if path and other and _same(path, other):
                raise ValueError(
                    f"{word} {path!r} and {other_word} {other!r} are the same file, which would be "
                    "overwritten; give another name"
                )


def _same(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:  # one of them is not there (yet)
        return os.path.realpath(one) == os.path.realpath(other)


def _temporary(target: str) -> str:
    folder, name = os.path.split(target)
    return os.path.join(folder, f".{name[:100]}.{secrets.token_hex(6)}.tmp")


def _try(target: str) -> str:
    """Why no file can be made beside `target`, or nothing.

    Asking the permission bits would miss a full or read-only file system, and a superuser's view of them.
    """
    temporary = _temporary(target)
    try:
        with open(temporary, "xb") as file:
            file.write(b"\0")
    except OSError as error:
        return error.strerror or str(error)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
    return ""
