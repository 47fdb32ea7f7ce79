"""Figures of a model on rows, and the table in which they are printed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from gpumlp.losses import LOSSES
from gpumlp.model import MLP, Ensemble
from gpumlp.tables.preparation import Preparation
from gpumlp.training.trainer import Trainer

__all__ = ["Rows", "evaluate_answers", "evaluate_model", "figures_of", "in_units", "print_figures", "texts"]

Rows = tuple[np.ndarray, np.ndarray]


def evaluate_model(
    model: MLP | Ensemble, prep: Preparation, X: np.ndarray, y: np.ndarray
) -> dict[str, float]:
    """Loss and metrics on prepared rows; the RMSE in units of the target."""
    if isinstance(model, Ensemble):
        return evaluate_answers(np.asarray(model.answers(X)), prep, y)
    return in_units(Trainer(model, loss=prep.loss, optimizer="sgd").evaluate(X, y), prep)


def evaluate_answers(answers: np.ndarray, prep: Preparation, y: np.ndarray) -> dict[str, float]:
    """The same of probabilities or values (n_rows, n_outputs), by whatever they were made."""
    z = _UNDO[LOSSES[prep.loss].link](answers.astype(np.float64))
    n = z.shape[1]
    same = MLP([n, n], init=0.0, dtype="float64", device="numpy")  # so that figures are computed in one place
    same.set_parameters([(np.eye(n), np.zeros(n))])
    return evaluate_model(same, prep, z, y)


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
    for name in next(iter(figures.values())):
        # R2 compares with the spread of the rows, and one row has none
        known = [part for part in figures if name != "r2" or counts[part] > 1]
        cells = dict(zip(known, texts(name, [figures[part][name] for part in known]), strict=True))
        columns.append([name, *(cells.get(part, "-") for part in figures)])
    for row in zip(*columns, strict=True):
        print(f"{row[0]:<11}{row[1]:>9}" + "".join(f"{text:>12}" for text in row[2:]))


def texts(name: str, values: list[float]) -> list[str]:
    """A column of figures: all with the same number of decimals, the smallest with four digits."""
    sizes = [abs(v) for v in values if v and math.isfinite(v)] or [1.0]
    low, high = min(sizes), max(sizes)
    decimals = 4 if name in ("accuracy", "r2") else max(4, 3 - math.floor(math.log10(low)))
    if high >= 1e4:
        decimals = max(0, 7 - math.floor(math.log10(high)))
    return [f"{v:.3e}" if decimals > 8 or high >= 1e9 else f"{v:.{decimals}f}" for v in values]
