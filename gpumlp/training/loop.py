"""The loop over epochs: run one, record it, keep the best, tell the callbacks, decide."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np

from gpumlp.errors import DivergenceError, diverged, parameters_lost
from gpumlp.network import Network
from gpumlp.rows import Rows, SourceRows, epoch_order
from gpumlp.training.history import EarlyStopping, History
from gpumlp.training.hooks import step_hooks
from gpumlp.training.job import told
from gpumlp.training.placement import place
from gpumlp.training.sourced import SourceEpochs

__all__ = ["RECORDED", "WORKING", "Loop"]

#: where a loop can be left for a while: the device has been given an epoch; the epoch has been recorded
WORKING, RECORDED = "working", "recorded"


class Loop:
    """A training on given rows.

    Parameters
    ----------
    trainer : Trainer
        Its settings are read at the beginning of each epoch.
    train, val : Rows or SourceRows
        `val` may be None.
    n_epochs : int
    streaming : bool or None
        See `Trainer.fit`.
    start : float, optional
        When it began, on the clock of `time.perf_counter`.
    """

    def __init__(
        self,
        trainer: Any,
        train: Rows | SourceRows,
        val: Rows | SourceRows | None,
        n_epochs: int,
        streaming: bool | None,
        start: float | None = None,
    ) -> None:
        self._since = time.perf_counter() if start is None else start  # time that no epoch has been given
        self.trainer = trainer
        self.train: Any = train
        self.val: Any = val
        self.n_epochs, self._streaming = n_epochs, streaming
        self._called = bool(trainer.callbacks)  # now: a callback may change the list
        self._place()

    def _place(self) -> None:
        """Rows and plans on the device where the model is."""
        self.engine, self._made_for = self.trainer.engine, self._plans_need()
        self.epochs, self.evaluation = place(
            self.engine, self.train, self.val, self.trainer.batch_size, self._streaming
        )
        self._drawn: tuple[int, int] | None = None

    def _plans_need(self) -> tuple:
        """What rows and plans were made for; plans follow everything else by themselves."""
        return self.trainer.batch_size, *self.trainer.model.activations

    def run(self, stop: EarlyStopping | None, callbacks: Sequence[Callable[[Any, History], Any]]) -> None:
        """Train; what happened is in the trainer's history, even if an exception ends the training."""
        for _ in self.pieces(stop, callbacks):
            pass

    def pieces(
        self,
        stop: EarlyStopping | None,
        callbacks: Sequence[Callable[[Any, History], Any]],
        calling: Callable[[Callable], Callable] = lambda callback: callback,
    ) -> Generator[str, None, None]:
        """`run`, in pieces: `WORKING` comes when an epoch's work has been given to the device, `RECORDED`
        when another epoch is to follow.  Closing it there ends the training, as a callback would.

        `calling` makes of a callback what is to be called in this thread."""
        trainer, history = self.trainer, self.trainer.history
        self._hooks = step_hooks(trainer, callbacks, calling)
        called = [calling(callback) for callback in callbacks]
        watch = stop or EarlyStopping("val_loss" if self.val else "loss", patience=self.n_epochs)
        best = Best(watch, trainer.model if stop and stop.restore_best else None, self._fetch)
        self.engine.precision.refresh()
        self._skipped = self.engine.precision.loss_scale()[1]
        try:
            for number in range(self.n_epochs):
                history.append((yield from self._epoch(number)))
                best.look(history)
                ended = self._tell(called, history)
                history.stopped_early = stop is not None and history.age >= stop.patience
                if history.stopped_early or ended:
                    break
                yield RECORDED
        except DivergenceError as error:
            history.diverged(error)
            raise
        finally:  # also after divergence or Ctrl-C
            self._leave()
            best.restore()
            if len(history):
                history.metrics["seconds"][-1] += self._passed()
            trainer.history = history  # a callback may have called `fit`

    def _tell(self, callbacks: Sequence[Callable[[Any, History], Any]], history: History) -> bool:
        """Call the callbacks; whether one of them, on any rank, ends the training."""
        trainer, communicator = self.trainer, self.trainer.communicator

        def call() -> bool:
            return any([bool(callback(trainer, history)) for callback in callbacks])  # noqa: C419 - call all

        if communicator is None or communicator.size == 1:
            return call()
        return told(communicator, trainer, call)

    def _epoch(self, number: int) -> Generator[str, None, dict[str, float]]:
        """One pass over the rows; its figures."""
        trainer = self.trainer
        self._follow()
        engine, epochs = self.engine, self.epochs
        self._draw()
        table = trainer.table(epochs.batch_weights(), (self.n_epochs - number) * epochs.n_steps)
        with engine.backend.range(f"gpumlp:epoch {trainer.epoch + 1}"):
            trainer.set_output()
            if self._hooks is not None:
                epochs.hooks = self._hooks
            epochs.run(table)
            trainer.epoch += 1
            if self.evaluation:
                self.evaluation.run()
        yield WORKING
        if number + 1 < self.n_epochs:
            self._draw()  # now, while the device works
        sums = self._read_sums()
        self._check(sums, number)
        figures = {"loss": float(sums[0]) / epochs.weight, "lr": float(table["lr"][-1])}
        if self.evaluation:
            figures.update((f"val_{name}", v) for name, v in self.evaluation.figures(sums[1:3]).items())
        if engine.precision.scaler is not None:
            figures["skipped"], self._skipped = int(sums[-1]) - self._skipped, int(sums[-1])
        return {**figures, "seconds": self._passed()}

    def _passed(self) -> float:
        """Seconds since this was asked for the last time."""
        before, self._since = self._since, time.perf_counter()
        return self._since - before

    @property
    def part(self) -> float:
        """How much of the running epoch is done, as far as the host sees it: 0 <= part < 1."""
        epochs = getattr(self, "epochs", None)  # a `Seat` that waits for its plan has none
        return getattr(epochs, "part", 0.0) % 1.0

    def _read_sums(self) -> np.ndarray:
        """The engine's sums on the host; waits for the device."""
        return self.engine.read_sums()

    def _fetch(self) -> None:
        """Bring the parameters to the model, if they are elsewhere."""

    def _leave(self) -> None:
        """The training ends: bring everything that belongs to the trainer home."""

    def _follow(self) -> None:
        """Take over what callbacks have changed since the last epoch."""
        if not self._called:
            return
        if self.trainer.engine is not self.engine or self._plans_need() != self._made_for:
            self._place()
        self.engine.precision.refresh()  # of the parameters

    def _draw(self) -> None:
        """Write the order of the next epoch, if that has not been done."""
        draw = self.trainer.seed, self.trainer.epoch
        if isinstance(self.epochs, SourceEpochs):
            self.epochs.draw = draw
        elif draw != self._drawn:
            epoch_order(*draw, self.train.n_rows, self.epochs.order, self.train.index)
            self._drawn = draw

    def _check(self, sums: np.ndarray, number: int) -> None:
        """DivergenceError if the loss of the epoch, or a parameter after it, is not finite."""
        lr = self.trainer.optimizer.lr
        if not math.isfinite(sums[0]):
            raise diverged(float(sums[0]), number, self.epochs.first_bad_step(), lr)
        if sums[3]:
            raise parameters_lost(int(sums[3]), number, lr)


