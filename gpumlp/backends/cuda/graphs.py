"""A plan as one CUDA graph.

Its two branches are captured on two streams.  Events keep the order where one branch needs what the other
makes; in a captured graph they are edges, not nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import cupy

from gpumlp.backends.base import Plan
from gpumlp.backends.cuda.branches import START, Place

__all__ = ["CudaPlan", "captured"]


def captured(calls: Sequence[Callable[[], None]], plan: Sequence[Place], streams: Sequence[Any]) -> Any:
    """The CUDA graph of `calls`, captured on two streams; the capture is ended even if a call fails."""
    main, side = streams
    # relaxed (CuPy's default): Python may free arrays at any time, and cudaFree would break a strict capture
    main.begin_capture()
    try:
        events = _enqueue(calls, plan, main, side)
    except BaseException:
        with suppress(RuntimeError):
            main.end_capture()
        raise
    graph = main.end_capture()
    del events  # not before
    return graph


class CudaPlan(Plan):
    """A plan on a CUDA device.

    Parameters
    ----------
    backend : CupyBackend
    calls : sequence of functions
        The operations.
    graph : cupy.cuda.graph.Graph or None
        The same as a graph; without one they are called one by one.
    keep : object
        What they use: neither a graph nor a bound call owns an array.
    """

    def __init__(self, backend: Any, calls: Sequence[Callable[[], None]], graph: Any, keep: Any) -> None:
        self.graph = graph
        self._backend, self._calls, self._keep = backend, calls, keep

    def run(self, n: int = 1) -> None:
        with self._backend.work() as stream:
            if self.graph is not None:
                for _ in range(n):
                    self.graph.launch(stream)
                return
            self._backend.aim(stream, stream)
            for _ in range(n):
                for call in self._calls:
                    call()


def _enqueue(calls: Sequence[Callable[[], None]], plan: Sequence[Place], main: Any, side: Any) -> list[Any]:
    """Call them in the order of `plan`, each on the stream of its branch; returns the events."""
    awaited = {place.wait for place in plan}
    events: dict[int | None, Any] = {START: _event(main)} if START in awaited else {}
    for place in plan:
        stream = side if place.side else main
        with stream:
            if place.wait is not None:
                stream.wait_event(events[place.wait])
            calls[place.op]()
        if place.op in awaited:
            events[place.op] = _event(stream)
    if any(place.side for place in plan):
        events[None] = _event(side)
        main.wait_event(events[None])
    return list(events.values())


def _event(stream: Any) -> Any:
    return stream.record(cupy.cuda.Event(disable_timing=True))
