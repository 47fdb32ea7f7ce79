"""``gpumlp train``."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from gpumlp import distributed
from gpumlp.backends import get_backend
from gpumlp.cli.checkpoints import Checkpoints, check_checkpoint
from gpumlp.cli.figures import Rows, evaluate_model, figures_of, print_figures
from gpumlp.cli.networks import (
    check_loss,
    fill_defaults,
    make_optimizer,
    make_trainer,
    training_text,
)
from gpumlp.cli.output import check_outputs
from gpumlp.cli.ranks import ranks_of, together
from gpumlp.cli.reading import print_json
from gpumlp.cli.rows import class_factors, read_given
from gpumlp.cli.ways import by_recipe
from gpumlp.errors import DivergenceError, UsageError
from gpumlp.files.atomic import replaces
from gpumlp.model import MLP, Ensemble
from gpumlp.optimizers import Optimizer
from gpumlp.plots import plot_history
from gpumlp.tables.base import counted
from gpumlp.tables.preparation import Preparation
from gpumlp.training.history import EarlyStopping, History
from gpumlp.training.trainer import Trainer

__all__ = ["Data", "diverged", "prepare", "save", "train"]

_DIGITS_DROPOUT = 0.2


@dataclass
class Data:
    """What the network takes: (X, y, weights or None) of each part; and factors on the weights by class, that
    the training alone takes."""

    prep: Preparation
    train: Rows
    validation: Rows | None
    test: Rows | None
    factors: np.ndarray | None = None

    def weights(self, rows: Rows) -> np.ndarray | None:
        """Those of a training."""
        _, y, w = rows
        if self.factors is None:
            return w
        return self.factors[y] if w is None else w * self.factors[y]

    def judging(self, rows: Rows) -> tuple[np.ndarray, ...]:
        """Rows as a trainer takes those for validation."""
        w = self.weights(rows)
        return rows[:2] if w is None else (*rows[:2], w)

    def learnt_from(self) -> Iterator[np.ndarray | None]:
        """The arrays of training and validation rows."""
        for rows in (self.train, self.validation):
            if rows is not None:
                yield from (*rows[:2], self.weights(rows))

    def parts(self) -> dict[str, Rows]:
        """Those that have rows, by name."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: rows for name, rows in parts.items() if rows is not None}


def train(arguments: argparse.Namespace) -> None:
    """Train, print figures, save the model and perhaps the learning curves.

    Ctrl-C ends the training; what was learnt until then is saved, if an epoch was finished.
    """
    if together(arguments, lambda: by_recipe(arguments)):
        from gpumlp.cli.recipe import train_by_recipe

        train_by_recipe(arguments)
        return
    say = (lambda text: None) if arguments.quiet or arguments.json else print
    optimizer, data, checkpoints = together(arguments, lambda: _begin(arguments, say))
    trainer = checkpoints.trainer(lambda: _trainer(arguments, data, optimizer))
    model = trainer.model
    say(f"model     {model!r}{_dropout_text(model)}")
    say(f"training  {training_text(arguments, data.prep.loss, trainer.optimizer)}")
    if arguments.resume:
        say(f"resumed   {checkpoints.describe()}")
    start = time.perf_counter()
    stop = EarlyStopping(patience=arguments.early_stopping) if arguments.early_stopping else None
    interrupted = _fit(arguments, trainer, data, stop)
    history, seconds = checkpoints.history(trainer.history), time.perf_counter() - start
    best = f", best weights of epoch {(history.best_epoch or 0) + 1} restored" if stop else ""
    end = ", ended by Ctrl-C (once more: nothing is saved)" if interrupted else ""
    done = f"done      {counted(len(history), 'epoch')} in {seconds:.1f} s{best}{end}\n"
    if interrupted:
        say(done)
    parts = data.parts()
    figures, problem = figures_of(
        {
            name: partial(evaluate_model, model, data.prep, *rows, trainer=trainer)
            for name, rows in parts.items()
        }
    )
    if interrupted and isinstance(problem, KeyboardInterrupt):
        raise problem
    if distributed.rank():
        if problem is not None:
            raise problem
        return
    # before anything is printed or drawn: that may fail, or wait for a reader
    old = save(arguments, model, data.prep, figures, epochs=len(history))
    if isinstance(problem, KeyboardInterrupt):
        raise KeyboardInterrupt(f" after the training; the model was saved to {arguments.out}") from None
    if problem is not None:
        raise problem
    if not interrupted:
        say(done)
    _print(arguments, len(history), figures, {part: len(rows[1]) for part, rows in parts.items()})
    say(f"\nmodel saved to {arguments.out}{old}")
    _plot(arguments, model, data.prep, history, say)
    if interrupted:
        which = (
            f"the weights of epoch {(history.best_epoch or 0) + 1}" if stop else "the weights at that moment"
        )
        epoch = min(len(history) + 1, arguments.epochs)
        raise KeyboardInterrupt(f" in epoch {epoch}; {which} were saved to {arguments.out}")


def _begin(arguments: argparse.Namespace, say: Any) -> tuple[Optimizer, Data, Checkpoints]:
    """What can be refused before anything is trained."""
    check_outputs(arguments)
    optimizer = make_optimizer(arguments, lr=arguments.lr, weight_decay=arguments.weight_decay)
    _check_options(arguments)
    data = prepare(arguments, say)
    fill_defaults(arguments, len(data.train[1]))
    return optimizer, data, Checkpoints(arguments, data.learnt_from())


