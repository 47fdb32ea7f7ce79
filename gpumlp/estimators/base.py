"""What the two estimators share: fitting, predicting, the parameters as arrays, pickling.

Random numbers come from ``check_random_state(random_state)`` in scikit-learn's order: weights and biases
layer by layer, the validation split, a shuffle per epoch; with dropout, a key of its masks before these.
"""

from __future__ import annotations

import copy
import functools
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import chain, pairwise
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator, _fit_context
from sklearn.metrics import get_scorer_names
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, Options, StrOptions

from gpumlp.activations import ACTIVATIONS, Activation, carried_activations, take_activations
from gpumlp.estimators.arena import Answers, Arena, sizes_of
from gpumlp.estimators.engine import AllRows, Passes
from gpumlp.estimators.inputs import (
    Samples,
    cast,
    dense,
    where_rows_are,
)
from gpumlp.estimators.names import Names, name_of_activation
from gpumlp.estimators.networks import Networks
from gpumlp.estimators.shared import Shared
from gpumlp.estimators.solver import Solver
from gpumlp.estimators.stochastic import StochasticFit, Training, start_records
from gpumlp.model import MLP
from gpumlp.optimizers import OPTIMIZERS, SGD, Optimizer

__all__ = ["BaseMLP"]

_NOT_FINITE = (
    "Solver produced non-finite parameter weights. The input data may contain large values and need to be "
    "preprocessed."
)
#: attributes that are made again when they are needed: not in pickles
_MADE = ("_held", "_training")


def assign(est: Any, values: dict[str, Any]) -> None:
    """The arguments of a constructor as attributes, unchecked (scikit-learn's convention)."""
    vars(est).update((k, v) for k, v in values.items() if k not in ("self", "__class__"))


@contextmanager
def unchanged_if_refused(est: Any) -> Iterator[None]:
    """An estimator keeps its attributes if the block raises."""
    before = dict(vars(est))
    try:
        yield
    except BaseException:
        for name in set(vars(est)) - set(before):
            delattr(est, name)
        vars(est).update(before)
        raise


