"""What has to be known to feed the rows of a table to a network, and to read its answers.

A `Preparation` is stored with the model (`model.extra`), so that later files need no preparation by the user.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from gpumlp.errors import ModelFileError, register_first, suggest
from gpumlp.losses import LOSSES
from gpumlp.model import MLP, Ensemble
from gpumlp.tables.base import Table, TableError, is_yes_no
from gpumlp.tables.words import is_number, number_of

__all__ = ["ROWS_AT_ONCE", "Preparation", "label_names", "numbers_in", "quantities", "quoted"]

ROWS_AT_ONCE = 8192  # that are converted: no float64 copy of the whole table
_LOSS_OF = {
    "softmax": "softmax_cross_entropy",
    "sigmoid": "binary_cross_entropy",
    "identity": "squared_error",
    "exp": "poisson",
}


@dataclass
class Preparation:
    """What has to be known to feed raw rows to a model.

    Attributes
    ----------
    task : str
        "classification" or "regression".
    loss : str
        The loss of the training.
    features : list of str
        Names of the feature columns; empty: columns go by their position.
    target : str
        Name of the target column.
    classes : list of str
        Class names in the order of the class numbers.
    numeric_classes : bool
        The labels were numbers, so "1" and "1.0" are the same class.
    mean, scale : list of float
        Inputs are (x - mean) / scale; empty: as they are.
    target_mean, target_scale : float
        Of a regression target, likewise.
    """

    task: str
    loss: str
    features: list[str] = field(default_factory=list)
    target: str = ""
    classes: list[str] = field(default_factory=list)
    numeric_classes: bool = True
    mean: list[float] = field(default_factory=list)
    scale: list[float] = field(default_factory=list)
    target_mean: float = 0.0
    target_scale: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def of_model(cls, model: MLP | Ensemble, path: str) -> Preparation:
        """What the command line stored with `model`; for one saved from Python, what its output implies.

        Raises
        ------
        ModelFileError
            The stored values make no sense.
        """
        n_out = model.n_outputs
        if model.output == "sigmoid" and n_out > 1:
            raise ModelFileError(
                f"{path!r} answers {n_out} yes-or-no questions at once, which the command line cannot "
                "read from a table; use gpumlp.load in Python"
            )
        if model.output not in _LOSS_OF:
            raise ModelFileError(
                f"{path!r} predicts quantiles, which the command line cannot; use gpumlp.load in Python"
            )
        stored = model.extra.get("preparation")
        if stored is None:
            task = "classification" if model.output in ("softmax", "sigmoid") else "regression"
            n_classes = max(2, n_out) if task == "classification" else 0
            return cls(task, _LOSS_OF[model.output], classes=[str(c) for c in range(n_classes)])
        loss = stored.get("loss") if isinstance(stored, dict) else None
        if isinstance(loss, str) and loss not in LOSSES:
            why = suggest("loss", loss[:100], LOSSES) + register_first("gpumlp.losses.LOSSES", loss[:100])
            raise ModelFileError(f"{path!r} is not a usable gpumlp model: {why}")
        if not isinstance(stored, dict) or not _makes_sense(stored, model):
            raise ModelFileError(
                f"{path!r} is not a usable gpumlp model: its stored preparation (feature names, classes, "
                "scaling) does not fit the network"
            )
        return cls(**stored)

    def inputs(self, X: np.ndarray, dtype: Any, rows: np.ndarray | None = None) -> np.ndarray:
        """Scaled features (n, n_features) of `dtype`, a new array; of some rows, if their numbers are given.

        Raises
        ------
        TableError
            A value is too large for `dtype`.
        """
        n = len(X) if rows is None else len(rows)
        out = np.empty((n, X.shape[1]), dtype)
        mean, scale = np.array(self.mean), np.array(self.scale)
        for start in range(0, n, ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            block = X[part] if rows is None else X[rows[part]]
            with np.errstate(over="ignore", invalid="ignore"):
                out[part] = (block - mean) / scale if self.mean else block
            good = np.isfinite(out[part])
            if not good.all():
                row, column = np.argwhere(~good)[0] + (start, 0)
                row = row if rows is None else rows[row]
                name = repr(self.features[column]) if self.features else f"number {column}"
                scaled = " with the scaling of the training" if self.mean else ""
                raise TableError(
                    f"the value {X[row, column]:g} of feature {name} in row {row} (rows are counted from 0) "
                    f"is too large for {np.dtype(dtype)}{scaled}"
                )
        return out

    def targets(self, table: Table, dtype: Any) -> np.ndarray:
        """Class numbers int64 (n,), or scaled values (n,) of `dtype`.

        Raises
        ------
        TableError
            A label that the model does not know, or text where numbers are expected.
        """
        y = table.y
        assert y is not None
        if self.task == "regression":
            y = quantities(table, "and the task is regression")
            return ((y.astype(np.float64) - self.target_mean) / self.target_scale).astype(dtype)
        names, inverse = np.unique(label_names(y, self.numeric_classes), return_inverse=True)
        place = {name: number for number, name in enumerate(self.classes)}
        if is_yes_no(place):  # Python, R and Excel write them in different cases
            names = np.array([_as_known(str(name), place) for name in names])
        unknown = [str(name) for name in names if str(name) not in place]
        if unknown:
            raise TableError(
                f"{table.source!r}: target {table.target!r} has labels that were not seen in training: "
                f"{quoted(unknown)}; known: {quoted(self.classes)}"
            )
        return np.array([place[str(name)] for name in names], np.int64)[inverse.reshape(-1)]

    def values(self, raw: np.ndarray) -> np.ndarray:
        """Regression output in the units of the target."""
        return raw * self.target_scale + self.target_mean


_STORED: dict[str, tuple[type, ...]] = {
    "task": (str,),
    "loss": (str,),
    "features": (list,),
    "target": (str,),
    "classes": (list,),
    "numeric_classes": (bool,),
    "mean": (list,),
    "scale": (list,),
    "target_mean": (int, float),
    "target_scale": (int, float),
}


def _makes_sense(stored: dict[str, Any], model: MLP | Ensemble) -> bool:
    """Whether a `Preparation` can be made of a file's values, and fits the network."""
    if not {"task", "loss"} <= set(stored) <= set(_STORED):
        return False
    if not all(type(value) in _STORED[key] for key, value in stored.items()):
        return False
    n_in, n_out = model.n_inputs, model.n_outputs
    names, classes = stored.get("features", []), stored.get("classes", [])
    mean, scale = stored.get("mean", []), stored.get("scale", [])
    factors = [*scale, stored.get("target_scale", 1.0)]
    classifies = model.output in ("softmax", "sigmoid")
    loss = LOSSES.get(stored["loss"])
    return (
        stored["task"] == ("classification" if classifies else "regression")
        and loss is not None
        and loss.link == model.output
        and all(map(_is_text, [*names, *classes, stored.get("target", "")]))
        and all(map(_is_number, [*mean, *factors, stored.get("target_mean", 0.0)]))
        and min(factors) > 0
        and len(names) == len(set(names))
        and len(names) in (0, n_in)
        and len(mean) == len(scale)
        and len(mean) in (0, n_in)
        and (not classifies or len(classes) == len(set(classes)) == max(2, n_out))
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def label_names(y: np.ndarray, numeric: bool) -> np.ndarray:
    """Labels as text; numbers in their shortest form, so that 1 and 1.0 are one class."""
    if y.dtype.kind == "U" and not numeric:
        return y
    distinct, inverse = np.unique(y, return_inverse=True)
    return np.array([_label(v) for v in distinct.tolist()])[inverse.reshape(-1)]


def _label(value: Any) -> str:
    text = str(value)
    if text.removeprefix("-").isdigit() and text.isascii():  # also more digits than float64 holds
        return str(int(text))
    number = number_of(text)
    if math.isnan(number):  # text among labels that were numbers in training
        return text
    return str(int(number)) if number.is_integer() else repr(number)


def _as_known(name: str, known: Iterable[str]) -> str:
    """The known name that differs in the case of its letters only, or the name itself."""
    return next((k for k in known if k.lower() == name.lower()), name) if name not in known else name


def numbers_in(y: np.ndarray) -> np.ndarray | None:
    """Labels as float64; None if one is text."""
    if y.dtype.kind != "U":
        return y.astype(np.float64)
    distinct, inverse = np.unique(y, return_inverse=True)
    values = np.array([number_of(word) if is_number(word) else np.nan for word in distinct.tolist()])
    return None if np.isnan(values).any() else values[inverse.reshape(-1)]


def quantities(table: Table, why: str) -> np.ndarray:
    """The target as float64; TableError if it is text."""
    assert table.y is not None
    values = numbers_in(table.y)
    if values is None:
        word = next(word for word in table.y.tolist() if not is_number(word))
        raise TableError(f"{table.source!r}: target {table.target!r} holds text ({word!r}), {why}")
    return values


def quoted(names: Sequence[str], limit: int = 10) -> str:
    return ", ".join(map(repr, names[:limit])) + (f", ... ({len(names)})" if len(names) > limit else "")
