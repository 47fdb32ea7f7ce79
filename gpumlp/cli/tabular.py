"""Estimators of tables on the command line: figures, and what ``evaluate``, ``predict``, ``info`` say."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpumlp.cli.figures import classes_of, print_classes, print_figures
from gpumlp.cli.output import check_report
from gpumlp.cli.reading import digits_table, print_json, read
from gpumlp.errors import UsageError
from gpumlp.files.archive import shown
from gpumlp.files.atomic import check_apart
from gpumlp.tables import Column, Frame, Table, TableError
from gpumlp.tables.base import counted, printable, some
from gpumlp.tables.preparation import Preparation, label_names
from gpumlp.tabular.columns import Category, Codes
from gpumlp.tabular.figures import class_figures, value_figures
from gpumlp.tabular.saved import PARAMETERS

__all__ = [
    "Part",
    "constant_figures",
    "constant_of",
    "describe_estimator",
    "evaluate_estimator",
    "figures_on",
    "labels_of",
    "predict_estimator",
    "require_sklearn",
]


@dataclass
class Part:
    """Rows, their targets (labels or values) and weights."""

    X: Frame
    y: np.ndarray
    w: np.ndarray | None

    def take(self, rows: np.ndarray) -> Part:
        """These rows."""
        return Part(self.X.take(rows), self.y[rows], None if self.w is None else self.w[rows])


def require_sklearn() -> None:
    """ModuleNotFoundError, before work is done, without scikit-learn."""
    try:
        import sklearn  # noqa: F401
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "the recipe for tables needs scikit-learn: pip install 'gpumlp[cli]'; one network on columns of "
            "numbers does without: --hidden 256,128"
        ) from None


# ---- targets -----------------------------------------------------------------------------------
def labels_of(prep: Preparation) -> np.ndarray | None:
    """The classes in the order of their numbers, as numbers if they are; None for a regression."""
    if prep.task == "regression":
        return None
    if not prep.numeric_classes:
        return np.array(prep.classes)
    whole = all(name.removeprefix("-").isdigit() for name in prep.classes)
    labels = np.array([int(name) if whole else float(name) for name in prep.classes])
    return np.array(prep.classes) if labels.dtype.kind == "O" else labels


def preparation_of(est: Any) -> Preparation:
    """What reads the targets of an estimator from a file."""
    target = _training(est).get("target")
    target = target if isinstance(target, str) else ""
    if not hasattr(est, "classes_"):
        return Preparation("regression", "squared_error", target=target)
    numeric = est.classes_.dtype.kind in "iuf"
    names = label_names(est.classes_, True) if numeric else est.classes_
    return Preparation(
        "classification",
        "softmax_cross_entropy",
        target=target,
        classes=[str(name) for name in names],
        numeric_classes=numeric,
    )


# ---- figures -----------------------------------------------------------------------------------
def figures_on(est: Any, part: Part) -> dict[str, float]:
    """Figures of an estimator on rows."""
    if not hasattr(est, "classes_"):
        return value_figures(est.predict(part.X), part.y, part.w)
    return class_figures(est.predict_proba(part.X), _codes(est, part.y), part.w)


def constant_of(est: Any, part: Part) -> list[float]:
    """The best answer that does not look at the columns: shares of the classes, or the mean."""
    if not hasattr(est, "classes_"):
        return [float(np.average(part.y, weights=part.w))]
    counts = np.bincount(_codes(est, part.y), part.w, minlength=len(est.classes_))
    return [float(share) for share in counts / counts.sum()]


def constant_figures(est: Any, constant: list[float], part: Part) -> dict[str, float]:
    """Its figures on rows."""
    answers = np.broadcast_to(np.array(constant), (len(part.y), len(constant)))
    if not hasattr(est, "classes_"):
        return value_figures(answers[:, 0], part.y, part.w)
    return class_figures(answers, _codes(est, part.y), part.w)


def _codes(est: Any, y: np.ndarray) -> np.ndarray:
    """Numbers of labels, -1 for unknown ones."""
    place = np.searchsorted(est.classes_, y).clip(0, len(est.classes_) - 1)
    return np.where(est.classes_[place] == y, place, -1)


# ---- rows of files -----------------------------------------------------------------------------------
def _read(arguments: argparse.Namespace, est: Any, target: str | None, **options: Any) -> Table:
    """The columns that an estimator uses, of data files; those that it does not use are empty."""
    encoder = est.encoder_
    names = [name for name in encoder.names if name in encoder.columns] if encoder.named else None
    ending = os.path.splitext(arguments.data[0])[1].lower()
    if ending == ".npz" and encoder.named and not getattr(arguments, "target", None):
        target = None  # the model knows a column of another kind of file; the usual array names will do
    table = read(
        arguments,
        arguments.data,
        np.float32,
        typed=True,
        texts=list(encoder.modes()),
        target=target,
        features=arguments.features if names is None or ending in (".npz", ".npy") else names,
        n_features=len(encoder.names),
        narrow=False,
        **options,
    )
    table = table.test or table
    if names is not None and table.X.named:
        frame, n = table.X, len(table.X)
        empty = [Column(name, "number", np.full(n, np.nan), np.ones(n, bool)) for name in encoder.dropped]
        columns = {column.name: column for column in (*frame.columns, *empty)}
        table.X = Frame([columns[name] for name in encoder.names], n, True, frame.source)
    elif len(table.X.columns) != len(encoder.names):
        raise TableError(
            f"{table.source!r} has {counted(len(table.X.columns), 'feature column')}, the model was trained "
            f"with {len(encoder.names)}"
        )
    return table


def _table(arguments: argparse.Namespace, est: Any, target: str | None, **options: Any) -> Table:
    """The rows of the files, or the embedded digits; what is not used is told."""
    encoder = est.encoder_
    if not arguments.data:
        table = digits_table(typed=True)
        if encoder.named or len(encoder.names) != len(table.names):
            raise UsageError(
                f"give DATA after MODEL: {arguments.model!r} takes {counted(len(encoder.names), 'column')} "
                f"({some(encoder.names, 3)})"
            )
        return table
    table = _read(arguments, est, target, **options)
    kept = table.kept.names if table.kept else ()
    others = [n for n in table.skipped if n not in encoder.dropped and n != target and n not in kept]
    for note in [*table.notes, *([f"columns not used by the model: {some(others)}"] if others else [])]:
        print(f"gpumlp: {note}", file=sys.stderr)
    return table


# ---- commands -----------------------------------------------------------------------------------
def evaluate_estimator(arguments: argparse.Namespace, est: Any) -> None:
    """Figures on files, beside those of a constant prediction."""
    check_report(arguments.report)
    check_apart([("--report", arguments.report)], [("MODEL", arguments.model), *_named(arguments.data)])
    prep = preparation_of(est)
    target = arguments.target or prep.target or None
    table = _table(arguments, est, target, weight=arguments.weight)
    y, labels = prep.targets(table, np.float64), labels_of(prep)
    part = Part(table.X, y if labels is None else labels[y], table.w)
    figures = {"data": figures_on(est, part)}
    constant = _training(est).get("constant")
    if isinstance(constant, list) and len(constant) == max(1, len(prep.classes)):
        figures["constant"] = constant_figures(est, constant, part)
    classes = classes_of(prep.classes, y, _codes(est, est.predict(part.X))) if prep.classes else []
    if arguments.report is not None:
        from gpumlp.report import write_report

        title = f"{prep.target or 'target'} of {os.path.basename(table.source)}"
        write_report(arguments.report, est, part.X, part.y, title=title, sample_weight=part.w)
        print(f"gpumlp: report saved to {arguments.report}", file=sys.stderr)
    if arguments.json:
        facts = {"model": arguments.model, "data": table.source, "rows": len(y), "figures": figures["data"]}
        facts |= {"constant": figures["constant"]} if "constant" in figures else {}
        print_json(facts | ({"classes": classes} if classes else {}))
        return
    print(f"model     {_name(est)}\ndata      {table.source}: {counted(len(y), 'row')}\n")
    print_figures(figures, dict.fromkeys(figures, len(y)))
    if classes:
        print_classes(classes)


def predict_estimator(arguments: argparse.Namespace, est: Any, keep_mode: str) -> Frame:
    """The predictions for files, behind the columns that are kept."""
    prep = preparation_of(est)
    if arguments.proba and not prep.classes:
        raise UsageError(f"--proba is for classifiers; {arguments.model!r} is a regression model")
    options = {"keep": arguments.keep, "keep_mode": keep_mode, "need_target": False}
    table = _table(arguments, est, prep.target or None, **options)
    answers = est.predict(table.X)
    if not prep.classes:
        values = answers.reshape(len(answers), -1)
        heads = ["prediction"] if values.shape[1] == 1 else [f"prediction{j}" for j in range(values.shape[1])]
        columns = [Column(head, "number", values[:, j]) for j, head in enumerate(heads)]
    elif prep.numeric_classes:
        columns = [Column("prediction", "number", answers)]
    else:
        codes = _codes(est, answers).astype(np.int32)
        columns = [Column("prediction", "text", codes, None, prep.classes)]
    if arguments.proba:
        p = est.predict_proba(table.X)
        columns += [Column(f"p_{name}", "number", p[:, j]) for j, name in enumerate(prep.classes)]
    kept = table.kept.columns if table.kept else []
    return Frame([*kept, *columns], len(answers), source=table.source)


def describe_estimator(arguments: argparse.Namespace, est: Any) -> None:
    """What a file holds: columns, classes, networks, figures, notes."""
    prep, training = preparation_of(est), _training(est)
    figures = {"validation": _plain_figures(est.validation_scores_)}
    stored = training.get("figures")
    figures |= {n: v for n, v in stored.items() if n != "validation"} if isinstance(stored, dict) else {}
    if arguments.json:
        print_json(
            {
                "model": type(est).__name__,
                "parameters": {name: getattr(est, name) for name in PARAMETERS},
                "target": prep.target,
                "columns": est.columns_,
                "classes": prep.classes,
                "networks": est.networks_,
                "figures": {name: values for name, values in figures.items() if values},
                "notes": est.notes_,
                "seconds": training.get("seconds"),
            }
        )
        return
    gives = prep.target or ("classes" if prep.classes else "values")
    gives += f", {len(prep.classes)} classes: {some(prep.classes)}" if prep.classes else ""
    lines = [("model", _name(est)), ("takes", counted(len(est.columns_), "column"))]
    lines += [(f"  {shown(printable(name), str, 24)}", _column_text(est, name)) for name in est.columns_]
    lines += [("gives", gives), ("recipe", _recipe_text(est, training))]
    lines += [(name, _figures_text(values)) for name, values in figures.items() if values]
    lines += [("note", note) for note in est.notes_]
    width = max(12, *(len(name) + 2 for name, _ in lines))
    for name, text in lines:
        print(f"{printable(shown(name, str, 40)):<{width}}{printable(shown(text, str, 4000))}")


def _named(paths: list[str]) -> list[tuple[str, str]]:
    return [("DATA", path) for path in paths]


def _training(est: Any) -> dict[str, Any]:
    """What the command line has stored; users may have stored anything."""
    found = est.ensemble_.extra.get("training")
    return found if isinstance(found, dict) else {}


def _name(est: Any) -> str:
    members = len(est.ensemble_.members())
    what = f"{counted(members, 'network')}, {est.ensemble_.n_params} parameters"
    return f"{type(est).__name__} (quality {est.quality!r}), {what}, {est.ensemble_.models[0].backend.name}"


def _column_text(est: Any, name: str) -> str:
    column, text = est.encoder_.columns.get(name), est.columns_[name]
    if isinstance(column, (Category, Codes)):
        return f"{text}, {len(column.known)}: {some(column.known, 6)}"
    return str(text)


def _recipe_text(est: Any, training: dict[str, Any]) -> str:
    seconds = training.get("seconds")
    took = f", {seconds:g} s" if isinstance(seconds, (int, float)) else ""
    limit = f", time limit {est.time_limit:g} s" if est.time_limit else ""
    chosen = sum(bool(one.get("times", 1)) for one in est.networks_)
    return f"{counted(len(est.networks_), 'network')} trained, {chosen} chosen{limit}{took}"


def _plain_figures(scores: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in scores.items() if not name.startswith("constant_")}


def _figures_text(values: Any) -> str:
    if not isinstance(values, dict):
        return str(values)
    parts = [f"{str(n).replace('_', ' ')} {v:.4g}" for n, v in values.items() if isinstance(v, (int, float))]
    return ", ".join(parts)
