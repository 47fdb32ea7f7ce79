"""Two branches for the operations of a plan.

The longest chain of operations that wait for each other is one branch, all others are the second one: the
gradients of the weights, but the last, run beside the chain of the gradients of the activations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpumlp.backends.accesses import dependencies
from gpumlp.backends.base import Steps
from gpumlp.backends.operations import Op

__all__ = ["START", "Place", "branches", "one_branch"]

START = -1  # in `Place.wait`: the beginning of the graph


@dataclass(frozen=True)
class Place:
    """Where an operation of a plan is captured.

    Parameters
    ----------
    op : int
        Its number in the plan.
    side : bool
        Whether it is on the second stream.
    wait : int or None
        The operation on the other stream that must be done first, unless an earlier operation on its own
        stream has already waited for it or for a later one.
    """

    op: int
    side: bool = False
    wait: int | None = None


def one_branch(n: int) -> list[Place]:
    """`n` operations in their order."""
    return [Place(op) for op in range(n)]


def branches(ops: Sequence[Op], steps: Steps) -> list[Place]:
    """The longest chain of dependent operations on one stream, all others on the other, in order of capture:
    each as soon as its inputs are ready."""
    needs = dependencies(ops, steps)
    depth: list[int] = []
    for before in needs:
        depth.append(1 + max((depth[op] for op in before), default=0))
    chain: set[int] = set()
    last = max(range(len(ops)), key=lambda op: (depth[op], op), default=None)
    while last is not None:
        chain.add(last)
        last = max(needs[last], key=lambda op: (depth[op], op), default=None)
    found: list[Place] = []
    position: dict[int, int] = {START: START}
    awaited = {False: START, True: START - 1}  # the chain need not wait for the beginning
    for number, op in enumerate(sorted(range(len(ops)), key=lambda op: (depth[op], op))):
        side, position[op] = op not in chain, number
        others = (before for before in needs[op] if (before in chain) is side)
        wait = max(others, key=lambda before: position[before], default=START)
        found.append(Place(op, side, wait if position[wait] > awaited[side] else None))
        awaited[side] = max(awaited[side], position[wait])
    return found
