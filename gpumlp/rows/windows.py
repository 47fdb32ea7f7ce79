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

    def windows(self, size: int) -> Windows:
        """Passes over the rows."""
        return Windows(self, size)

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


class _Stream:
    """Rows one after the other, of which some are copied at a time."""

    def __init__(self, parts: Iterator[Rows]) -> None:
        self.parts, self._begin = parts, 0
        self._part: Rows | None = None

    def fetch(self) -> Rows:
        """Read some rows now, unless there are any left."""
        if self._part is None or self._begin == self._part.n_rows:
            self._part, self._begin = next(self.parts), 0
        return self._part

    def copy(self, buffer: Rows, at: int, count: int) -> None:
        """The next `count` rows go into `buffer`, from `at` on."""
        while count:
            part = self.fetch()
            n = min(part.n_rows - self._begin, count)
            _copy(buffer, at, part, self._begin, n)
            self._begin, at, count = self._begin + n, at + n, count - n


class Windows:
    """Passes over a source in windows of `size` rows; the last one is shorter.

    Parameters
    ----------
    rows : SourceRows
    size : int
    streams : int
        Groups g, g + streams, ... are a stream; a window has the next rows of each, so many that all streams
        end together.
    own : sequence of int, optional
        Read only these streams, and give only their part of each window, which may be no rows.
    """

    def __init__(
        self, rows: SourceRows, size: int, streams: int = 1, own: Sequence[int] | None = None
    ) -> None:
        self.rows, self.size, self._streams = rows, size, streams
        self._own = list(range(streams) if own is None else own)
        groups = rows.source.groups
        totals = [sum(groups[g] for g in range(s, len(groups), streams)) for s in range(streams)]
        self._counts = [[count[s] for s in self._own] for count in _shares(totals, size)]
        self._buffers = self._new_buffers()

    def _new_buffers(self) -> list[Rows]:
        most = max(map(sum, self._counts))
        return [_like(self.rows.like, most) for _ in range(min(_AHEAD, len(self._counts)))]

    def read(self, order: Sequence[int]) -> Generator[Rows, None, None]:
        """The windows of a pass, with the groups in the given order.

        A window is good until the next one is asked for.  An exception in the thread, of whatever kind, is
        raised here.  Closing the iterator ends the thread, after the piece that it is reading.
        """
        free: queue.SimpleQueue[Rows | None] = queue.SimpleQueue()
        ready: queue.SimpleQueue[Rows | BaseException] = queue.SimpleQueue()
        for buffer in self._buffers:
            free.put(buffer)
        closed = threading.Event()
        work = threading.Thread(
            target=self._work, args=(order, free, ready, closed), name="gpumlp-rows", daemon=True
        )
        try:
            work.start()
            for counts in self._counts:
                window = ready.get()
                if isinstance(window, BaseException):
                    raise window
                yield _first(window, sum(counts))
                free.put(window)
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
        ready: queue.SimpleQueue[Rows | BaseException],
        closed: threading.Event,
    ) -> None:
        try:
            for window in self._fill(order, free, closed):
                ready.put(window)
        except _Closed:
            pass
        except BaseException as error:
            ready.put(error)

    def _fill(
        self, order: Sequence[int], free: queue.SimpleQueue[Rows | None], closed: threading.Event
    ) -> Iterator[Rows]:
        streams = [
            _Stream(self._parts([g for g in order if g % self._streams == s], closed)) for s in self._own
        ]
        for number, counts in enumerate(self._counts, 1):
            for stream, count in zip(streams, counts, strict=True):
                if count:  # before a buffer is free
                    stream.fetch()
            buffer, at = free.get(), 0
            if buffer is None:
                raise _Closed
            for stream, count in zip(streams, counts, strict=True):
                stream.copy(buffer, at, count)
                at += count
                if number == len(self._counts):
                    for _ in stream.parts:  # none; a group with more rows than it was said to have is found
                        pass
            yield buffer

    def _parts(self, groups: Sequence[int], closed: threading.Event) -> Iterator[Rows]:
        for group in groups:
            for part in self.rows.rows(group):
                if closed.is_set():
                    raise _Closed
                if (part.w is None) != (self.rows.like.w is None):
                    place = self.rows.source.place(group)
                    raise ValueError(f"{place}: some rows of the source have weights, others have none")
                yield part


def _shares(totals: Sequence[int], size: int) -> list[list[int]]:
    """How many rows of each stream are in each window: of those that are left always the same share, by
    largest remainders."""
    left, found = np.array(totals, np.int64), []
    while rest := int(left.sum()):
        n = min(size, rest)
        part, remainder = np.divmod(n * left, rest)
        part[np.argsort(-remainder, kind="stable")[: n - int(part.sum())]] += 1
        left -= part
        found.append(part.tolist())
    return found


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
