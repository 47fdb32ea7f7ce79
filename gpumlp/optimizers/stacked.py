"""`StackedOptimizer`: many optimisers of one rule as one, each with hyper-parameters and state of its own."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from gpumlp.kernels.kernel import Kernel
from gpumlp.optimizers.base import Optimizer

__all__ = ["StackedOptimizer", "stack_key"]


def stack_key(optimizer: Optimizer) -> tuple:
    """Equal for optimisers that can be stacked: their kernels differ at most in penalties that are 0."""
    proximal = optimizer.penalties()[3]
    return type(optimizer), optimizer.options(), optimizer.arrays(), proximal


class StackedOptimizer:
    """What a plan of many networks needs of their optimisers, as they are when this is made.

    Parameters
    ----------
    optimizers : sequence of Optimizer
        With the same `stack_key`, and with state for one flat buffer each.
    stack : Stack

    Attributes
    ----------
    t : int
        Steps done by the plan.
    state : list of one dict
        The state arrays by name, (members, flat_size).
    widest : Optimizer
        One whose kernels serve all members.
    """

    def __init__(self, optimizers: Sequence[Optimizer], stack: Any) -> None:
        self._each = [copy.copy(optimizer) for optimizer in optimizers]
        widest = copy.copy(optimizers[0])
        for name in ("l1", "l2", "weight_decay"):  # a penalty of 0 changes nothing
            setattr(widest, name, max(float(getattr(one, name)) for one in optimizers))
        widest.proximal = optimizers[0].penalties()[3]  # of all; the attribute means nothing where l1 is 0
        widest._kernels = {}
        self.t, self.widest, self._stack = 0, widest, stack
        zeros = {name: stack.backend.zeros(stack.flat.shape, stack.dtype) for name in widest.arrays()}
        self.state: list[dict[str, Any]] = [zeros]

    def kernel(self, *, clip: bool = False, half: bool = False, guard: bool = False) -> Kernel:
        """See `Rule.kernel`: one that serves all members."""
        return self.widest.kernel(clip=clip, half=half, guard=guard)

    def scalars(self, kernel: Kernel) -> dict[str, list[float]]:
        """By-value arguments for `kernel`, one of each for each member."""
        each = [optimizer.scalars(kernel) for optimizer in self._each]
        return {name: [values[name] for values in each] for name in each[0]}

    def held(self) -> list[Any]:
        """See `Optimizer.held`: nothing changes."""
        return [self]

    def init_state(self, params: Sequence[Any], backend: Any) -> None:
        """Nothing: the state is there."""

    def move_state(self, backend: Any) -> None:
        """Nothing: a stack does not move."""

    def put(self, member: int, optimizer: Optimizer) -> None:
        """Take over the state of a member's own optimiser."""
        for name, array in self.state[0].items():
            self._stack.put(member, optimizer.state[0][name], array)

    def get(self, member: int, optimizer: Optimizer) -> None:
        """Give its state back."""
        for name, array in self.state[0].items():
            self._stack.get(member, optimizer.state[0][name], array)
