"""Loss and metric on given rows, without dropout and penalties."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np

from gpumlp.backends.base import Backend, Launch, Op, Steps
from gpumlp.kernels.rows import RESET
from gpumlp.network import Network
from gpumlp.plans import Objective, Workspace, check_contract, evaluation_ops, forward_rows, sum_ops
from gpumlp.rows import Rows

__all__ = ["Evaluation", "Reference", "ResidentEvaluation"]


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
    """

    def __init__(
        self,
        network: Network,
        objective: Objective,
        rows: Rows,
        sums: Any,
        reference: Reference | None = None,
        selected: list[np.ndarray] | None = None,
    ) -> None:
        check_contract(rows, network, objective)
        self.backend = backend = network.backend
        counts = rows.n_rows if selected is None else [len(index) for index in selected]
        n = int(np.max(counts))
        chunk = min(forward_rows(network), n)
        self.chunks = -(-n // chunk)
        steps = Steps(backend, n_rows=self.chunks * chunk, members=network.members)
        # the last chunk is filled up with row 0, which is not summed
        if selected is None:
            steps.order[:n] = np.arange(n) if rows.index is None else rows.index
        else:
            for order, index in zip(steps.order, selected, strict=True):
                order[: len(index)] = index
        values = [backend.zeros((*network.lead, self.chunks * chunk), network.dtype) for _ in range(2)]
        space = Workspace(network, chunk, training=False)
        self._forward = backend.record(
            evaluation_ops(space, rows, steps, values[0], values[1], objective), steps
        )
        after: list[Op] = [
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
            self._forward.run(self.chunks)
            self._sum.run()

    def figures(self, sums: np.ndarray) -> dict[str, float]:
        """See `Evaluation.figures`."""
        return self._reference.figures(sums)
