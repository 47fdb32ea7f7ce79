"""scikit-learn's two estimators on this package's executors."""

from gpumlp.estimators.mlp import MLPClassifier, MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]
