"""``gpumlp train`` by the recipe for tables."""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from gpumlp import distributed
from gpumlp.backends import get_backend
from gpumlp.cli.checkpoints import refuse_checkpoint
from gpumlp.cli.figures import figures_of, print_figures
from gpumlp.cli.output import check_outputs
from gpumlp.cli.ranks import together
from gpumlp.cli.reading import print_json
from gpumlp.cli.rows import Given, class_factors, read_given
from gpumlp.cli.tabular import Part, constant_figures, constant_of, figures_on, labels_of, require_sklearn
from gpumlp.errors import UsageError, suggest
from gpumlp.files.atomic import replaces
from gpumlp.plots import plot_trials
from gpumlp.tables import Frame, Table
from gpumlp.tables.base import counted, some
from gpumlp.tabular.saved import save_estimator
from gpumlp.training.progress import Progress

__all__ = ["train_by_recipe"]

_SETTINGS = 8  # networks from which on curves are drawn beside settings
_MOST = 10_000  # training rows whose figures are printed
_KINDS = {
    "number": "numbers",
    "boolean": "true/false",
    "text": "text",
    "category": "categories",
    "date": "dates",
}
Say = Callable[[str], None]


def train_by_recipe(arguments: argparse.Namespace) -> None:
    """Train an estimator of tables, print its figures, save it, and perhaps curves and a report.

    Ctrl-C ends the training; what was learnt until then is saved, if an epoch of a network was finished.
    """
    say: Say = (lambda text: None) if arguments.quiet or arguments.json else print
    given, parts, weights, est = together(arguments, lambda: _begin(arguments, say))
    start = time.perf_counter()
    with Progress(1, False if arguments.quiet or arguments.json else None) as bar:
        interrupted, told = _fit(est, parts, weights, bar)
    if distributed.rank():
        return
    seconds = time.perf_counter() - start
    constant = constant_of(est, parts["train"])
    figures, counts, problem = _judge(est, parts, constant)
    if interrupted and isinstance(problem, KeyboardInterrupt):
        raise problem
    # before anything is printed or drawn: that may fail, or wait for a reader
    old = _save(arguments, est, given, constant, figures, seconds)
    if isinstance(problem, KeyboardInterrupt):
        raise KeyboardInterrupt(f" after the training; the model was saved to {arguments.out}") from None
    if problem is not None:
        raise problem
    for text in told:
        print(f"gpumlp: warning: {text}", file=sys.stderr)
    for text in est.notes_:
        if text not in told:
            say(f"note      {text}")
    say(f"done      {_done_text(est)} in {seconds:.1f} s{', ended by Ctrl-C' if interrupted else ''}\n")
    if arguments.json:
        _print_json(arguments, est, given, figures, counts, seconds)
    else:
        print_figures(figures, counts)
    say(f"\nmodel saved to {arguments.out}{old}")
    _plot(arguments, est, say)
    _report(arguments, est, given, next(reversed(parts.values())), say)
    if interrupted:
        raise KeyboardInterrupt(f"; what was learnt until then was saved to {arguments.out}")


def _begin(
    arguments: argparse.Namespace, say: Say
) -> tuple[Given, dict[str, Part], list[np.ndarray | None], Any]:
    """What can be refused before anything is trained."""
    refuse_checkpoint(arguments)
    check_outputs(arguments)
    require_sklearn()
    get_backend(arguments.device)
    held_out = "validation_fraction" in arguments.given or arguments.split == "ordered"
    share = arguments.validation_fraction if held_out else 0.0
    if arguments.time_limit is not None and distributed.size() > 1:
        raise UsageError("--time-limit is for one process: ranks would plan with clocks of their own")
    if arguments.split == "ordered" and not share:
        raise UsageError("--split ordered needs validation rows, and --validation-fraction is 0")
    given = read_given(arguments, typed=True, validation=share, standardize=False)
    given.say(say, _split_text(arguments, given))
    say(f"columns   {_columns_text(arguments, given.table.X)}")
    parts, weights = _parts(arguments, given)
    return given, parts, weights, _estimator(arguments, given.task)


