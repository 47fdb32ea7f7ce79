"""The rows of ``gpumlp train`` and ``tune``: read, with their task, split, and said."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gpumlp.cli.reading import digits_table, read
from gpumlp.errors import UsageError
from gpumlp.losses import LOSSES
from gpumlp.tables import Table, TableError
from gpumlp.tables.base import counted, printable, some
from gpumlp.tables.fit import detect_task, fit_preparation, split_table
from gpumlp.tables.preparation import Preparation

__all__ = ["Given", "class_factors", "read_given"]


@dataclass
class Given:
    """The rows of a training, and what is to be learnt.

    Attributes
    ----------
    table : Table
    held : Table or None
        Test rows of their own.
    task, reason : str
        "classification" or "regression", and why.
    rows : three int arrays
        Numbers of the rows of `table` for training, validation and test.
    prep : Preparation
        Fitted on the training rows.
    """

    table: Table
    held: Table | None
    task: str
    reason: str
    rows: tuple[np.ndarray, np.ndarray, np.ndarray]
    prep: Preparation

    def say(self, say: Callable[[str], None], split: str) -> None:
        """What was found."""
        table, prep = self.table, self.prep
        kind = (
            f"{len(prep.classes)} classes"
            if self.task == "classification"
            else f"target {printable(prep.target)}"
        )
        size = f"{counted(len(table.X), 'row')}, {counted(len(table.names), 'feature')}"
        say(f"data      {table.source}: {size}, {kind}")
        for note in table.notes:
            say(f"note      {note}")
        if table.skipped:
            say(f"not used  {some(table.skipped)}")
        say(f"task      {self.task} ({self.reason})")
        say(f"split     {split}")


def read_given(arguments: argparse.Namespace, *, typed: bool, validation: float, standardize: bool) -> Given:
    """Read the files that `arguments` name, and split their rows.

    Parameters
    ----------
    arguments : Namespace
    typed : bool
        Columns may hold anything.
    validation : float
        Share of the rows that are held out for validation.
    standardize : bool
        See `fit_preparation`.
    """
    table = _read(arguments, typed)
    task, reason, loss = _task(arguments, table)
    held = table.test
    if arguments.test is not None:
        features = table.names if table.named else arguments.features
        held = _read_files(arguments, [arguments.test], typed, features=features)
    if held is not None and len(held.names) != len(table.names):
        raise TableError(
            f"{held.source!r} has {counted(len(held.names), 'feature')}, {table.source!r} has "
            f"{len(table.names)}"
        )
    if held is not None and arguments.test_fraction:
        raise UsageError(
            "test rows were given twice: by --test-fraction and by the file "
            f"{held.source!r}; use --test-fraction 0"
        )
    default = 0.0 if held is not None else 0.15
    test = default if arguments.test_fraction is None else arguments.test_fraction
    rows = split_table(table, arguments.seed, test, validation, ordered=arguments.split == "ordered")
    prep = fit_preparation(table, rows[0], task, loss, standardize)
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
    return Given(table, held, task, reason, rows, prep)


def _read(arguments: argparse.Namespace, typed: bool) -> Table:
    if arguments.data:
        columns = {"features": arguments.features, "drop": arguments.drop}
        return _read_files(arguments, arguments.data, typed, **columns)
    for name in ("target", "features", "drop", "test", "weight"):
        if getattr(arguments, name):
            raise UsageError(
                "--target, --features, --drop, --weight and --test need a data file: "
                f"{arguments.parser.prog} DATA ..."
            )
    return digits_table(typed)


def _read_files(arguments: argparse.Namespace, paths: list[str], typed: bool, **columns: object) -> Table:
    texts = getattr(arguments, "categorical", ())  # as they are written
    more = {"typed": typed, "texts": texts, "weight": arguments.weight, "target": arguments.target}
    return read(arguments, paths, arguments.dtype, **more, **columns)


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


def class_factors(arguments: argparse.Namespace, prep: Preparation, y: np.ndarray) -> np.ndarray | None:
    """A factor for the weight of the rows of each class, by --class-weight; `y` are the training rows'
    class numbers."""
    given, classes = arguments.class_weight, prep.classes
    if given is None:
        return None
    if prep.task != "classification":
        raise UsageError("--class-weight is for classification; this is a regression")
    if given == "balanced":
        counts = np.bincount(y, minlength=len(classes))
        return len(y) / (len(classes) * np.maximum(counts, 1))
    unknown = [name for name in given if name not in classes]
    if unknown:
        raise UsageError(f"--class-weight: there is no class {unknown[0]!r}; classes: {some(classes)}")
    return np.array([given.get(name, 1.0) for name in classes])
