"""What a report says in numbers: figures of an estimator on rows, and how much each column matters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpumlp.tables import Frame
from gpumlp.tabular.figures import class_figures, value_figures

__all__ = ["Answers", "Importance", "answers_of", "calibration", "figures", "importances"]

_MOST_ROWS = 2000  # that are permuted: importances need no more digits
_BINS = 10


@dataclass
class Answers:
    """What an estimator says about rows whose targets are known.

    Attributes
    ----------
    y : array (n,)
    predicted : array (n,)
    p : array (n, n_classes) or None
        Probabilities, of a classifier.
    classes : array or None
    """

    y: np.ndarray
    predicted: np.ndarray
    p: np.ndarray | None = None
    classes: np.ndarray | None = None


def answers_of(estimator: Any, X: Any, y: np.ndarray) -> Answers:
    """Those for the rows of a table."""
    if not hasattr(estimator, "classes_"):
        return Answers(np.asarray(y, np.float64), np.asarray(estimator.predict(X), np.float64))
    p = np.asarray(estimator.predict_proba(X))
    return Answers(np.asarray(y), estimator.classes_[p.argmax(axis=1)], p, estimator.classes_)


def figures(answers: Answers, w: np.ndarray | None = None) -> dict[str, float]:
    """See `class_figures` and `value_figures`."""
    y = answers.y
    if answers.p is None or answers.classes is None:
        return value_figures(answers.predicted, y, w)
    place = np.searchsorted(answers.classes, y).clip(0, len(answers.classes) - 1)
    return class_figures(answers.p, np.where(answers.classes[place] == y, place, -1), w)


def calibration(answers: Answers) -> list[tuple[float, float, int]]:
    """Rows in bins of equal size, by the probability of the predicted class (or the value): mean prediction,
    what was true (share of right ones, or mean), and number of rows."""
    if answers.p is None:
        said, true = answers.predicted.ravel(), answers.y.ravel()
    else:
        said, true = answers.p.max(axis=1), (answers.predicted == answers.y).astype(np.float64)
    order = np.argsort(said, kind="stable")
    parts = np.array_split(order, min(_BINS, len(order)))
    return [(float(said[part].mean()), float(true[part].mean()), len(part)) for part in parts]


@dataclass
class Importance:
    """How much worse the first figure is when a column's values are shuffled among the rows."""

    column: str
    mean: float
    deviation: float


def importances(
    estimator: Any, frame: Frame, y: np.ndarray, repeats: int = 3, seed: int = 0
) -> tuple[str, list[Importance]]:
    """Permutation importance (Breiman 2001) of each column, the largest first, on up to 2,000 rows.

    Returns
    -------
    (str, list of Importance)
        What is measured: "accuracy" that is lost, or "RMSE" that is added.
    """
    rng = np.random.default_rng(seed)
    if frame.n_rows > _MOST_ROWS:
        rows = np.sort(rng.permutation(frame.n_rows)[:_MOST_ROWS])
        frame, y = frame.take(rows), y[rows]
    name, judge = _measure(estimator)
    before = judge(frame, y)
    found = []
    for number, column in enumerate(frame.columns):
        if estimator.columns_.get(column.name, "").startswith("not used"):
            found.append(Importance(column.name, 0.0, 0.0))
            continue
        changes = []
        for _ in range(repeats):
            columns = list(frame.columns)
            columns[number] = column.take(rng.permutation(frame.n_rows))
            changes.append(judge(Frame(columns, frame.n_rows, frame.named), y) - before)
        found.append(Importance(column.name, float(np.mean(changes)), float(np.std(changes))))
    return name, sorted(found, key=lambda one: -one.mean)


def _measure(estimator: Any) -> tuple[str, Callable[[Any, np.ndarray], float]]:
    name = "accuracy" if hasattr(estimator, "classes_") else "rmse"
    sign = -1 if name == "accuracy" else 1
    return name, lambda X, y: sign * figures(answers_of(estimator, X, y))[name]