def _fit(arguments: argparse.Namespace, trainer: Trainer, data: Data, stop: EarlyStopping | None) -> bool:
    """Train for the epochs that are left; whether Ctrl-C ended it."""
    done = trainer.epoch
    if done == arguments.epochs:
        return False
    try:
        trainer.fit(
            *data.train[:2],
            epochs=arguments.epochs - done,
            validation=None if data.validation is None else data.judging(data.validation),
            sample_weight=data.weights(data.train),
            early_stopping=stop,
            progress=False if arguments.quiet or arguments.json else None,
        )
    except KeyboardInterrupt:
        if distributed.size() > 1 or (not len(trainer.history) and not done):
            raise
        return True
    except DivergenceError as error:
        raise diverged(arguments, error, trainer.optimizer) from None
    return False


def _print(
    arguments: argparse.Namespace, epochs: int, figures: dict[str, dict[str, float]], counts: dict[str, int]
) -> None:
    if arguments.json:
        print_json({"model": arguments.out, "epochs": epochs, "rows": counts, "figures": figures})
    else:
        print_figures(figures, counts)


def _dropout_text(model: MLP) -> str:
    rates = [model.dropout] if isinstance(model.dropout, (int, float)) else model.dropout
    return f", dropout {','.join(f'{p:g}' for p in rates)}" if any(rates) else ""


def _trainer(arguments: argparse.Namespace, data: Data, optimizer: Optimizer) -> Trainer:
    layers = len(arguments.hidden)
    dropout = arguments.dropout or [0.0 if arguments.data else _DIGITS_DROPOUT]
    return make_trainer(
        arguments,
        data.prep,
        data.train[0].shape[1],
        arguments.hidden,
        optimizer,
        dropout=dropout if len(dropout) == layers else dropout[0],
        seed=arguments.seed,
        **ranks_of(distributed.size() > 1),
    )


def _check_options(arguments: argparse.Namespace) -> None:
    """Before a table is read, which may take long: what can be refused without it."""
    layers = len(arguments.hidden)
    for name, values in (("--dropout", arguments.dropout), ("--activation", arguments.activation)):
        if values and len(values) not in (1, layers):
            raise UsageError(
                f"{name} has {len(values)} entries, and --hidden has {counted(layers, 'layer')}; give one, "
                "or one each"
            )
    check_loss(arguments)
    check_checkpoint(arguments)
    if arguments.early_stopping and arguments.validation_fraction == 0:
        raise UsageError("--early-stopping needs validation rows, and --validation-fraction is 0")
    get_backend(arguments.device)


def diverged(
    arguments: argparse.Namespace, error: DivergenceError, optimizer: Optimizer, what: str = "training"
) -> DivergenceError:
    """The error in words of the command line."""
    ways = [f"--lr {min(optimizer.lr / 10, type(optimizer)().lr):g}"]
    if arguments.clip_norm is None or arguments.clip_norm > 1:
        ways.append("--clip-norm 1")
    if arguments.no_standardize:
        ways.append("leave out --no-standardize")
    more = f", or {ways[-1]}" if len(ways) > 1 else ""
    return DivergenceError(
        f"{what} diverged: {error.where}; no model was saved. Try {', '.join(ways[:-1] or ways)}{more}"
    )


def prepare(arguments: argparse.Namespace, say: Any) -> Data:
    """Read the table, split it and prepare its rows; say what was found."""
    share = arguments.validation_fraction
    given = read_given(arguments, typed=False, validation=share, standardize=not arguments.no_standardize)
    prep, table, rows = given.prep, given.table, given.rows
    y = prep.targets(table, arguments.dtype)

    def part(numbers: np.ndarray) -> Rows | None:
        w = None if table.w is None else table.w[numbers]
        return (prep.inputs(table.X, arguments.dtype, numbers), y[numbers], w) if len(numbers) else None

    train, validation, test = map(part, rows)
    if given.held is not None:
        held = given.held
        test = (prep.inputs(held.X, arguments.dtype), prep.targets(held, arguments.dtype), held.w)
    assert train is not None
    factors = class_factors(arguments, prep, train[1])
    how = "in their order" if arguments.split == "ordered" else f"seed {arguments.seed}"
    n_test = 0 if test is None else len(test[1])
    given.say(say, f"{len(rows[0])} train, {len(rows[1])} validation, {n_test} test ({how})")
    return Data(prep, train, validation, test, factors)


def save(
    arguments: argparse.Namespace,
    model: MLP | Ensemble,
    prep: Preparation,
    figures: dict[str, dict[str, float]],
    **summary: Any,
) -> str:
    """Save the model, with a `summary` of its training; what to add to the message that it is."""
    summary |= {
        "optimizer": arguments.optimizer,
        "batch_size": arguments.batch_size,
        "seed": arguments.seed,
        "figures": {
            part: {name: value for name, value in values.items() if math.isfinite(value)}
            for part, values in figures.items()
        },
    }
    old = replaces(arguments.out)
    model.extra = {"preparation": prep.to_dict(), "training": summary}
    model.save(arguments.out)
    arguments.saved.append(arguments.out)
    return old


def _plot(arguments: argparse.Namespace, model: MLP, prep: Preparation, history: History, say: Any) -> None:
    """Draw the learning curves, if that was asked for."""
    if arguments.plot is None:
        return
    old = replaces(arguments.plot)
    plot_history(
        history,
        arguments.plot,
        target=prep.target if prep.task == "regression" else "",
        target_scale=prep.target_scale,
        restored=arguments.early_stopping is not None,
        dropout=bool(_dropout_text(model)),
    )
    arguments.saved.append(arguments.plot)
    say(f"learning curves saved to {arguments.plot}{old}")
