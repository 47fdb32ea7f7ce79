"""`TabularClassifier` and `TabularRegressor`: tables as people have them, scikit-learn's interface."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from gpumlp.tabular.base import BaseTabular
from gpumlp.tabular.figures import class_figures, value_figures
from gpumlp.tabular.inputs import read_values
from gpumlp.tabular.recipe import FEW

__all__ = ["TabularClassifier", "TabularRegressor"]


class TabularClassifier(ClassifierMixin, BaseTabular):
    """Classes from the rows of a table, by an ensemble of small networks.

    Parameters
    ----------
    quality : str
        "best": an ensemble chosen from 24 networks.  "medium": from 8.  "fast": one network.
        docs/recipe.md says what they are.
    n_networks : int, optional
        Another number of networks.
    time_limit : float, optional
        Seconds that `fit` may take.
    categorical, numeric, drop : sequence of column names or numbers
        Columns that are to be taken as categories or as numbers, and those that are not to be used.  All
        others are taken for what they hold: numbers, truth values, dates, or texts, which are categories.
    class_weight : dict, "balanced" or None
        Factors on the weights of rows, by class.
    random_state : int, RandomState or None
    device : str
        As for `gpumlp.MLP`.
    verbose : bool
        Show progress, and say what was seen in the columns.

    Attributes
    ----------
    classes_ : array (n_classes,)
    encoder_ : Encoder
        What was learnt of the columns; `columns_` has their kinds.
    columns_ : dict of str to str
        Column -> "number", "flag", "category", "date", or why it is not used.
    ensemble_ : gpumlp.Ensemble
        Of the networks that answer; they take what `encoder_` makes of a table.
    validation_scores_ : dict of str to float
        Figures on the rows that were held back ("accuracy", "log_loss", and "auc", the area under the ROC
        curve), and those of a constant prediction beside them.  They chose the networks, so new rows will do
        slightly worse.
    n_validation_rows_ : int
        How many rows these are; not of an estimator that was read from a file.
    networks_ : list of dict
        Settings of each network that was trained, its best validation loss, the epochs that it took, and how
        often the ensemble has it.
    notes_ : list of str
        What was noticed: columns that are not used, overfitting, and so on.
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Examples
    --------
    >>> import gpumlp
    >>> people = {"age": [25, 31, None, 52] * 5, "job": ["baker", "smith", "smith", None] * 5}
    >>> classifier = gpumlp.TabularClassifier(quality="fast", random_state=0, device="cpu")
    >>> classifier.fit(people, ["a", "b", "b", "c"] * 5).predict(people)[:4].tolist()
    ['a', 'b', 'b', 'c']
    """

    _loss: ClassVar[str] = "softmax_cross_entropy"

    def __init__(
        self,
        *,
        quality: str = "best",
        n_networks: int | None = None,
        time_limit: float | None = None,
        categorical: Any = None,
        numeric: Any = None,
        drop: Any = None,
        class_weight: Any = None,
        random_state: Any = None,
        device: str = "auto",
        verbose: bool = False,
    ) -> None:
        self.quality, self.n_networks, self.time_limit = quality, n_networks, time_limit
        self.categorical, self.numeric, self.drop = categorical, numeric, drop
        self.class_weight = class_weight
        self.random_state, self.device, self.verbose = random_state, device, verbose

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each row, array (n,) of the labels' type."""
        check_is_fitted(self)
        return self.classes_[self._answers(X).argmax(axis=1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the classes, in the order of `classes_`, float32 (n, n_classes)."""
        check_is_fitted(self)
        return self._answers(X)

    # ---- what BaseTabular asks for -----------------------------------------------
    def _read_target(self, y: Any, name: str = "y") -> np.ndarray:
        values = read_values(y, name)
        _refuse_missing(values, name)
        if values.dtype.kind == "O":
            kinds = sorted({type(value).__name__ for value in values.tolist()})
            if len(kinds) > 1 and "str" in kinds:
                raise ValueError(f"Unknown label type: {name} mixes {', '.join(kinds)}; expected one type")
            if set(kinds) <= {"bool", "int", "float"}:
                values = np.array(values.tolist())
        check_classification_targets(values)
        return values

    def _learn_target(self, y: np.ndarray, w: np.ndarray | None) -> None:
        try:
            self.classes_ = np.unique(y)
        except TypeError:
            kinds = sorted({type(value).__name__ for value in y.tolist()})
            raise ValueError(f"y mixes labels of the types {', '.join(kinds)}; expected one type") from None
        if len(self.classes_) < 2:
            raise ValueError(
                f"y has one class only ({self.classes_.tolist()[0]!r}); a classifier needs two at least"
            )
        if len(self.classes_) == len(y) > FEW:
            raise ValueError(f"y has a label of its own in every row ({y.tolist()[0]!r}, ...), not classes")

    def _encode_target(self, y: np.ndarray, name: str = "y") -> np.ndarray:
        place = np.searchsorted(self.classes_, y).clip(0, len(self.classes_) - 1)
        unknown = self.classes_[place] != y
        if unknown.any():
            raise ValueError(f"{name} has the label {y[unknown].tolist()[0]!r}, which y has not")
        return place.astype(np.int32)

    def _weights(self, y: np.ndarray, w: np.ndarray | None) -> np.ndarray | None:
        if self.class_weight is None:
            return w
        factors = compute_class_weight(self.class_weight, classes=self.classes_, y=y)
        rows = factors[np.searchsorted(self.classes_, y)]
        return rows if w is None else w * rows

    @property
    def _n_out(self) -> int:
        return len(self.classes_)

    @property
    def _n_classes(self) -> int:
        return len(self.classes_)

    def _constant(self, y: np.ndarray, w: np.ndarray | None) -> np.ndarray:
        counts = np.bincount(y, w, minlength=len(self.classes_))
        return counts / counts.sum()

    def _figures(self, answers: np.ndarray, y: np.ndarray, w: np.ndarray | None) -> dict[str, float]:
        return class_figures(answers, y, w)


class TabularRegressor(RegressorMixin, BaseTabular):
    """Values from the rows of a table, by an ensemble of small networks.

    Parameters, attributes and columns as in `TabularClassifier`, without classes; `validation_scores_` has
    "rmse", "mae" and "r2".  The target, or several of them (n, n_outputs), may have any scale.  Answers stay
    within the smallest and the largest target that was trained on.

    Examples
    --------
    >>> import numpy as np, gpumlp
    >>> X = np.linspace(-1, 1, 40).reshape(-1, 1)
    >>> regressor = gpumlp.TabularRegressor(quality="fast", random_state=0, device="cpu")
    >>> regressor.fit(X, 100 * X[:, 0]).predict([[0.5]]).round(-1)
    array([50.])
    """

    _loss: ClassVar[str] = "squared_error"

    def __init__(
        self,
        *,
        quality: str = "best",
        n_networks: int | None = None,
        time_limit: float | None = None,
        categorical: Any = None,
        numeric: Any = None,
        drop: Any = None,
        random_state: Any = None,
        device: str = "auto",
        verbose: bool = False,
    ) -> None:
        self.quality, self.n_networks, self.time_limit = quality, n_networks, time_limit
        self.categorical, self.numeric, self.drop = categorical, numeric, drop
        self.random_state, self.device, self.verbose = random_state, device, verbose

    def predict(self, X: Any) -> np.ndarray:
        """Values, float64 (n,) or (n, n_outputs)."""
        check_is_fitted(self)
        values = self._values(self._answers(X))
        return values[:, 0] if self._one else values

    def _values(self, answers: np.ndarray) -> np.ndarray:
        """Answers of the networks in the target's units, within what was trained on."""
        values = answers.reshape(len(answers), -1).astype(np.float64) * self.target_scale_ + self.target_mean_
        return values.clip(*self.target_range_)

    # ---- what BaseTabular asks for -----------------------------------------------
    def _read_target(self, y: Any, name: str = "y") -> np.ndarray:
        values = read_values(y, name, columns=True)
        if values.dtype.kind == "c":
            raise ValueError(f"Complex data not supported by {type(self).__name__}: {name}")
        try:
            values = values.astype(np.float64)
        except (TypeError, ValueError):
            raise ValueError(
                f"{name} has values that are no numbers; TabularRegressor needs numbers"
            ) from None
        bad = ~np.isfinite(values)
        if bad.any():
            row = int(np.argwhere(bad)[0][0])
            raise ValueError(
                f"Input {name} contains {'NaN' if np.isnan(values).any() else 'infinity'} (row {row}); leave "
                "out rows without a target"
            )
        return values

    def _learn_target(self, y: np.ndarray, w: np.ndarray | None) -> None:
        self._one = y.ndim == 1
        y = y.reshape(len(y), -1)
        with np.errstate(over="ignore"):
            wide = ~np.isfinite(np.ptp(y, axis=0))
        if wide.any():
            raise ValueError(f"y goes from {y.min():g} to {y.max():g}, further than numbers of 64 bits reach")
        unit = np.abs(y).max(axis=0)  # squares of very large or small targets are no numbers
        unit = np.where(unit > 0, unit, 1.0)
        mean = np.average(y / unit, axis=0, weights=w)
        spread = np.sqrt(np.average((y / unit - mean) ** 2, axis=0, weights=w)) * unit
        self.target_mean_ = mean * unit
        self.target_scale_ = np.where(spread > 1e-12 * np.abs(self.target_mean_), spread, 1.0)
        self.target_range_ = np.stack([y.min(axis=0), y.max(axis=0)])

    def _encode_target(self, y: np.ndarray, name: str = "y") -> np.ndarray:
        if y.ndim != (1 if self._one else 2) or y.reshape(len(y), -1).shape[1] != self._n_out:
            raise ValueError(f"{name} has shape {y.shape}; expected as many columns as y, {self._n_out}")
        return (y.reshape(len(y), -1) - self.target_mean_) / self.target_scale_

    def _weights(self, y: np.ndarray, w: np.ndarray | None) -> np.ndarray | None:
        return w

    @property
    def _n_out(self) -> int:
        return len(self.target_mean_)

    @property
    def _n_classes(self) -> int:
        return 0

    def _constant(self, y: np.ndarray, w: np.ndarray | None) -> np.ndarray:
        return np.average(y, axis=0, weights=w)

    def _figures(self, answers: np.ndarray, y: np.ndarray, w: np.ndarray | None) -> dict[str, float]:
        return value_figures(self._values(answers), y * self.target_scale_ + self.target_mean_, w)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def _refuse_missing(values: np.ndarray, name: str) -> None:
    if values.dtype.kind == "f":
        missing = ~np.isfinite(values)
    elif values.dtype.kind == "O":
        missing = np.array([value is None or _is_nan(value) for value in values.tolist()], bool)
    else:
        return
    if missing.any():
        what = "infinity" if values.dtype.kind == "f" and not np.isnan(values).any() else "NaN"
        raise ValueError(
            f"Input {name} contains {what} (row {int(np.flatnonzero(missing)[0])}); leave out rows without a "
            "target"
        )


def _is_nan(value: Any) -> bool:
    """Whether it is NaN, NaT or pandas' NA: not equal to itself, or neither equal nor different."""
    same = value == value  # noqa: PLR0124
    return not same if isinstance(same, (bool, np.bool_)) else not hasattr(same, "__len__")
