"""scikit-learn's searches and cross-validation, with fits of this package's estimators side by side."""

from gpumlp.model_selection.search import GridSearchCV, RandomizedSearchCV, cross_val_score, cross_validate

__all__ = ["GridSearchCV", "RandomizedSearchCV", "cross_val_score", "cross_validate"]
