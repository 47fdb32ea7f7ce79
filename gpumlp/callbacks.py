"""Callbacks for `Trainer`: between steps, and ready ones for logs and checkpoints.

A callback is any function of the trainer and its `History`, called after every epoch.  The classes here are
such functions with more: `EverySteps` is called between steps too, and what derives from `StepCallback` may
be.  In `fit_many` give each trainer its own; they are called in the calling thread.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from typing import Any

from gpumlp import checks
from gpumlp.training.history import EarlyStopping, History
from gpumlp.training.hooks import Step, StepCallback

__all__ = ["CSVLogger", "Checkpoint", "EverySteps", "MLflow", "Step", "StepCallback", "TensorBoard"]


class EverySteps(StepCallback):
    """Calls ``function(trainer, step)`` after every `every`-th step.

    The steps stay those of a recorded plan, which is run in pieces; parameters and history are the same to
    the bit.  What the function reads is that of the running epoch: with moving averages `trainer.model` has
    the parameters themselves, and a learning rate that it assigns counts from the next epoch on.  It may
    write to the parameters, but not move the model; save the trainer after an epoch.  In
    `fit_many` on CUDA a trainer with such a callback has a plan of its own.

    Parameters
    ----------
    every : int
        Steps are counted as the optimiser's `t`, over epochs and fits.
    function : callable
        Of the trainer and a `Step`: `step.number`, `step.epoch`, `step.lr`, `step.loss`, and if `norms`
        `step.layers`, `step.grad_norms`, `step.update_norms`, `step.weight_norms`.  If it returns True, the
        training ends after the epoch.
    norms : bool
        Compute norms per layer, on the device, at these steps only.

    Examples
    --------
    >>> import numpy as np, gpumlp
    >>> from gpumlp.callbacks import EverySteps
    >>> X = np.linspace(-1, 1, 64).reshape(-1, 1)
    >>> model = gpumlp.MLP([1, 8, 1], "tanh", device="cpu")
    >>> seen = []
    >>> look = EverySteps(3, lambda trainer, step: seen.append((step.number, step.epoch)))
    >>> trainer = gpumlp.Trainer(model, loss="huber", optimizer="adam", batch_size=16, callbacks=[look])
    >>> _ = trainer.fit(X, X[:, 0] ** 2, epochs=2)  # four steps each
    >>> seen
    [(3, 1), (6, 2)]
    """

    def __init__(self, every: int, function: Callable[[Any, Step], Any], *, norms: bool = False) -> None:
        self.every = checks.whole("EverySteps: every", every)
        if not callable(function):
            raise TypeError(
                f"EverySteps: function={function!r}; expected a function of the trainer and a Step"
            )
        self.function, self.norms = function, checks.flag("EverySteps: norms", norms)
        self._ended = False

    def step(self, trainer: Any, step: Step) -> None:
        """See `StepCallback`."""
        if self.function(trainer, step):
            self._ended = True

    def __call__(self, trainer: Any, history: History) -> bool:
        ended, self._ended = self._ended, False
        return ended


class _Scalars(StepCallback):
    """Base of what writes named numbers somewhere.

    Numbers of an epoch and of a step are both written for the number of steps done, so that curves of both
    lie over each other.
    """

    def __init__(self, every: int | None, norms: bool) -> None:
        name = type(self).__name__
        self.every = None if every is None else checks.whole(f"{name}: every", every)
        self.norms = checks.flag(f"{name}: norms", norms)
        if self.norms and self.every is None:
            raise ValueError(f"{name}: norms are those of steps; say how often, every=100")

    def write(self, trainer: Any, values: dict[str, float], number: int) -> None:
        """Write what is known after step `number`."""
        raise TypeError(f"{type(self).__name__} must define write()")

    def step(self, trainer: Any, step: Step) -> None:
        """See `StepCallback`."""
        values = {"step/loss": step.loss, "step/lr": step.lr}
        if self.norms:
            for n, layer in enumerate(layer.replace(" ", "_") for layer in step.layers):
                values[f"grad_norm/{layer}"] = step.grad_norms[n]
                values[f"update_norm/{layer}"] = step.update_norms[n]
                values[f"weight_norm/{layer}"] = step.weight_norms[n]
        self.write(trainer, values, step.number)

    def __call__(self, trainer: Any, history: History) -> None:
        values = {f"epoch/{name}": float(each[-1]) for name, each in history.metrics.items()}
        self.write(trainer, values, trainer.optimizer.t)


class TensorBoard(_Scalars):
    """Writes the figures of each epoch (and of steps) for TensorBoard; needs the package `tensorboard`.

    Parameters
    ----------
    directory : path
        Of this run; ``tensorboard --logdir`` is given it, or the one above it.
    every : int, optional
        Write loss and learning rate every so many steps too.
    norms : bool
        And norms of gradients, updates and parameters, per layer.
    """

    def __init__(self, directory: Any, *, every: int | None = None, norms: bool = False) -> None:
        super().__init__(every, norms)
        self.directory = os.fspath(directory)
        self._writer: Any = None
        self._library()

    @staticmethod
    def _library() -> Any:
        try:
            from tensorboard.summary import Writer
        except ImportError as error:
            raise ImportError(
                f"gpumlp.callbacks.TensorBoard needs the package tensorboard ({error}); install it with: "
                "pip install tensorboard"
            ) from None
        return Writer

    def write(self, trainer: Any, values: dict[str, float], number: int) -> None:
        """See `_Scalars`."""
        if self._writer is None:
            self._writer = self._library()(self.directory)
        for name, value in values.items():
            self._writer.add_scalar(name, value, number)
        self._writer.flush()

    def close(self) -> None:
        """Close the file; a later training opens another one."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_writer": None}


