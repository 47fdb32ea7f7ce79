"""``gpumlp train``."""

from __future__ import annotations

import argparse
import math
import sys
import time
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np

from gpumlp.backends import get_backend
from gpumlp.cli.reading import digits_table, print_json, read
from gpumlp.errors import DivergenceError, UsageError, suggest
from gpumlp.files.atomic import check_apart, check_writable, replaces
from gpumlp.losses import LOSSES
from gpumlp.model import MLP
from gpumlp.model.saved import save_model
from gpumlp.optimizers import OPTIMIZERS, Optimizer
from gpumlp.plots import PLOT_ENDINGS, plot_history, require_matplotlib
from gpumlp.tables import Table, TableError
from gpumlp.tables.base import counted, printable, some
from gpumlp.tables.fit import detect_task, fit_preparation, split_table
from gpumlp.tables.preparation import Preparation
from gpumlp.training.history import EarlyStopping, History
from gpumlp.training.trainer import Trainer

__all__ = ["in_units", "print_figures", "train"]

_DIGITS_DROPOUT = 0.2
Rows = tuple[np.ndarray, np.ndarray]


@dataclass
class _Data:
    """What the network takes: (X, y) of each part."""

    prep: Preparation
    train: Rows
    validation: Rows | None
    test: Rows | None


def train(arguments: argparse.Namespace) -> None:
    """Train, print figures, save the model and perhaps the learning curves.

    Ctrl-C ends the training; what was learnt until then is saved, if an epoch was finished.
    """
    say = (lambda text: None) if arguments.quiet or arguments.json else print
    _check_outputs(arguments)
    optimizer = _optimizer(arguments)
    _check_options(arguments)
    data = _prepare(arguments, say)
    _fill_defaults(arguments, len(data.train[1]))
    model, trainer = _build(arguments, data, optimizer)
    say(f"model     {model!r}{_dropout_text(model)}")
    say(f"training  {_training_text(arguments, data.prep.loss, trainer.optimizer)}")
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
        raise _diverged(arguments, error, trainer.optimizer) from None
    history, seconds = trainer.history, time.perf_counter() - start
    best = f", best weights of epoch {(history.best_epoch or 0) + 1} restored" if stop else ""
    end = ", ended by Ctrl-C (once more: nothing is saved)" if interrupted else ""
    done = f"done      {counted(len(history), 'epoch')} in {seconds:.1f} s{best}{end}\n"
    if interrupted:
        say(done)
    figures, problem = _figures(trainer, data)
    if interrupted and isinstance(problem, KeyboardInterrupt):
        raise problem
    # before anything is printed or drawn: that may fail, or wait for a reader
    old = _save(arguments, model, data.prep, history, figures)
    if isinstance(problem, KeyboardInterrupt):
        raise KeyboardInterrupt(f" after the training; the model was saved to {arguments.out}") from None
    if problem is not None:
        raise problem
    if not interrupted:
        say(done)
    counts = {"train": len(data.train[1]), "validation": _count(data.validation), "test": _count(data.test)}
    if arguments.json:
        print_json({"model": arguments.out, "epochs": len(history), "rows": counts, "figures": figures})
    else:
        print_figures(figures, counts)
    say(f"\nmodel saved to {arguments.out}{old}")
    _plot(arguments, model, data.prep, history, say)
    if interrupted:
        which = (
            f"the weights of epoch {(history.best_epoch or 0) + 1}" if stop else "the weights at that moment"
        )
        epoch = min(len(history) + 1, arguments.epochs)
        raise KeyboardInterrupt(f" in epoch {epoch}; {which} were saved to {arguments.out}")


def _figures(trainer: Trainer, data: _Data) -> tuple[dict[str, dict[str, float]], BaseException | None]:
    """The figures of each part of the data, and the exception that prevented the rest of them, if any."""
    figures: dict[str, dict[str, float]] = {}
    try:
        for name, rows in (("train", data.train), ("validation", data.validation), ("test", data.test)):
            if rows is not None:
                figures[name] = in_units(trainer.evaluate(*rows), data.prep)
    except BaseException as error:
        return figures, error
    return figures, None


