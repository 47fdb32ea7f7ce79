"""`DaskMLPClassifier` and `DaskMLPRegressor`."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, clone
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from gpumlp import checks
from gpumlp.dask.collections import answers, is_collection, is_frame, partitions
from gpumlp.dask.job import Placed, get_client, place, train
from gpumlp.dask.worker import MIXED, Plan, answer
from gpumlp.estimators.base import assign
from gpumlp.model import MLP
from gpumlp.training.history import EarlyStopping, History

__all__ = ["DaskMLPClassifier", "DaskMLPRegressor"]


class BaseDaskMLP(BaseEstimator):
    """What the two estimators share."""

    def __init__(
        self,
        client: Any = None,
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: Any = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate_init: float = 0.001,
        max_iter: int = 200,
        random_state: Any = None,
        tol: float = 1e-4,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        dropout: Any = 0.0,
        l1: float = 0.0,
        device: str = "auto",
        dtype: str | None = None,
        reproducible: bool = True,
        timeout: float = 60.0,
    ) -> None:
        assign(self, locals())

    _labels = True
    model_: MLP
    history_: History

    def _fit(self, X: Any, y: Any, sample_weight: Any) -> Any:
        parts = partitions(X, y, sample_weight)
        client = get_client(self.client)
        placed = place(client, parts, self._labels)
        if not placed.n_rows:
            raise ValueError("X has no rows in any partition; expected at least one")
        for what in ("features", "outputs", "weighted"):
            found = {getattr(each, what) for each in placed.summaries}
            if len(found) > 1:
                raise ValueError(f"the partitions have different numbers of {what}: {sorted(found)}")
        classes = self._classes(placed)
        self.model_, self.history_ = train(client, placed, self._plan(placed, classes))
        self.n_features_in_, self.n_iter_ = placed.summaries[0].features, len(self.history_)
        self.__dict__.pop("feature_names_in_", None)
        if is_frame(X) and all(isinstance(name, str) for name in X.columns):
            self.feature_names_in_ = np.array(list(X.columns), dtype=object)
        if classes is not None:
            self.classes_ = classes
            if classes.dtype.kind in "biuUO":
                self.model_.extra["classes"] = classes.tolist()
        return self

    def _classes(self, placed: Placed) -> np.ndarray | None:
        return None

    def _loss(self, classes: np.ndarray | None) -> Any:
        raise NotImplementedError

    def _plan(self, placed: Placed, classes: np.ndarray | None) -> Plan:
        hidden = self.hidden_layer_sizes
        hidden = list(hidden) if hasattr(hidden, "__iter__") else [hidden]
        outputs = placed.summaries[0].outputs
        if classes is not None:
            outputs = len(classes) if len(classes) > 2 else 1
        batch = min(200, placed.n_rows) if self.batch_size == "auto" else self.batch_size
        batch = checks.whole("batch_size", batch)
        monitor = self._monitor if self.early_stopping else "loss"
        stop = EarlyStopping(monitor, self.n_iter_no_change, self.tol, restore_best=bool(self.early_stopping))
        seed = self.random_state
        if not isinstance(seed, (int, np.integer)):
            seed = check_random_state(seed).randint(2**31 - 1)
        narrow = all(each.dtype in ("float32", "float16") for each in placed.summaries)
        return Plan(
            layer_sizes=[placed.summaries[0].features, *hidden, outputs],
            loss=self._loss(classes),
            activation="sigmoid" if self.activation == "logistic" else self.activation,
            dropout=self.dropout,
            solver=self.solver,
            learning_rate=self.learning_rate_init,
            l1=checks.number("l1", self.l1, 0) / batch,
            l2=checks.number("alpha", self.alpha, 0) / batch,
            batch_size=batch,
            epochs=checks.whole("max_iter", self.max_iter),
            seed=int(seed),
            validation=self.validation_fraction if self.early_stopping else None,
            stop=stop,
            dtype=np.dtype(self.dtype or ("float32" if narrow else "float64")).name,
            device=self.device,
            reproducible=checks.flag("reproducible", self.reproducible),
            timeout=checks.number("timeout", self.timeout, 0),
            classes=classes,
        )

    _monitor = "val_accuracy"

    # ---- predictions -----------------------------------------------
    def _answers(self, X: Any, like: np.ndarray, probabilities: bool = False) -> Any:
        check_is_fitted(self, "model_")
        names = getattr(self, "feature_names_in_", None)
        if names is not None and hasattr(X, "columns") and list(X.columns) != list(names):
            raise ValueError(
                f"X has the columns {list(X.columns)}; the network was fitted on {list(names)}, in this order"
            )
        shape = getattr(X, "shape", (None, None))
        if len(shape) != 2 or shape[1] not in (None, self.n_features_in_):
            raise ValueError(f"X has shape {shape}; expected (n_rows, {self.n_features_in_})")
        classes = getattr(self, "classes_", None)
        model = (self.model_, classes, probabilities)
        if not is_collection(X):
            return answer(X, model, "cpu" if self.device == "auto" else self.device)
        return answers(X, answer, model, self.device, like, classes)

    def __sklearn_clone__(self) -> Any:
        """A client is shared, not copied."""
        params = self.get_params(deep=False)
        client = params.pop("client")
        return type(self)(client, **{name: clone(value, safe=False) for name, value in params.items()})

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "client": None}


class DaskMLPClassifier(ClassifierMixin, BaseDaskMLP):
    """Multilayer perceptron for classification, trained on a Dask cluster; one label per row.

    The workers that hold partitions train together, each on its rows; these stay where they are, but for the
    exchange of each epoch.  A number as `random_state` gives the same network, to the bit, on any number of
    workers of one kind, wherever the partitions are.

    Parameters
    ----------
    client : distributed.Client, optional
        By default the one that was made last in this process.  Copies by `sklearn.base.clone` share it;
        pickles do not have it.
    hidden_layer_sizes : int or sequence of int
    activation : str or sequence of str
        See `gpumlp.activations.ACTIVATIONS`; "logistic" is another name of "sigmoid".
    solver : str or Optimizer
        A name of `gpumlp.optimizers.OPTIMIZERS`, with `learning_rate_init` and its defaults, or an object
        such as ``gpumlp.SGD(lr=0.1, momentum=0.9)``.
    alpha, l1 : float
        Sizes of the L2 and L1 penalties, which are divided by the batch size, as scikit-learn's `alpha` is.
    batch_size : int or "auto"
        Rows of a step, on all workers together; "auto" is 200, or all rows if there are fewer.
    learning_rate_init : float
    max_iter : int
        Epochs at most.
    random_state : int, RandomState instance or None
    tol, n_iter_no_change : float, int
        The training ends if the loss, or with `early_stopping` the score of the validation rows, has not
        improved by more than `tol` for this number of epochs.
    early_stopping : bool
        Keep a part of the rows, `validation_fraction`, for validation, and the parameters of the best epoch.
    validation_fraction : float
    dropout : float or sequence of float
    device : str
        "auto": CUDA if all these workers have a device, else "cpu".  "cuda": workers on one machine that see
        the same devices take one each.  See `gpumlp.get_backend`.
    dtype : str, optional
        "float32" or "float64"; by default float32 for a float32 X, else float64.
    reproducible : bool
        See `gpumlp.Trainer`.
    timeout : float
        Seconds that workers wait for each other at the start: one that is busy with other tasks comes late.

    Attributes
    ----------
    model_ : gpumlp.MLP
        The network, on the CPU of this process; ``model_.save(path)`` writes it, with the labels in
        ``model_.extra["classes"]``, and `gpumlp.load` reads it.
    history_ : gpumlp.History
        Figures of each epoch.
    classes_ : array (n_classes,)
        The labels, ascending.
    n_iter_, n_features_in_, feature_names_in_
        As in scikit-learn; names for data frames only.

    Examples
    --------
    ::

        client = distributed.Client("scheduler:8786")
        frame = dask.dataframe.read_parquet("rows.parquet")
        clf = gpumlp.dask.DaskMLPClassifier(client, (64, 64), random_state=0)
        clf.fit(frame[["a", "b"]], frame["label"])
        clf.predict(frame[["a", "b"]]).to_frame().to_parquet("answers.parquet")
    """

    classes_: np.ndarray

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> DaskMLPClassifier:
        """Train on the workers that hold rows.

        Parameters
        ----------
        X : Dask array (n_rows, n_features) or data frame
            Numbers.  What is not computed yet is computed on the cluster.
        y : Dask array (n_rows,), series, or either with one column
            Labels: text or numbers.
        sample_weight : Dask array (n_rows,) or series, optional

        Returns
        -------
        self

        Raises
        ------
        gpumlp.distributed.RankError
            A worker has died or has not come; the message names it.
        ValueError, TypeError, gpumlp.DeviceError, gpumlp.DivergenceError
            As from `gpumlp.Trainer.fit`, with the name of the worker.
        """
        return self._fit(X, y, sample_weight)

    def predict(self, X: Any) -> Any:
        """Labels (n_rows,), lazily, in a collection of the kind of `X`; of rows in memory, an array."""
        check_is_fitted(self, "model_")
        return self._answers(X, self.classes_[:0])

    def predict_proba(self, X: Any) -> Any:
        """Probabilities (n_rows, n_classes), in the order of `classes_`; see `predict`."""
        check_is_fitted(self, "model_")
        return self._answers(X, np.empty((0, len(self.classes_)), self.model_.dtype), True)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy."""
        return float(
            accuracy_score(*_computed(y, self.predict(X)), sample_weight=_computed(sample_weight)[0])
        )

    def _classes(self, placed: Placed) -> np.ndarray:
        found = [each.labels for each in placed.summaries if each.labels is not None]
        if len({isinstance(each[0], str) for each in found}) > 1:
            raise ValueError(MIXED)
        classes = np.unique(np.concatenate(found))
        if len(classes) < 2:
            raise ValueError(
                f"y holds one class only ({classes[0]!r}); a classifier needs rows of at least two classes"
            )
        return classes

    def _loss(self, classes: np.ndarray | None) -> Any:
        assert classes is not None
        return "softmax_cross_entropy" if len(classes) > 2 else "binary_cross_entropy"


