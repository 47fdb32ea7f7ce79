"""The task that `bench_training.py` gives to every library, and that task done by gpumlp."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import gpumlp
from scripts.shared.inside import epoch_order

LR, EPS, SEED = 1e-3, 1e-8, 0
#: layer sizes, batch, steps per epoch
SHAPES: tuple[tuple[tuple[int, ...], int, int], ...] = (
    ((32, 16, 2), 32, 300),
    ((8, 64, 64, 2), 256, 100),
    ((64, 128, 10), 64, 200),
    ((784, 256, 128, 10), 128, 50),
    ((784, 1024, 1024, 10), 256, 10),
)

#: trains two epochs and gives (seconds, mean loss) of the second
Epoch = Callable[[], tuple[float, float]]


class Task:
    """Data and initial values for one shape."""

    def __init__(self, sizes: Sequence[int], batch: int, steps: int) -> None:
        rng = np.random.default_rng(SEED)
        self.sizes, self.batch, self.steps = list(sizes), batch, steps
        self.X = rng.standard_normal((batch * steps, sizes[0]), np.float32)
        hidden = np.maximum(self.X @ rng.standard_normal((sizes[0], 16), np.float32), 0)
        self.y = (hidden @ rng.standard_normal((16, sizes[-1]), np.float32)).argmax(axis=1)
        start = gpumlp.MLP(self.sizes, seed=SEED, device="numpy")
        self.parameters = [
            (np.array(W), np.array(b)) for W, b in zip(start.weights, start.biases, strict=True)
        ]

    @property
    def name(self) -> str:
        """Sizes and batch, as 32-16-2 (32)."""
        return f"{'-'.join(map(str, self.sizes))} ({self.batch})"

    def order(self, epoch: int) -> np.ndarray:
        """Row order of an epoch, (n,) as gpumlp draws it."""
        return epoch_order(SEED, epoch, len(self.X))

    def start_loss(self) -> float:
        """Mean loss before the first step."""
        z = self.X
        for W, b in self.parameters[:-1]:
            z = np.maximum(z @ W + b, 0)
        W, b = self.parameters[-1]
        z = z @ W + b
        z = z - z.max(axis=1, keepdims=True)
        return float((np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), self.y]).mean())


def with_gpumlp(task: Task, backend: Any, **settings: Any) -> Epoch:
    """The `Trainer`; the time between the ends of two epochs of one `fit`, so set-up is not in it.
    `settings` are further arguments of `Trainer`.

    `fit` draws the row order of the second epoch before the first one ends, so that a device need not wait
    for it; the time of that is added.
    """
    model = gpumlp.MLP(task.sizes, seed=SEED, device=backend.name)
    stamps: list[float] = []
    trainer = gpumlp.Trainer(
        model,
        loss="softmax_cross_entropy",
        optimizer=gpumlp.Adam(lr=LR, eps=EPS),
        batch_size=task.batch,
        seed=SEED,
        callbacks=[lambda _trainer, _history: stamps.append(time.perf_counter())],
        **settings,
    )

    def pair() -> tuple[float, float]:
        stamps.clear()
        start = time.perf_counter()
        task.order(trainer.epoch + 1)
        drawing = time.perf_counter() - start
        history = trainer.fit(task.X, task.y, epochs=2, progress=False)
        return stamps[1] - stamps[0] + drawing, history.loss[-1]

    return pair
