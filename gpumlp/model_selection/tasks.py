"""One fit and its scores, as scikit-learn asks for them: a call of its `_fit_and_score`."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from sklearn import get_config
from sklearn.pipeline import Pipeline
from sklearn.utils.metadata_routing import process_routing
from sklearn.utils.metaestimators import _safe_split
from sklearn.utils.validation import _check_method_params

from gpumlp.estimators.base import BaseMLP
from gpumlp.estimators.shared import Shared

__all__ = ["Fold", "Head", "Task", "network_of"]


def network_of(estimator: Any) -> Any:
    """The `MLPClassifier` or `MLPRegressor` that an estimator is or ends in; None if there is none, or if its
    `fit` is one of its own."""
    last = estimator
    if type(estimator) is Pipeline:
        told = estimator.verbose or getattr(estimator, "transform_input", None) is not None
        if told or len(estimator.steps) < 2:
            return None
        last = estimator.steps[-1][1]
    return last if isinstance(last, BaseMLP) and type(last).fit is BaseMLP.fit else None


class _Kept:
    """Something made when it is first asked for, and dropped when all who want it have done with it."""

    def __init__(self) -> None:
        self.users = 0
        self._value: Any = None
        self._lock = threading.Lock()

    def get(self, make: Callable[[], Any]) -> Any:
        with self._lock:
            if self._value is None:
                self._value = make()
            return self._value

    def release(self) -> None:
        self.users -= 1
        if not self.users:
            self._value = None


class Fold(_Kept):
    """What `fit` gets with the training rows of a split: (what fits share, X, y, named arguments)."""


class Head(_Kept):
    """The steps of a pipeline before the last one, fitted on a fold: (what fits share, steps, new X)."""


class Task:
    """A call of `_fit_and_score` whose fit can be done beforehand.

    Parameters
    ----------
    function, args, kwargs
        The call.  The parameters of the candidate are set.
    fold : Fold
    head : Head or None
        For a pipeline.

    Attributes
    ----------
    candidate : int
        The number of the candidate.
    result : dict or None
        What `_fit_and_score` returns, when the fit has ended.
    """

    def __init__(
        self, function: Callable, args: tuple, kwargs: dict[str, Any], fold: Fold, head: Head | None
    ) -> None:
        # without scikit-learn's wrapper, which changes the filters of warnings for all threads: the call is
        # made in the thread of the search, whose settings are those that the wrapper would bring
        self._function = inspect.unwrap(function)
        self._kwargs, self._fold, self._head = kwargs, fold, head
        self.estimator, self._X, self._y = args
        self.result: dict[str, Any] | None = None
        self.candidate = (kwargs.get("candidate_progress") or (0,))[0]
        self.n_rows, self.n_features = len(kwargs["train"]), np.shape(self._X)[-1]
        fold.users += 1
        if head is not None:
            head.users += 1

    def arguments(self) -> tuple[Shared, tuple, dict[str, Any]]:
        """What is shared with other fits, and the arguments of the network's `fit`."""
        shared, X, y, named = self._fold.get(self._split)
        if self._head is not None:
            first, named = self._by_step(named)
            shared, steps, X = self._head.get(partial(self._fit_head, X, y, first))
            self.estimator.steps[:-1] = steps
        return shared, (X,) if y is None else (X, y), named

    def _split(self) -> tuple[Shared, Any, Any, dict[str, Any]]:
        train = np.asarray(self._kwargs["train"])
        given = self._kwargs.get("fit_params") or {}
        named = _check_method_params(self._X, params=given, indices=train)
        return (Shared(), *_safe_split(self.estimator, self._X, self._y, train), named)

    def _by_step(self, named: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Arguments of a pipeline's `fit`: for the steps before the last one, and for that one."""
        *steps, last = (name for name, _ in self.estimator.steps)
        if not get_config()["enable_metadata_routing"]:
            mark = f"{last}__"
            own = {name.removeprefix(mark): v for name, v in named.items() if name.startswith(mark)}
            return {name: v for name, v in named.items() if not name.startswith(mark)}, own
        if not named:
            return {}, {}
        routed = process_routing(self.estimator, "fit", **named)
        asked = {name for step in steps for given in routed[step].values() for name in given}
        return {name: v for name, v in named.items() if name in asked}, routed[last].fit

    def _fit_head(self, X: Any, y: Any, named: dict[str, Any]) -> tuple[Shared, list[Any], Any]:
        head = self.estimator[:-1]
        X = head.fit_transform(X, y, **named)
        return Shared(), head.steps, X

    def score(self) -> Any:
        """The scores on the test rows of the network as it is now."""
        if self.result is None:
            silent = {"verbose": 0, "callback_ctx": None, "return_train_score": False}
            changed = {name: value for name, value in silent.items() if name in self._kwargs}
            return self._call(None, 0.0, changed)["test_scores"]
        return self.result["test_scores"]

    def end(self, failure: Exception | None, seconds: float) -> None:
        """The fit has ended: `result` is what `_fit_and_score` returns."""
        self.result = self._call(failure, seconds, {})
        self._fold.release()
        if self._head is not None:
            self._head.release()
        del self.estimator, self._kwargs, self._X, self._y  # a search keeps no estimator

    def _call(self, failure: Exception | None, seconds: float, changed: dict[str, Any]) -> dict[str, Any]:
        est = self.estimator

        def set_params(**_: Any) -> Any:
            del est.set_params  # the parameters were set before the fit
            return est

        def fit(*_: Any, **__: Any) -> Any:
            del est.fit
            if failure is not None:
                raise failure
            return est

        kwargs = {**self._kwargs, **changed}
        if not (kwargs.get("return_train_score") or getattr(kwargs.get("callback_ctx"), "_callbacks", ())):
            kwargs["train"] = np.zeros(0, int)  # nobody needs another copy of these rows
        vars(est).update(set_params=set_params, fit=fit)
        try:
            result = self._function(est, self._X, self._y, **kwargs)
        finally:
            vars(est).pop("set_params", None)
            vars(est).pop("fit", None)
        result["fit_time"] += seconds
        return result