class MLflow(_Scalars):
    """Logs settings and figures to the active run of MLflow; needs the package `mlflow`.

    Parameters
    ----------
    every, norms
        As for `TensorBoard`.
    run_id : str, optional
        A run other than the active one.
    """

    def __init__(self, *, every: int | None = None, norms: bool = False, run_id: str | None = None) -> None:
        super().__init__(every, norms)
        self.run_id, self._told = run_id, False
        self._library()

    @staticmethod
    def _library() -> Any:
        try:
            import mlflow
        except ImportError as error:
            raise ImportError(
                f"gpumlp.callbacks.MLflow needs the package mlflow ({error}); install it with: "
                "pip install mlflow"
            ) from None
        return mlflow

    def write(self, trainer: Any, values: dict[str, float], number: int) -> None:
        """See `_Scalars`."""
        mlflow, run = self._library(), {} if self.run_id is None else {"run_id": self.run_id}
        if not self._told:
            mlflow.log_params(_settings(trainer), **run)
            self._told = True
        # a slash is a folder in MLflow's pages too
        mlflow.log_metrics(values, step=number, **run)


def _settings(trainer: Any) -> dict[str, Any]:
    rule = trainer.optimizer
    options = {f"optimizer.{name}": value for name, value in rule.hyperparameters().items()}
    return {
        "layer_sizes": trainer.model.layer_sizes,
        "activations": trainer.model.activations,
        "dropout": trainer.model.dropout,
        "loss": trainer.loss.name,
        "optimizer": rule.name,
        **options,
        "batch_size": trainer.batch_size,
        "clip_norm": trainer.clip_norm,
        "seed": trainer.seed,
        "precision": trainer.precision,
    }


class CSVLogger:
    """Writes the figures of each epoch as a row of a CSV file: "epoch", "steps", and those of `History`.

    Parameters
    ----------
    path : path
    append : bool
        Go on with the rows of an existing file, as after `Trainer.load`; else it is replaced.

    Raises
    ------
    ValueError
        The figures are others than the file's columns.
    """

    def __init__(self, path: Any, *, append: bool = False) -> None:
        self.path = os.fspath(path)
        self._columns: list[str] | None = None
        if checks.flag("CSVLogger: append", append) and os.path.exists(self.path):
            with open(self.path, newline="", encoding="utf-8") as file:
                self._columns = next(csv.reader(file), None)

    def __call__(self, trainer: Any, history: History) -> None:
        row = {"epoch": trainer.epoch, "steps": trainer.optimizer.t}
        row |= {name: values[-1] for name, values in history.metrics.items()}
        new = self._columns is None
        if new:
            self._columns = list(row)
        elif self._columns != list(row):
            raise ValueError(
                f"{self.path!r} has the columns {', '.join(self._columns or ())}; this training has "
                f"{', '.join(row)}. Give it a CSVLogger of its own"
            )
        with open(self.path, "w" if new else "a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerows([*([list(row)] if new else []), list(row.values())])


class Checkpoint:
    """Saves the training, atomically: `Trainer.load` goes on from the file.

    Parameters
    ----------
    path : path
        "{epoch}" in it becomes the number of the epoch; else each file replaces the last one.
    every : int
        Epochs between two files.
    best_only : bool
        Only when `monitor` is better than ever.
    monitor : str, optional
        A recorded metric; by default val_loss, or loss without validation rows.
    mode : str
        "min", "max", or "auto" (max for accuracy and R2).
    """

    def __init__(
        self,
        path: Any,
        *,
        every: int = 1,
        best_only: bool = False,
        monitor: str | None = None,
        mode: str = "auto",
    ) -> None:
        self.path, self.every = os.fspath(path), checks.whole("Checkpoint: every", every)
        self.best_only = checks.flag("Checkpoint: best_only", best_only)
        if monitor is not None and not self.best_only:
            raise ValueError("Checkpoint: monitor says what is best; it needs best_only=True")
        self.monitor, self.mode = monitor, mode
        EarlyStopping(monitor or "loss", mode=mode)  # checks both
        self.best: float | None = None

    def __call__(self, trainer: Any, history: History) -> None:
        if self.best_only:
            monitor = self.monitor or ("val_loss" if "val_loss" in history else "loss")
            if monitor not in history:
                raise ValueError(
                    f"Checkpoint: no metric {monitor!r} was recorded; recorded: {', '.join(history.metrics)}"
                )
            value = history[monitor][-1]
            if not EarlyStopping(monitor, mode=self.mode).better(value, self.best):
                return
            self.best = value
        elif len(history) % self.every:
            return
        trainer.save(self.path.replace("{epoch}", str(trainer.epoch)))