def _split_text(arguments: argparse.Namespace, given: Given) -> str:
    train, validation, test = map(len, given.rows)
    test += 0 if given.held is None else len(given.held.X)
    own = f"{validation} validation, " if validation else ""
    how = "in their order" if arguments.split == "ordered" else f"seed {arguments.seed}"
    more = "" if validation else "; the recipe holds back some of the former"
    return f"{train} train, {own}{test} test ({how}){more}"


def _done_text(est: Any) -> str:
    """How many networks were trained, and how many of them answer."""
    trained, chosen = len(est.networks_), len(est.ensemble_.members())
    return counted(trained, "network") + (f", {chosen} of which answer," if trained > 1 else "")


def _columns_text(arguments: argparse.Namespace, frame: Frame) -> str:
    """The columns by their kinds."""
    given = {**dict.fromkeys(arguments.categorical, "category"), **dict.fromkeys(arguments.numeric, "number")}
    for name in given:
        if name not in frame:
            option = "--categorical" if name in arguments.categorical else "--numeric"
            raise UsageError(f"{option}: {suggest('column', name, frame.names)}")
    kinds: dict[str, list[str]] = {}
    for column in frame.columns:
        kinds.setdefault(given.get(column.name, column.kind), []).append(column.name)
    parts = [f"{word}: {some(kinds[kind], 6)}" for kind, word in _KINDS.items() if kind in kinds]
    gaps = [column.name for column in frame.columns if column.missing is not None and column.missing.any()]
    lacking = f"; missing values in {some(gaps, 4)}" if gaps else ""
    return "; ".join(parts) + lacking


def _parts(arguments: argparse.Namespace, given: Given) -> tuple[dict[str, Part], list[np.ndarray | None]]:
    """Rows for training, validation and test, those that there are; and weights for the fit of the first two,
    with those of classes."""
    prep, labels, numbers = given.prep, labels_of(given.prep), given.rows

    def targets(table: Table) -> np.ndarray:
        return prep.targets(table, np.float64)

    def part(table: Table, y: np.ndarray) -> Part:
        return Part(table.X, y if labels is None else labels[y], table.w)

    y = targets(given.table)
    factors = class_factors(arguments, prep, y[numbers[0]])
    w = given.table.w
    if factors is not None:
        w = factors[y] if w is None else w * factors[y]
    whole = part(given.table, y)
    names = ("train", "validation", "test")
    parts = {name: whole.take(rows) for name, rows in zip(names, numbers, strict=True) if len(rows)}
    if given.held is not None:
        parts["test"] = part(given.held, targets(given.held))
    return parts, [None if w is None else w[rows] for rows in numbers[:2]]


def _estimator(arguments: argparse.Namespace, task: str) -> Any:
    from gpumlp.tabular.estimators import TabularClassifier, TabularRegressor

    kind = TabularClassifier if task == "classification" else TabularRegressor
    return kind(
        quality=arguments.quality,
        n_networks=arguments.n_networks,
        time_limit=arguments.time_limit,
        categorical=arguments.categorical or None,
        numeric=arguments.numeric or None,
        random_state=arguments.seed % 2**32,
        device=arguments.device,
    )


def _fit(
    est: Any, parts: dict[str, Part], weights: list[np.ndarray | None], bar: Progress
) -> tuple[bool, list[str]]:
    """Fit; whether Ctrl-C ended it, and what was warned of."""

    def show(at: Any) -> None:
        score = next((f", {n} {at.scores[n]:.4g}" for n in ("accuracy", "rmse") if n in at.scores), "")
        bar.show(at.epochs, f"{at.training} of {at.networks} networks{score}", at.of_epochs)

    train, validation = parts["train"], parts.get("validation")
    more: dict[str, Any] = {"progress": show if bar.shown else None, "communicator": "auto"}
    if validation is not None:
        more |= {"X_val": validation.X, "y_val": validation.y, "sample_weight_val": weights[1]}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            est.fit(train.X, train.y, weights[0], **more)
            interrupted = False
        except KeyboardInterrupt:
            if distributed.size() > 1 or not hasattr(est, "ensemble_"):
                raise
            interrupted = True
    return interrupted, [str(each.message) for each in told if each.category is UserWarning]