class Best:
    """The best epoch so far and, if they are to be restored, the parameters after it.

    Parameters
    ----------
    watch : EarlyStopping
        Says what is better.
    network : Network, optional
        Its parameters are kept, from now on: those at the start are better than NaN.
    fetch : callable
        Called before they are read.
    """

    def __init__(
        self, watch: EarlyStopping, network: Network | None = None, fetch: Callable[[], None] = lambda: None
    ) -> None:
        self._watch, self._network, self._fetch = watch, network, fetch
        self._value: float | None = None
        self._backend: Any = None
        self._keep()

    def _keep(self) -> None:
        network = self._network
        if network is None:
            return
        self._fetch()
        if self._backend is not network.backend:
            self._backend = network.backend
            self._kept = network.backend.empty(network.flat_size, network.dtype)
        self._backend.copy(self._kept, network.flat)

    def look(self, history: History) -> None:
        """See whether the last epoch is the best."""
        value = history.metrics[self._watch.monitor][-1]
        if self._watch.better(value, self._value):
            self._value, history.best_epoch = value, len(history) - 1
            self._keep()

    def restore(self) -> None:
        """Put the kept parameters back, if there are any."""
        network = self._network
        if network is not None:
            same = self._backend is network.backend
            network.backend.copy(network.flat, self._kept if same else self._backend.to_numpy(self._kept))
