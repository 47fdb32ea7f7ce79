"""Sources: rows that are read piece by piece, because they do not fit into memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, TypeAlias

import numpy as np

from gpumlp import checks
from gpumlp.rows.order import check_fraction

__all__ = ["Piece", "RowSource", "pieces"]

#: X (n, n_features), y or None, weights or None
Piece: TypeAlias = tuple[Any, Any, Any]

_WINDOW_BYTES = 32 << 20
_BLOCK = 1 << 16  # rows between which held-out rows are drawn


class RowSource(ABC):
    """Rows in groups, each of which can be read by itself, from its first row to its last.

    A subclass sets the attributes, defines `read`, and may define `place`.  `Trainer.fit` and
    `Trainer.evaluate` take a source instead of X and y, `MLP.predict` instead of X.

    Attributes
    ----------
    n_features : int
    groups : sequence of int
        How many rows each group has.
    window : int or None
        Rows that are shuffled together in training; None: as many as take 32 MiB in float32.
    """

    n_features: int
    groups: Sequence[int]
    window: int | None = None

    @abstractmethod
    def read(self, group: int) -> Iterator[Piece]:
        """The rows of a group in order, as pieces (X, y, weights) of any size: a few thousand rows are good.

        X is a NumPy array (n, n_features); y is what `Trainer.fit` takes, or None if there are no targets;
        weights (n,) may be None.  A piece is copied before the next one is asked for.  Called in a thread of
        its own, by one thread at a time, and closed early if the training ends early.  With
        ``rows="sharded"`` several groups are read in turns.
        """

    def place(self, group: int) -> str:
        """The name of a group in messages."""
        return f"{type(self).__name__}, group {group}"

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return sum(self.groups)

    def window_rows(self) -> int:
        """`window`, or the number of rows that stands for None."""
        if self.window is not None:
            return checks.whole("window", self.window)
        return max(1, _WINDOW_BYTES // (4 * (self.n_features + 1)))

    def shard(self, rank: int, size: int) -> RowSource:
        """The part of one of `size` ranks: every `size`-th group, from group `rank` on.

        Shards are disjoint and together everything; one may be empty if there are fewer groups than ranks.
        """
        size = checks.whole("size", size)
        rank = checks.whole("rank", rank, 0, size, expected=f"an integer from 0 to {size - 1}")
        return _Groups(self, range(rank, len(self.groups), size))

    def split(self, fraction: float, seed: int) -> tuple[RowSource, RowSource]:
        """(training rows, held-out rows), drawn evenly over all groups; both read the whole source."""
        check_fraction(fraction, self.n_rows)
        return _Drawn(self, fraction, seed, False), _Drawn(self, fraction, seed, True)


class _Groups(RowSource):
    """Some groups of a source."""

    def __init__(self, source: RowSource, chosen: Sequence[int]) -> None:
        self.source, self.chosen, self.window = source, chosen, source.window
        self.n_features, self.groups = source.n_features, [source.groups[g] for g in chosen]

    def read(self, group: int) -> Iterator[Piece]:
        return self.source.read(self.chosen[group])

    def place(self, group: int) -> str:
        return self.source.place(self.chosen[group])


class _Drawn(RowSource):
    """The rows of a source that are held out, or the others.

    Of the first e rows, e * total // n_rows are held out, where e is the end of a block of a group; which
    ones of a block, ``default_rng([seed, 2, group, block])`` says.
    """

    def __init__(self, source: RowSource, fraction: float, seed: int, held: bool) -> None:
        self.source, self.seed, self.held, self.window = source, seed, held, source.window
        self.n_features, n = source.n_features, source.n_rows
        self._total, self._n = min(n - 1, max(1, round(fraction * n))), n
        self._starts = [0, *accumulate(source.groups)]
        taken = [self._held(b) - self._held(a) for a, b in zip(self._starts, self._starts[1:], strict=False)]
        self.groups = [t if held else size - t for t, size in zip(taken, source.groups, strict=True)]

    def _held(self, end: int) -> int:
        return end * self._total // self._n

    def _mask(self, group: int, block: int) -> np.ndarray:
        """Which rows of a block of the group belong to this part."""
        first, stop = self._starts[group : group + 2]
        start = first + block * _BLOCK
        n = min(_BLOCK, stop - start)
        mask = np.full(n, not self.held)
        order = np.random.default_rng([self.seed, 2, group, block]).permutation(n)
        mask[order[: self._held(start + n) - self._held(start)]] = self.held
        return mask

    def read(self, group: int) -> Iterator[Piece]:
        at, mask, number = 0, np.zeros(0, bool), -1
        for piece in pieces(self.source, group):
            begin, n = 0, len(piece[0])
            while begin < n:
                block, place = divmod(at, _BLOCK)
                if block != number:
                    mask, number = self._mask(group, block), block
                end = min(n, begin + len(mask) - place)
                chosen = begin + np.flatnonzero(mask[place : place + end - begin])
                X, y, w = (None if part is None else part[chosen] for part in piece)
                yield X, y, w
                at, begin = at + end - begin, end

    def place(self, group: int) -> str:
        return self.source.place(group)


def pieces(source: RowSource, group: int) -> Iterator[Piece]:
    """`source.read(group)` with NumPy arrays, whose numbers of rows are what the source says."""
    done, n = 0, source.groups[group]
    for given in source.read(group):
        if not isinstance(given, (tuple, list)) or len(given) != 3:
            raise TypeError(f"{source.place(group)}: read() gave {type(given).__name__}, not (X, y, weights)")
        X, y, w = (None if part is None else np.asarray(part) for part in given)
        if X is None or X.ndim != 2 or X.shape[1] != source.n_features:
            shape = None if X is None else X.shape
            raise ValueError(
                f"{source.place(group)}: read() gave X of shape {shape}; expected (n, {source.n_features})"
            )
        done += len(X)
        if done <= n:
            yield X, y, w
    if done != n:
        raise ValueError(f"{source.place(group)} has {done} rows; it was said to have {n}")
