"""From the rows of a table to what a network takes, and back: task, classes, scaling, splits.

A `Preparation` is stored with the model (`model.extra`), so that later files need no preparation by the user.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from gpumlp.errors import ModelFileError, nearest
from gpumlp.files.atomic import PathLike
from gpumlp.losses import LOSSES
from gpumlp.model import MLP
from gpumlp.model.load import load_model
from gpumlp.rows.arrays import frame_numbers
from gpumlp.tables import Table, TableError
from gpumlp.tables.base import counted

__all__ = [
    "Preparation",
    "PreparedModel",
    "detect_task",
    "fit_preparation",
    "load_prepared",
    "split_table",
]

_ROWS = 8192  # rows that are converted at a time: no float64 copy of the whole table
_MIN_ROWS = 10  # in fewer rows, whole numbers say nothing
_MAX_CLASSES = 20  # more distinct whole numbers are taken for a quantity
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
    def of_model(cls, model: MLP, path: str) -> Preparation:
        """What `gpumlp train` stored with `model`; for a model saved from Python, what its output implies.

        Raises
        ------
        ModelFileError
            The stored values make no sense.
        """
        n_out = model.layer_sizes[-1]
        if model.output == "sigmoid" and n_out > 1:
            raise ModelFileError(
                f"{path!r} answers {n_out} yes-or-no questions at once, which the command line cannot "
                "read from a table; use gpumlp.load in Python"
            )
        stored = model.extra.get("preparation")
        if stored is None:
            task = "classification" if model.output in ("softmax", "sigmoid") else "regression"
            n_classes = max(2, n_out) if task == "classification" else 0
            return cls(task, _LOSS_OF[model.output], classes=[str(c) for c in range(n_classes)])
        if not isinstance(stored, dict) or not _makes_sense(stored, model):
            raise ModelFileError(
                f"{path!r} is not a usable gpumlp model: its stored preparation (feature names, classes, "
                "scaling) does not fit the network"
            )
        return cls(**stored)

    def inputs(self, X: np.ndarray, dtype: Any) -> np.ndarray:
        """Scaled features (n, n_features) of `dtype`, a new array."""
        out = np.empty(X.shape, dtype)
        mean, scale = np.array(self.mean), np.array(self.scale)
        for start in range(0, len(X), _ROWS):
            rows = slice(start, start + _ROWS)
            out[rows] = (X[rows] - mean) / scale if self.mean else X[rows]
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
            if y.dtype.kind == "U":
                raise TableError(
                    f"{table.source!r}: target {table.target!r} holds text ({_first_text(y)!r}), and the "
                    "task is regression"
                )
            return ((y.astype(np.float64) - self.target_mean) / self.target_scale).astype(dtype)
        names, inverse = np.unique(_label_names(y, self.numeric_classes), return_inverse=True)
        place = {name: number for number, name in enumerate(self.classes)}
        unknown = [str(name) for name in names if str(name) not in place]
        if unknown:
            raise TableError(
                f"{table.source!r}: target {table.target!r} has labels that were not seen in training: "
                f"{_some(unknown)}; known: {_some(self.classes)}"
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


def _makes_sense(stored: dict[str, Any], model: MLP) -> bool:
    """Whether a `Preparation` can be made of a file's values, and fits the network."""
    if not {"task", "loss"} <= set(stored) <= set(_STORED):
        return False
    if not all(type(value) in _STORED[key] for key, value in stored.items()):
        return False
    n_in, n_out = model.layer_sizes[0], model.layer_sizes[-1]
    names, classes = stored.get("features", []), stored.get("classes", [])
    mean, scale = stored.get("mean", []), stored.get("scale", [])
    factors = [*scale, stored.get("target_scale", 1.0)]
    classifies = model.output in ("softmax", "sigmoid")
    loss = LOSSES.get(stored["loss"])
    return (
        stored["task"] == ("classification" if classifies else "regression")
        and loss is not None
        and (loss.metric == "accuracy") == classifies
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


@dataclass
class PreparedModel:
    """A network with the scaling and the names that `gpumlp train` stored with it; see `load_prepared`.

    Attributes
    ----------
    model : MLP
        The bare network, which takes scaled rows.
    preparation : Preparation
    """

    model: MLP
    preparation: Preparation

    @property
    def classes(self) -> list[str]:
        """Class names in the order of the columns of `predict_proba`; empty for regression."""
        return self.preparation.classes

    @property
    def feature_names(self) -> list[str]:
        """Columns in the order of training; empty if the training file had no names."""
        return self.preparation.features

    def predict(self, X: Any) -> np.ndarray:
        """Predictions for raw rows.

        Parameters
        ----------
        X : array-like (n, n_features) on the host, numbers as in the training file, or a DataFrame
            A DataFrame's columns are found by name, if the model has names.

        Returns
        -------
        array (n,)
            Class names (text), or float64 values in the units of the target.

        Raises
        ------
        ValueError
            X is no table of finite numbers with the model's features.
        """
        answer = np.asarray(self.model.predict(self._inputs(X)))
        if self.preparation.task == "classification":
            return np.array(self.classes)[answer]
        return self.preparation.values(answer.astype(np.float64))

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities (n, n_classes) for raw rows, columns as `classes`; X as for `predict`.

        Raises
        ------
        ValueError
            X is unusable, or the model is no classifier.
        """
        if self.preparation.task != "classification":
            raise ValueError("predict_proba is for classifiers; this is a regression model")
        return np.asarray(self.model.predict_proba(self._inputs(X)))

    def _inputs(self, X: Any) -> np.ndarray:
        n = self.model.layer_sizes[0]
        if self.feature_names and hasattr(X, "columns"):
            missing = [name for name in self.feature_names if name not in X.columns]
            if missing:
                columns = [str(name) for name in X.columns]
                near = nearest(missing[0], columns)
                there = repr(near) if near else f"only {_some(columns)}"
                raise ValueError(f"the data frame lacks the column {missing[0]!r}; there is {there}")
            X = X[self.feature_names]
        is_frame = hasattr(X, "columns") and hasattr(X, "dtypes") and hasattr(X, "to_numpy")
        rows = frame_numbers("X", X) if is_frame else np.asarray(X)
        if rows.ndim != 2 or rows.shape[1] != n:
            raise ValueError(f"X has shape {rows.shape}; expected (n_rows, {n}), unscaled")
        if rows.dtype.kind not in "biuf":
            raise ValueError(f"X has dtype {rows.dtype}; expected numbers")
        if not np.isfinite(rows).all():
            raise ValueError("X has values that are NaN or infinite")
        return self.preparation.inputs(rows, self.model.dtype)


def load_prepared(path: PathLike, device: Any = "auto") -> PreparedModel:
    """Read a model of `gpumlp train` so that it takes raw rows, as `gpumlp predict` does.

    Parameters
    ----------
    path : path
    device : str
        As for `MLP`.

    Raises
    ------
    OSError
        The file cannot be read.
    ModelFileError
        It is no model, or it was saved without a preparation (by `MLP.save`).
    """
    name = os.fspath(path)
    model = load_model(name, device)
    if "preparation" not in model.extra:
        raise ModelFileError(
            f"{name!r} holds a network without stored scaling and names (it was not written by "
            "'gpumlp train'); use gpumlp.load, and scale the rows as in training"
        )
    return PreparedModel(model, Preparation.of_model(model, name))


def detect_task(y: np.ndarray) -> tuple[str, str]:
    """(task, reason) for ``--task auto``.

    It is classification if the target is text or True/False, or whole numbers of which at most 20 are
    distinct, in at least 10 rows and at least twice as many rows as distinct numbers; else regression.
    """
    if y.dtype.kind == "U":
        yes_no = {label.lower() for label in np.unique(y).tolist()} <= {"true", "false"}
        return "classification", f"the target is {'True/False' if yes_no else 'text'}"
    distinct = np.unique(y)
    if (distinct != np.floor(distinct)).any():
        return "regression", "the target has fractions"
    if len(distinct) > _MAX_CLASSES:
        return (
            "regression",
            f"the target has {len(distinct)} distinct whole numbers, more than {_MAX_CLASSES}",
        )
    numbers = counted(len(distinct), "distinct whole number")
    if len(y) < max(_MIN_ROWS, 2 * len(distinct)):
        return "regression", f"the target has {numbers} in only {counted(len(y), 'row')}"
    return "classification", f"the target has {numbers}"


def fit_preparation(table: Table, train: np.ndarray, task: str, loss: str, standardize: bool) -> Preparation:
    """The preparation for a table.

    Parameters
    ----------
    table : Table
    train : int array
        Numbers of the training rows; scaling is computed from these alone.
    task, loss : str
    standardize : bool
        Scale features, and a regression target, to mean 0 and standard deviation 1.  Pixels (uint8 arrays)
        are divided by their largest value instead: a standard deviation per pixel would blow up pixels that
        are nearly always 0.
    """
    y = table.y
    assert y is not None
    prep = Preparation(task, loss, features=list(table.names) if table.named else [], target=table.target)
    if task == "classification":
        prep.numeric_classes = y.dtype.kind != "U"
        if prep.numeric_classes:
            _refuse_quantity(table, y)
        names = np.unique(_label_names(y, prep.numeric_classes))
        prep.classes = sorted(map(str, names), key=float if prep.numeric_classes else None)
        if len(prep.classes) < 2:
            raise TableError(
                f"{table.source!r}: target {table.target!r} has one class only ({prep.classes[0]!r}); "
                "a classifier needs rows of at least two"
            )
        if len(prep.classes) == len(y) > 2:
            raise TableError(
                f"{table.source!r}: every row has a label of its own in target {table.target!r} "
                f"({_some(prep.classes, 3)}); is this the right column? For a quantity use --task regression"
            )
    elif y.dtype.kind == "U":
        raise TableError(
            f"{table.source!r}: target {table.target!r} holds text ({_first_text(y)!r}); for "
            "regression it must be numbers"
        )
    elif standardize and loss != "poisson":  # its logarithm wants counts as they are
        values = y[train].astype(np.float64)
        prep.target_mean, prep.target_scale = float(values.mean()), float(values.std()) or 1.0
    if standardize:
        n = table.X.shape[1]
        if table.X.dtype == np.uint8:
            mean, scale = np.zeros(n), np.full(n, max(1.0, float(table.X[train].max())))
        else:
            with np.errstate(over="ignore", invalid="ignore"):
                mean, scale = _moments(table.X, train)
            if not (np.isfinite(mean).all() and np.isfinite(scale).all()):
                name = table.names[int(np.argmin(np.isfinite(mean) & np.isfinite(scale)))]
                raise TableError(
                    f"{table.source!r}: the values of column {name!r} are too large to be standardised"
                )
        prep.mean, prep.scale = mean.tolist(), scale.tolist()
    return prep


def _refuse_quantity(table: Table, y: np.ndarray) -> None:
    """Raise TableError for labels with fractions that are too many to be classes (a few levels are fine)."""
    distinct = np.unique(y)
    fractions = distinct[distinct != np.floor(distinct)]
    if len(fractions) and (len(distinct) > _MAX_CLASSES or 2 * len(distinct) > len(y)):
        raise TableError(
            f"{table.source!r}: target {table.target!r} has {len(distinct)} distinct numbers with fractions "
            f"(as {fractions[0]:g}) in {len(y)} rows; that is a quantity, not classes: use --task regression"
        )


def split_table(
    table: Table, seed: int, test: float, validation: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row numbers for training, validation and test: consecutive parts of one seeded permutation.

    Parameters
    ----------
    table : Table
    seed : int
        The permutation is ``numpy.random.default_rng([seed, 4]).permutation(n_rows)``: test rows first, then
        validation rows, then training rows.
    test, validation : float
        Fractions of all rows, rounded, at least one row unless 0.
    """
    n_rows = len(table.X)
    order = np.random.default_rng([seed, 4]).permutation(n_rows)
    n_test, n_val = (max(1, round(f * n_rows)) if f > 0 else 0 for f in (test, validation))
    if n_rows - n_test - n_val < 2:
        held = {"test": n_test, "validation": n_val}
        parts = " and ".join(counted(n, f"{part} row") for part, n in held.items() if n)
        less = "".join(f" or --{part}-fraction 0" for part, n in held.items() if n)
        raise TableError(
            f"{table.source!r} has {counted(n_rows, 'row')}, too few for {f'{parts} and ' if parts else ''}"
            f"at least 2 for training; give more rows{less}"
        )
    return order[n_test + n_val :], order[n_test : n_test + n_val], order[:n_test]


def _moments(X: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column (1 for a constant one), in float64, in two passes."""
    parts = [rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS)]
    mean = sum(X[p].sum(axis=0, dtype=np.float64) for p in parts) / len(rows)
    scale = np.sqrt(sum(np.square(X[p] - mean).sum(axis=0) for p in parts) / len(rows))
    # a constant column's mean may be off by an ulp; that is no spread
    return mean, np.where(scale > 1e-12 * np.abs(mean), scale, 1.0)


def _label_names(y: np.ndarray, numeric: bool) -> np.ndarray:
    """Labels as text; numbers in their shortest form, so that 1 and 1.0 are one class."""
    if y.dtype.kind == "U" and not numeric:
        return y
    distinct, inverse = np.unique(y, return_inverse=True)
    return np.array([_label(v) for v in distinct.tolist()])[inverse.reshape(-1)]


def _label(value: Any) -> str:
    try:
        number = float(value)
    except ValueError:  # text among labels that were numbers in training
        return str(value)
    return str(int(number)) if number.is_integer() else repr(number)


def _first_text(y: np.ndarray) -> str:
    for value in y.tolist():
        try:
            float(value)
        except ValueError:
            return str(value)
    return str(y[0])


def _some(names: Sequence[str], limit: int = 10) -> str:
    return ", ".join(map(repr, names[:limit])) + (f", ... ({len(names)})" if len(names) > limit else "")