class DaskMLPRegressor(RegressorMixin, BaseDaskMLP):
    """Multilayer perceptron for regression, trained on a Dask cluster; see `DaskMLPClassifier`.

    Parameters
    ----------
    client, hidden_layer_sizes, activation, solver, alpha, batch_size, learning_rate_init, max_iter, \
    random_state, tol, early_stopping, validation_fraction, n_iter_no_change, dropout, l1, device, dtype, \
    reproducible, timeout
        As in `DaskMLPClassifier`; the score of validation rows is R2.
    loss : str, gpumlp.Huber or gpumlp.Quantile
        As for `gpumlp.Trainer`.

    Attributes
    ----------
    model_, history_, n_iter_, n_features_in_, feature_names_in_
        As in `DaskMLPClassifier`.
    """

    _labels = False
    _monitor = "val_r2"

    def __init__(
        self,
        client: Any = None,
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        loss: Any = "squared_error",
        solver: Any = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate_init: float = 0.001,
        max_iter: int = 200,
        random_state: Any = None,
        tol: float = 1e-4,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        dropout: Any = 0.0,
        l1: float = 0.0,
        device: str = "auto",
        dtype: str | None = None,
        reproducible: bool = True,
        timeout: float = 60.0,
    ) -> None:
        assign(self, locals())

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> DaskMLPRegressor:
        """Train on the workers that hold rows; see `DaskMLPClassifier.fit`.

        Parameters
        ----------
        X : Dask array (n_rows, n_features) or data frame
        y : Dask array (n_rows,) or (n_rows, n_outputs), series or data frame
        sample_weight : Dask array (n_rows,) or series, optional

        Returns
        -------
        self
        """
        return self._fit(X, y, sample_weight)

    def predict(self, X: Any) -> Any:
        """Values (n_rows,) or (n_rows, n_outputs), lazily, in a collection of the kind of `X`; of rows in
        memory, an array."""
        check_is_fitted(self, "model_")
        n = self.model_.layer_sizes[-1]
        return self._answers(X, np.empty((0, n) if n > 1 else 0, self.model_.dtype))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """R2."""
        return float(r2_score(*_computed(y, self.predict(X)), sample_weight=_computed(sample_weight)[0]))

    def _loss(self, classes: np.ndarray | None) -> Any:
        return self.loss


def _computed(*values: Any) -> list[Any]:
    """In memory."""
    import dask

    return [np.asarray(value) if value is not None else None for value in dask.compute(*values)]
