"""Figures of a model on rows, and the table in which they are printed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gpumlp.losses import LOSSES
from gpumlp.model import MLP, Ensemble
from gpumlp.tables.base import printable
from gpumlp.tables.preparation import Preparation
from gpumlp.tabular.figures import class_figures
from gpumlp.training.trainer import Trainer

__all__ = [
    "Rows",
    "classes_of",
    "evaluate_answers",
    "evaluate_model",
    "figures_of",
    "in_units",
    "print_classes",
    "print_figures",
    "texts",
]

#: X, y, weights
Rows = tuple[np.ndarray, np.ndarray, "np.ndarray | None"]


def evaluate_model(
    model: MLP | Ensemble,
    prep: Preparation,
    X: np.ndarray,
    y: np.ndarray,
    w: np.ndarray | None = None,
    *,
    trainer: Trainer | None = None,
) -> dict[str, float]:
    """Loss and metrics on prepared rows, by the model's `trainer` if there is one; the RMSE in units of the
    target."""
    if isinstance(model, Ensemble):
        return evaluate_answers(np.asarray(model.answers(X)), prep, y, w)
    trainer = trainer or Trainer(model, loss=prep.loss, optimizer="sgd")
    figures = in_units(trainer.evaluate(X, y, w), prep)
    if prep.classes:
        area = class_figures(np.asarray(model.predict_proba(X)), y, w).get("auc")
        figures |= {} if area is None else {"auc": area}
    return figures


def evaluate_answers(
    answers: np.ndarray, prep: Preparation, y: np.ndarray, w: np.ndarray | None = None
) -> dict[str, float]:
    """The same of probabilities or values (n_rows, n_outputs), by whatever they were made."""
    z = _UNDO[LOSSES[prep.loss].link](answers.astype(np.float64))
    n = z.shape[1]
    same = MLP([n, n], init=0.0, dtype="float64", device="numpy")  # so that figures are computed in one place
    same.set_parameters([(np.eye(n), np.zeros(n))])
    same.output = LOSSES[prep.loss].link
    return evaluate_model(same, prep, z, y, w)


def _log(p: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(p, np.finfo(np.float64).tiny))


#: link -> from what it gives to what it is given
_UNDO = {
    "softmax": _log,
    "sigmoid": lambda p: _log(p) - _log(1 - p),
    "exp": _log,
    "identity": lambda z: z,
}


def figures_of(
    parts: Mapping[str, Callable[[], dict[str, float]]],
) -> tuple[dict[str, dict[str, float]], BaseException | None]:
    """The figures of each part of the data, and the exception that prevented the rest of them, if any."""
    figures: dict[str, dict[str, float]] = {}
    try:
        for name, evaluate in parts.items():
            figures[name] = evaluate()
    except BaseException as error:
        return figures, error
    return figures, None


def in_units(figures: dict[str, float], prep: Preparation) -> dict[str, float]:
    """The RMSE in units of the target."""
    return {
        name: value * prep.target_scale if name.endswith("rmse") else value for name, value in figures.items()
    }


def print_figures(figures: dict[str, dict[str, float]], counts: dict[str, int]) -> None:
    """A table: one line per part of the data, one column per figure."""
    columns = [["", *figures], ["rows", *(str(counts[part]) for part in figures)]]
    for name in dict.fromkeys(name for each in figures.values() for name in each):
        # R2 compares with the spread of the rows, and one row has none
        known = [part for part in figures if name in figures[part] and (name != "r2" or counts[part] > 1)]
        cells = dict(zip(known, texts(name, [figures[part][name] for part in known]), strict=True))
        columns.append([_HEADS.get(name, name), *(cells.get(part, "-") for part in figures)])
    for row in zip(*columns, strict=True):
        print(f"{row[0]:<11}{row[1]:>9}" + "".join(f"{text:>12}" for text in row[2:]))


_HEADS = {"auc": "AUC", "log_loss": "log loss"}


def texts(name: str, values: list[float]) -> list[str]:
    """A column of figures: all with the same number of decimals, the smallest with four digits."""
    sizes = [abs(v) for v in values if v and math.isfinite(v)] or [1.0]
    low, high = min(sizes), max(sizes)
    decimals = 4 if name in ("accuracy", "r2", "auc") else max(4, 3 - math.floor(math.log10(low)))
    if high >= 1e4:
        decimals = max(0, 7 - math.floor(math.log10(high)))
    return [f"{v:.3e}" if decimals > 8 or high >= 1e9 else f"{v:.{decimals}f}" for v in values]


def classes_of(names: list[str], y: np.ndarray, answer: np.ndarray) -> list[dict[str, Any]]:
    """Rows, recall and precision of each class; None where there is nothing to divide by."""
    figures = []
    for number, name in enumerate(names):
        rows, found = y == number, answer == number
        right, n_rows, n_found = int((rows & found).sum()), int(rows.sum()), int(found.sum())
        figures.append(
            {
                "name": name,
                "rows": n_rows,
                "recall": right / n_rows if n_rows else None,
                "precision": right / n_found if n_found else None,
            }
        )
    return figures


def print_classes(classes: list[dict[str, Any]]) -> None:
    """A table of them."""
    width = max(11, *(len(printable(each["name"])) + 1 for each in classes))
    print(f"\n{'class':<{width}}{'rows':>9}{'recall':>12}{'precision':>12}")
    for each in classes:
        recall, precision = ("-" if each[n] is None else f"{each[n]:.4f}" for n in ("recall", "precision"))
        print(f"{printable(each['name']):<{width}}{each['rows']:>9}{recall:>12}{precision:>12}")
