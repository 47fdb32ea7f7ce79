"""Calls that threads which train ask the calling thread for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

__all__ = ["Call", "Errand"]


class Call:
    """A callback that the calling thread is asked for."""

    def __init__(self, function: Callable, given: tuple, named: dict[str, Any]) -> None:
        self.function, self.given, self.named, self.done = function, given, named, threading.Event()
        self.value: Any = None
        self.error: BaseException | None = None

    def answer(self) -> None:
        """Call it; what is raised is for the one who waits, but for an end of everything."""
        try:
            self.value = self.function(*self.given, **self.named)
        except BaseException as error:
            self.error = error
            if not isinstance(error, Exception):
                raise
        finally:
            self.done.set()


class Errand(Call):
    """A call that nobody waits for; an exception in it ends all trainings."""

    def answer(self) -> None:
        self.function(*self.given, **self.named)