def print_figures(figures: dict[str, dict[str, float]], counts: dict[str, int]) -> None:
    """A table: one line per part of the data, one column per figure."""
    columns = [["", *figures], ["rows", *(str(counts[part]) for part in figures)]]
    for name in next(iter(figures.values())):
        # R2 compares with the spread of the rows, and one row has none
        known = [part for part in figures if name != "r2" or counts[part] > 1]
        texts = dict(zip(known, _texts(name, [figures[part][name] for part in known]), strict=True))
        columns.append([name, *(texts.get(part, "-") for part in figures)])
    for row in zip(*columns, strict=True):
        print(f"{row[0]:<11}{row[1]:>9}" + "".join(f"{text:>12}" for text in row[2:]))


def _texts(name: str, values: list[float]) -> list[str]:
    """A column of figures: all with the same number of decimals, the smallest with four digits."""
    sizes = [abs(v) for v in values if v and math.isfinite(v)] or [1.0]
    low, high = min(sizes), max(sizes)
    decimals = 4 if name in ("accuracy", "r2") else max(4, 3 - math.floor(math.log10(low)))
    if high >= 1e4:
        decimals = max(0, 7 - math.floor(math.log10(high)))
    return [f"{v:.3e}" if decimals > 8 or high >= 1e9 else f"{v:.{decimals}f}" for v in values]


def _dropout_text(model: MLP) -> str:
    rates = [model.dropout] if isinstance(model.dropout, (int, float)) else model.dropout
    return f", dropout {','.join(f'{p:g}' for p in rates)}" if any(rates) else ""


def _training_text(arguments: argparse.Namespace, loss: str, optimizer: Optimizer) -> str:
    """Loss, optimiser and what was set besides: nothing that has its default value."""
    options = [f"lr {optimizer.lr:g}"]
    for f in fields(optimizer):
        value = getattr(optimizer, f.name)
        if f.init and f.name != "lr" and value != f.default:
            text = ",".join(f"{v:g}" for v in value) if isinstance(value, (tuple, list)) else value
            text = f"{text:g}" if isinstance(text, float) else text
            options.append(f.name if text is True else f"{f.name} {text}")
    parts = [loss, f"{arguments.optimizer} ({', '.join(options)})"]
    if arguments.schedule is not None:
        parts.append(f"{arguments.schedule} schedule")
    if arguments.clip_norm is not None:
        parts.append(f"clip norm {arguments.clip_norm:g}")
    stop = arguments.early_stopping
    limit = f"{'at most ' if stop else ''}{counted(arguments.epochs, 'epoch')}"
    return ", ".join(
        [*parts, f"batch {arguments.batch_size}", limit, *([f"patience {stop}"] if stop else [])]
    )


def _count(rows: Rows | None) -> int:
    return 0 if rows is None else len(rows[1])


def _check_outputs(arguments: argparse.Namespace) -> None:
    """Before anything is read or trained: can the results be written, and not over the data?"""
    check_apart(
        [("--out", arguments.out), ("--plot", arguments.plot)],
        [*(("DATA", path) for path in arguments.data), ("--test", arguments.test)],
    )
    check_writable(arguments.out, "the model", (".npz",))
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
    if arguments.early_stopping and arguments.validation_fraction == 0:
        raise UsageError("--early-stopping needs validation rows, and --validation-fraction is 0")
    get_backend(arguments.device)


def _diverged(arguments: argparse.Namespace, error: DivergenceError, optimizer: Optimizer) -> DivergenceError:
    """The error in words of the command line."""
    ways = [f"--lr {min(optimizer.lr / 10, type(optimizer)().lr):g}"]
    if arguments.clip_norm is None or arguments.clip_norm > 1:
        ways.append("--clip-norm 1")
    if arguments.no_standardize:
        ways.append("leave out --no-standardize")
    more = f", or {ways[-1]}" if len(ways) > 1 else ""
    return DivergenceError(
        f"training diverged: {error.where}; no model was saved. Try {', '.join(ways[:-1] or ways)}{more}"
    )


