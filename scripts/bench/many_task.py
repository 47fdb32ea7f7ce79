"""Many networks of one shape, each with its own initial values, rate and row order; done by gpumlp."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import gpumlp
from scripts.bench.training_task import EPS
from scripts.shared.inside import epoch_order, one_thread

#: layer sizes, batch, steps per epoch
SHAPES: tuple[tuple[tuple[int, ...], int, int], ...] = (
    ((8, 64, 64, 2), 256, 40),
    ((64, 128, 10), 64, 60),
    ((784, 256, 128, 10), 128, 4),
)
MEMBERS = 1, 4, 16, 64, 256
#: so many of the networks are trained one after another
SINGLE = 4
OURS, ONE, ONE_THREAD = "fit_many", "one fit", "one thread each"
#: how far the mean loss of a network's first epoch may be from that of `fit_many`
SAME = 0.005

#: makes a candidate ready, and gives what is timed: a call that returns seconds per step of one network
Make = Callable[[], Callable[[], float]]


class ManyTask:
    """Rows, initial values and row orders.

    Parameters
    ----------
    sizes : sequence of int
    batch, steps : int
        Rows per step, and steps per epoch.
    members : int
        How many networks.
    epochs : int, optional
        That are timed in a turn; by default more for fewer networks.

    Attributes
    ----------
    losses : dict
        For each candidate that has been called the mean loss of each network's first epoch.
    """

    def __init__(
        self, sizes: Sequence[int], batch: int, steps: int, members: int, epochs: int | None = None
    ) -> None:
        rng = np.random.default_rng(0)
        self.sizes, self.batch, self.steps, self.members = list(sizes), batch, steps, members
        self.epochs = epochs or max(1, min(16, 64 // members))
        self.X = rng.standard_normal((batch * steps, sizes[0]), np.float32)
        hidden = np.maximum(self.X @ rng.standard_normal((sizes[0], 16), np.float32), 0)
        self.y = (hidden @ rng.standard_normal((16, sizes[-1]), np.float32)).argmax(axis=1)
        self.rates = 1e-3 * (1 + np.arange(members) % 8 / 8)
        self.losses: dict[str, np.ndarray] = {}

    @property
    def name(self) -> str:
        """Sizes and batch, as 8-64-64-2 (256)."""
        return f"{'-'.join(map(str, self.sizes))} ({self.batch})"

    @functools.cached_property
    def parameters(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Initial weights (members, n_in, n_out) and biases (members, n_out) of each layer."""
        pairs = list(zip(self.sizes[:-1], self.sizes[1:], strict=True))
        made = [(np.empty((self.members, *p), "f"), np.empty((self.members, p[1]), "f")) for p in pairs]
        for number in range(self.members):
            model = gpumlp.MLP(self.sizes, seed=number, device="numpy")
            for (weights, biases), W, b in zip(made, model.weights, model.biases, strict=True):
                weights[number], biases[number] = W, b
        return made

    def order(self, epoch: int) -> np.ndarray:
        """Row numbers (steps, members, batch) of an epoch."""
        orders = [epoch_order(seed, epoch, len(self.X)) for seed in range(self.members)]
        return np.stack(orders).reshape(self.members, self.steps, self.batch).swapaxes(0, 1)

    def trainers(self, device: str, count: int) -> list[Any]:
        """The first `count` of them, not trained."""
        return [
            gpumlp.Trainer(
                gpumlp.MLP(self.sizes, seed=number, device=device),
                loss="softmax_cross_entropy",
                optimizer=gpumlp.Adam(lr=float(rate), eps=EPS),
                batch_size=self.batch,
                seed=number,
            )
            for number, rate in enumerate(self.rates[:count])
        ]

    def unlike(self) -> list[str]:
        """Lines about candidates whose networks have learnt something else than those of `fit_many`."""
        lines, ours = [], self.losses[OURS]
        for name, losses in self.losses.items():
            far = float(np.abs(losses / ours[: len(losses)] - 1).max())
            if not far <= SAME:  # NaN is not
                lines.append(f"{self.name}, {self.members} networks, {name}: a loss differs by {far:.1%}")
        return lines


def own_candidates(task: ManyTask, device: str) -> dict[str, Make]:
    """`fit_many`, one network's fit and, on the native executor, fits one after another on one thread."""

    def many(trainers: Sequence[Any], epochs: int) -> None:
        gpumlp.fit_many(trainers, task.X, task.y, epochs=epochs, progress=False)

    def single(trainers: Sequence[Any], epochs: int) -> None:
        for trainer in trainers:
            trainer.fit(task.X, task.y, epochs=epochs, progress=False)

    def alone(trainers: Sequence[Any], epochs: int) -> None:
        with one_thread():
            single(trainers, epochs)

    make = functools.partial(_own, task, device)
    makes = {
        OURS: functools.partial(make, OURS, many, task.members),
        ONE: functools.partial(make, ONE, single, 1),
    }
    if gpumlp.get_backend(device).name == "native":
        makes[ONE_THREAD] = functools.partial(make, ONE_THREAD, alone, min(SINGLE, task.members))
    return makes


def _own(
    task: ManyTask, device: str, name: str, fit: Callable[[Sequence[Any], int], None], count: int
) -> Callable[[], float]:
    """What is timed: a call of more epochs less one of a single epoch, so set-up is not in it."""
    trainers = task.trainers(device, count)

    def turn() -> float:
        times = []
        for epochs in (1, 1 + task.epochs):
            start = time.perf_counter()
            fit(trainers, epochs)
            times.append(time.perf_counter() - start)
            if name not in task.losses:
                task.losses[name] = np.array([trainer.history.loss[0] for trainer in trainers])
        return (times[1] - times[0]) / (task.epochs * task.steps * count)

    return turn
