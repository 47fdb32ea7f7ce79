"""The order of all work of a CuPy backend."""

from __future__ import annotations

import os
import threading
from typing import Any

import cupy
from cupy.cuda import runtime

from gpumlp.backends.cuda.available import FORKED
from gpumlp.errors import DeviceError

__all__ = ["Order", "is_captured"]


class Order:
    """What keeps the work of one device in order: a lock for threads, an event for streams.

    Parameters
    ----------
    number : int
        Number of the device.
    """

    def __init__(self, number: int) -> None:
        self.number, self._process = number, os.getpid()
        self.lock, self.depth = threading.RLock(), 0
        with cupy.cuda.Device(number):
            self.done = cupy.cuda.Event(disable_timing=True)

    def check_process(self) -> None:
        """DeviceError in a child of fork: there CUDA's calls fail, and the lock may be held forever."""
        if os.getpid() != self._process:
            raise DeviceError(f"cuda:{self.number} cannot be used: {FORKED}")

    def work(self, captured: bool = False) -> Work:
        """See `CupyBackend.work`."""
        return Work(self, captured)


class Work:
    """See `CupyBackend.work`."""

    def __init__(self, order: Order, captured: bool = False) -> None:
        self._order, self._device = order, cupy.cuda.Device(order.number)
        #: whether the current stream may be, and later is, being captured into a graph of the caller's
        self.captured = captured

    def __enter__(self) -> Any:
        order = self._order
        order.check_process()
        order.lock.acquire()
        try:
            self._device.__enter__()
            try:
                self._stream = stream = cupy.cuda.get_current_stream()
                if order.depth == 0:
                    self.captured = is_captured(stream) and self._allowed()
                    if not self.captured:
                        stream.wait_event(order.done)
            except BaseException:
                self._device.__exit__()
                raise
        except BaseException:
            order.lock.release()
            raise
        order.depth += 1
        return stream

    def _allowed(self) -> bool:
        """RuntimeError where a graph would hold numbers and events of one call."""
        if self.captured:
            return True
        raise RuntimeError(
            "gpumlp was called while the current stream is being captured into a CUDA graph; its calls "
            "cannot be part of one (they count steps on the host). End the capture first: a Trainer makes a "
            "graph of its steps by itself. `update` of an optimizer may be in one: set `capturable = True`"
        )

    def __exit__(self, *_: object) -> None:
        order = self._order
        order.depth -= 1
        try:
            if (
                order.depth == 0 and not self.captured
            ):  # now, because the caller's stream may be gone at the next call
                order.done.record(self._stream)
        finally:
            try:
                self._device.__exit__()
            finally:
                order.lock.release()


def is_captured(stream: Any) -> bool:
    """Whether the caller captures `stream` into a graph."""
    return stream.ptr > 1 and not runtime.is_hip and stream.is_capturing()
