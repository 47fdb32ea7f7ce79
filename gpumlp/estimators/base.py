"""What the two estimators share: fitting, early stopping, the parameters as arrays, pickling.

Random numbers come from ``check_random_state(random_state)`` in scikit-learn's order: weights and biases
layer by layer, the validation split, a shuffle per epoch; with dropout, a key of its masks before these.
"""

from __future__ import annotations

import threading
import warnings
from abc import ABC, abstractmethod
from itertools import chain, pairwise
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator, _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import check_scoring, get_scorer_names
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.validation import check_is_fitted

from gpumlp.activations import ACTIVATIONS
from gpumlp.backends import Backend, backend_of, get_backend
from gpumlp.estimators.engine import Engine, Objective, Solver
from gpumlp.estimators.inputs import Rows, cast, check_X, dense, on_device, to_host, where_rows_are
from gpumlp.locks import free_after_fork
from gpumlp.model.mlp import MLP
from gpumlp.optimizers import SGD
from gpumlp.plans.operations import FORWARD_ROWS

__all__ = ["BaseMLP"]

STOCHASTIC = ("sgd", "adam", "adagrad", "rmsprop", "adamw")
_NOT_FINITE = (
    "Solver produced non-finite parameter weights. The input data may contain large values and need to be "
    "preprocessed."
)


class _Network:
    """A network on a device, and a lock: predictions from several threads share its buffers."""

    def __init__(self, model: MLP, key: tuple) -> None:
        self.model, self.key = model, key
        self.engine: Engine | None = None
        self.lock = threading.RLock()
        free_after_fork(self, "lock")


