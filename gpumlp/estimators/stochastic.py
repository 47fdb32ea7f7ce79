"""A call of `fit` or `partial_fit` with a stochastic solver: rows, epochs, early stopping."""

from __future__ import annotations

import inspect
import warnings
import weakref
from collections.abc import Callable, Generator
from operator import is_
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import check_scoring
from sklearn.model_selection import train_test_split

from gpumlp.backends.lane import here
from gpumlp.estimators.arena import Arena
from gpumlp.estimators.engine import Passes
from gpumlp.estimators.inputs import (
    Samples,
    to_host,
)
from gpumlp.estimators.solver import Solver
from gpumlp.model import MLP
from gpumlp.training.loop import RECORDED, WORKING

__all__ = ["StochasticFit", "Training", "start_records"]


def start_records(est: Any) -> None:
    """Empty records of losses and scores."""
    est.loss_curve_, est.validation_loss_curve_ = [], None
    est._no_improvement_count = 0
    stop = est.early_stopping
    est.best_loss_ = None if stop else np.inf
    est.validation_scores_ = [] if stop else None
    est.best_validation_score_ = -np.inf if stop else None


class Training:
    """A network that is trained, what it was made from, the engine that trains it, and the call that does."""

    def __init__(self, model: MLP, key: tuple) -> None:
        self.model, self.key = model, key
        self.running: StochasticFit | None = None
        self._engine: Passes | None = None
        self._made: tuple = ()
        self._solver: weakref.ref[Solver] | None = None  # of the fit that the engine was last used for
        self.waits = False  # see `Passes`

    @property
    def passes(self) -> Passes | None:
        """The engine, if there is one."""
        return self._engine

    def engine(self, est: Any) -> Passes:
        """The engine; a new one if it no longer fits the estimator's parameters."""
        solver: Solver = est._optimizer
        alpha, l1 = float(est.alpha), float(est.l1)
        seed = est._dropout_seed if any(self.model.dropouts) else 0
        engine, made = self._engine, (est._objective()[0], seed)
        if engine is None or made != self._made or not self._hand_over(engine, solver, alpha, l1):
            engine = self._engine = Passes(self.model, made[0], solver.optimizer, alpha, l1, seed)
            self._made = made
        self._solver = weakref.ref(solver)
        return engine

    def _hand_over(self, engine: Passes, solver: Solver, alpha: float, l1: float) -> bool:
        """Whether the engine serves `solver`: it has, or the solver is new and its rule has the same options;
        then the solver gets the engine's optimizer, and the one before a copy."""
        if solver.optimizer is engine.optimizer:
            return (alpha, l1) == (engine.alpha, engine.l1)
        if not engine.starts_again(solver.optimizer, alpha, l1):
            return False
        before = None if self._solver is None else self._solver()
        if before is not None and before.optimizer is engine.optimizer:
            before.optimizer = engine.optimizer_now()
        solver.optimizer = engine.start_again(alpha, l1)
        return True


