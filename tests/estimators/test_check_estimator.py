"""scikit-learn's own conformance checks, with no expected failures."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from gpumlp import MLPClassifier, MLPRegressor


@parametrize_with_checks([MLPClassifier(max_iter=100), MLPRegressor(max_iter=100)])
def test_check_estimator(estimator, check):
    check(estimator)
