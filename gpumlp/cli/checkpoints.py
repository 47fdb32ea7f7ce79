"""``gpumlp train --checkpoint FILE --every N --resume``: one network's training that can go on later.

A checkpoint is the file of `Trainer.save`; what the command line needs to know is in its `extra`.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import os
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from gpumlp import distributed
from gpumlp.cli.ranks import ranks_of
from gpumlp.cli.ways import NETWORK
from gpumlp.errors import UsageError
from gpumlp.model.saved import bad_file
from gpumlp.schedules import get_schedule
from gpumlp.tables.base import counted
from gpumlp.training.history import History
from gpumlp.training.trainer import Trainer

__all__ = ["Checkpoints", "check_checkpoint", "refuse_checkpoint"]

_KEY = "checkpoint"  # in `extra`
#: --epochs counts only where the schedule depends on it, see `_settings`
_SETTINGS = (*(name for name in NETWORK if name != "epochs"), "seed")


def refuse_checkpoint(arguments: argparse.Namespace) -> None:
    """UsageError with the recipe, whose many networks have no checkpoint."""
    for word in ("checkpoint", "resume", "every"):
        if word in arguments.given:
            raise UsageError(
                f"--{word} is for the training of one network, and this table is learnt by the recipe; give "
                "an option of the network as well, such as --epochs or --hidden, or leave it out"
            )


def check_checkpoint(arguments: argparse.Namespace) -> None:
    """Before a table is read: do the options fit together, and the file that is there?"""
    path = arguments.checkpoint
    if path is None:
        for word in ("resume", "every"):
            if word in arguments.given:
                raise UsageError(f"--{word} needs --checkpoint FILE")
        return
    if arguments.early_stopping:
        raise UsageError(
            "--checkpoint and --early-stopping exclude each other: a checkpoint does not hold the "
            "best weights so far"
        )
    if os.path.exists(path) and not arguments.resume:
        raise UsageError(
            f"the checkpoint {path!r} exists already; --resume goes on from it, another name or removing it "
            "begins anew"
        )


class Checkpoints:
    """The checkpoints of a training.

    Parameters
    ----------
    arguments : Namespace
        With batch size and epochs.
    rows : iterable of arrays or None
        Training and validation rows: those of a checkpoint must have been the same.

    Attributes
    ----------
    before : dict of str -> list of float
        Figures of the epochs that were done before: with --resume, if the file is there.

    Raises
    ------
    UsageError
        The file is of other settings or rows.
    """

    def __init__(self, arguments: argparse.Namespace, rows: Iterable[Any]) -> None:
        self._device, self.before = arguments.device, {}
        self.path, self._every, self._epochs = arguments.checkpoint, arguments.every, arguments.epochs
        if self.path is None:
            return
        self._settings = _settings(arguments)
        self._rows, self._ranks = _digest(rows), distributed.size() > 1
        if arguments.resume and os.path.exists(self.path):
            found = Trainer.load(self.path, arguments.device)
            self.before = self._check(found)
            self._ranks = found.model.extra[_KEY].get("ranks") is True
            if distributed.size() > 1 and not self._ranks:
                raise UsageError(
                    f"the checkpoint {self.path!r} was written without ranks, which rounds otherwise; "
                    "go on in one process, or begin anew"
                )

    def trainer(self, make: Callable[[], Trainer]) -> Trainer:
        """The one of the file, or a new one, which writes checkpoints."""
        if self.path is None:
            return make()
        found = bool(self.before)
        trainer = Trainer.load(self.path, self._device, **ranks_of(self._ranks)) if found else make()
        trainer.callbacks = [self.keep]
        return trainer

    def describe(self) -> str:
        """What there is to go on from."""
        done = len(self.before.get("loss", ()))
        if not done:
            return f"{self.path!r} is not there yet: the training begins"
        of = f"{done} of {counted(self._epochs, 'epoch')}"
        return f"{of} were done when {self.path!r} was written" + (
            "; nothing is left to train" if done == self._epochs else ""
        )

    def history(self, history: History) -> History:
        """Of all epochs: those that were done before, and those of `history`."""
        if not self.before:
            return history
        names = {**self.before, **history.metrics}
        done = len(next(iter(self.before.values()), ()))
        whole = History(
            {
                name: [
                    *self.before.get(name, [math.nan] * done),
                    *history.metrics.get(name, [math.nan] * len(history)),
                ]
                for name in names
            },
            error=history.error,
        )
        losses = np.array(whole.metrics.get("val_loss", whole.metrics["loss"]))
        if np.isfinite(losses).any():
            whole.best_epoch = int(np.nanargmin(losses))
        return whole

    def keep(self, trainer: Trainer, history: History) -> None:
        """The callback: write a checkpoint, if one is due."""
        if trainer.epoch % self._every and trainer.epoch != self._epochs:
            return
        metrics = self.history(history).metrics
        figures = {
            name: [v if math.isfinite(v) else None for v in map(float, values)]
            for name, values in metrics.items()
        }
        held = {"settings": self._settings, "rows": self._rows, "ranks": self._ranks, "figures": figures}
        trainer.model.extra = {_KEY: held}
        trainer.save(self.path)

    def _check(self, trainer: Trainer) -> dict[str, list[float]]:
        """The figures in the file; an error if it is of other settings or rows."""
        held = trainer.model.extra.get(_KEY)
        if held is None:
            raise UsageError(
                f"{self.path!r} is not a checkpoint of 'gpumlp train'; in Python gpumlp.Trainer.load goes on "
                "from it"
            )
        try:
            settings, rows = dict(held["settings"]), held["rows"]
            figures = {
                name: [math.nan if v is None else float(v) for v in values]
                for name, values in held["figures"].items()
            }
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise bad_file(
                self.path, f"the header's checkpoint lacks what belongs to it ({error!r})"
            ) from None
        if (
            not trainer.epoch
            or {len(values) for values in figures.values()} != {trainer.epoch}
            or "loss" not in figures
        ):
            raise bad_file(self.path, f"its figures are not those of {counted(trainer.epoch, 'epoch')}")
        for name, value in self._settings.items():
            if settings.get(name) != value:
                raise UsageError(
                    f"the checkpoint {self.path!r} was written with --{name.replace('_', '-')} "
                    f"{settings.get(name)}, and now it is {value}; a training goes on with the same settings"
                )
        if rows != self._rows:
            raise UsageError(
                f"the checkpoint {self.path!r} was written while training on other rows: the data, or how "
                "they are split or weighted, have changed"
            )
        if trainer.epoch > self._epochs:
            raise UsageError(
                f"the checkpoint {self.path!r} was written after {counted(trainer.epoch, 'epoch')}; --epochs "
                f"{self._epochs} is less"
            )
        return figures


def _settings(arguments: argparse.Namespace) -> dict[str, str]:
    """What decides how the training goes on, as text, by the names of the options."""
    values = {name: _text(getattr(arguments, name)) for name in _SETTINGS}
    if getattr(get_schedule(arguments.schedule), "needs_total", False):
        values["epochs"] = _text(arguments.epochs)
    return values


def _text(value: Any) -> str:
    if value is None or value == []:
        return "left out"
    if isinstance(value, (list, tuple)):
        return ",".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def _digest(rows: Iterable[Any]) -> str:
    digest = hashlib.sha256()
    for array in rows:
        if array is None:
            digest.update(b"none")
            continue
        digest.update(f"{array.shape} {array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