class StochasticFit:
    """One call, ready to train: the rows are on the device.

    Parameters
    ----------
    est : estimator
    training : Training
    rows : Samples
    val : Samples or None
        Validation rows that were given.
    incremental : bool
        One epoch, and the rows are copied to buffers that the next call uses again.
    """

    def __init__(
        self, est: Any, training: Training, rows: Samples, val: Samples | None, incremental: bool
    ) -> None:
        self.est, self.model, self.incremental = est, training.model, incremental
        self.training, training.running = training, self
        self.engine = training.engine(est)
        self.engine.waits = training.waits
        rows, self.val = self._split(rows, val)
        self.n = n = rows.X.shape[0]
        batch = min(200, n) if est.batch_size == "auto" else int(min(est.batch_size, n))
        if est.batch_size != "auto" and est.batch_size > n:
            warnings.warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped",
                stacklevel=2,
            )
        self.scorer = None
        if est.early_stopping and est.scoring not in (None, "loss"):
            self.scorer = check_scoring(est, est.scoring)
        self.callbacks = [est.callbacks] if callable(est.callbacks) else list(est.callbacks or ())
        self._load(rows, batch)
        self.best = self._best() if est.early_stopping else None

    # ---- before the first epoch -----------------------------------------------
    def _split(self, rows: Samples, val: Samples | None) -> tuple[Samples, Samples | None]:
        """(training rows, validation rows): the given ones, or a split for early stopping."""
        est = self.est
        if val is not None or not est.early_stopping:
            return rows, val
        if rows.w is not None and rows.X.shape[0] < 2:
            raise ValueError(
                "Sample weights must contain at least one non-zero number on both sides of the split for "
                "early stopping; give more rows a weight, or give validation data"
            )
        train, held = train_test_split(
            np.arange(rows.X.shape[0]),
            random_state=est._random_state,
            test_size=est.validation_fraction,
            stratify=est._stratify(rows.y),
        )
        if len(held) < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."
            )
        rows, val = rows.split(train, held)
        return rows, val

    def _load(self, rows: Samples, batch: int) -> None:
        est, engine, dtype, val = self.est, self.engine, self.model.dtype, self.val
        rows = rows.of(dtype)
        #: what the device holds and every figure is computed from
        self.val = None if val is None else val.of(dtype)
        if val is not None:
            if est.validation_loss_curve_ is None:
                est.validation_loss_curve_ = []
            constant = est._constant(val.y)
            self.constant = 0.0 if constant is None else float(np.average(constant, weights=val.w))
        loaded = rows, self.val, batch
        kept = not (self.incremental or engine.waits)
        if kept and engine.loaded is not None and all(map(is_, engine.loaded, loaded)):
            return
        engine.load_rows(rows.X, rows.y, rows.w, batch, self.incremental, est._constant(rows.y))
        engine.evaluation = None
        if self.val is not None:
            engine.load_validation(self.val.X, self.val.y, self.val.w)
        engine.loaded = None if engine.waits else loaded

    def _best(self) -> Any:
        """The best parameters so far, on the device."""
        model = self.model
        best, current = model.backend.empty(model.flat_size, model.dtype), model.get_parameters()
        model.set_parameters(self.est._best_parameters)
        model.backend.copy(best, model.flat)
        model.set_parameters(current)
        return best

    # ---- epochs -----------------------------------------------
    def pieces(self) -> Generator[str, None, None]:
        """Train, in pieces as `Loop.pieces`; then the estimator has the parameters, with early stopping the
        best ones, also if the generator is closed before."""
        try:
            yield from self._epochs()
        except KeyboardInterrupt:
            warnings.warn("Training interrupted by user.", stacklevel=2)
        except GeneratorExit:
            self._end()
            raise
        self._end()

    def show(self) -> None:
        """Give the estimator the parameters that it would have if the fit ended now."""
        model = self.model
        self.engine.fetch()
        flat = model.flat if self.best is None else self.best
        self.est._take(Arena(model.layers, model.backend.to_numpy(flat)))

    def _end(self) -> None:
        est, model, best = self.est, self.model, self.best
        self.training.running = None
        self.engine.rise()
        if best is not None:
            model.backend.copy(model.flat, best)
            est._best_parameters = model.get_parameters()
        est._read_parameters(model)

    def _epochs(self) -> Generator[str, None, None]:
        est, n, order = self.est, self.n, np.arange(self.n)
        est.n_iter_ = 0
        for _ in range(est.max_iter):
            if est.shuffle:
                permutation = np.arange(n)
                est._random_state.shuffle(permutation)
                order = order[permutation]
            self.engine.start_epoch(order, est._optimizer.learning_rate)
            yield WORKING
            est.loss_, figures = self.engine.end_epoch()
            self._record(figures)
            if self.scorer or self.callbacks:
                self.engine.fetch()
                est._read_parameters(self.model)
            if self.best is not None:
                self._count_scores(self._score(figures))
            else:
                self._count_losses()
            est._optimizer.iteration_ends(est.t_)
            if self._stops():
                break
            ended = [bool(_called(callback, est)) for callback in self.callbacks]
            if any(ended) or self.incremental:
                break
            if est.n_iter_ == est.max_iter:
                warnings.warn(
                    f"Stochastic Optimizer: Maximum iterations ({est.max_iter}) reached and the "
                    "optimization hasn't converged yet.",
                    ConvergenceWarning,
                    stacklevel=2,
                )
                break
            yield RECORDED

    def _record(self, figures: dict[str, float]) -> None:
        est = self.est
        est.n_iter_ += 1
        est.t_ += self.n
        est.loss_curve_.append(est.loss_)
        if est.verbose:
            print(f"Iteration {est.n_iter_}, loss = {est.loss_:.8f}")
        if self.val is not None:
            figures["loss"] += self.constant
            est.validation_loss_curve_.append(figures["loss"])

    def _stops(self) -> bool:
        """Whether there was no progress for too long."""
        est = self.est
        if est._no_improvement_count <= est.n_iter_no_change:
            return False
        what = "Validation score" if self.best is not None else "Training loss"
        message = (
            f"{what} did not improve more than tol={est.tol:f} for "
            f"{est.n_iter_no_change:.0f} consecutive epochs."
        )
        if est._optimizer.trigger_stopping(message, est.verbose):
            return True
        est._no_improvement_count = 0
        return False

    # ---- scores -----------------------------------------------
    def _score(self, figures: dict[str, float]) -> float:
        assert self.val is not None
        if self.est.scoring == "loss":
            return -figures["loss"]
        if self.scorer is None:
            self.engine.fetch()
            return float(self.est._default_score(self.val, figures, self.model))
        given = [to_host(part) for part in self.val.given]
        weights = {}
        if self.val.w is not None and _takes_weights(self.scorer):
            weights["sample_weight"] = self.val.w.astype(np.float64)
        return float(_called(self.scorer, self.est, *given, **weights))

    def _count_scores(self, score: float) -> None:
        est, model = self.est, self.model
        est.validation_scores_.append(score)
        if est.verbose:
            print(f"Validation score: {score:f}")
        worse = score < est.best_validation_score_ + est.tol
        est._no_improvement_count = est._no_improvement_count + 1 if worse else 0
        if score > est.best_validation_score_:
            est.best_validation_score_ = score
            self.engine.fetch()
            model.backend.copy(self.best, model.flat)

    def _count_losses(self) -> None:
        est = self.est
        loss = est.loss_curve_[-1]
        worse = loss > est.best_loss_ - est.tol
        est._no_improvement_count = est._no_improvement_count + 1 if worse else 0
        est.best_loss_ = min(est.best_loss_, loss)


def _called(function: Callable, *given: Any, **named: Any) -> Any:
    """What a function of the user's says; of several trainings side by side one calls at a time."""
    return function(*given, **named) if here.lane is None else here.lane.call(function, *given, **named)


def _takes_weights(scorer: Any) -> bool:
    """Whether a scorer knows `sample_weight`: its metric does, or the function itself."""
    try:
        parameters = inspect.signature(getattr(scorer, "_score_func", scorer)).parameters.values()
    except (TypeError, ValueError):  # written in C
        return False
    return any(p.name == "sample_weight" or p.kind is p.VAR_KEYWORD for p in parameters)
