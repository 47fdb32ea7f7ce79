"""How plans of the running thread of Python run: set by whoever trains several networks side by side."""

from __future__ import annotations

import threading
from typing import Any, Protocol

__all__ = ["Lane", "Stopped", "here"]


class Stopped(BaseException):
    """A plan was left in the middle, because somebody asked for the end of all work; never shown to users."""


class Lane(Protocol):
    """What plans on the CPU ask for."""

    @property
    def alone(self) -> bool:
        """Whether a plan is to run on this thread only, not on those of the pool.  Results are the same."""

    @property
    def later(self) -> Any:
        """None; or the `Batch` that plans are put into instead of being run."""

    def check(self) -> None:
        """Called several times a second while a plan runs; raises `Stopped` to leave it."""


class _Here(threading.local):
    lane: Lane | None = None


#: `here.lane` is that of the running thread; None: plans share the pool, and run to their end
here = _Here()
