"""`GridSearchCV`, `RandomizedSearchCV`, `cross_validate`, `cross_val_score`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import numpy as np
from sklearn import model_selection as theirs
from sklearn.utils._param_validation import Interval, Real

from gpumlp.model_selection.cluster import clone_with_client
from gpumlp.model_selection.race import Race
from gpumlp.model_selection.together import side_by_side
from gpumlp.training.halving import SuccessiveHalving, get_halving

__all__ = ["GridSearchCV", "RandomizedSearchCV", "cross_val_score", "cross_validate"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


class GridSearchCV(theirs.GridSearchCV):
    """scikit-learn's `GridSearchCV`, whose fits go side by side if they are of this package's estimators.

    Parameters, attributes, scores (on the CPU to the bit), random numbers and warnings are scikit-learn's.

    Parameters
    ----------
    estimator : estimator
        An `MLPClassifier` or `MLPRegressor`, or a `sklearn.pipeline.Pipeline` that ends in one: its other
        steps are fitted once for each fold and each of their settings.  With anything else, and for rows on
        a GPU, the search is scikit-learn's.
    param_grid, scoring, n_jobs, refit, cv, verbose, pre_dispatch, error_score, return_train_score
        As in `sklearn.model_selection.GridSearchCV`.  `n_jobs` and `pre_dispatch` are for candidates that are
        other estimators; networks are trained in threads of this process.
    client : distributed.Client, optional
        Of a Dask cluster: its workers share the fits, each doing its own side by side, and X and y are sent
        to all of them.  Scores are those without it.  What `callbacks` and warnings leave behind stays on the
        workers; fits whose `random_state` is None stay here.

    Notes
    -----
    Scorers and callbacks are called in the calling thread, one at a time.  Fits whose `random_state` is None
    draw from NumPy's global generator in turn, as scikit-learn's do, so one waits for the other; a number
    lets them go side by side.  Ctrl-C ends all of them.

    Examples
    --------
    >>> import numpy as np, gpumlp
    >>> X, y = np.random.default_rng(0).normal(size=(60, 4)), np.arange(60) % 3
    >>> net = gpumlp.MLPClassifier((8,), max_iter=5, tol=0, random_state=0, device="cpu")
    >>> grid = {"alpha": [1e-4, 1e-2], "learning_rate_init": [1e-3, 1e-2]}
    >>> search = gpumlp.model_selection.GridSearchCV(net, grid, cv=3, refit=False)
    >>> import warnings
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")  # that five epochs are few
    ...     len(search.fit(X, y).cv_results_["mean_test_score"])
    4
    """

    def __init__(
        self,
        estimator: Any,
        param_grid: Any,
        *,
        scoring: Any = None,
        n_jobs: int | None = None,
        refit: Any = True,
        cv: Any = None,
        verbose: int = 0,
        pre_dispatch: Any = "2*n_jobs",
        error_score: Any = np.nan,
        return_train_score: bool = False,
        client: Any = None,
    ) -> None:
        super().__init__(
            estimator,
            param_grid,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            pre_dispatch=pre_dispatch,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        self.client = client

    def fit(self, X: Any, y: Any = None, **params: Any) -> GridSearchCV:
        """Run all fits; see `sklearn.model_selection.GridSearchCV.fit`."""
        with side_by_side(self.estimator, self.n_jobs, client=self.client):
            return super().fit(X, y, **params)

    def __sklearn_clone__(self) -> Any:
        return clone_with_client(self)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "client": None}


class RandomizedSearchCV(theirs.RandomizedSearchCV):
    """scikit-learn's `RandomizedSearchCV`, whose fits go side by side if they are of this package's
    estimators; see `GridSearchCV`.

    Parameters
    ----------
    estimator, param_distributions, n_iter, scoring, n_jobs, refit, cv, verbose, pre_dispatch, random_state, \
    error_score, return_train_score
        As in `sklearn.model_selection.RandomizedSearchCV`.
    halving : float, bool or SuccessiveHalving, optional
        All candidates start together, and at each rung, after some number of epochs, only the best
        1/`halving` of them (3 for True) go on: those with the highest mean test score over the folds (of
        several metrics, that which `refit` names).  Nobody starts again.  `gpumlp.SuccessiveHalving` says
        after how many of the `max_iter` epochs there is a rung; its `monitor` and `mode` are not used.
    client : distributed.Client, optional
        As for `GridSearchCV`; without `halving` only.

    Attributes
    ----------
    cv_results_ : dict
        With `halving`, also "rung", the number of rungs that a candidate has passed, and "n_epochs", the
        number of epochs after which it ended (of the fold where it ended last).  Scores are those at its end.
    best_index_, best_score_, best_params_, best_estimator_
        With `halving`, of the candidates that have passed all rungs.  `best_estimator_` is trained again, on
        all rows and to the end.
    """

    _parameter_constraints: ClassVar[dict] = {
        **theirs.RandomizedSearchCV._parameter_constraints,
        "halving": [Interval(Real, 2, None, closed="left"), "boolean", SuccessiveHalving, None],
    }

    def __init__(
        self,
        estimator: Any,
        param_distributions: Any,
        *,
        n_iter: int = 10,
        scoring: Any = None,
        n_jobs: int | None = None,
        refit: Any = True,
        cv: Any = None,
        verbose: int = 0,
        pre_dispatch: Any = "2*n_jobs",
        random_state: Any = None,
        error_score: Any = np.nan,
        return_train_score: bool = False,
        halving: Any = None,
        client: Any = None,
    ) -> None:
        super().__init__(
            estimator,
            param_distributions,
            n_iter=n_iter,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            pre_dispatch=pre_dispatch,
            random_state=random_state,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        self.halving, self.client = halving, client

    _race: Race | None = None

    def fit(self, X: Any, y: Any = None, **params: Any) -> RandomizedSearchCV:
        """Run all fits; see `sklearn.model_selection.RandomizedSearchCV.fit`."""
        halving = get_halving(self.halving)
        if halving is not None:
            self._race = Race(halving, self.refit if isinstance(self.refit, str) else None)
        try:
            with side_by_side(self.estimator, self.n_jobs, self._race, self.client):
                return super().fit(X, y, **params)
        finally:
            if halving is not None:
                del self._race

    def __sklearn_clone__(self) -> Any:
        return clone_with_client(self)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "client": None}

    def _format_results(self, *given: Any, **more: Any) -> dict[str, Any]:
        results = super()._format_results(*given, **more)
        if self._race is not None:
            results["rung"] = np.array(self._race.rungs)
            results["n_epochs"] = np.array(self._race.n_epochs)
        return results

    def _select_best_index(self, refit: Any, refit_metric: str, results: dict[str, Any]) -> int:
        if self._race is None or callable(refit):
            return super()._select_best_index(refit, refit_metric, results)
        last = np.flatnonzero(results["rung"] == results["rung"].max())
        return int(last[results[f"rank_test_{refit_metric}"][last].argmin()])


def _signed_as(other: Callable) -> Callable[[_Function], _Function]:
    """Decorator: a function that passes its arguments on shows those that there are, and `client`."""

    def sign(function: _Function) -> _Function:
        shown = inspect.signature(other)
        client = inspect.Parameter("client", inspect.Parameter.KEYWORD_ONLY, default=None)
        signature = shown.replace(parameters=[*shown.parameters.values(), client])
        function.__signature__ = signature  # type: ignore[attr-defined]
        return function

    return sign


@_signed_as(theirs.cross_validate)
def cross_validate(
    estimator: Any, X: Any, y: Any = None, *, client: Any = None, **options: Any
) -> dict[str, Any]:
    """scikit-learn's `cross_validate`, with the fits side by side; see `GridSearchCV`.

    Parameters
    ----------
    estimator, X, y, groups, scoring, cv, n_jobs, verbose, params, pre_dispatch, return_train_score, \
    return_estimator, return_indices, error_score
        As in `sklearn.model_selection.cross_validate`.
    client : distributed.Client, optional
        As for `GridSearchCV`.

    Returns
    -------
    dict
        As from `sklearn.model_selection.cross_validate`.
    """
    with side_by_side(estimator, options.get("n_jobs"), client=client):
        return theirs.cross_validate(estimator, X, y, **options)


@_signed_as(theirs.cross_val_score)
def cross_val_score(
    estimator: Any, X: Any, y: Any = None, *, client: Any = None, **options: Any
) -> np.ndarray:
    """scikit-learn's `cross_val_score`, with the fits side by side; see `GridSearchCV`.

    Parameters
    ----------
    estimator, X, y, groups, scoring, cv, n_jobs, verbose, params, pre_dispatch, error_score
        As in `sklearn.model_selection.cross_val_score`.
    client : distributed.Client, optional
        As for `GridSearchCV`.

    Returns
    -------
    array (n_splits,)
        The test score of each fold.
    """
    with side_by_side(estimator, options.get("n_jobs"), client=client):
        return theirs.cross_val_score(estimator, X, y, **options)
