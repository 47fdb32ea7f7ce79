"""`Engine`: the buffers of a training run on one device, and what its steps consist of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpumlp.backends.base import Steps
from gpumlp.backends.operations import Op
from gpumlp.checks import same
from gpumlp.network import Network
from gpumlp.plans import (
    Job,
    Objective,
    Precision,
    Ranks,
    Spaces,
    Workspace,
    exchange_ops,
    optimizer_ops,
    training_ops,
)
from gpumlp.rows import Rows, dropout_key

__all__ = ["Engine", "Recipe"]


class Recipe:
    """What a recorded training step depends on besides its rows; equal if a plan need not be recorded again.

    Parameters
    ----------
    settings : tuple
        Numbers and names that a plan holds.
    arrays : tuple
        Arrays that it reads and writes; equal if they are the same objects.
    """

    def __init__(self, settings: tuple, arrays: tuple) -> None:
        self.settings, self.arrays = settings, arrays

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Recipe) or self.settings != other.settings:
            return False
        return same([*self.arrays], [*other.arrays])

    __hash__ = None  # type: ignore[assignment]


class Engine:
    """Buffers of a training run on the device where `network` is now, and the operations of its steps.

    `objective`, `optimizer`, `clip_norm` and `between` may be changed between epochs: plans
    recorded earlier are then recorded again.

    If `network` is a `Stack`, `optimizer` is a `StackedOptimizer`, `clip_norm` (if not None) and `seed` are
    lists with one for each member, and all arrays have the axis of members first.

    Parameters
    ----------
    network : Network
    objective : Objective
    optimizer : Optimizer
        Its state is made on the device.
    clip_norm : float, optional
        Limit of the gradient's norm.
    precision : str
        One of `PRECISIONS`.
    seed : int
        Seed of the dropout masks.
    loss_scale : array (4,), optional
        State of the loss scaling to go on with, on the host.
    between : callable
        Returns the operations that go between gradient and update; called each time a step is recorded.
    job : (Communicator or None, bool)
        The ranks that share every batch, and whether their sums are reproducible.

    Attributes
    ----------
    sums : array (8,), on the device
        Sums of the training rows' losses, of the validation rows' losses and of their metric; number of
        parameters that are not finite; and the state of the loss scaling (4): read in one copy.
    grads : array (flat_size,), on the device
        The gradient of the last step.
    """

    def __init__(
        self,
        network: Network,
        objective: Objective,
        optimizer: Any,
        *,
        clip_norm: Any = None,
        precision: str = "float32",
        seed: Any = 0,
        loss_scale: np.ndarray | None = None,
        between: Callable[[], Sequence[Op]] = tuple,
        job: Job = (None, True),
    ) -> None:
        self.network, self.backend, self.flat = network, network.backend, network.flat
        self.objective, self.optimizer, self.clip_norm = objective, optimizer, clip_norm
        self.between, self.job, self.ranks = between, job, Ranks.of(job, network)
        self.sums = self.backend.zeros((*network.lead, 8), network.dtype)
        self.precision = Precision(network, precision, self.sums[..., 4:])
        if loss_scale is not None and self.precision.scaler is not None:
            self.backend.copy(self.precision.scaler, loss_scale)
        self.grads = self.backend.zeros(network.flat.shape, network.dtype)
        self.seed = seed
        self._key = dropout_key(seed) if network.members is None else [dropout_key(own) for own in seed]

    def serves(self, network: Network, precision: str, seed: int, job: Job = (None, True)) -> bool:
        """Whether this is still an engine for `network`: it has not moved."""
        same = precision == self.precision.name and seed == self.seed and job == self.job
        return same and network.flat is self.flat

    def held(self) -> list[Any]:
        """The objects that a recipe is made of: while they are the same ones, it is the same."""
        network = self.network
        own = network.flat, self.objective, self.optimizer, self.clip_norm, self.between
        return [*own, *network.dropouts, *network.activations, *self.optimizer.held()]

    def recipe(self) -> Recipe:
        """The recipe of the steps as they would be recorded now; makes the optimiser's state if needed."""
        network, optimizer = self.network, self.optimizer
        optimizer.init_state([network.flat], self.backend)
        optimizer.move_state(self.backend)
        kernel = optimizer.kernel(clip=self.clip_norm is not None)
        settings = (kernel.name, *optimizer.scalars(kernel).items(), self.clip_norm)
        state = [a for entry in optimizer.state for name, a in entry.items() if name != "_shape"]
        return Recipe(
            (*settings, self.objective, *network.dropouts, *network.activations),
            (network.flat, optimizer, self.between, *state),
        )

    def columns(self) -> tuple[str, ...]:
        """Per-step values that the steps read."""
        dropout = ("t_low", "t_high") if np.any(self.network.dropouts) else ()
        return ("inv_weight", *dropout, *self.optimizer.kernel(clip=self.clip_norm is not None).stepped)

    def exchange_ops(self) -> list[Op]:
        """Exchange the parameters with their averages; none if the optimiser keeps no averages.

        Steps find the parameters in `network.flat`; whatever happens between two calls for steps finds the
        averages there: evaluation, the best epoch, callbacks, files.
        """
        return exchange_ops(self.network, self.optimizer, self.precision)

    def space(self, rows: int) -> Workspace | Spaces:
        """Buffers for steps on up to `rows` rows."""
        if self.ranks is not None:
            return Spaces(self.ranks, rows, self.precision)
        return Workspace(self.network, rows, training=True, precision=self.precision)

    def step_ops(
        self,
        space: Workspace | Spaces,
        n: int,
        stride: int,
        rows: Rows,
        steps: Steps,
        row_loss: Any,
        update: bool,
    ) -> list[Op]:
        """Operations of a step on `n` rows, without `update` up to the gradient; see `training_ops`."""
        same = stride, rows, steps, row_loss
        if isinstance(space, Spaces):
            assert self.ranks is not None
            spaces = space.each

            def part(j: int, start: int, stop: int, grads: Any) -> list[Op]:
                return training_ops(spaces[j], stop - start, *same, grads, self.objective, self._key, start)

            ops = self.ranks.step_ops(n, part, self.grads)
        else:
            ops = training_ops(space, n, *same, self.grads, self.objective, self._key)
        if not update:
            return ops
        last = optimizer_ops(self.network, self.grads, self.optimizer, self.clip_norm, self.precision)
        return [*ops, *self.between(), *last]

    def read_sums(self) -> np.ndarray:
        """Copy of `sums` on the host; waits for the device."""
        return self.backend.to_numpy(self.sums)

    def loss_scale(self) -> np.ndarray | None:
        """State of the loss scaling, on the host; None except for float16."""
        return None if self.precision.scaler is None else self.backend.to_numpy(self.precision.scaler)
