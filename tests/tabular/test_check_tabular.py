"""scikit-learn's own conformance checks for the estimators of tables, with no expected failures."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from gpumlp import TabularClassifier, TabularRegressor

ESTIMATORS = [
    TabularClassifier(n_networks=2, device="cpu"),
    TabularRegressor(n_networks=2, device="cpu"),
    TabularClassifier(quality="fast", device="cpu"),
    TabularRegressor(quality="fast", device="cpu"),
]


@parametrize_with_checks(ESTIMATORS)
def test_check_estimator(estimator, check):
    check(estimator)