class BaseMLP(Networks, BaseEstimator, ABC):
    """Base of `MLPClassifier` and `MLPRegressor`."""

    _parameter_constraints: ClassVar[dict] = {
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions(Names(ACTIVATIONS, "logistic")), Activation],
        "solver": [StrOptions(Names(OPTIMIZERS, "lbfgs")), Optimizer],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "learning_rate": [StrOptions({"constant", "invscaling", "adaptive"})],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "power_t": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "tol": [Interval(Real, 0, None, closed="left")],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "momentum": [Interval(Real, 0, 1, closed="both")],
        "nesterovs_momentum": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "beta_1": [Interval(Real, 0, 1, closed="left")],
        "beta_2": [Interval(Real, 0, 1, closed="left")],
        "epsilon": [Interval(Real, 0, None, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left"), Options(Real, {np.inf})],
        "max_fun": [Interval(Integral, 1, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left"), "array-like"],
        "l1": [Interval(Real, 0, None, closed="left")],
        "scoring": [StrOptions({"loss", *get_scorer_names()}), callable, None],
        "callbacks": [list, tuple, callable, None],
        "device": [str],
        "dtype": [StrOptions({"float32", "float64"}), Options(type, {np.float32, np.float64}), None],
    }

    @classmethod
    @functools.cache
    def _get_param_names(cls) -> list[str]:
        return super()._get_param_names()  # scikit-learn reads the constructor's signature at each call

    # ---- what the classifier and the regressor define -----------------------------------------------
    @abstractmethod
    def _check_rows(self, X: Any, y: Any, w: Any, incremental: bool, reset: bool) -> Samples:
        """Checked training rows; sets what depends on y."""

    @abstractmethod
    def _check_validation(self, X: Any, y: Any, w: Any) -> Samples:
        """Checked rows for validation."""

    @abstractmethod
    def _objective(self) -> tuple[Any, str]:
        """(loss, out_activation_)."""

    @abstractmethod
    def _constant(self, y: Any) -> np.ndarray | None:
        """Part of each row's loss that depends on y alone."""

    @abstractmethod
    def _stratify(self, y: Any) -> Any:
        """What the validation split is stratified by."""

    @abstractmethod
    def _default_score(self, rows: Samples, figures: dict[str, float], model: MLP) -> float:
        """Accuracy or R2 of validation rows, as `model` is trained with them; `figures` are theirs."""

    # ---- fitting -----------------------------------------------
    @_fit_context(prefer_skip_nested_validation=True)
    @where_rows_are
    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> Any:
        """Fit the model.

        Parameters
        ----------
        X : array-like or sparse matrix (n_samples, n_features)
            NumPy, pandas, polars, SciPy, CuPy, or anything with DLPack or ``__cuda_array_interface__``.
            float32 is computed in float32, all else in float64, unless `dtype` says otherwise.
        y : array-like (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like (n_samples,), optional
            Finite and >= 0, not all 0.  A row of weight 0 counts as absent.
        X_val, y_val, sample_weight_val : optional
            Samples for `validation_loss_curve_` and early stopping, instead of a part of X.

        Returns
        -------
        self
        """
        for _ in self._fit_pieces(
            None, X, y, sample_weight, X_val=X_val, y_val=y_val, sample_weight_val=sample_weight_val
        ):
            pass
        return self

    def _fit_pieces(
        self,
        shared: Shared | None,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> Generator[str, None, None]:
        """`fit`, after the checks of the estimator's parameters, in pieces as `Loop.pieces`; `shared` with
        others that are given the same rows."""
        validation = None
        if (X_val is None) != (y_val is None):
            raise ValueError("X_val and y_val must be given together")
        if X_val is None and sample_weight_val is not None:
            raise ValueError("sample_weight_val is given without X_val and y_val")
        if X_val is not None:
            validation = (X_val, y_val, sample_weight_val)
        return self._pieces(X, y, sample_weight, validation, False, shared)

    def _check_solver(self) -> bool:
        if self.solver == "lbfgs":
            raise AttributeError(
                f"partial_fit is only available for stochastic optimizers. {self.solver} is not stochastic."
            )
        return True

    def _pieces(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        validation: Any,
        incremental: bool,
        shared: Shared | None = None,
    ) -> Generator[str, None, None]:
        """`fit` or `partial_fit` in pieces, as `Loop.pieces`; what is refused changes nothing."""
        with unchanged_if_refused(self):
            hidden = self.hidden_layer_sizes
            hidden = list(hidden) if hasattr(hidden, "__iter__") else [hidden]
            if np.any(np.array(hidden) <= 0):
                raise ValueError(f"hidden_layer_sizes must be > 0, got {hidden}.")
            if self.early_stopping and incremental:
                raise ValueError("partial_fit does not support early_stopping=True")
            first = not hasattr(self, "coefs_") or (not self.warm_start and not incremental)
            check = functools.partial(self._check_rows, X, y, sample_weight, incremental, reset=first)
            rows = check() if shared is None else shared.rows(self, check)
            val = None if validation is None else self._check_validation(*validation)
            sizes = [rows.X.shape[1], *hidden, self.n_outputs_]
            if not first:
                self._check_sizes(sizes)
            self._random_state = check_random_state(self.random_state)
            if first:
                self._initialize(sizes, np.dtype(self.dtype or rows.X.dtype))
            self.out_activation_ = self._objective()[1]
            self._activation = name_of_activation(self.activation)
            training = self._trained_network(rows, val, shared)
            fitting = (
                self._lbfgs(training.model, rows, validation)
                if self.solver == "lbfgs"
                else self._stochastic(training, rows, val, incremental)
            )
        try:
            yield from fitting
        except GeneratorExit:
            self._share(shared)
            raise
        self._share(shared)
        if not all(np.isfinite(w).all() for w in chain(self.coefs_, self.intercepts_)):
            raise ValueError(_NOT_FINITE)

    def _check_sizes(self, sizes: list[int]) -> None:
        """ValueError if a network that is trained further is asked for other layers."""
        fitted = sizes_of(self.coefs_, self.intercepts_)
        for what, given, known in (
            ("X has {} features", sizes[0], fitted[0]),
            ("y has {} columns of targets", sizes[-1], fitted[-1]),
            ("hidden_layer_sizes is {}", sizes[1:-1], fitted[1:-1]),
        ):
            if given != known:
                raise ValueError(
                    f"{what.format(given)}, but the network of this {type(self).__name__} was fitted with "
                    f"{known}; fit a new estimator, or call fit with warm_start=False"
                )

    def _initialize(self, sizes: list[int], dtype: np.dtype) -> None:
        """Initial values and empty records."""
        self.n_iter_, self.t_, self.n_layers_ = 0, 0, len(sizes)
        self.coefs_, self.intercepts_ = [], []
        for n_in, n_out in pairwise(sizes):
            bound = np.sqrt((2.0 if self.activation in ("logistic", "sigmoid") else 6.0) / (n_in + n_out))
            self.coefs_.append(
                self._random_state.uniform(-bound, bound, (n_in, n_out)).astype(dtype, copy=False)
            )
            self.intercepts_.append(
                self._random_state.uniform(-bound, bound, n_out).astype(dtype, copy=False)
            )
        self._best_parameters = list(zip(self.coefs_, self.intercepts_, strict=True))
        self._held = Answers()
        self.__dict__.pop("_training", None)
        if self.solver != "lbfgs":
            start_records(self)

    def _lbfgs(self, model: MLP, rows: Samples, validation: Any) -> Generator[str, None, None]:
        """Trains the network with L-BFGS, in one piece."""
        if validation is not None or self.l1 > 0 or any(model.dropouts):
            raise ValueError(
                "solver='lbfgs' knows no X_val, l1 or dropout; use one of " + ", ".join(OPTIMIZERS)
            )
        engine = Passes(model, self._objective()[0], SGD(lr=0.0), self.alpha)
        y, w = cast(rows.y, model.dtype), cast(rows.w, model.dtype)
        function = AllRows(engine, dense(rows.X, model.dtype), y, w, self._constant(rows.y))

        def fit() -> Generator[str, None, None]:
            yield from ()
            import scipy.optimize
            from sklearn.utils.optimize import _check_optimize_result

            result = scipy.optimize.minimize(
                function,
                function.start(),
                method="L-BFGS-B",
                jac=True,
                options={"maxfun": self.max_fun, "maxiter": self.max_iter, "gtol": self.tol},
            )
            self.n_iter_ = _check_optimize_result("lbfgs", result, self.max_iter)
            self.loss_ = float(result.fun)
            function.set(result.x)
            self._read_parameters(model)

        return fit()

    def _stochastic(
        self, training: Training, rows: Samples, val: Samples | None, incremental: bool
    ) -> Generator[str, None, None]:
        """Trains the network epoch by epoch."""
        if not incremental or not hasattr(self, "_optimizer"):
            self._optimizer = Solver(self)
        if any(training.model.dropouts) and not (incremental and hasattr(self, "_dropout_seed")):
            self._dropout_seed = int(self._random_state.randint(2**31 - 1))
        if not hasattr(self, "loss_curve_") or (self.best_loss_ is None) != bool(self.early_stopping):
            start_records(self)
        return StochasticFit(self, training, rows, val, incremental).pieces()

    # ---- copies -----------------------------------------------
    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in super().__getstate__().items() if name not in _MADE}
        carried = carried_activations([getattr(self, "_activation", "")])
        return {**state, "_carried": carried} if carried else state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        take_activations(state.pop("_carried", []))
        super().__setstate__(state)
        if "coefs_" not in state:
            return
        try:  # arrays of its own: those of a memory-mapped file cannot be written to
            self._arena = Arena.copy_of(self.coefs_, self.intercepts_)
        except (
            TypeError,
            ValueError,
            IndexError,
            AttributeError,
        ):  # set by hand; reported when they are used
            return
        self.coefs_, self.intercepts_ = list(self._arena.coefs), list(self._arena.intercepts)

    def __copy__(self) -> Any:
        """Parameters are shared, but what a fit left behind, random numbers included, is not."""
        other = type(self).__new__(type(self))
        shared = set(self._get_param_names()) - {"random_state"}
        memo = {id(value): value for name, value in vars(self).items() if name in shared}
        other.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return other

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
