"""How ranks share a step: each takes some shards of every batch, and the gradients of all are added up.

A batch is cut into shards, by the place in it alone.  Reproducibly, there are 8 of them whatever the number
of ranks, and their gradients are added in a balanced tree, ((0 + 1) + (2 + 3)) + ((4 + 5) + (6 + 7)):
products have the same shapes and sums the same order on any number of ranks, and so the same bits.  A rank of
2, 4 or 8 has a branch of the tree, and sends the sum of that; of other numbers, the gradient of each of its
shards.  If it need not be reproducible, there is one shard for each rank, and the library adds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpumlp.backends.operations import AllReduce, Launch, Op
from gpumlp.kernels.rows import ZERO, tree_kernel
from gpumlp.network import Network
from gpumlp.plans.precision import Precision
from gpumlp.plans.workspace import Workspace

__all__ = ["SHARDS", "Job", "Ranks", "Spaces"]

SHARDS = 8
_ALIGNED = 16  # elements: rows of what is gathered begin at multiples of it


#: a communicator, or None, and whether sums are to be reproducible
Job = tuple[Any, bool]


class Ranks:
    """This rank's part of the work on `network`, and the operations that bring the parts together.

    Parameters
    ----------
    communicator : Communicator
        One that moves arrays of the network's backend.
    reproducible : bool
    network : Network
        Without members.
    """

    def __init__(self, communicator: Any, reproducible: bool, network: Network) -> None:
        self.communicator, self.reproducible = communicator, reproducible
        self.network = network
        self.rank, self.size = communicator.rank, communicator.size
        self.shards = SHARDS if reproducible else self.size
        first, end = self.span(self.shards)
        #: the shards of this rank, and the most that a rank has
        self.own, self._most = range(first, end), -(-self.shards // self.size)
        self._padded = -(-network.flat_size // _ALIGNED) * _ALIGNED
        # one row for the gradient of each shard, and those of the other ranks
        self.slots = self._rows(self._most)
        branches = reproducible and self.shards % self.size == 0
        self._doubles = branches and communicator.doubles
        self._scratch = self._gathered = None
        if self._doubles:
            self._scratch = network.backend.zeros(network.flat_size, network.dtype)
        elif reproducible and self.size > 1:
            parts = 1 if branches else self._most
            self._gathered = network.backend.zeros((self.size, parts, self._padded), network.dtype)

    @staticmethod
    def of(job: Job, network: Network) -> Ranks | None:
        """How the ranks of `job` share the work on `network`; None if there is one, which works as always."""
        communicator, reproducible = job
        if communicator is None or (communicator.size == 1 and not reproducible):
            return None
        if reproducible and communicator.size > SHARDS:
            raise ValueError(
                f"{communicator.size} ranks: reproducible training shares each batch among at most {SHARDS}; "
                "give reproducible=False, or spread networks instead: fit_many(..., communicator=...)"
            )
        return Ranks(communicator.on(network.backend), reproducible, network)

    def _rows(self, n: int) -> Any:
        return self.network.backend.zeros((n, self._padded), self.network.dtype)

    def span(self, n: int, rank: int | None = None) -> tuple[int, int]:
        """Which of `n` things are this rank's (or those of `rank`): the first, and the one after the last."""
        rank = self.rank if rank is None else rank
        return n * rank // self.size, n * (rank + 1) // self.size

    def bounds(self, n: int, shard: int) -> tuple[int, int]:
        """Places of shard number `shard` in a batch of `n` rows."""
        return n * shard // self.shards, n * (shard + 1) // self.shards

    def places(self, n: int, rank: int | None = None) -> tuple[int, int]:
        """Places in a batch of `n` rows that this rank (or `rank`) works on."""
        first, end = self.span(self.shards, rank)
        return n * first // self.shards, n * end // self.shards

    def step_ops(self, n: int, part: Callable[[int, int, int, Any], list[Op]], grads: Any) -> list[Op]:
        """Everything up to the gradient of a batch of `n` rows in `grads`, the same on all ranks.

        ``part(j, start, stop, grads)`` gives the operations of this rank's shard number j, which are the rows
        of the batch from `start` to `stop`.
        """
        size = self.network.flat_size
        straight = len(self.own) == 1 and self._gathered is None
        slots = [grads] if straight else [slot[:size] for slot in self.slots[: len(self.own)]]
        ops: list[Op] = []
        for j, (shard, slot) in enumerate(zip(self.own, slots, strict=True)):
            start, stop = self.bounds(n, shard)
            ops += part(j, start, stop, slot) if stop > start else [self._zero(slot)]
        for number, op in enumerate(ops):  # the first one counts the step, which the others read
            if isinstance(op, Launch) and (op.tick or number == 0):
                op.tick = "first" if number == 0 else ""
        return [*ops, *self._sum_ops(slots, grads)]

    def _zero(self, slot: Any) -> Launch:
        return Launch(ZERO, {"p": slot}, {}, 1, len(slot))

    def _sum_ops(self, slots: list[Any], grads: Any) -> list[Op]:
        size = self.network.flat_size
        if not self.reproducible:
            return [AllReduce(self.communicator, grads)] if self.size > 1 else []
        if self.size == 1 or self._doubles:
            ops: list[Op] = [] if len(slots) == 1 else [tree(slots, grads)]
            return (
                [*ops, AllReduce(self.communicator, grads, scratch=self._scratch)] if self._doubles else ops
            )
        gathered: Any = self._gathered
        if gathered.shape[1] < len(slots):  # a branch of the tree each
            branch = self._rows(1)
            ops = [tree(slots, branch[0, :size])]
            send, parts = branch, [gathered[rank, 0, :size] for rank in range(self.size)]
        else:
            ops, send, parts = [], self.slots, []
            for rank in range(self.size):
                first, end = self.span(self.shards, rank)
                parts += [gathered[rank, j, :size] for j in range(end - first)]
        return [*ops, AllReduce(self.communicator, send, gathered=gathered), tree(parts, grads)]

    def sum_ops(self, values: Any, total: Any) -> list[Op]:
        """total = sum of `values` over the ranks; exact, if all but one rank have zeros there."""
        return [AllReduce(self.communicator, values, into=total)]


def tree(summands: list[Any], total: Any) -> Launch:
    """total = the sum of 2, 4 or 8 flat arrays, in a balanced tree."""
    arrays = {f"s{j}": array for j, array in enumerate(summands)}
    return Launch(tree_kernel(len(summands)), {**arrays, "total": total}, {}, 1, len(total))


class Spaces:
    """A `Workspace` for each shard that this rank has of a batch of `rows` rows."""

    def __init__(self, ranks: Ranks, rows: int, precision: Precision) -> None:
        largest = -(-rows // ranks.shards)  # also of shorter batches
        self.each = [Workspace(ranks.network, largest, training=True, precision=precision) for _ in ranks.own]
