"""Labels of the classifier: their kind, their numbers, and the weights of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import compute_class_weight
from sklearn.utils.multiclass import type_of_target, unique_labels

from gpumlp.backends.arrays import is_cuda
from gpumlp.estimators.inputs import (
    to_host,
)
from gpumlp.rows.arrays import array_module

__all__ = [
    "are_plain",
    "check_classes",
    "check_kind",
    "class_factors",
    "encode",
    "factors_of_rows",
    "fit_labels",
    "is_multilabel",
    "labels_of",
]


def are_plain(y: Any, answers: np.ndarray, classes: np.ndarray) -> bool:
    """Whether `accuracy_score`, whose checks take longer than a small network, would find no fault in labels
    `y` for `answers`; if False, ask it."""
    same = type(y) is np.ndarray and y.shape == answers.shape and y.dtype == answers.dtype
    return bool(same and y.ndim == 1 and y.dtype.kind in "biuU" and len(y) >= 4 * len(classes))


def labels_of(y: Any) -> np.ndarray:
    """The distinct labels, on the host."""
    return to_host(array_module(y).unique(y)) if is_cuda(y) else unique_labels(y)


def is_multilabel(y: Any) -> bool:
    """Whether `y` is a matrix of several 0/1 labels."""
    return bool(type_of_target(to_host(y)).startswith("multilabel"))


def fit_labels(y: Any) -> LabelBinarizer:
    """The binarizer that knows the classes of `y`."""
    return LabelBinarizer().fit(labels_of(y) if is_cuda(y) else y)


def _kind(multilabel: bool, columns: int) -> str:
    return f"a 0/1 matrix of {columns} labels (multilabel)" if multilabel else "one label per row"


def check_kind(binarizer: LabelBinarizer, y: Any, name: str = "y") -> None:
    """ValueError if `y` (`name`) is multilabel and the labels seen first are not, or the other way round, or
    if it has a different number of columns."""
    fitted = binarizer.y_type_.startswith("multilabel")
    given = y.ndim == 2 and is_multilabel(y)
    columns = y.shape[1] if y.ndim == 2 else 1
    if fitted != given or (fitted and columns != len(binarizer.classes_)):
        raise ValueError(
            f"{name} is {_kind(given, columns)}, the estimator is fitted on "
            f"{_kind(fitted, len(binarizer.classes_))}; give labels of the same kind, or a new estimator"
        )


def check_classes(known: np.ndarray, classes: np.ndarray, same: bool) -> None:
    """ValueError if labels are not among the `known` ones; with `same`, if one is missing as well."""
    mine, theirs = set(known.tolist()), set(classes.tolist())
    if same and mine != theirs:
        raise ValueError(
            "warm_start can only be used where `y` has the same classes as in the previous call to fit. "
            f"Previously got {known}, `y` has {classes}"
        )
    if theirs - mine:
        raise ValueError(
            f"`y` has classes not in `self.classes_`. `self.classes_` has {known}. 'y' has {classes}."
        )


def encode(binarizer: LabelBinarizer, y: Any) -> Any:
    """Class numbers int32 (n,) for softmax, else 0/1 as float32 (n, n_outputs)."""
    if binarizer.y_type_.startswith("multilabel"):
        return binarizer.transform(y).astype(np.float32)
    number = _numbers(binarizer.classes_, y)
    if binarizer.y_type_ == "multiclass":
        return number.astype(np.int32)
    return number.astype(np.float32).reshape(-1, 1)


def _numbers(classes: np.ndarray, y: Any) -> Any:
    xp = array_module(y)
    return xp.searchsorted(xp.asarray(classes), y)


def class_factors(class_weight: Any, binarizer: LabelBinarizer, y: Any) -> list[np.ndarray]:
    """Factors on rows' weights: of each class, or for each column of a multilabel `y` those of 0 and 1.

    The classes are those of the problem; `y` counts for "balanced" only.
    """
    y = to_host(y)
    balanced = isinstance(class_weight, str)
    if not binarizer.y_type_.startswith("multilabel"):
        if isinstance(class_weight, list):
            if len(class_weight) != 1:
                raise ValueError(
                    f"class_weight has {len(class_weight)} entries; for one label per row pass a dict"
                )
            class_weight = class_weight[0]
        factors = [compute_class_weight(class_weight, classes=binarizer.classes_, y=y)]
    elif balanced:
        factors = []
        for column in y.T:
            present = np.unique(column)
            each = np.ones(2)
            each[present.astype(int)] = compute_class_weight("balanced", classes=present, y=column)
            factors.append(each)
    else:
        if not isinstance(class_weight, list):
            raise ValueError(
                "For multi-output, class_weight should be a list of dicts, or the string 'balanced'."
            )
        if len(class_weight) != y.shape[1]:
            raise ValueError(
                "For multi-output, number of elements in class_weight should match number of outputs."
            )
        factors = [
            compute_class_weight(each, classes=np.array([0, 1]), y=column)
            for each, column in zip(class_weight, y.T, strict=True)
        ]
    low = min(float(each.min()) for each in factors)
    if not all(np.isfinite(each).all() for each in factors) or low < 0:
        raise ValueError(f"class_weight={class_weight!r}; weights must be finite and >= 0")
    return factors


def factors_of_rows(factors: Sequence[np.ndarray], binarizer: LabelBinarizer, y: Any) -> np.ndarray:
    """The product of `class_factors` for each row, on the host."""
    y = to_host(y)
    if not binarizer.y_type_.startswith("multilabel"):
        return factors[0][_numbers(binarizer.classes_, y)]
    columns = [each[column.astype(int)] for each, column in zip(factors, y.T, strict=True)]
    return np.prod(columns, axis=0)
