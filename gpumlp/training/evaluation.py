"""Loss and metric on given rows, without dropout and penalties."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np

from gpumlp.backends.base import Backend, Steps
from gpumlp.backends.operations import Launch, Op
from gpumlp.kernels.rows import RESET
from gpumlp.network import Network
from gpumlp.plans import (
    SHARDS,
    Objective,
    Ranks,
    Workspace,
    check_contract,
    evaluation_ops,
    forward_rows,
    sum_ops,
)
from gpumlp.rows import Rows

__all__ = ["Evaluation", "Reference", "ResidentEvaluation", "own_places"]


class Evaluation(Protocol):
    """Evaluates a network again and again on the same rows."""

    def run(self) -> None:
        """Evaluate the parameters as they are now; a device may still be working afterwards."""

    def figures(self, sums: np.ndarray) -> dict[str, float]:
        """{"loss", "accuracy"} or {"loss", "rmse", "r2"}, from a copy on the host of the two sums that `run`
        leaves on the device."""


class Reference:
    """What figures need to know about the rows: their weight, and the spread of their targets.

    Parameters
    ----------
    objective : Objective
    rows : Rows
        On the host or on the device of `backend`.
    backend : Backend
    """

    def __init__(self, objective: Objective, rows: Rows, backend: Backend) -> None:
        self.objective, self.weight = objective, rows.weight
        if objective.loss.metric == "rmse":
            y = rows.take(backend.to_numpy(rows.y)).astype(np.float64)
            w = None if rows.weights is None else rows.take(rows.weights)
            self.n_out = y.shape[1]
            mean = np.average(y, axis=0, weights=w)
            self.spread = float(np.average(((y - mean) ** 2).sum(axis=1), weights=w))

    def figures(self, sums: np.ndarray) -> dict[str, float]:
        """See `Evaluation.figures`."""
        loss, score = (float(s) / self.weight for s in sums)
        if self.objective.loss.metric == "accuracy":
            return {"loss": loss, "accuracy": score}
        if math.isnan(score):  # NaN is not a score, least of all the best one
            return {"loss": loss, "rmse": score, "r2": score}
        r2 = 1 - score / self.spread if self.spread > 0 else float(score == 0)
        return {"loss": loss, "rmse": math.sqrt(score / self.n_out), "r2": r2}


def chunk_rows(network: Network, n: int, ranks: Ranks | None) -> int:
    """Rows of a forward pass in the evaluation of `n` rows; with ranks the same for any number of them."""
    return min(forward_rows(network), n if ranks is None else -(-n // SHARDS))


def own_places(network: Network, n: int, ranks: Ranks, rank: int) -> tuple[int, int]:
    """Places of the `n` rows of an evaluation that rank `rank` works on: first, one after the last."""
    chunk = chunk_rows(network, n, ranks)
    first, end = ranks.span(-(-n // chunk), rank)
    return first * chunk, min(n, end * chunk)


class ResidentEvaluation:
    """`Evaluation` of rows on the device.

    Parameters
    ----------
    network : Network
    objective : Objective
    rows : Rows
        On the network's device.
    sums : array (2,)
        Where `run` leaves the weighted sums of loss and metric, on the device.
    reference : Reference, optional
        The reference of a larger set, of which these rows are a part.
    selected : list of int32 arrays, optional
        Of a `Stack`, the numbers of the rows of each member; then `run` is all that there is, and `sums` is
        (members, 2).
    ranks : Ranks, optional
        Share the rows with the other ranks; then only the rows at `own_places` are read here.
    """

    def __init__(
        self,
        network: Network,
        objective: Objective,
        rows: Rows,
        sums: Any,
        reference: Reference | None = None,
        selected: list[np.ndarray] | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        check_contract(rows, network, objective)
        self.backend = backend = network.backend
        counts = rows.n_rows if selected is None else [len(index) for index in selected]
        n = int(np.max(counts))
        chunk = chunk_rows(network, n, ranks)
        chunks = -(-n // chunk)
        first, end = (0, chunks) if ranks is None else ranks.span(chunks)
        self.chunks = end - first
        steps = Steps(backend, n_rows=max(1, self.chunks) * chunk, members=network.members)
        # the last chunk is filled up with row 0, which is not summed
        if selected is None:
            numbers = np.arange(n, dtype=np.int32) if rows.index is None else rows.index
            numbers = numbers[first * chunk : end * chunk]
            steps.order[: len(numbers)] = numbers
        else:
            for order, index in zip(steps.order, selected, strict=True):
                order[: len(index)] = index
        both = backend.zeros((2, *network.lead, chunks * chunk), network.dtype)
        values = [both[0], both[1]]
        own = [each[..., first * chunk :] for each in values]
        space = Workspace(network, chunk, training=False)
        self._forward = None
        if self.chunks:
            self._forward = backend.record(
                evaluation_ops(space, rows, steps, own[0], own[1], objective), steps
            )
        after: list[Op] = []
        if ranks is not None and ranks.size > 1:
            total = backend.zeros(both.shape, network.dtype)
            after, values = ranks.sum_ops(both, total), [total[0], total[1]]
        after += [
            *sum_ops(backend, values[0], counts, sums[..., :1]),
            *sum_ops(backend, values[1], counts, sums[..., 1:]),
            Launch(RESET, {"step": steps.step}, {}, 1, 1),
        ]
        self._sum = backend.record(after, steps)
        steps.send()
        if selected is None:
            self._reference = reference or Reference(objective, rows, backend)

    def run(self) -> None:
        """See `Evaluation.run`."""
        with self.backend.range("gpumlp:evaluation"):
            if self._forward is not None:
                self._forward.run(self.chunks)
            self._sum.run()

    def figures(self, sums: np.ndarray) -> dict[str, float]:
        """See `Evaluation.figures`."""
        return self._reference.figures(sums)
