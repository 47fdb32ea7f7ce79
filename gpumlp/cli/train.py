"""``gpumlp train``."""

from __future__ import annotations

import argparse
import math
import sys
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

from gpumlp.backends import get_backend
from gpumlp.cli.figures import Rows, figures_of, in_units, print_figures
from gpumlp.cli.networks import check_loss, fill_defaults, make_optimizer, make_trainer, training_text
from gpumlp.cli.reading import digits_table, print_json, read
from gpumlp.errors import DivergenceError, UsageError
from gpumlp.files.atomic import check_apart, check_writable, replaces
from gpumlp.losses import LOSSES
from gpumlp.model import MLP, Ensemble
from gpumlp.optimizers import Optimizer
from gpumlp.plots import PLOT_ENDINGS, plot_history, require_matplotlib
from gpumlp.tables import Table, TableError
from gpumlp.tables.base import counted, printable, some
from gpumlp.tables.fit import detect_task, fit_preparation, split_table
from gpumlp.tables.preparation import Preparation
from gpumlp.training.history import EarlyStopping, History
from gpumlp.training.trainer import Trainer

__all__ = ["Data", "check_outputs", "diverged", "prepare", "save", "train"]

_DIGITS_DROPOUT = 0.2


@dataclass
class Data:
    """What the network takes: (X, y) of each part."""

    prep: Preparation
    train: Rows
    validation: Rows | None
    test: Rows | None

    def parts(self) -> dict[str, Rows]:
        """Those that have rows, by name."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: rows for name, rows in parts.items() if rows is not None}


def train(arguments: argparse.Namespace) -> None:
    """Train, print figures, save the model and perhaps the learning curves.

    Ctrl-C ends the training; what was learnt until then is saved, if an epoch was finished.
    """
    say = (lambda text: None) if arguments.quiet or arguments.json else print
    check_outputs(arguments)
    optimizer = make_optimizer(arguments, lr=arguments.lr, weight_decay=arguments.weight_decay)
    _check_options(arguments)
    data = prepare(arguments, say)
    fill_defaults(arguments, len(data.train[1]))
    trainer = _trainer(arguments, data, optimizer)
    model = trainer.model
    say(f"model     {model!r}{_dropout_text(model)}")
    say(f"training  {training_text(arguments, data.prep.loss, trainer.optimizer)}")
    start = time.perf_counter()
    stop = EarlyStopping(patience=arguments.early_stopping) if arguments.early_stopping else None
    interrupted = False
    try:
        trainer.fit(
            *data.train,
            epochs=arguments.epochs,
            validation=data.validation,
            early_stopping=stop,
            progress=False if arguments.quiet or arguments.json else None,
        )
    except KeyboardInterrupt:
        if not len(trainer.history):
            raise
        interrupted = True
    except DivergenceError as error:
        raise diverged(arguments, error, trainer.optimizer) from None
    history, seconds = trainer.history, time.perf_counter() - start
    best = f", best weights of epoch {(history.best_epoch or 0) + 1} restored" if stop else ""
    end = ", ended by Ctrl-C (once more: nothing is saved)" if interrupted else ""
    done = f"done      {counted(len(history), 'epoch')} in {seconds:.1f} s{best}{end}\n"
    if interrupted:
        say(done)
    parts = data.parts()
    figures, problem = figures_of(
        {name: partial(_evaluate, trainer, data.prep, rows) for name, rows in parts.items()}
    )
    if interrupted and isinstance(problem, KeyboardInterrupt):
        raise problem
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


def _evaluate(trainer: Trainer, prep: Preparation, rows: Rows) -> dict[str, float]:
    return in_units(trainer.evaluate(*rows), prep)


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
    )


def _count(rows: Rows | None) -> int:
    return 0 if rows is None else len(rows[1])


def check_outputs(arguments: argparse.Namespace, table: str | None = None) -> None:
    """Before anything is read or trained: can the results be written, and not over the data?"""
    check_apart(
        [("--out", arguments.out), ("--plot", arguments.plot), ("--csv", table)],
        [*(("DATA", path) for path in arguments.data), ("--test", arguments.test)],
    )
    check_writable(arguments.out, "the model", (".npz",))
    if table is not None:
        check_writable(table, "the trials")
    if arguments.plot is not None:
        check_writable(arguments.plot, "the learning curves", PLOT_ENDINGS)
        require_matplotlib()


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


def _read(arguments: argparse.Namespace) -> Table:
    if arguments.data:
        columns = {"target": arguments.target, "features": arguments.features, "drop": arguments.drop}
        return read(arguments, arguments.data, arguments.dtype, **columns)
    if arguments.target or arguments.features or arguments.drop or arguments.test:
        raise UsageError(
            f"--target, --features, --drop and --test need a data file: {arguments.parser.prog} DATA ..."
        )
    return digits_table()


def _task(arguments: argparse.Namespace, table: Table) -> tuple[str, str, str]:
    """(task, reason, loss)."""
    assert table.y is not None
    task, reason = arguments.task, "as given"
    if task == "auto" and arguments.loss is not None:
        task = "classification" if LOSSES[arguments.loss].metric == "accuracy" else "regression"
        reason = f"because of --loss {arguments.loss}"
    elif task == "auto":
        task, reason = detect_task(table.y)
    loss = arguments.loss or ("softmax_cross_entropy" if task == "classification" else "squared_error")
    if (LOSSES[loss].metric == "accuracy") != (task == "classification"):
        fitting = [
            n for n, known in LOSSES.items() if (known.metric == "accuracy") == (task == "classification")
        ]
        raise UsageError(
            f"--loss {loss} is not for {task} ({reason}); use one of {', '.join(fitting)}, or another --task"
        )
    return task, reason, loss


def prepare(arguments: argparse.Namespace, say: Any) -> Data:
    """Read the table, split it and prepare its rows; say what was found."""
    table = _read(arguments)
    task, reason, loss = _task(arguments, table)
    held = table.test
    if arguments.test is not None:
        features = table.names if table.named else arguments.features
        held = read(arguments, arguments.test, arguments.dtype, target=arguments.target, features=features)
    if held is not None and held.X.shape[1] != table.X.shape[1]:
        raise TableError(
            f"{held.source!r} has {counted(held.X.shape[1], 'feature')}, {table.source!r} has "
            f"{table.X.shape[1]}"
        )
    default = 0.0 if held is not None else 0.15
    test_fraction = default if arguments.test_fraction is None else arguments.test_fraction
    rows = split_table(table, arguments.seed, test_fraction, arguments.validation_fraction)
    prep = fit_preparation(table, rows[0], task, loss, not arguments.no_standardize)
    if task == "classification" and 2 * len(prep.classes) > len(table.X):
        print(
            f"gpumlp: warning: target {prep.target!r} has {len(prep.classes)} classes in only {len(table.X)} "
            "rows; is this the right column? For a quantity use --task regression",
            file=sys.stderr,
        )
    if LOSSES[loss].link == "sigmoid" and len(prep.classes) != 2:
        raise UsageError(
            f"--loss {loss} is for two classes, the target has {len(prep.classes)}; use softmax_cross_entropy"
        )
    y = prep.targets(table, arguments.dtype)
    inputs = partial(prep.inputs, table.X, arguments.dtype)
    parts: list[Rows | None] = [(inputs(r), y[r]) if len(r) else None for r in rows]
    if held is not None:
        more = (prep.inputs(held.X, arguments.dtype), prep.targets(held, arguments.dtype))
        if parts[2] is not None:
            raise UsageError(
                "test rows were given twice: by --test-fraction and by the file "
                f"{held.source!r}; use --test-fraction 0"
            )
        parts[2] = more
    kind = f"{len(prep.classes)} classes" if task == "classification" else f"target {printable(prep.target)}"
    size = f"{counted(len(table.X), 'row')}, {counted(len(table.names), 'feature')}"
    say(f"data      {table.source}: {size}, {kind}")
    for note in table.notes:
        say(f"note      {note}")
    if table.skipped:
        say(f"not used  {some(table.skipped)}")
    say(f"task      {task} ({reason})")
    say(
        f"split     {len(rows[0])} train, {len(rows[1])} validation, {_count(parts[2])} test "
        f"(seed {arguments.seed})"
    )
    train_rows = parts[0]
    assert train_rows is not None
    return Data(prep, train_rows, parts[1], parts[2])


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
