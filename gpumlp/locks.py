"""Locks in children of `fork`, which do not have the threads that may have held them."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

__all__ = ["free_after_fork"]

_names: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


def free_after_fork(owner: Any, name: str) -> None:
    """In a child of `fork` the reentrant lock `owner.name` is free, unless the forking thread holds it."""
    _names[owner] = name


def _free() -> None:
    for owner, name in list(_names.items()):
        lock = getattr(owner, name)
        if lock.acquire(blocking=False):
            lock.release()
        else:
            setattr(owner, name, threading.RLock())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free)
