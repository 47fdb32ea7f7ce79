"""Rows of a source that the ranks of a job read together: each some of the groups, and all have all rows."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from gpumlp.distributed import agree
from gpumlp.plans import Ranks
from gpumlp.rows import Rows, SourceRows, Windows

__all__ = ["SharedSource"]


@dataclass(frozen=True)
class SharedSource(SourceRows):
    """A source of which group g is in shard g % shards, and read by the rank that works on this shard of a
    batch.

    Which rows are in a window depends on the shards, not on the ranks: reproducible training has the same
    bits on any number of them.
    """

    communicator: Any = None
    shards: int = 1
    own: Sequence[int] = (0,)

    @classmethod
    def of(cls, rows: SourceRows, ranks: Ranks) -> SharedSource:
        """`rows`, which all ranks have been given."""
        held = {field.name: getattr(rows, field.name) for field in fields(SourceRows)}
        return cls(**held, communicator=ranks.communicator, shards=ranks.shards, own=ranks.own)

    def windows(self, size: int) -> Windows:
        """See `SourceRows`."""
        return _Together(self, size)


class _Together(Windows):
    """Windows that all ranks get at the same time."""

    def __init__(self, rows: SharedSource, size: int) -> None:
        super().__init__(rows, size, rows.shards, rows.own)
        self._communicator = rows.communicator

    def read(self, order: Sequence[int]) -> Generator[Rows, None, None]:
        """See `Windows`; an error on one rank is told to all."""
        with closing(super().read(order)) as own:
            while True:
                window, error = None, None
                try:
                    window = next(own, None)
                except Exception as raised:
                    error = raised
                part = None if window is None else [window.X, window.y, window.w]
                parts = agree(self._communicator, error, part)
                if window is None:  # on all ranks
                    return
                X, y, w = zip(*parts, strict=True)
                yield Rows(np.concatenate(X), np.concatenate(y), None if w[0] is None else np.concatenate(w))
