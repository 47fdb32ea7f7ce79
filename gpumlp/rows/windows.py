"""Windows of rows of a source, read by a thread while the caller works on the ones before."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gpumlp.rows.rows import Rows
from gpumlp.rows.source import Piece, RowSource, pieces

__all__ = ["SourceRows", "Windows"]

_AHEAD = 2  # windows in memory: one is read, one is complete
_PATIENCE = 2.0  # seconds to wait for the thread when a pass has been ended


@dataclass(frozen=True)
class SourceRows:
    """A source that is trained on or evaluated, with the check of its rows.

    Attributes
    ----------
    source : RowSource
        At least one row.
    like : Rows
        A row of it, as it is after the check: says which arrays there are, their types and shapes.
    check : callable
        Gives the `Rows` of a piece, or raises.
    """

    source: RowSource
    like: Rows
    check: Callable[[Piece], Rows]

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return self.source.n_rows

    def split(self, fraction: float, seed: int) -> tuple[SourceRows, SourceRows]:
        """See `RowSource.split`."""
        train, held = self.source.split(fraction, seed)
        return replace(self, source=train), replace(self, source=held)

    def rows(self, group: int) -> Iterator[Rows]:
        """The checked rows of a group; what is wrong with them says where they are."""
        done = 0
        for piece in pieces(self.source, group):
            n = len(piece[0])
            if not n:
                continue
            try:
                rows = self.check(piece)
            except (TypeError, ValueError) as error:
                where = f"{self.source.place(group)}, its rows {done} to {done + n - 1}"
                kind = TypeError if isinstance(error, TypeError) else ValueError
                raise kind(f"{where}: {error}") from None
            yield rows
            done += n


class _Closed(Exception):
    """In the reading thread: nobody wants the rows any more."""


class Windows:
    """Passes over a source in windows of `size` rows; the last one is shorter.

    Parameters
    ----------
    rows : SourceRows
    size : int
    """

    def __init__(self, rows: SourceRows, size: int) -> None:
        self.rows, self.size = rows, size
        self._buffers = self._new_buffers()

    def _new_buffers(self) -> list[Rows]:
        return [
            _like(self.rows.like, self.size) for _ in range(min(_AHEAD, -(-self.rows.n_rows // self.size)))
        ]

    def read(self, order: Sequence[int]) -> Generator[Rows, None, None]:
        """The windows of a pass, with the groups in the given order.

        A window is good until the next one is asked for.  An exception in the thread, of whatever kind, is
        raised here.  Closing the iterator ends the thread, after the piece that it is reading.
        """
        free: queue.SimpleQueue[Rows | None] = queue.SimpleQueue()
        ready: queue.SimpleQueue[Rows | BaseException | None] = queue.SimpleQueue()
        for buffer in self._buffers:
            free.put(buffer)
        closed = threading.Event()
        work = threading.Thread(
            target=self._work, args=(order, free, ready, closed), name="gpumlp-rows", daemon=True
        )
        try:
            work.start()
            while (window := ready.get()) is not None:
                if isinstance(window, BaseException):
                    raise window
                yield window
                free.put(window)  # only the last one is a part of a buffer, and nothing is read after it
        finally:
            closed.set()
            free.put(None)
            try:
                if work.is_alive():
                    work.join(_PATIENCE)
            finally:  # also after another Ctrl-C
                if work.is_alive():  # stuck in a read; it may still write what it gets
                    self._buffers = self._new_buffers()

    def _work(
        self,
        order: Sequence[int],
        free: queue.SimpleQueue[Rows | None],
        ready: queue.SimpleQueue[Rows | BaseException | None],
        closed: threading.Event,
    ) -> None:
        try:
            for window in self._fill(order, free, closed):
                ready.put(window)
            ready.put(None)
        except _Closed:
            pass
        except BaseException as error:
            ready.put(error)

    def _fill(
        self, order: Sequence[int], free: queue.SimpleQueue[Rows | None], closed: threading.Event
    ) -> Iterator[Rows]:
        buffer, n = None, 0
        for group in order:
            for part in self.rows.rows(group):
                if (part.w is None) != (self.rows.like.w is None):
                    place = self.rows.source.place(group)
                    raise ValueError(f"{place}: some rows of the source have weights, others have none")
                begin = 0
                while begin < part.n_rows:
                    if closed.is_set():
                        raise _Closed
                    if buffer is None:
                        buffer, n = free.get(), 0
                        if buffer is None:
                            raise _Closed
                    count = min(part.n_rows - begin, self.size - n)
                    _copy(buffer, n, part, begin, count)
                    begin, n = begin + count, n + count
                    if n == self.size:
                        yield buffer
                        buffer = None
        if buffer is not None:
            yield _first(buffer, n)


def _like(rows: Rows, n: int) -> Rows:
    """Buffers for `n` rows like these."""
    arrays = (rows.X, rows.y, rows.w)
    return Rows(*(None if a is None else np.zeros((n, *a.shape[1:]), a.dtype) for a in arrays))


def _copy(buffer: Rows, at: int, rows: Rows, begin: int, count: int) -> None:
    for target, given in ((buffer.X, rows.X), (buffer.y, rows.y), (buffer.w, rows.w)):
        if target is not None:
            target[at : at + count] = given[begin : begin + count]


def _first(buffer: Rows, n: int) -> Rows:
    """Its first `n` rows."""
    return Rows(*(None if a is None else a[:n] for a in (buffer.X, buffer.y, buffer.w)))
