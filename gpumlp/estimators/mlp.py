"""`MLPClassifier` and `MLPRegressor`: scikit-learn's estimators on this package's executors, and more.

Names, defaults, attributes, random numbers, stopping rules and warnings are those of scikit-learn 1.9's
`sklearn.neural_network`; docs/sklearn.md lists what is more and what differs.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from scipy.special import xlogy
from sklearn.base import ClassifierMixin, RegressorMixin, _fit_context
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import _check_partial_fit_first_call

from gpumlp.backends.arrays import is_cuda
from gpumlp.estimators.base import BaseMLP, assign, unchanged_if_refused
from gpumlp.estimators.inputs import Samples, check_rows, check_weights, to_host, unpack, where_rows_are
from gpumlp.estimators.labels import (
    are_plain,
    check_classes,
    check_kind,
    class_factors,
    encode,
    factors_of_rows,
    fit_labels,
    is_multilabel,
    labels_of,
)
from gpumlp.estimators.names import Names, loss_of_values
from gpumlp.losses import LOSSES, Loss, LossObject, centre, get_loss, outputs_for
from gpumlp.model import MLP, check_answers
from gpumlp.rows.arrays import array_module
from gpumlp.rows.weights import scaled_weights

__all__ = ["MLPClassifier", "MLPRegressor"]


class MLPClassifier(ClassifierMixin, BaseMLP):
    """Multilayer perceptron for classification: binary, multiclass, multilabel.

    Parameters
    ----------
    hidden_layer_sizes, activation, solver, alpha, batch_size, learning_rate, learning_rate_init, power_t, \
    max_iter, shuffle, random_state, tol, verbose, warm_start, momentum, nesterovs_momentum, early_stopping, \
    validation_fraction, beta_1, beta_2, epsilon, n_iter_no_change, max_fun
        As in `sklearn.neural_network.MLPClassifier`, with the same defaults.  `activation` takes every name
        of `gpumlp.activations.ACTIVATIONS` besides "logistic", or an object; `solver` also the names in
        `gpumlp.optimizers.OPTIMIZERS`, "adamw" and "muon" (`alpha` is the decoupled decay, not divided by the
        batch, not part of the loss) among them, or a rule with its own ``lr``: ``gpumlp.Lion(lr=1e-4)``.
    dropout : float or list of float, default=0.0
        Probability that a hidden unit is dropped in training; one for all hidden layers, or one each.
    l1 : float, default=0.0
        L1 penalty, divided by the sum of the batch's weights as `alpha` is.  Not part of `loss_curve_`.
    class_weight : dict, list of dict, "balanced" or None
        Factors on the rows' weights, as elsewhere in scikit-learn.
    scoring : str, callable or None
        What early stopping watches: None accuracy, "loss" the validation loss, or any scikit-learn scorer.
    callbacks : callable or list of callables, optional
        Each is called with the estimator after every epoch (its attributes are up to date); one that returns
        True ends the training.
    device : str, default="auto"
        "auto", "cpu", "numpy", "native", "cuda", "cuda:1"; "auto" follows an X that is on a GPU already.
    dtype : {"float32", "float64"}, optional
        Type of the computation; by default float32 for a float32 X, else float64.

    Attributes
    ----------
    classes_, loss_, best_loss_, loss_curve_, validation_scores_, best_validation_score_, t_, coefs_, \
    intercepts_, n_features_in_, feature_names_in_, n_iter_, n_layers_, n_outputs_, out_activation_
        As in scikit-learn.  `coefs_` and `intercepts_` are NumPy arrays; changing them changes predictions.
    validation_loss_curve_ : list of float or None
        Loss (without penalties) of the validation rows after each epoch; None if there were none.

    Examples
    --------
    >>> import gpumlp
    >>> X, y = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], ["a", "b", "b", "a"]
    >>> clf = gpumlp.MLPClassifier((8,), "tanh", solver="lbfgs", random_state=1, device="cpu").fit(X, y)
    >>> clf.predict([[0.1, 0.9], [0.9, 0.8]]).tolist()
    ['b', 'a']
    """

    _parameter_constraints: ClassVar[dict] = {
        **BaseMLP._parameter_constraints,
        "class_weight": [dict, list, StrOptions({"balanced"}), None],
    }
    classes_: Any

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: str = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        dropout: Any = 0.0,
        l1: float = 0.0,
        class_weight: Any = None,
        scoring: Any = None,
        callbacks: Any = None,
        device: Any = "auto",
        dtype: Any = None,
    ) -> None:
        assign(self, locals())

    @available_if(lambda est: est._check_solver())
    @_fit_context(prefer_skip_nested_validation=True)
    @where_rows_are
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> MLPClassifier:
        """One pass over the given rows.

        Parameters
        ----------
        X, y, sample_weight : as in `fit`
        classes : array-like (n_classes,)
            All classes that will ever come; required in the first call.

        Returns
        -------
        self
        """
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight='balanced' is not supported for partial_fit: the classes' frequencies are not "
                "known. Pass a dict, or sample_weight"
            )
        y, classes = unpack(y), to_host(unpack(classes))
        with unchanged_if_refused(self):
            if _check_partial_fit_first_call(self, classes):
                self._label_binarizer = fit_labels(y if is_multilabel(y) else self.classes_)
                if is_multilabel(y) and len(self.classes_) != y.shape[1]:
                    raise ValueError(
                        f"y has {y.shape[1]} columns of labels, classes names {len(self.classes_)}"
                    )
            for _ in self._pieces(X, y, sample_weight, None, incremental=True):
                pass
        return self

    @where_rows_are
    def predict(self, X: Any) -> Any:
        """Classes (n_samples,), or a 0/1 matrix (n_samples, n_classes) for multilabel.

        CuPy if `X` is on a GPU and the classes are numbers, else NumPy.
        """
        p = self._output(X, "identity", "sigmoid")
        check_answers(p)
        if is_cuda(p) and self._multilabel():
            return (p > 0.5).astype(np.int64)
        if is_cuda(p) and self.classes_.dtype.kind in "biuf":
            return array_module(p).asarray(self.classes_)[self._class_numbers(p)]
        p = to_host(p)
        many = self._multilabel()
        return self._label_binarizer.inverse_transform(p) if many else self.classes_[self._class_numbers(p)]

    @where_rows_are
    def predict_proba(self, X: Any) -> Any:
        """Probabilities (n_samples, n_classes), in the order of `classes_`; CuPy if `X` is on a GPU."""
        p = self._output(X, "softmax", "sigmoid")
        return p if self.n_outputs_ > 1 else array_module(p).concatenate([1 - p, p], axis=1)

    @where_rows_are
    def predict_log_proba(self, X: Any) -> Any:
        """Logarithms of `predict_proba`."""
        p = self.predict_proba(X)
        return np.log(p, out=p)

    @where_rows_are
    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy (of whole rows for multilabel)."""
        answers = to_host(self.predict(X))
        if sample_weight is None and are_plain(y, answers, self.classes_):
            return float((y == answers).mean())
        w = check_weights(sample_weight, len(answers))
        return float(accuracy_score(to_host(unpack(y)), answers, sample_weight=w))

    # ---- what BaseMLP asks for -----------------------------------------------
    def _multilabel(self) -> bool:
        return bool(self._label_binarizer.y_type_.startswith("multilabel"))

    def _objective(self) -> tuple[Any, str]:
        if self._label_binarizer.y_type_ == "multiclass":
            return "softmax_cross_entropy", "softmax"
        return "binary_cross_entropy", "logistic"

    def _constant(self, y: Any) -> None:
        return None

    def _stratify(self, y: Any) -> Any:
        return to_host(y).astype(bool) if self.n_outputs_ == 1 else None

    def _default_score(self, rows: Samples, figures: dict[str, float], model: MLP) -> float:
        if len(self.classes_) == 1 and not self._multilabel():
            return 1.0  # `predict` always answers it
        return figures["accuracy"]

    def _class_numbers(self, p: Any) -> Any:
        """Numbers of the answers among `classes_`, from outputs."""
        return p.argmax(axis=1) if p.shape[1] > 1 else (p[:, 0] > 0.5) * (len(self.classes_) - 1)

    def _check_rows(self, X: Any, y: Any, w: Any, incremental: bool, reset: bool) -> Samples:
        rows = check_rows(self, X, y, w, reset, numeric=False)
        if not hasattr(self, "classes_") or not (self.warm_start or incremental):
            self._label_binarizer = fit_labels(rows.y)
            self.classes_ = self._label_binarizer.classes_
        else:
            check_kind(self._label_binarizer, rows.y)
            check_classes(self.classes_, labels_of(rows.y), self.warm_start)
        self._class_factors = None
        if self.class_weight is not None:
            self._class_factors = class_factors(self.class_weight, self._label_binarizer, rows.y)
        rows = self._encoded(rows, "sample_weight")
        self.n_outputs_ = rows.y.shape[1] if rows.y.ndim == 2 else len(self.classes_)
        return rows

    def _check_validation(self, X: Any, y: Any, w: Any) -> Samples:
        rows = check_rows(self, X, y, w, reset=False, numeric=False, name="sample_weight_val")
        check_kind(self._label_binarizer, rows.y, "y_val")
        check_classes(self.classes_, labels_of(rows.y), same=False)
        return self._encoded(rows, "sample_weight_val")

    def _encoded(self, rows: Samples, name: str) -> Samples:
        """The same rows with targets for the network, and weights times those of their classes."""
        y = rows.y
        rows.y = encode(self._label_binarizer, y)
        if self._class_factors is None:
            return rows
        w = factors_of_rows(self._class_factors, self._label_binarizer, y)
        rows.w = scaled_weights(w if rows.w is None else rows.w * w, f"{name} times class_weight")
        return rows.with_weight()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class MLPRegressor(RegressorMixin, BaseMLP):
    """Multilayer perceptron for regression, with one output or several.

    Parameters
    ----------
    loss : str, gpumlp.Huber, gpumlp.Quantile or gpumlp.Loss, default="squared_error"
        "squared_error" (half the mean square) and "poisson" (half the deviance; the output is exp of the
        network) as in scikit-learn, "absolute_error", "huber", "quantile" (means over rows and outputs), or
        one of your own.  Quantiles of one target: `predict` gives a column for each level, in ascending
        order, and `score` is that of the level nearest to 0.5.
    hidden_layer_sizes, activation, solver, alpha, batch_size, learning_rate, learning_rate_init, power_t, \
    max_iter, shuffle, random_state, tol, verbose, warm_start, momentum, nesterovs_momentum, early_stopping, \
    validation_fraction, beta_1, beta_2, epsilon, n_iter_no_change, max_fun
        As in `sklearn.neural_network.MLPRegressor`; more names for `activation` and `solver` as in
        `MLPClassifier`.
    dropout, l1, scoring, callbacks, device, dtype
        As in `MLPClassifier`; `scoring=None` is R2.

    Attributes
    ----------
    As in `MLPClassifier`, without `classes_`.

    Examples
    --------
    >>> import gpumlp
    >>> X, y = [[0.0], [1.0], [2.0], [3.0]], [1.0, 3.0, 5.0, 7.0]
    >>> linear = {"hidden_layer_sizes": (), "solver": "lbfgs", "alpha": 0, "random_state": 0}
    >>> reg = gpumlp.MLPRegressor(**linear, device="cpu")
    >>> reg.fit(X, y).predict([[4.0]]).round(3)
    array([9.])
    """

    _parameter_constraints: ClassVar[dict] = {
        **BaseMLP._parameter_constraints,
        "loss": [StrOptions(Names(LOSSES, fit=lambda loss: loss.metric == "rmse")), LossObject, Loss],
    }

    def __init__(
        self,
        loss: Any = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: str = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        dropout: Any = 0.0,
        l1: float = 0.0,
        scoring: Any = None,
        callbacks: Any = None,
        device: Any = "auto",
        dtype: Any = None,
    ) -> None:
        assign(self, locals())

    @available_if(lambda est: est._check_solver())
    @_fit_context(prefer_skip_nested_validation=True)
    @where_rows_are
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPRegressor:
        """One pass over the given rows; parameters as in `fit`."""
        for _ in self._pieces(X, y, sample_weight, None, incremental=True):
            pass
        return self

    @where_rows_are
    def predict(self, X: Any) -> Any:
        """Values (n_samples,) or (n_samples, n_outputs); CuPy if `X` is on a GPU, else NumPy."""
        out = self._output(X, "identity")
        return out[:, 0] if out.shape[1] == 1 else out

    @where_rows_are
    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """R2, the mean over outputs."""
        answers = to_host(self.predict(X))
        w = check_weights(sample_weight, len(answers))
        y = to_host(unpack(y))
        if self.out_activation_ == "sorted" and answers.ndim == 2:
            answers = answers[:, centre(get_loss(self.loss)[1])]
        return float(r2_score(y.toarray() if hasattr(y, "toarray") else y, answers, sample_weight=w))

    # ---- what BaseMLP asks for -----------------------------------------------
    def _objective(self) -> tuple[Any, str]:
        return self.loss, get_loss(self.loss)[0].link

    def _constant(self, y: Any) -> np.ndarray | None:
        if self.loss != "poisson":
            return None
        y = to_host(y).astype(np.float64)
        return (xlogy(y, y) - y).sum(axis=1)

    def _stratify(self, y: Any) -> None:
        return None

    def _default_score(self, rows: Samples, figures: dict[str, float], model: MLP) -> float:
        if self.n_outputs_ == 1 or self.out_activation_ == "sorted":
            return figures["r2"] if np.isfinite(figures["rmse"]) else float("nan")
        out = to_host(model.predict(rows.X))
        if not np.isfinite(out).all():
            return float("nan")
        return float(r2_score(to_host(rows.y), out, sample_weight=rows.w))

    def _check_rows(self, X: Any, y: Any, w: Any, incremental: bool, reset: bool) -> Samples:
        rows = self._targets(check_rows(self, X, y, w, reset, numeric=True))
        self.n_outputs_ = outputs_for(*loss_of_values(self.loss), rows.y.shape[1])
        return rows

    def _check_validation(self, X: Any, y: Any, w: Any) -> Samples:
        rows = check_rows(self, X, y, w, reset=False, numeric=True, name="sample_weight_val")
        rows = self._targets(rows, "y_val")
        n = get_loss(self.loss)[0].targets(self.n_outputs_)
        if rows.y.shape[1] != n:
            raise ValueError(f"y_val has {rows.y.shape[1]} columns of targets, y has {n}; they must be equal")
        return rows

    def _targets(self, rows: Samples, name: str = "y") -> Samples:
        """The same rows with targets (n_samples, n_outputs) for the network."""
        y = rows.y.reshape(rows.y.shape[0], -1)
        rows.y = y if y.dtype.kind == "f" else y.astype(np.float64)
        if self._objective()[1] == "exp" and float(rows.y.min()) < 0:
            raise ValueError(
                f"loss={self.loss!r} needs {name} >= 0; {name} goes down to {float(rows.y.min()):g}"
            )
        return rows
