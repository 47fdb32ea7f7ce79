"""Rows that each rank has a part of: for every epoch they move to the ranks that work on them.

Rows are numbered rank after rank, as if all parts were put together; batches are those of the whole.  Targets
and weights are on all ranks.  A rank's features are sent, once per epoch, to where the order of the epoch
needs them, so that each rank has the rows of its shards, and training goes on as if it had all of them: with
the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gpumlp.backends.arrays import is_cuda
from gpumlp.distributed import Communicator, agree
from gpumlp.plans import Ranks, check_order
from gpumlp.rows import Rows, check_features, check_targets, check_weights
from gpumlp.training.engine import Engine
from gpumlp.training.epochs import ResidentEpochs
from gpumlp.training.evaluation import Reference, ResidentEvaluation, own_places
from gpumlp.training.table import batch_weights

__all__ = ["SpreadEpochs", "SpreadRows", "spread_evaluation", "spread_rows"]


@dataclass(frozen=True)
class SpreadRows(Rows):
    """`X` has this rank's rows only, `y`, `w` and `index` are about those of all ranks, on the host.

    Attributes
    ----------
    counts : tuple of int
        How many rows each rank has.
    """

    counts: tuple[int, ...] = ()


def spread_rows(
    model: Any,
    loss: Any,
    communicator: Communicator,
    X: Any,
    y: Any,
    w: Any,
    suffix: str = "",
    numbers: Any = None,
) -> SpreadRows:
    """This rank's rows, checked, with the targets and weights of all ranks; in the order of the ranks, or of
    their `numbers`."""
    backend, dtype = model.backend, model.dtype
    error: Exception | None = None
    part: Any = None
    try:
        X = check_features(X, model.layer_sizes[0], backend, dtype, f"X{suffix}", model.categories)
        part = _part(X, y, w, suffix, numbers)
    except Exception as raised:
        error = raised
    parts = agree(communicator, error, part)
    kinds = {part[2] for part in parts}
    if len(kinds) > 1:
        raise ValueError(f"X{suffix} is {' and '.join(sorted(kinds))}, by ranks; expected one dtype")
    if len({part[1] is None for part in parts}) > 1:
        raise ValueError(f"sample_weight{suffix}: some ranks gave weights, and others did not")
    counts = tuple(len(part[0]) for part in parts)
    total = sum(counts)
    if total == 0:
        raise ValueError(f"X{suffix} has no rows on any rank; expected at least one")
    whole = np.concatenate([part[0] for part in parts])
    y = check_targets(whole, total, model.layer_sizes[-1], loss, backend, dtype, f"y{suffix}")
    weights = None if parts[0][1] is None else np.concatenate([part[1] for part in parts])
    w = check_weights(weights, total, backend, dtype)
    index = np.arange(total, dtype=np.int32)
    if numbers is not None:
        index = _places(np.concatenate([part[3] for part in parts]))
    return SpreadRows(X, y, w, index, counts=counts)


def _places(numbers: np.ndarray) -> np.ndarray:
    """Where row 0, 1, 2, ... is, if row number numbers[p] is at place p."""
    places = np.argsort(numbers, kind="stable").astype(np.int32)
    wrong = np.flatnonzero(numbers[places] != np.arange(len(numbers)))
    if len(wrong):
        raise ValueError(
            f"rows: there are {len(numbers)} rows on all ranks, and their numbers are not each of "
            f"0..{len(numbers) - 1} once: {wrong[0]} is missing or there twice"
        )
    return places


def _part(X: Any, y: Any, w: Any, suffix: str, numbers: Any) -> list[Any]:
    """What the other ranks are told of the rows that have the features `X`."""
    y, w = (a.get() if is_cuda(a) else None if a is None else np.asarray(a) for a in (y, w))
    if numbers is not None:
        numbers = np.asarray(numbers)
        if numbers.dtype.kind not in "iu" or numbers.ndim != 1:
            raise TypeError(
                f"rows is an array {numbers.shape} of {numbers.dtype}; expected whole numbers (n,)"
            )
    for name, array in ((f"y{suffix}", y), (f"sample_weight{suffix}", w), ("rows", numbers)):
        if array is not None and array.shape[:1] != (len(X),):
            raise ValueError(
                f"X{suffix} has {len(X)} rows but {name} has shape {array.shape}; they must be equal"
            )
    return [y, w, X.dtype.name, numbers]


class _Exchange:
    """Sends rows of `X` to the ranks that need them.

    Parameters
    ----------
    ranks : Ranks
    rows : SpreadRows
        `X` on the device.
    places : list of int arrays
        For each rank, the places of the rows that it works on, among `n`.
    n : int
    """

    def __init__(self, ranks: Ranks, rows: SpreadRows, places: list[np.ndarray], n: int) -> None:
        self.ranks, self.rows, self.places = ranks, rows, places
        self.starts = np.concatenate([[0], np.cumsum(rows.counts)])
        backend = ranks.network.backend
        own = max(1, len(places[ranks.rank]))
        self.X = backend.zeros((own, rows.X.shape[1]), rows.X.dtype)
        self.y = backend.zeros((own, *rows.y.shape[1:]), rows.y.dtype)
        self.w = None if rows.w is None else backend.zeros(own, rows.w.dtype)
        #: for each of the `n` places, where its row is in the arrays; 0 for those of others
        self.index = np.zeros(n, np.int32)

    def move(self, numbers: np.ndarray) -> None:
        """Fill the arrays with the rows that are needed if place p is that of row numbers[p]."""
        ranks, rows, backend = self.ranks, self.rows, self.ranks.network.backend
        low, high = self.starts[ranks.rank], self.starts[ranks.rank + 1]
        send = []
        for places in self.places:
            wanted = numbers[places]
            here = np.sort(wanted[(wanted >= low) & (wanted < high)]) - low
            send.append(backend.asarray(rows.X[backend.asarray(here)]))
        own = self.places[ranks.rank]
        by_number = np.argsort(numbers[own], kind="stable")
        needed = numbers[own][by_number]
        self.index[own[by_number]] = np.arange(len(own), dtype=np.int32)
        ends = np.searchsorted(needed, self.starts)
        ranks.communicator.all_to_all(send, [self.X[a:b] for a, b in zip(ends[:-1], ends[1:], strict=True)])
        backend.copy(self.y[: len(own)], rows.y[needed])
        if self.w is not None:
            backend.copy(self.w[: len(own)], rows.w[needed])

    def moved(self) -> Rows:
        """The rows that are here now, and which of them is at which place."""
        return Rows(self.X, self.y, self.w, self.index)


class SpreadEpochs:
    """`Epochs` over rows that each rank has a part of.

    Parameters
    ----------
    engine : Engine
        With ranks.
    rows : SpreadRows
    batch : int
        Rows of a step, on all ranks together.
    """

    def __init__(self, engine: Engine, rows: SpreadRows, batch: int) -> None:
        assert engine.ranks is not None
        n, self.batch, self.rows, self.weight = rows.n_rows, batch, rows, rows.weight
        self.order = np.empty(n, np.int32)
        full, rest = divmod(n, batch)
        places = []
        for rank in range(engine.ranks.size):
            sizes = [(k * batch, batch) for k in range(full)] + [(full * batch, rest)]
            spans = [(start, *engine.ranks.places(size, rank)) for start, size in sizes]
            places.append(np.concatenate([np.arange(start + a, start + b) for start, a, b in spans]))
        self._exchange = _Exchange(engine.ranks, _resident(engine, rows), places, n)
        self._inner = ResidentEpochs(engine, self._exchange.moved(), batch)
        self.n_steps = self._inner.n_steps

    def batch_weights(self) -> np.ndarray:
        """See `Epochs`."""
        return batch_weights(self.rows.weights, self.order, self.batch)

    def run(self, table: dict[str, Any]) -> None:
        """See `Epochs`."""
        check_order(self.order, sum(self.rows.counts))
        with self._inner.engine.backend.range("gpumlp:exchange"):
            self._exchange.move(self.order)
        self._inner.order[:] = self._exchange.index
        self._inner.run(table)

    @property
    def part(self) -> float:
        """See `ResidentEpochs`."""
        return self._inner.part

    @property
    def hooks(self) -> Any:
        """See `ResidentEpochs`."""
        return self._inner.hooks

    @hooks.setter
    def hooks(self, hooks: Any) -> None:
        self._inner.hooks = hooks

    def first_bad_step(self) -> tuple[int, int]:
        """See `Epochs`."""
        return self._inner.first_bad_step()


def spread_evaluation(engine: Engine, rows: SpreadRows, sums: Any) -> ResidentEvaluation:
    """The evaluation of `rows`, which move now, once."""
    ranks, network, n = engine.ranks, engine.network, rows.n_rows
    assert ranks is not None and rows.index is not None
    places = [np.arange(*own_places(network, n, ranks, rank)) for rank in range(ranks.size)]
    exchange = _Exchange(ranks, _resident(engine, rows), places, n)
    exchange.move(rows.index)
    reference = Reference(engine.objective, rows, engine.backend)
    return ResidentEvaluation(network, engine.objective, exchange.moved(), sums, reference, ranks=ranks)


def _resident(engine: Engine, rows: SpreadRows) -> SpreadRows:
    """`rows` with X on the device."""
    on = Rows(rows.X, rows.X).on(engine.backend, engine.network.dtype)
    return SpreadRows(on.X, rows.y, rows.w, rows.index, rows.weights, rows.counts)
