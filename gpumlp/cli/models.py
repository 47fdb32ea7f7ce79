"""``gpumlp evaluate``, ``gpumlp predict`` and ``gpumlp info MODEL``."""

from __future__ import annotations

import argparse
import csv
import io
import os
import sys

import numpy as np

from gpumlp.cli.figures import evaluate_model, print_figures
from gpumlp.cli.output import write_data
from gpumlp.cli.train import digits_table
from gpumlp.errors import UsageError, suggest
from gpumlp.files.archive import shown
from gpumlp.files.atomic import check_apart, check_writable, replaces, replacing
from gpumlp.model import MLP, Ensemble
from gpumlp.model.load import load
from gpumlp.tables import Table, TableError, read_table
from gpumlp.tables.base import counted, printable, some
from gpumlp.tables.preparation import Preparation

__all__ = ["describe", "evaluate", "predict"]


def evaluate(arguments: argparse.Namespace) -> None:
    """Print the figures of a model on a file; for a classifier also those of each class."""
    model, prep = _model(arguments)
    table = _rows(arguments, model, prep, need_target=True)
    X, y = prep.inputs(table.X, model.dtype), prep.targets(table, model.dtype)
    trained = " (all of them, training rows too)" if arguments.data is None else ""
    print(f"model     {model!r}\ndata      {table.source}: {counted(len(X), 'row')}{trained}\n")
    print_figures({"data": evaluate_model(model, prep, X, y)}, {"data": len(X)})
    if prep.task == "classification":
        _print_classes(prep.classes, y, np.asarray(model.predict(X)))


def predict(arguments: argparse.Namespace) -> None:
    """Write the predictions for a file as CSV, one row per row of the file."""
    if arguments.output is not None:
        check_apart([("--output", arguments.output)], [("MODEL", arguments.model), ("DATA", arguments.data)])
        check_writable(arguments.output, "the predictions")
    model, prep = _model(arguments)
    if arguments.proba and prep.task != "classification":
        raise UsageError(f"--proba is for classifiers; {arguments.model!r} is a regression model")
    table = _rows(arguments, model, prep, need_target=False)
    X = prep.inputs(table.X, model.dtype)
    answer = np.asarray(model.predict(X))
    columns: list[list[str]]
    if prep.task == "classification":
        names = np.array(prep.classes)
        columns = [["prediction", *names[answer]]]
    else:
        values = prep.values(answer.astype(np.float64)).reshape(len(X), -1)
        heads = ["prediction"] if values.shape[1] == 1 else [f"prediction{j}" for j in range(values.shape[1])]
        columns = [[head, *_texts(values[:, j], model.dtype)] for j, head in enumerate(heads)]
    if arguments.proba:
        p = np.asarray(model.predict_proba(X))
        columns += [[f"p_{name}", *_texts(p[:, j], model.dtype)] for j, name in enumerate(prep.classes)]
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(zip(*columns, strict=True))
    if arguments.output is None:
        write_data(text.getvalue())
        return
    old = replaces(arguments.output)
    with replacing(arguments.output) as file:
        file.write(text.getvalue().encode())
    print(f"{counted(len(X), 'prediction')} written to {arguments.output}{old}", file=sys.stderr)


def describe(arguments: argparse.Namespace) -> None:
    """Print what a model file holds: the network, what it takes and gives, how it was trained."""
    model, prep = _model(arguments)
    n = model.n_inputs
    lines = {
        "model": repr(model),
        "takes": counted(n, "feature") + (f": {some(prep.features)}" if prep.features else ""),
        "gives": prep.target or prep.task,
        "loss": prep.loss,
    }
    if prep.classes:
        lines["gives"] += f", {len(prep.classes)} classes: {some(prep.classes)}"
    training = model.extra.get("training")
    if isinstance(training, dict):  # of the command line; users may have stored anything
        figures = training.get("figures")
        lines["trained"] = _listed({n: v for n, v in training.items() if n != "figures"})
        lines |= {str(p): _listed(v) for p, v in figures.items()} if isinstance(figures, dict) else {}
    for name, text in lines.items():
        print(f"{printable(shown(name, str, 40)):<12}{printable(shown(text, str, 4000))}")