def _optimizer(arguments: argparse.Namespace) -> Optimizer:
    rule = OPTIMIZERS[arguments.optimizer]
    values: dict[str, Any] = dict(arguments.optimizer_option)
    known = [f.name for f in fields(rule) if f.init]
    for name in values:
        if name not in known:
            raise UsageError(
                f"--optimizer-option: {suggest(f'option of {arguments.optimizer}', name, known)}"
            )
    for name in ("lr", "weight_decay"):
        given = getattr(arguments, name)
        if given is not None:
            if name in values:
                raise UsageError(
                    f"{name} was given twice, by --{name.replace('_', '-')} and by --optimizer-option"
                )
            values[name] = given
    return rule(**values)


def _read(arguments: argparse.Namespace) -> Table:
    if arguments.data:
        columns = {"target": arguments.target, "features": arguments.features, "drop": arguments.drop}
        return read(arguments, arguments.data, arguments.dtype, **columns)
    if arguments.target or arguments.features or arguments.drop or arguments.test:
        raise UsageError("--target, --features, --drop and --test need a data file: gpumlp train DATA ...")
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


def _prepare(arguments: argparse.Namespace, say: Any) -> _Data:
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
    return _Data(prep, train_rows, parts[1], parts[2])


def _fill_defaults(arguments: argparse.Namespace, n_rows: int) -> None:
    """Batch size and epochs by the number of rows: a small table needs more passes for enough steps."""
    if arguments.batch_size is None:
        arguments.batch_size = 32 if n_rows < 1000 else 64 if n_rows < 20_000 else 128
    if arguments.epochs is None:
        steps = math.ceil(n_rows / arguments.batch_size)
        arguments.epochs = min(200, max(40, math.ceil(800 / steps)))


def _build(arguments: argparse.Namespace, data: _Data, optimizer: Optimizer) -> tuple[MLP, Trainer]:
    prep, layers = data.prep, len(arguments.hidden)
    outputs = len(prep.classes) if LOSSES[prep.loss].classes else 1
    dropout = arguments.dropout or [0.0 if arguments.data else _DIGITS_DROPOUT]
    activation = arguments.activation
    model = MLP(
        [data.train[0].shape[1], *arguments.hidden, outputs],
        activation if len(activation) == layers else activation[0],
        dropout=dropout if len(dropout) == layers else dropout[0],
        seed=arguments.seed,
        dtype=arguments.dtype,
        device=arguments.device,
    )
    trainer = Trainer(
        model,
        loss=prep.loss,
        optimizer=optimizer,
        batch_size=arguments.batch_size,
        l1=arguments.l1,
        l2=arguments.l2,
        clip_norm=arguments.clip_norm,
        schedule=arguments.schedule,
        seed=arguments.seed,
    )
    return model, trainer


def in_units(figures: dict[str, float], prep: Preparation) -> dict[str, float]:
    """The RMSE in units of the target."""
    return {name: value * prep.target_scale if name == "rmse" else value for name, value in figures.items()}


def _save(
    arguments: argparse.Namespace,
    model: MLP,
    prep: Preparation,
    history: History,
    figures: dict[str, dict[str, float]],
) -> str:
    """Save the model; what to add to the message that it is."""
    summary = {
        "epochs": len(history),
        "optimizer": arguments.optimizer,
        "batch_size": arguments.batch_size,
        "seed": arguments.seed,
        "figures": {
            part: {name: value for name, value in values.items() if math.isfinite(value)}
            for part, values in figures.items()
        },
    }
    old = replaces(arguments.out)
    save_model(model, arguments.out, {"preparation": prep.to_dict(), "training": summary})
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
