"""`GridSearchCV`, `RandomizedSearchCV`, `cross_validate`, `cross_val_score`."""

from __future__ import annotations

from typing import Any

from sklearn import model_selection as theirs

from gpumlp.model_selection.together import side_by_side

__all__ = ["GridSearchCV", "RandomizedSearchCV", "cross_val_score", "cross_validate"]


class GridSearchCV(theirs.GridSearchCV):
    """scikit-learn's"""

    def fit(self, X: Any, y: Any = None, **params: Any) -> Any:
        """See scikit-learn."""
        with side_by_side(self.estimator, self.n_jobs):
            return super().fit(X, y, **params)


class RandomizedSearchCV(theirs.RandomizedSearchCV):
    """scikit-learn's"""

    def fit(self, X: Any, y: Any = None, **params: Any) -> Any:
        """See scikit-learn."""
        with side_by_side(self.estimator, self.n_jobs):
            return super().fit(X, y, **params)


def cross_validate(estimator: Any, X: Any, y: Any = None, **options: Any) -> dict[str, Any]:
    """See scikit-learn."""
    with side_by_side(estimator, options.get("n_jobs")):
        return theirs.cross_validate(estimator, X, y, **options)


def cross_val_score(estimator: Any, X: Any, y: Any = None, **options: Any) -> Any:
    """See scikit-learn."""
    with side_by_side(estimator, options.get("n_jobs")):
        return theirs.cross_val_score(estimator, X, y, **options)
