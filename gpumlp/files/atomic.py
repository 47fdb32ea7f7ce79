"""Writing files so that an old one is never lost, and finding out early whether a path can be written."""

from __future__ import annotations

import errno
import os
import platform
import secrets
import stat
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

__all__ = ["PathLike", "check_apart", "check_writable", "replaces", "replacing"]

PathLike = str | os.PathLike[str]

_ENDING = ".gpumlp-part"  # of temporary files; no other program uses it
_OLD = 24 * 3600  # seconds without a write after which nobody is still writing a file
_ACCESS_LIST = "system.posix_acl_access"


@contextmanager
def replacing(path: PathLike) -> Iterator[BinaryIO]:
    """A binary file that takes the name `path` when the block ends without an exception.

    Until then it has a temporary name in the same directory, so a failing or interrupted write leaves the old
    file as it was and nothing else behind.  What a killed process left there is removed by the next write.  A
    symbolic link is followed, not replaced.  A file that is written over keeps its mode, group and access
    list; a new one follows the umask.

    Raises
    ------
    OSError
        The file cannot be written.
    ValueError
        No file can have that name.
    """
    name = os.fsdecode(path)
    if not name:
        raise FileNotFoundError(errno.ENOENT, "the file name is empty", name)
    target = os.path.realpath(name)
    folder = os.path.dirname(target)
    if not os.path.isdir(folder):  # else the error would name the temporary file
        raise FileNotFoundError(errno.ENOENT, f"there is no directory {folder}; make it first", name)
    old = _stat(target)
    if old is not None and _no_file(old):  # renaming would put a file in the place of a device
        kind = IsADirectoryError if stat.S_ISDIR(old.st_mode) else FileExistsError
        raise kind(errno.EISDIR if kind is IsADirectoryError else errno.EEXIST, _no_file(old), name)
    _remove_dead(folder)  # first: they may be what fills the disk
    temporary, file = _temporary(target), None
    try:  # from before the file is made: an interrupt may come at any time
        file = _make(temporary, target, old)
        yield file
        file.flush()
        os.fsync(file.fileno())
        if fcntl is None:  # Windows renames no open file; elsewhere the lock must last until then
            file.close()
        os.replace(temporary, target)
        file.close()
    except BaseException as error:
        with suppress(OSError):  # of a full disk, once more
            if file is not None:
                file.close()
        with suppress(OSError):  # it is gone if the exception came after the renaming
            os.unlink(temporary)
        if isinstance(error, OSError) and error.errno and error.filename in (None, temporary):
            raise OSError(error.errno, error.strerror, name) from error  # of the same class
        raise


def _stat(target: str) -> os.stat_result | None:
    """What is there under this name; None: nothing."""
    try:
        return os.stat(target)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _no_file(old: os.stat_result) -> str:
    """Why nothing can be written over what is there, whoever asks; or nothing."""
    if stat.S_ISDIR(old.st_mode):
        return "that is a directory; give a file name"
    return "" if stat.S_ISREG(old.st_mode) else "that is not a regular file"


def _make(temporary: str, target: str, old: os.stat_result | None) -> BinaryIO:
    """The new file `temporary`, for what shall replace `target`, locked as long as it is open."""
    # cut down by the umask, as for open(); 0o600 until it has the mode of the old one
    mode = 0o666 if old is None else 0o600
    while True:
        # "x": never follow a link that somebody else put there
        file = open(temporary, "x+b", opener=lambda name, flags: os.open(name, flags, mode))  # noqa: SIM115
        if fcntl is not None:
            with suppress(OSError):  # a file system without locks, where nothing is ever taken for dead
                fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink or fcntl is None:
            if old is not None:
                _keep_access(file.fileno(), target, old)
            return file
        file.close()  # another process took it for dead before it was locked


def _keep_access(descriptor: int, target: str, old: os.stat_result) -> None:
    """Give the open file the mode, access list and, where that is allowed, owner and group of `target`."""
    if not hasattr(os, "fchown"):
        return
    mode, new = stat.S_IMODE(old.st_mode) & 0o777, os.fstat(descriptor)
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        for owner in (old.st_uid, -1):
            with suppress(OSError):
                os.fchown(descriptor, owner, old.st_gid)
                break
        else:
            mode &= ~0o070  # these were the rights of another group
    if hasattr(os, "getxattr"):
        with suppress(OSError):  # a list that the directory gives to new files
            os.removexattr(descriptor, _ACCESS_LIST)
        with suppress(OSError):  # there is none, as for nearly all files
            os.setxattr(descriptor, _ACCESS_LIST, os.getxattr(target, _ACCESS_LIST))
    with suppress(OSError):  # a file system without modes
        os.fchmod(descriptor, mode)


def _remove_dead(folder: str) -> None:
    """Remove the temporary files of killed processes: those of ours that nobody holds the lock of.

    The kernel lets go of a lock when its process ends, however that happens, and not before.  Some
    network file systems keep the locks of each machine apart, so files of other machines must be old, too.
    """
    if fcntl is None:
        return
    with suppress(OSError):  # it need not be possible
        for name in os.listdir(folder):
            if name.startswith(".") and name.endswith(_ENDING):
                with suppress(OSError):
                    _remove_if_dead(os.path.join(folder, name))


def _remove_if_dead(path: str) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        state = os.fstat(descriptor)
        if state.st_nlink and (_machine() in path or time.time() - state.st_mtime > _OLD):
            os.unlink(path)
    finally:
        os.close(descriptor)


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
    if not name:
        problem = "the file name is empty"
    elif endings and os.path.splitext(name)[1].lower() not in endings:
        problem = f"the name must end in {' or '.join(endings)}"
    else:
        problem = _why_not(name)
    if problem:
        raise ValueError(f"cannot write {what} to {name!r}: {problem}")


def _why_not(name: str) -> str:
    """Why `name` cannot be written, or nothing."""
    try:
        target = os.path.realpath(name)
        folder = os.path.dirname(target)
        old = _stat(target)
        if old is not None:
            problem = _why_not_over(target, folder, old)
        else:
            problem = "" if os.path.isdir(folder) else f"there is no directory {folder}; make it first"
        if problem:
            return problem
        # the permission bits say nothing of a full or read-only file system, or of a superuser
        temporary = _temporary(target)
        try:
            with open(temporary, "xb") as file:
                file.write(b"\0")
        finally:
            with suppress(OSError):
                os.unlink(temporary)
    except OSError as error:  # among them: the name is too long
        return error.strerror or str(error)
    except ValueError as error:  # a NUL in it
        return str(error)
    return ""


def _why_not_over(target: str, folder: str, old: os.stat_result) -> str:
    """Why the file `target` cannot be written over, or nothing."""
    if _no_file(old):
        return _no_file(old)
    if not os.access(target, os.W_OK):
        return "the file is there and write-protected"
    if os.path.ismount(target):
        return "that is a mount point, which cannot be replaced; give a name in a mounted directory"
    place = os.stat(folder)
    if place.st_mode & stat.S_ISVTX and os.geteuid() not in (0, old.st_uid, place.st_uid):
        return "the file belongs to somebody else, and so does its directory, which protects it"
    return ""


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
    # short: whatever the name of the target is, this one must not be too long
    return os.path.join(folder, f".{name[:20]}.{secrets.token_hex(6)}.{_machine()}{_ENDING}")


def _machine() -> str:
    return f"{zlib.crc32(platform.node().encode()):08x}"
