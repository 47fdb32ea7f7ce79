"""Callbacks between the steps of an epoch: the plan is run in pieces, and stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np

from gpumlp import checks
from gpumlp.backends.base import Plan, Steps
from gpumlp.kernels.rows import SUM_SQUARES
from gpumlp.plans import sum_ops

__all__ = ["Norms", "Step", "StepCallback", "StepHooks", "is_stepwise", "step_hooks"]


class StepCallback:
    """Base of callbacks that are called between steps too; see `gpumlp.callbacks.EverySteps`.

    Attributes
    ----------
    every : int or None
        `step` is called after each step whose number (the optimiser's `t`) is a multiple of it; None: never.
    norms : bool
        Whether the steps that it is shown have norms.
    """

    every: int | None = None
    norms: bool = False

    def step(self, trainer: Any, step: Step) -> None:
        """Called after a step."""

    def __call__(self, trainer: Any, history: Any) -> Any:
        """Called after an epoch; True ends the training."""
        return None


class Step:
    """A step that has just been done, of a running epoch.

    Attributes
    ----------
    number : int
        Steps done so far, this one included: the optimiser's `t`.
    epoch : int
        Number of the running epoch, from 1.
    lr : float
        Learning rate of the step.
    """

    def __init__(
        self, number: int, epoch: int, lr: float, loss: Callable[[], np.ndarray], norms: Norms | None
    ) -> None:
        self.number, self.epoch, self.lr = number, epoch, lr
        self._loss: Callable[[], np.ndarray] | None = loss
        self._value: float | None = None
        self._norms = norms

    @property
    def loss(self) -> float:
        """Mean training loss of the steps since the last call in this epoch; read from the device when it is
        first asked for, which must be in the callback.  With a communicator all ranks ask for it, or none."""
        if self._value is None:
            if self._loss is None:
                raise ValueError("the loss of a step can be asked for while its callback runs, not later")
            total, weight = self._loss()
            self._value = float(total / weight)
        return self._value

    def over(self) -> None:
        """The callback has ended."""
        self._loss = None

    @property
    def layers(self) -> list[str]:
        """What the norms are of: "layer 1", ..., and "embedding" if there is one."""
        return self._measured().layers

    @property
    def grad_norms(self) -> list[float]:
        """Norm of the gradient of each layer, weights and biases together: of the mean loss of the batch,
        without penalties, before clipping."""
        return self._measured().grads

    @property
    def update_norms(self) -> list[float]:
        """Norm of the change that the step has made to each layer."""
        return self._measured().updates

    @property
    def weight_norms(self) -> list[float]:
        """Norm of each layer's parameters after the step."""
        return self._measured().weights

    def _measured(self) -> Norms:
        if self._norms is None:
            raise ValueError("norms were not asked for: EverySteps(n, function, norms=True)")
        return self._norms


class Norms:
    """Norms of gradient, update and parameters, per layer; computed on the device and read in one copy.

    Parameters
    ----------
    engine : Engine
    """

    def __init__(self, engine: Any) -> None:
        self.engine, network, backend = engine, engine.network, engine.backend
        parts = [slice(layer.offset, layer.offset + layer.size) for layer in network.layers]
        self.layers = [f"layer {n}" for n in range(1, len(parts) + 1)]
        if network.embedded:
            parts.append(slice(parts[-1].stop, network.flat_size))
            self.layers.append("embedding")
        #: the parameters before the step, then what it has added
        self._before = backend.empty(network.flat_size, network.dtype)
        #: sums of squares, and the loss scale that the gradient of the step has
        self._out = backend.zeros(3 * len(parts) + 1, network.dtype)
        backend.copy(self._out[-1:], np.ones(1, network.dtype))
        ops: list[Any] = []
        for array in (engine.grads, self._before, network.flat):
            for part in parts:
                place = self._out[(n := len(ops) // 2) : n + 1]
                ops += sum_ops(backend, array[part], part.stop - part.start, place, SUM_SQUARES)
        self._plan: Plan = backend.record(ops, Steps(backend))
        self.grads: list[float] = []
        self.updates: list[float] = []
        self.weights: list[float] = []

    def serves(self, engine: Any) -> bool:
        """Whether this is of the arrays that the engine has now."""
        return engine is self.engine

    def start(self) -> None:
        """Before the step that is to be measured, which may change the loss scale."""
        backend, scaler = self.engine.backend, self.engine.precision.scaler
        backend.copy(self._before, self.engine.network.flat)
        if scaler is not None:
            backend.copy(self._out[-1:], scaler[:1])

    def measured(self) -> Norms:
        """After it; the norms are in this object until they are measured again."""
        backend, flat = self.engine.backend, self.engine.network.flat
        with backend.active():
            backend.xp.subtract(flat, self._before, out=self._before)
        self._plan.run()
        with np.errstate(all="ignore"):
            out = backend.to_numpy(self._out).astype(np.float64)
            norms = np.sqrt(out[:-1]).reshape(3, -1)
            norms[0] /= out[-1]
        self.grads, self.updates, self.weights = (row.tolist() for row in norms)
        return self


def is_stepwise(callbacks: Iterable[Any]) -> bool:
    """Whether one of them wants to be called between steps."""
    return any(isinstance(c, StepCallback) and c.every is not None for c in callbacks)


def step_hooks(trainer: Any, callbacks: Sequence[Any], calling: Callable[[Callable], Callable]) -> Any:
    """What an epoch does between steps; None if none of the callbacks wants that.

    `calling` makes of a function one that is called where callbacks are to be called.
    """
    hooks = [c for c in callbacks if isinstance(c, StepCallback) and c.every is not None]
    for hook in hooks:
        checks.whole(f"{type(hook).__name__}: every", hook.every)
    return StepHooks(trainer, hooks, calling) if hooks else None


class StepHooks:
    """Runs an epoch in pieces, with calls between them.

    Parameters
    ----------
    trainer : Trainer
    hooks : sequence of StepCallback
    calling : callable
        See `step_hooks`.
    """

    def __init__(
        self, trainer: Any, hooks: Sequence[StepCallback], calling: Callable[[Callable], Callable]
    ) -> None:
        self._trainer = trainer
        self._hooks = [(hook, calling(hook.step)) for hook in hooks]
        self._norms: Norms | None = None
        self._epoch = -1
        self._before = np.zeros((0, 2))

    def drive(self, epochs: Any, lr: np.ndarray, inv_weight: np.ndarray) -> None:
        """All steps of `epochs`, a `ResidentEpochs`, with these columns of the step table."""
        optimizer, done = epochs.engine.optimizer, 0
        t, lr = optimizer.t, np.broadcast_to(lr, epochs.n_steps)
        weights = 1 / np.broadcast_to(inv_weight, epochs.n_steps)
        if self._epoch != self._trainer.epoch:
            self._epoch, self._before = self._trainer.epoch, np.zeros((len(self._hooks), 2))
        since, before = [0] * len(self._hooks), self._before

        def sums(n: int, last: int) -> np.ndarray:
            """Loss and weight of the steps since hook `n` was called."""
            own = epochs.loss_between(since[n], last), weights[since[n] : last].sum()
            return np.asarray(before[n] + own)

        while done < epochs.n_steps:
            pause = min(hook.every - (t + done) % hook.every for hook, _ in self._hooks if hook.every)
            if done + pause > epochs.n_steps:
                epochs.advance(done, epochs.n_steps - done)
                break
            done += pause
            due = [n for n, (hook, _) in enumerate(self._hooks) if (t + done) % (hook.every or 1) == 0]
            norms = self._advance(epochs, done - pause, pause, any(self._hooks[n][0].norms for n in due))
            optimizer.t = t + done  # what it is for the callback; the epoch counts its steps at the end
            try:
                for n in due:
                    loss = partial(sums, n, done)
                    step = Step(t + done, self._trainer.epoch + 1, float(lr[done - 1]), loss, norms)
                    self._hooks[n][1](self._trainer, step)
                    step.over()
                    since[n], before[n] = done, 0
            finally:
                optimizer.t = t
            if epochs.engine.network.flat is not epochs.engine.flat:
                raise RuntimeError(
                    "a callback between steps has moved the model, which would lose the rest of the epoch; "
                    "move it in a callback after an epoch"
                )
            epochs.engine.precision.refresh()  # a callback may have changed the parameters
        if epochs.total is not None:  # a part of an epoch, whose losses are lost with the next one
            for n in range(len(self._hooks)):
                before[n] = sums(n, epochs.n_steps)

    def _advance(self, epochs: Any, first: int, count: int, measured: bool) -> Norms | None:
        """Do steps; the norms of the last one."""
        if not measured:
            epochs.advance(first, count)
            return None
        norms = self._measuring(epochs.engine)
        epochs.advance(first, count - 1)
        norms.start()
        epochs.advance(first + count - 1, 1)
        return norms.measured()

    def _measuring(self, engine: Any) -> Norms:
        if self._norms is None or not self._norms.serves(engine):
            self._norms = Norms(engine)
        return self._norms
