"""Where compiled libraries are kept: only whole ones, made by this user, are loaded.

A library ends in the SHA-256 of what stands before (the loader does not look there), and is checked before it
is loaded: a file that a crash or a full disk cut off would end the process with a bus error.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["directory", "load", "places", "store", "workshop"]

_DIGEST = hashlib.sha256().digest_size


# ---- places --------------------------------------------------------------------------------------------
def places() -> Iterator[Path]:
    """Directories for libraries, best first: the user's own if it is safe, and one that is gone at exit.

    $GPUMLP_CACHE_DIR, else gpumlp/ in $XDG_CACHE_HOME or ~/.cache.  A directory that others own or can write
    to is not used, since code is loaded from it; nor is a link.
    """
    given = os.environ.get("GPUMLP_CACHE_DIR")
    root = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    path = _absolute(given) if given else Path(root) / "gpumlp"
    if path.is_absolute():  # "~" stays as it is where there is no home
        usable = False
        with contextlib.suppress(OSError):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(_open(path))
            usable = True
        if usable:
            yield path
    yield _temporary()


def directory() -> Path:
    """The first of `places`."""
    return next(places())


@functools.cache
def _absolute(given: str) -> Path:
    return Path(os.path.abspath(given))


def _open(path: Path) -> int:
    """Descriptor of a directory that is this user's alone, else PermissionError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    found = os.fstat(descriptor)
    if found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        os.close(descriptor)
        raise PermissionError(f"{path} belongs to somebody else, or others can write to it")
    return descriptor


_made: list[Path] = []  # the temporary directory, once there is one


def _temporary() -> Path:
    with contextlib.suppress(OSError, IndexError):
        os.close(_open(_made[-1]))
        return _made[-1]
    folder, _ = _make(Path(tempfile.gettempdir()))  # its lock is held until this process is gone
    owner = os.getpid()
    atexit.register(lambda: shutil.rmtree(folder, ignore_errors=True) if os.getpid() == owner else None)
    _made.append(folder)
    return folder


# ---- work in progress ----------------------------------------------------------------------------------
@contextlib.contextmanager
def workshop(place: Path) -> Iterator[Path]:
    """A directory inside `place` for files in the making, gone afterwards."""
    folder, lock = _make(place)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _make(parent: Path) -> tuple[Path, int]:
    """A new private directory and its lock, after removing those whose makers were killed.

    The lock tells who is alive: the system gives it up with the last process that holds it.
    """
    import fcntl  # here: this module is read on systems that have none

    prefix = f"gpumlp-{re.sub(r'[^A-Za-z0-9]', '_', platform.node())}-"  # of other hosts, locks may be unseen
    for old in parent.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            lock = _open(old)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(old, ignore_errors=True)
            finally:
                os.close(lock)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        try:
            lock = _open(folder)
        except FileNotFoundError:  # another maker took it for a dead one's, before it could be locked
            continue
        with contextlib.suppress(OSError):  # a file system without locks: nobody takes it for a dead one
            fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.is_dir():  # else it was removed before it was locked
            return folder, lock
        os.close(lock)


# ---- libraries -----------------------------------------------------------------------------------------
def store(place: Path, key: str, made: Path) -> None:
    """Move the library `made` into `place`, with its digest: it is there whole or not at all."""
    with open(made, "r+b") as file:
        file.write(hashlib.sha256(file.read()).digest())
        file.flush()
        os.fsync(file.fileno())
    os.replace(made, place / f"{key}.so")


def load(place: Path, key: str) -> ctypes.CDLL:
    """The library of that name; OSError if there is none, it is damaged or cannot be loaded."""
    folder = _open(place)
    try:
        name = f"{key}.so"
        with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder), "rb") as file:
            data = memoryview(file.read())
        if hashlib.sha256(data[:-_DIGEST]).digest() != data[-_DIGEST:]:
            raise OSError(f"{place / name} is damaged")
        pinned = Path(f"/proc/self/fd/{folder}")  # what was checked, even if `place` is another one by now
        return ctypes.CDLL(str((pinned if pinned.is_dir() else place) / name))
    finally:
        os.close(folder)