def _listed(values: object) -> str:
    if not isinstance(values, dict):
        return str(values)
    numbers = {name: f"{v:.4g}" if isinstance(v, float) else v for name, v in values.items()}
    return ", ".join(f"{str(name).replace('_', ' ')} {v}" for name, v in numbers.items())


def _model(arguments: argparse.Namespace) -> tuple[MLP | Ensemble, Preparation]:
    if os.path.isdir(arguments.model):
        raise UsageError(
            f"{arguments.model!r} is a directory; MODEL is a file written by 'gpumlp train' or "
            "'gpumlp tune', or by MLP.save"
        )
    model = load(arguments.model, arguments.device)
    return model, Preparation.of_model(model, arguments.model)


def _digits(arguments: argparse.Namespace, model: MLP | Ensemble, prep: Preparation) -> Table:
    """The rows if no file is given, for a model that takes them."""
    if getattr(arguments, "target", None) or arguments.features:
        raise UsageError("--target and --features need a data file; give DATA after MODEL")
    table, n = digits_table(), model.n_inputs
    if n != table.X.shape[1] or prep.features:
        raise UsageError(
            f"give DATA after MODEL: without it the embedded digits are taken, {table.X.shape[1]} pixels "
            f"without names, and {arguments.model!r} takes {counted(n, 'feature')}"
            f"{f' ({some(prep.features, 3)})' if prep.features else ''}"
        )
    return table


def _rows(
    arguments: argparse.Namespace, model: MLP | Ensemble, prep: Preparation, need_target: bool
) -> Table:
    """The rows of the data file, with the model's features in the model's order."""
    if arguments.data is None:
        return _digits(arguments, model, prep)
    n = model.n_inputs
    ending = os.path.splitext(arguments.data)[1].lower()
    target = getattr(arguments, "target", None) or prep.target or None
    if (
        ending == ".npz"
        and (prep.features or prep.target.lstrip("-").isdigit())
        and not getattr(arguments, "target", None)
    ):
        target = None  # the model knows a column of another kind of file; look for the usual array names
    features = arguments.features
    if features is None and ending not in (".npz", ".npy"):
        features = prep.features or None
    table = read_table(
        arguments.data, target=target, features=features, need_target=need_target, n_features=n
    )
    if table.test is not None:
        print(f"gpumlp: {arguments.data!r} sets test rows apart; these are used", file=sys.stderr)
        table = table.test
    if table.X.shape[1] != n:
        raise TableError(
            f"{table.source!r} has {counted(table.X.shape[1], 'feature column')}, the model was trained with "
            f"{n}"
        )
    if prep.features and table.named and table.names != prep.features:  # a .npz file with feature_names
        place = {name: number for number, name in enumerate(table.names)}
        missing = [name for name in prep.features if name not in place]
        if missing:
            raise TableError(
                f"{table.source!r}: {suggest('feature', missing[0], table.names)} The model was trained with "
                f"{', '.join(prep.features[:12])}."
            )
        table.X = table.X[:, [place[name] for name in prep.features]]
    extra = [name for name in table.skipped if name != prep.target]
    if extra:
        what = "arrays" if ending == ".npz" else "columns"
        print(f"gpumlp: {what} not used by the model: {some(extra)}", file=sys.stderr)
    return table


def _texts(values: np.ndarray, dtype: np.dtype) -> list[str]:
    """Numbers with as many digits as the model's precision carries."""
    return [f"{v:.9g}" for v in values] if dtype == np.float32 else [f"{v:.17g}" for v in values]


def _print_classes(classes: list[str], y: np.ndarray, answer: np.ndarray) -> None:
    classes = [printable(name) for name in classes]
    width = max(11, *(len(name) + 1 for name in classes))
    print(f"\n{'class':<{width}}{'rows':>9}{'recall':>12}{'precision':>12}")
    for number, name in enumerate(classes):
        rows, found = y == number, answer == number
        right = int((rows & found).sum())
        recall, precision = (
            f"{right / count:.4f}" if count else "-" for count in (int(rows.sum()), int(found.sum()))
        )
        print(f"{name:<{width}}{int(rows.sum()):>9}{recall:>12}{precision:>12}")
