"""Models of ``gpumlp train`` for programs: a network that takes raw rows and answers in the table's words."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpumlp.errors import ModelFileError, nearest
from gpumlp.files.atomic import PathLike
from gpumlp.model import MLP, Ensemble
from gpumlp.rows.arrays import frame_numbers
from gpumlp.tables import as_frame
from gpumlp.tables.preparation import Preparation, label_names, quoted
from gpumlp.tabular.load import load

__all__ = ["PreparedModel", "PreparedTable", "load_prepared"]


@dataclass
class PreparedModel:
    """A network with the scaling and the names that `gpumlp train` stored with it; see `load_prepared`.

    Attributes
    ----------
    model : MLP or Ensemble
        The bare network or networks, which take scaled rows.
    preparation : Preparation
    """

    model: MLP | Ensemble
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
        X : array-like (n, n_features) on the host, numbers as in the training file, or a table
            The columns of a DataFrame, an Arrow table or a dict are found by name, if the model has names.

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

    def _columns(self, given: Iterable[Any]) -> list[Any]:
        """The features among the names of a data frame, which may be numbers (those of a file are text)."""
        place = {str(name): name for name in given}
        missing = [name for name in self.feature_names if name not in place]
        if missing:
            near = nearest(missing[0], place)
            there = repr(near) if near else f"only {quoted(list(place))}"
            raise ValueError(f"the data frame lacks the column {missing[0]!r}; there is {there}")
        return [place[name] for name in self.feature_names]

    def _inputs(self, X: Any) -> np.ndarray:
        n = self.model.n_inputs
        if isinstance(X, Mapping) or hasattr(X, "column_names"):  # a dict of columns, a table of Arrow
            X = as_frame(X)
            columns = self._columns(X.names) if self.feature_names else X.names
            X = np.column_stack([X[name].floats() for name in columns])
        elif self.feature_names and hasattr(X, "columns"):
            X = X[self._columns(X.columns)]
        is_frame = hasattr(X, "columns") and hasattr(X, "dtypes") and hasattr(X, "to_numpy")
        rows = frame_numbers("X", X) if is_frame else np.asarray(X)
        if rows.ndim != 2 or rows.shape[1] != n:
            raise ValueError(f"X has shape {rows.shape}; expected (n_rows, {n}), unscaled")
        if rows.dtype.kind not in "biuf":
            raise ValueError(f"X has dtype {rows.dtype}; expected numbers")
        if not np.isfinite(rows).all():
            raise ValueError("X has values that are NaN or infinite")
        return self.preparation.inputs(rows, self.model.dtype)


@dataclass
class PreparedTable:
    """An estimator of tables with the names of a `PreparedModel`; see `load_prepared`.

    Attributes
    ----------
    estimator : TabularClassifier or TabularRegressor
    """

    estimator: Any

    @property
    def classes(self) -> list[str]:
        """Class names in the order of the columns of `predict_proba`; empty for regression."""
        return self._names(self.estimator.classes_) if hasattr(self.estimator, "classes_") else []

    @property
    def feature_names(self) -> list[str]:
        """Columns in the order of training; empty if the training file had no names."""
        encoder = self.estimator.encoder_
        return list(encoder.names) if encoder.named else []

    def predict(self, X: Any) -> np.ndarray:
        """Class names (text) or values (n,) for the rows of a table, whose columns are found by name, or of
        an array."""
        answers: np.ndarray = self.estimator.predict(X)
        return np.array(self._names(answers)) if self.classes else answers

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities (n, n_classes), columns as `classes`; ValueError if the model is no classifier."""
        if not self.classes:
            raise ValueError("predict_proba is for classifiers; this is a regression model")
        return np.asarray(self.estimator.predict_proba(X))

    def _names(self, labels: np.ndarray) -> list[str]:
        labels = label_names(labels, True) if labels.dtype.kind in "iuf" else labels
        return [str(label) for label in labels]


def load_prepared(path: PathLike, device: Any = "auto") -> PreparedModel | PreparedTable:
    """Read a model of `gpumlp train` so that it takes raw rows, as `gpumlp predict` does.

    `gpumlp.load` gives the bare network instead, or the estimator of tables, which takes raw rows as well.

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
    model = load(name, device)
    if hasattr(model, "encoder_"):
        return PreparedTable(model)
    if "preparation" not in model.extra:
        raise ModelFileError(
            f"{name!r} holds a network without stored scaling and names (it was not written by "
            "'gpumlp train'); use gpumlp.load, and scale the rows as in training"
        )
    return PreparedModel(model, Preparation.of_model(model, name))