class BaseMLP(BaseEstimator, ABC):
    """Base of `MLPClassifier` and `MLPRegressor`."""

    _parameter_constraints: ClassVar[dict] = {
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions({"logistic", *ACTIVATIONS})],
        "solver": [StrOptions({"lbfgs", *STOCHASTIC})],
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

    # ---- what the classifier and the regressor define -----------------------------------------------
    @abstractmethod
    def _check_rows(self, X: Any, y: Any, w: Any, incremental: bool, reset: bool) -> Rows:
        """Checked training rows; sets what depends on y."""

    @abstractmethod
    def _check_validation(self, X: Any, y: Any, w: Any) -> Rows:
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
    def _default_score(self, rows: Rows, figures: dict[str, float]) -> float:
        """Accuracy or R2 of validation rows."""

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
            NumPy, pandas, polars, SciPy, CuPy, or what speaks DLPack or ``__cuda_array_interface__``.
            float32 is computed in float32, all else in float64, unless `dtype` says otherwise.
        y : array-like (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like (n_samples,), optional
        X_val, y_val, sample_weight_val : optional
            Rows for `validation_loss_curve_` and early stopping, instead of a part of X.

        Returns
        -------
        self
        """
        validation = None
        if (X_val is None) != (y_val is None):
            raise ValueError("X_val and y_val must be given together")
        if X_val is not None:
            validation = (X_val, y_val, sample_weight_val)
        return self._fit(X, y, sample_weight, validation, incremental=False)

    def _check_solver(self) -> bool:
        if self.solver not in STOCHASTIC:
            raise AttributeError(
                f"partial_fit is only available for stochastic optimizers. {self.solver} is not stochastic."
            )
        return True

    def _fit(self, X: Any, y: Any, sample_weight: Any, validation: Any, incremental: bool) -> Any:
        hidden = self.hidden_layer_sizes
        hidden = list(hidden) if hasattr(hidden, "__iter__") else [hidden]
        if np.any(np.array(hidden) <= 0):
            raise ValueError(f"hidden_layer_sizes must be > 0, got {hidden}.")
        first = not hasattr(self, "coefs_") or (not self.warm_start and not incremental)
        rows = self._check_rows(X, y, sample_weight, incremental, reset=first)
        self._random_state = check_random_state(self.random_state)
        dtype = np.dtype(self.dtype or rows.X.dtype) if first else self.coefs_[0].dtype
        if first:
            self._initialize([rows.X.shape[1], *hidden, self.n_outputs_], dtype)
        held = self._network(backend_of(rows.X) if on_device(rows.X) else None, dtype)
        with held.lock:
            if self.solver == "lbfgs":
                self._fit_lbfgs(held.model, rows, validation)
            else:
                self._fit_stochastic(held, rows, validation, incremental)
        if not all(np.isfinite(w).all() for w in chain(self.coefs_, self.intercepts_)):
            raise ValueError(_NOT_FINITE)
        return self

    def _initialize(self, sizes: list[int], dtype: np.dtype) -> None:
        """Start values and empty records."""
        self.n_iter_, self.t_, self.n_layers_ = 0, 0, len(sizes)
        _, self.out_activation_ = self._objective()
        self.coefs_, self.intercepts_ = [], []
        for n_in, n_out in pairwise(sizes):
            bound = np.sqrt((2.0 if self.activation in ("logistic", "sigmoid") else 6.0) / (n_in + n_out))
            self.coefs_.append(
                self._random_state.uniform(-bound, bound, (n_in, n_out)).astype(dtype, copy=False)
            )
            self.intercepts_.append(
                self._random_state.uniform(-bound, bound, n_out).astype(dtype, copy=False)
            )
        self._best_parameters = [
            (w.copy(), b.copy()) for w, b in zip(self.coefs_, self.intercepts_, strict=True)
        ]
        self.__dict__.pop("_held", None)
        if self.solver in STOCHASTIC:
            self._start_records()

    def _start_records(self) -> None:
        self.loss_curve_: list[float] = []
        self.validation_loss_curve_: list[float] | None = None
        self._no_improvement_count = 0
        stop = self.early_stopping
        self.best_loss_: Any = None if stop else np.inf
        self.validation_scores_: list[float] | None = [] if stop else None
        self.best_validation_score_: Any = -np.inf if stop else None

    def _network(self, backend: Backend | None, dtype: np.dtype) -> _Network:
        """The network on its device, with the parameters that `coefs_` and `intercepts_` hold."""
        held: _Network | None = self.__dict__.get("_held")
        sizes = [self.coefs_[0].shape[0], *(len(b) for b in self.intercepts_)]
        chosen = backend if self.device == "auto" else None
        key = (self.device, self.activation, repr(self.dropout), sizes, dtype)
        if held is None or held.key != key or (chosen and held.model.backend is not chosen):
            activation = "sigmoid" if self.activation == "logistic" else self.activation
            model = MLP(
                sizes,
                activation,
                dropout=self.dropout if len(sizes) > 2 else 0.0,
                init=0.0,
                dtype=dtype,
                device=chosen or get_backend(self.device),
            )
            if backend is not None and model.backend.name != "cuda":
                raise TypeError(
                    f"X is on a CUDA device but the model is on {model.device} (device={self.device!r}); "
                    "use device='auto' or 'cuda', or pass X.get()"
                )
            held = self._held = _Network(model, key)
        with held.lock:
            held.model.set_parameters(list(zip(self.coefs_, self.intercepts_, strict=True)))
        return held

    def _read_parameters(self, model: MLP) -> None:
        pairs = model.get_parameters()
        self.coefs_, self.intercepts_ = [w for w, _ in pairs], [b for _, b in pairs]

    def _fit_lbfgs(self, model: MLP, rows: Rows, validation: Any) -> None:
        import scipy.optimize
        from sklearn.utils.optimize import _check_optimize_result

        if validation is not None or self.l1 > 0 or any(model.dropouts):
            raise ValueError(
                "solver='lbfgs' knows no X_val, l1 or dropout; use one of " + ", ".join(STOCHASTIC)
            )
        loss, _ = self._objective()
        engine = Engine(model, loss, SGD(lr=0.0), self.alpha)
        X = dense(rows.X, model.dtype)
        function = Objective(
            engine, X, cast(rows.y, model.dtype), cast(rows.w, model.dtype), self._constant(rows.y)
        )
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

    def _fit_stochastic(self, held: _Network, rows: Rows, validation: Any, incremental: bool) -> None:
        if not incremental or not hasattr(self, "_optimizer"):
            self._optimizer = Solver(self)
        if not hasattr(self, "loss_curve_"):
            self._start_records()
        if self.early_stopping and incremental:
            raise ValueError("partial_fit does not support early_stopping=True")
        engine, model = self._engine(held), held.model
        rows, val = self._validation_rows(rows, validation)
        n = rows.X.shape[0]
        batch = min(200, n) if self.batch_size == "auto" else int(min(self.batch_size, n))
        if self.batch_size != "auto" and self.batch_size > n:
            warnings.warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped",
                stacklevel=2,
            )
        self._load(engine, rows, val, batch, incremental)
        best = None
        if self.early_stopping:
            best = model.backend.empty(model.flat_size, model.dtype)
            current = model.get_parameters()
            model.set_parameters(self._best_parameters)
            model.backend.copy(best, model.flat)
            model.set_parameters(current)
        try:
            self._epochs(engine, n, val, best, incremental)
        except KeyboardInterrupt:
            warnings.warn("Training interrupted by user.", stacklevel=2)
        if best is not None:
            model.backend.copy(model.flat, best)
        self._read_parameters(model)
        if best is not None:
            self._best_parameters = list(zip(self.coefs_, self.intercepts_, strict=True))

    def _engine(self, held: _Network) -> Engine:
        """The engine of the network; a new one if it does not fit the estimator's parameters any more."""
        optimizer, alpha, l1 = self._optimizer.optimizer, float(self.alpha), float(self.l1)
        engine = held.engine
        if engine is None or engine.optimizer is not optimizer or (engine.alpha, engine.l1) != (alpha, l1):
            seed = int(self._random_state.randint(2**31 - 1)) if any(held.model.dropouts) else 0
            engine = held.engine = Engine(held.model, self._objective()[0], optimizer, alpha, l1, seed)
        return engine

    def _validation_rows(self, rows: Rows, validation: Any) -> tuple[Rows, Rows | None]:
        """(training rows, validation rows): the given ones, or a split for early stopping."""
        if validation is not None:
            return rows, self._check_validation(*validation)
        if not self.early_stopping:
            return rows, None
        train, held = train_test_split(
            np.arange(rows.X.shape[0]),
            random_state=self._random_state,
            test_size=self.validation_fraction,
            stratify=self._stratify(rows.y),
        )
        if len(held) < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."
            )
        if rows.w is not None and not (rows.w[train].any() and rows.w[held].any()):
            raise ValueError(
                "Sample weights must contain at least one non-zero number on both sides of the split for "
                "early stopping; increase validation_fraction, or give validation data"
            )
        return rows.take(train), rows.take(held)

    def _load(self, engine: Engine, rows: Rows, val: Rows | None, batch: int, incremental: bool) -> None:
        dtype = engine.model.dtype
        X, y, w = dense(rows.X, dtype), cast(rows.y, dtype), cast(rows.w, dtype)
        engine.load_rows(X, y, w, batch, incremental, self._constant(rows.y))
        engine.evaluation = None
        if val is None:
            return
        if self.validation_loss_curve_ is None:
            self.validation_loss_curve_ = []
        constant = self._constant(val.y)
        self._val_constant = 0.0 if constant is None else float(np.average(constant, weights=val.w))
        engine.load_validation(dense(val.X, dtype), cast(val.y, dtype), cast(val.w, dtype))

    def _epochs(self, engine: Engine, n: int, val: Rows | None, best: Any, incremental: bool) -> None:
        solver, order = self._optimizer, np.arange(n)
        scorer = self._scorer() if best is not None else None
        callbacks = [self.callbacks] if callable(self.callbacks) else list(self.callbacks or ())
        self.n_iter_ = 0
        for _ in range(self.max_iter):
            if self.shuffle:
                permutation = np.arange(n)
                self._random_state.shuffle(permutation)
                order = order[permutation]
            self.loss_, figures = engine.run_epoch(order, solver.learning_rate)
            self.n_iter_ += 1
            self.t_ += n
            self.loss_curve_.append(self.loss_)
            if self.verbose:
                print(f"Iteration {self.n_iter_}, loss = {self.loss_:.8f}")
            if val is not None:
                figures["loss"] += self._val_constant
                assert self.validation_loss_curve_ is not None
                self.validation_loss_curve_.append(figures["loss"])
            if scorer or callbacks:
                self._read_parameters(engine.model)
            if best is not None:
                assert val is not None
                self._count_scores(engine.model, self._score(scorer, val, figures), best)
            else:
                self._count_losses()
            solver.iteration_ends(self.t_)
            if self._no_improvement_count > self.n_iter_no_change:
                what = "Validation score" if best is not None else "Training loss"
                message = (
                    f"{what} did not improve more than tol={self.tol:f} for "
                    f"{self.n_iter_no_change:.0f} consecutive epochs."
                )
                if solver.trigger_stopping(message, self.verbose):
                    break
                self._no_improvement_count = 0
            ended = [bool(callback(self)) for callback in callbacks]
            if any(ended) or incremental:
                break
            if self.n_iter_ == self.max_iter:
                warnings.warn(
                    f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) reached and the "
                    "optimization hasn't converged yet.",
                    ConvergenceWarning,
                    stacklevel=2,
                )

    def _scorer(self) -> Any:
        return None if self.scoring in (None, "loss") else check_scoring(self, self.scoring)

    def _score(self, scorer: Any, val: Rows, figures: dict[str, float]) -> float:
        if self.scoring == "loss":
            return -figures["loss"]
        if scorer is None:
            return self._default_score(val, figures)
        return float(scorer(self, *(to_host(part) for part in val.given)))

    def _count_scores(self, model: MLP, score: float, best: Any) -> None:
        assert self.validation_scores_ is not None
        self.validation_scores_.append(score)
        if self.verbose:
            print(f"Validation score: {score:f}")
        worse = score < self.best_validation_score_ + self.tol
        self._no_improvement_count = self._no_improvement_count + 1 if worse else 0
        if score > self.best_validation_score_:
            self.best_validation_score_ = score
            model.backend.copy(best, model.flat)

    def _count_losses(self) -> None:
        loss = self.loss_curve_[-1]
        worse = loss > self.best_loss_ - self.tol
        self._no_improvement_count = self._no_improvement_count + 1 if worse else 0
        self.best_loss_ = min(self.best_loss_, loss)

    # ---- use -----------------------------------------------
    def _output(self, X: Any, link: str) -> Any:
        """The network's output (n_samples, n_outputs) with `link` applied; CuPy if `X` is on a device."""
        check_is_fitted(self)
        X = check_X(self, X)
        held = self._network(backend_of(X) if on_device(X) else None, self.coefs_[0].dtype)
        with held.lock:
            if not hasattr(X, "toarray"):
                return held.model._run(X, link)
            X = X.tocsr()
            parts = [
                X[start : start + FORWARD_ROWS].toarray() for start in range(0, X.shape[0], FORWARD_ROWS)
            ]
            return np.concatenate([held.model._run(part, link) for part in parts])

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_held"}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