def _judge(
    est: Any, parts: dict[str, Part], constant: list[float]
) -> tuple[dict[str, dict[str, float]], dict[str, int], BaseException | None]:
    """Figures of each part, and of the constant; numbers of rows; what prevented the rest of them."""
    train, held = parts["train"], est.validation_scores_
    some_rows = np.linspace(0, len(train.y) - 1, min(len(train.y), _MOST)).astype(np.int64)
    judged = {"train": train.take(some_rows), **parts}
    judged["train"] = train.take(some_rows)
    figures, problem = figures_of({name: partial(figures_on, est, part) for name, part in judged.items()})
    counts = {name: len(part.y) for name, part in judged.items()}
    if "validation" not in parts and held and problem is None:
        own = {name: value for name, value in held.items() if not name.startswith("constant_")}
        figures = {"train": figures.pop("train"), "validation": own, **figures}
        counts["validation"] = est.n_validation_rows_
    last = next(reversed(judged))
    if problem is None:
        figures["constant"], counts["constant"] = constant_figures(est, constant, judged[last]), counts[last]
    return figures, counts, problem


def _save(
    arguments: argparse.Namespace,
    est: Any,
    given: Given,
    constant: list[float],
    figures: dict[str, dict[str, float]],
    seconds: float,
) -> str:
    """Save the estimator, with a summary of its training; what to add to the message that it is."""
    summary = {
        "target": given.prep.target,
        "seed": arguments.seed,
        "seconds": round(seconds, 1),
        "constant": constant,
        "figures": {
            part: {name: value for name, value in values.items() if math.isfinite(value)}
            for part, values in figures.items()
        },
    }
    old = replaces(arguments.out)
    save_estimator(est, arguments.out, training=summary)
    arguments.saved.append(arguments.out)
    return old


def _print_json(
    arguments: argparse.Namespace,
    est: Any,
    given: Given,
    figures: dict[str, dict[str, float]],
    counts: dict[str, int],
    seconds: float,
) -> None:
    facts = {
        "model": arguments.out,
        "task": given.task,
        "target": given.prep.target,
        "rows": counts,
        "figures": figures,
        "columns": est.columns_,
        "networks": len(est.networks_),
        "seconds": round(seconds, 3),
        "notes": [*given.table.notes, *est.notes_],
    }
    print_json(facts | ({"classes": given.prep.classes} if given.prep.classes else {}))


def _plot(arguments: argparse.Namespace, est: Any, say: Say) -> None:
    """Draw the curves of the networks, if that was asked for."""
    if arguments.plot is None:
        return
    old, networks = replaces(arguments.plot), est.networks_
    settings = {
        name: [one[name] for one in networks]
        for name in ("lr", "weight_decay", "dropout")
        if len(networks) >= _SETTINGS and len({one.get(name) for one in networks}) > 1
    }
    plot_trials(
        est.curves_,
        [one["loss"] for one in networks],
        settings,
        arguments.plot,
        logarithmic=("lr", "weight_decay"),
        chosen=[one["times"] > 0 for one in networks],
        what="networks",
    )
    arguments.saved.append(arguments.plot)
    say(f"learning curves saved to {arguments.plot}{old}")


def _report(arguments: argparse.Namespace, est: Any, given: Given, part: Part, say: Say) -> None:
    if arguments.report is None:
        return
    from gpumlp.report import write_report

    old = replaces(arguments.report)
    title = f"{given.prep.target} of {os.path.basename(given.table.source)}"
    write_report(arguments.report, est, part.X, part.y, title=title, sample_weight=part.w)
    arguments.saved.append(arguments.report)
    say(f"report saved to {arguments.report}{old}")
