"""`SharedRows`: the rows of many members, on the device once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gpumlp.network import Network
from gpumlp.rows import Rows

__all__ = ["SharedRows"]


class SharedRows:
    """Arrays that have been sent to a device, for as long as this object lives."""

    def __init__(self) -> None:
        self._sent: dict[tuple, tuple] = {}

    def _on(self, rows: Rows, network: Network) -> Rows:
        """All rows of the same X and y, without weights, on the device of `network`."""
        key = id(rows.X), id(rows.y), network.device, network.dtype
        if key not in self._sent:
            bare = Rows(rows.X, rows.y).on(network.backend, network.dtype)
            self._sent[key] = rows.X, rows.y, bare  # the first two, so that their ids stay theirs
        return self._sent[key][-1]

    def training(self, each: Sequence[Rows], network: Network) -> tuple[Rows, list[int]]:
        """Rows of one X and y for a plan of all members.

        Parameters
        ----------
        each : sequence of Rows
            Those of each member.
        network : Network
            The stack of all members.

        Returns
        -------
        (Rows, list of int)
            As many rows as the longest member has; and for each member the number of a row with which it may
            fill up its last batch: of weight 0, where it needs one.
        """
        counts, bare = [rows.n_rows for rows in each], self._on(each[0], network)
        longest, n = max(counts), int(bare.X.shape[0])
        short = [count < longest for count in counts]
        spare = [rows.spare() if less else 0 for rows, less in zip(each, short, strict=True)]
        w = self._weights([rows.weights for rows in each], n, any(short), network)
        if any(short):
            for number, (row, less) in enumerate(zip(spare, short, strict=True)):
                if less:
                    w[number, row] = 0
        if w is not None:
            w = network.backend.asarray(w)
        index = None if longest == n else np.zeros(longest, np.int32)
        return replace(bare, w=w, index=index), spare

    def validation(
        self, each: Sequence[Rows], training: Rows, network: Network
    ) -> tuple[Rows, list[np.ndarray]]:
        """Validation rows of all members in one set of arrays, and the numbers of each member's."""
        selected = [
            np.arange(rows.n_rows, dtype=np.int32) if rows.index is None else rows.index for rows in each
        ]
        sources: dict[tuple, Rows] = {}
        for rows in each:
            sources.setdefault((id(rows.X), id(rows.y)), rows)
        if len(sources) == 1:
            bare = self._on(each[0], network)
            w = self._weights([rows.weights for rows in each], int(bare.X.shape[0]), False, network)
            return replace(bare, w=None if w is None else network.backend.asarray(w)), selected
        bare, starts = self.several(each, network)
        selected = [index + np.int32(start) for index, start in zip(selected, starts, strict=True)]
        w = None
        if any(rows.weights is not None for rows in each):
            host = np.ones(int(bare.X.shape[0]), network.dtype)
            for rows, start in zip(each, starts, strict=True):
                if rows.weights is not None:
                    host[start : start + len(rows.weights)] = rows.weights
            w = network.backend.asarray(host)
        return replace(bare, w=w), selected

    def several(self, each: Sequence[Rows], network: Network) -> tuple[Rows, list[int]]:
        """All rows of different arrays (folds), one set behind the other, without weights; and where the
        arrays of each member begin."""
        backend, parts, places, at = network.backend, [], {}, 0
        keys = [(id(rows.X), id(rows.y), id(rows.w)) for rows in each]
        for key, rows in zip(keys, each, strict=True):
            if key not in places:
                places[key] = at
                parts.append(Rows(rows.X, rows.y).on(backend, network.dtype))
                at += int(rows.X.shape[0])
        if len(parts) == 1:
            return parts[0], [0] * len(each)
        with backend.active():
            X, y = (backend.xp.concatenate([getattr(part, name) for part in parts]) for name in "Xy")
        return Rows(X, y), [places[key] for key in keys]

    def _weights(self, each: Sequence[Any], n: int, own: bool, network: Network) -> Any:
        """Weights of `n` rows on the host: None, one array for all members, or (members, n)."""
        if not own and all(weights is each[0] for weights in each):
            return each[0]
        stacked = np.ones((len(each), n), network.dtype)
        for row, weights in zip(stacked, each, strict=True):
            if weights is not None:
                row[:] = weights
        return stacked
