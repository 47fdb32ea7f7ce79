"""``gpumlp evaluate``, ``gpumlp predict`` and ``gpumlp info MODEL``."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

import numpy as np

from gpumlp.cli.figures import classes_of, evaluate_model, print_classes, print_figures
from gpumlp.cli.output import write_data
from gpumlp.cli.reading import digits_table, print_json, read
from gpumlp.cli.tabular import describe_estimator, evaluate_estimator, predict_estimator
from gpumlp.errors import UsageError, suggest
from gpumlp.files.archive import shown
from gpumlp.files.atomic import check_apart, check_writable, replaces, replacing
from gpumlp.model import MLP, Ensemble
from gpumlp.tables import Column, Frame, Table, TableError
from gpumlp.tables.base import counted, printable, some
from gpumlp.tables.preparation import Preparation
from gpumlp.tables.write import csv_text, require_pyarrow, write_parquet
from gpumlp.tabular.load import load

__all__ = ["describe", "evaluate", "predict"]

#: endings of files that hold something else than predictions are written as
_FOREIGN = (
    *(".arrow", ".feather", ".gz", ".h5", ".html", ".ipc", ".json", ".jsonl", ".npy", ".npz", ".ods"),
    *(".onnx", ".orc", ".tsv", ".xls", ".xlsx", ".zip", ".zst"),
)


def evaluate(arguments: argparse.Namespace) -> None:
    """Print the figures of a model on a file; for a classifier also those of each class."""
    model = _model(arguments)
    if hasattr(model, "encoder_"):
        evaluate_estimator(arguments, model)
        return
    if arguments.report is not None:
        raise UsageError(f"--report is about a model of the recipe for tables; {arguments.model!r} is none")
    prep = Preparation.of_model(model, arguments.model)
    table = _rows(arguments, model, prep, need_target=True)
    X, y = prep.inputs(table.X, model.dtype), prep.targets(table, model.dtype)
    figures = evaluate_model(model, prep, X, y, table.w)
    classes = classes_of(prep.classes, y, np.asarray(model.predict(X))) if prep.classes else []
    if arguments.json:
        print_json(
            {"model": arguments.model, "data": table.source, "rows": len(X), "figures": figures}
            | ({"classes": classes} if classes else {})
        )
        return
    trained = "" if arguments.data else " (all of them, training rows too)"
    print(f"model     {model!r}\ndata      {table.source}: {counted(len(X), 'row')}{trained}\n")
    print_figures({"data": figures}, {"data": len(X)})
    if classes:
        print_classes(classes)


def predict(arguments: argparse.Namespace) -> None:
    """Write the predictions for files, one row per row of theirs, as CSV or Parquet."""
    as_parquet = False
    if arguments.output is not None:
        inputs = [("MODEL", arguments.model), *(("DATA", path) for path in arguments.data)]
        check_apart([("--output", arguments.output)], inputs)
        as_parquet = arguments.output.lower().endswith((".parquet", ".pq"))
        foreign = arguments.output.lower().endswith(_FOREIGN)
        check_writable(arguments.output, "the predictions", (".csv", ".parquet") if foreign else ())
    if as_parquet:
        require_pyarrow(arguments.output)
    model, keep_mode = _model(arguments), "label" if as_parquet else "raw"
    of_tables = hasattr(model, "encoder_")
    frame = (predict_estimator if of_tables else _predict_model)(arguments, model, keep_mode)
    if arguments.output is None:
        write_data(csv_text(frame))
        return
    old = replaces(arguments.output)
    with replacing(arguments.output) as file:
        if as_parquet:
            write_parquet(frame, file)
        else:
            file.write(csv_text(frame).encode())
    n = counted(frame.n_rows, "prediction")
    print(f"{n} written to {arguments.output}{old}", file=sys.stderr)


def _predict_model(arguments: argparse.Namespace, model: MLP | Ensemble, keep_mode: str) -> Frame:
    """The predictions for files, behind the columns that are kept."""
    prep = Preparation.of_model(model, arguments.model)
    if arguments.proba and prep.task != "classification":
        raise UsageError(f"--proba is for classifiers; {arguments.model!r} is a regression model")
    table = _rows(arguments, model, prep, need_target=False, keep_mode=keep_mode)
    answer = _answer(model, prep, prep.inputs(table.X, model.dtype), arguments.proba)
    return Frame([*(table.kept.columns if table.kept else ()), *answer], len(table.X), source=table.source)


def _answer(model: MLP | Ensemble, prep: Preparation, X: np.ndarray, proba: bool) -> list[Column]:
    """The columns of the predictions."""
    raw = np.asarray(model.predict(X))
    if prep.task == "classification":
        columns = [Column("prediction", "text", raw.astype(np.int32), None, prep.classes)]
    else:
        values = prep.values(raw.astype(np.float64)).reshape(len(X), -1).astype(model.dtype)
        heads = ["prediction"] if values.shape[1] == 1 else [f"prediction{j}" for j in range(values.shape[1])]
        columns = [Column(head, "number", values[:, j]) for j, head in enumerate(heads)]
    if proba:
        p = np.asarray(model.predict_proba(X))
        columns += [Column(f"p_{name}", "number", p[:, j]) for j, name in enumerate(prep.classes)]
    return columns


def describe(arguments: argparse.Namespace) -> None:
    """Print what a model file holds: the network, what it takes and gives, how it was trained."""
    model = _model(arguments)
    if hasattr(model, "encoder_"):
        describe_estimator(arguments, model)
        return
    prep, n = Preparation.of_model(model, arguments.model), model.n_inputs
    lines = {
        "model": repr(model),
        "takes": counted(n, "feature") + (f": {some(prep.features)}" if prep.features else ""),
        "gives": prep.target or prep.task,
        "loss": prep.loss,
    }
    if prep.classes:
        lines["gives"] += f", {len(prep.classes)} classes: {some(prep.classes)}"
    training = model.extra.get("training")
    if arguments.json:
        facts = {"inputs": model.n_inputs, "features": prep.features, "classes": prep.classes}
        print_json({**lines, **facts, "training": training if isinstance(training, dict) else None})
        return
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


def _model(arguments: argparse.Namespace) -> Any:
    """An MLP, an Ensemble, or an estimator of tables."""
    if os.path.isdir(arguments.model):
        raise UsageError(
            f"{arguments.model!r} is a directory; MODEL is a file written by 'gpumlp train' or "
            "'gpumlp tune', or by MLP.save"
        )
    return load(arguments.model, arguments.device)


def _digits(arguments: argparse.Namespace, model: MLP | Ensemble, prep: Preparation) -> Table:
    """The rows if no file is given, for a model that takes them."""
    if getattr(arguments, "target", None) or arguments.features or getattr(arguments, "keep", None):
        raise UsageError("--target, --features and --keep need a data file; give DATA after MODEL")
    table, n = digits_table(), model.n_inputs
    if n != table.X.shape[1] or prep.features:
        raise UsageError(
            f"give DATA after MODEL: without it the embedded digits are taken, {table.X.shape[1]} pixels "
            f"without names, and {arguments.model!r} takes {counted(n, 'feature')}"
            f"{f' ({some(prep.features, 3)})' if prep.features else ''}"
        )
    return table


def _rows(
    arguments: argparse.Namespace,
    model: MLP | Ensemble,
    prep: Preparation,
    need_target: bool,
    keep_mode: str = "",
) -> Table:
    """The rows of the data files, with the model's features in the model's order."""
    if not arguments.data:
        return _digits(arguments, model, prep)
    n = model.n_inputs
    ending = os.path.splitext(arguments.data[0])[1].lower()
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
    table = read(
        arguments,
        arguments.data,
        model.dtype,
        target=target,
        features=features,
        need_target=need_target,
        n_features=n,
        keep=getattr(arguments, "keep", ()),
        keep_mode=keep_mode,
        weight=getattr(arguments, "weight", None),
    )
    if table.test is not None:
        print(f"gpumlp: {table.source!r} sets test rows apart; these are used", file=sys.stderr)
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
    for note in table.notes:
        print(f"gpumlp: {note}", file=sys.stderr)
    kept = table.kept.names if table.kept else ()
    extra = [name for name in table.skipped if name != prep.target and name not in kept]
    if extra:
        what = "arrays" if ending == ".npz" else "columns"
        print(f"gpumlp: {what} not used by the model: {some(extra)}", file=sys.stderr)
    return table
