"""Searches and cross-validation: everything that scikit-learn's give, but for times, equal to the bit."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import sklearn
from sklearn import model_selection as theirs
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning, FitFailedWarning
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, get_scorer, make_scorer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

import gpumlp
from gpumlp import model_selection as ours

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
X, Y = load_iris(return_X_y=True)
XR, YR = load_diabetes(return_X_y=True)
XR, YR = XR[:120], YR[:120] / 100
W = np.random.default_rng(0).uniform(0.1, 2, len(X))
GROUPS = np.arange(len(X)) % 7
NAMES = np.array(["lion", "tiger", "leopard"])[Y]
LABELS = np.stack([Y > 0, Y > 1, X[:, 0] > 5.8], axis=1).astype(int)


def classifier(**options: Any) -> Any:
    options = {"hidden_layer_sizes": (6,), "max_iter": 7, "random_state": 0, "batch_size": 32, **options}
    return gpumlp.MLPClassifier(**options)


def regressor(**options: Any) -> Any:
    options = {"hidden_layer_sizes": (6,), "max_iter": 7, "random_state": 0, "batch_size": 32, **options}
    return gpumlp.MLPRegressor(**options)


def pipeline(**options: Any) -> Pipeline:
    return Pipeline(
        [("scale", StandardScaler()), ("select", SelectKBest(k=3)), ("mlp", classifier(**options))]
    )


def assert_same(mine: Any, other: Any, times: bool = True) -> None:
    """Equal results of a search or a cross-validation; times are there and plausible."""
    assert list(mine) == list(other)
    for key, value in other.items():
        if "time" in key:
            assert np.shape(mine[key]) == np.shape(value)
            assert np.all(np.asarray(mine[key]) >= 0)
            if times and key in ("fit_time", "mean_fit_time"):
                assert np.all(np.asarray(mine[key]) > 0)
        elif key == "params":
            assert repr(mine[key]) == repr(value)
        elif key == "estimator":
            for a, b in zip(mine[key], value, strict=True):
                assert_same_fit(a, b)
        elif key == "indices":
            for part in ("train", "test"):
                for a, b in zip(mine[key][part], value[part], strict=True):
                    np.testing.assert_array_equal(a, b)
        elif isinstance(value, np.ma.MaskedArray):
            assert repr(mine[key].tolist()) == repr(value.tolist())
            assert mine[key].dtype == value.dtype
        else:
            np.testing.assert_array_equal(mine[key], value, err_msg=key)


def assert_same_fit(mine: Any, other: Any) -> None:
    mine, other = (est[-1] if isinstance(est, Pipeline) else est for est in (mine, other))
    assert type(mine) is type(other)
    if not hasattr(other, "coefs_"):
        return
    for a, b in zip(mine.coefs_ + mine.intercepts_, other.coefs_ + other.intercepts_, strict=True):
        np.testing.assert_array_equal(a, b)
    for name in ("n_iter_", "t_", "loss_", "loss_curve_", "best_loss_", "n_features_in_", "out_activation_"):
        assert getattr(mine, name, None) == getattr(other, name, None), name
    assert sorted(set(vars(mine)) - {"_training"}) == sorted(set(vars(other)) - {"_training"})


def compare(kind: str, *args: Any, fit: tuple = (X, Y), fit_params: Any = None, **options: Any) -> Any:
    """Both searches with the same arguments; ours."""
    found = []
    for module in (theirs, ours):
        search = getattr(module, kind)(*clone_all(args), **options)
        found.append(search.fit(*fit, **(fit_params or {})))
    other, mine = found
    assert_same(mine.cv_results_, other.cv_results_)
    for name in ("best_index_", "best_score_", "best_params_", "n_splits_", "multimetric_"):
        assert repr(getattr(mine, name, None)) == repr(getattr(other, name, None))
    assert sorted(set(vars(mine)) - {"halving", "client"}) == sorted(vars(other))
    if mine.refit:
        assert_same_fit(mine.best_estimator_, other.best_estimator_)
        np.testing.assert_array_equal(mine.predict(fit[0]), other.predict(fit[0]))
    return mine


def clone_all(args: tuple) -> list[Any]:
    return [clone(each) if hasattr(each, "fit") else each for each in args]


GRID = {"alpha": [1e-4, 1e-1], "learning_rate_init": [1e-3, 1e-2]}


# ---- the settings of networks -----------------------------------------------
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_grid(device: str, dtype: str) -> None:
    compare("GridSearchCV", classifier(device=device), GRID, cv=3, fit=(X.astype(dtype), Y))


@pytest.mark.parametrize(
    ("options", "grid"),
    [
        ({}, {"hidden_layer_sizes": [(4,), (5, 3), 7], "activation": ["relu", "tanh"]}),
        ({"solver": "sgd"}, {"learning_rate": ["constant", "invscaling", "adaptive"], "momentum": [0, 0.9]}),
        ({"solver": "sgd", "tol": 0.5, "n_iter_no_change": 1}, {"learning_rate": ["adaptive", "constant"]}),
        ({}, {"solver": ["adam", "sgd", "lbfgs", "rmsprop", "adagrad", "adamw"]}),
        ({"solver": "lbfgs"}, {"alpha": [1e-4, 1e-2], "activation": ["tanh", "logistic"]}),
        ({"early_stopping": True, "n_iter_no_change": 1, "max_iter": 30}, GRID),
        ({"early_stopping": True, "scoring": "f1_macro"}, GRID),
        ({"early_stopping": True, "validation_fraction": 0.3}, {"random_state": [0, 1], "alpha": [0, 1e-2]}),
        ({"dropout": 0.3}, {"random_state": [0, 3], "l1": [0.0, 1e-2]}),
        ({}, {"dropout": [0.0, 0.2, 0.4], "beta_1": [0.9, 0.8]}),
        ({"class_weight": "balanced"}, {"class_weight": [None, "balanced", {0: 2.0, 1: 1.0, 2: 0.5}]}),
        ({"shuffle": False, "batch_size": "auto"}, {"batch_size": [7, 500, "auto"]}),
        ({"warm_start": True}, GRID),
        ({"dtype": "float32"}, {"dtype": ["float32", "float64", None]}),
        ({"tol": 1.0, "n_iter_no_change": 2, "max_iter": 20}, {"max_iter": [1, 2, 20]}),
    ],
)
def test_settings(options: dict[str, Any], grid: dict[str, Any]) -> None:
    compare("GridSearchCV", classifier(**options), grid, cv=3, return_train_score=True)


@pytest.mark.parametrize("loss", ["squared_error", "poisson", "absolute_error", "huber"])
def test_regression(device: str, loss: str) -> None:
    est = regressor(device=device, loss=loss)
    compare(
        "GridSearchCV", est, GRID, cv=3, fit=(XR, YR), scoring=["r2", "neg_mean_squared_error"], refit="r2"
    )


def test_regression_with_several_targets() -> None:
    YY = np.stack([YR, -YR], axis=1)
    compare("GridSearchCV", regressor(early_stopping=True), {**GRID, "loss": ["huber"]}, fit=(XR, YY))


@pytest.mark.parametrize(
    "y", [NAMES, NAMES.astype(object), LABELS, Y > 0, np.where(Y > 0, "yes", "no"), Y.reshape(-1, 1)]
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataConversionWarning")
def test_kinds_of_labels(y: np.ndarray) -> None:
    compare("GridSearchCV", classifier(), GRID, cv=theirs.KFold(3, shuffle=True, random_state=0), fit=(X, y))


@pytest.mark.parametrize("make", [scipy.sparse.csr_matrix, scipy.sparse.csr_array, np.asfortranarray, list])
def test_kinds_of_rows(make: Callable) -> None:
    compare("GridSearchCV", classifier(), GRID, cv=3, fit=(make(X), Y))


def test_frames() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcd"))
    mine = compare("GridSearchCV", classifier(), GRID, cv=3, fit=(frame, pandas.Series(NAMES)))
    assert mine.feature_names_in_.tolist() == list("abcd")
    compare("GridSearchCV", pipeline(), {"mlp__alpha": [0, 1]}, cv=3, fit=(frame, pandas.Series(NAMES)))


@pytest.mark.parametrize("state", [None, 5, "generator"])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_random_numbers(state: Any, early_stopping: bool) -> None:
    """Also those of NumPy's global generator, which all fits draw from in turn."""
    found = []
    for module in (theirs, ours):
        np.random.seed(3)
        own = np.random.RandomState(1) if state == "generator" else state
        est = classifier(random_state=own, early_stopping=early_stopping)
        splits = theirs.StratifiedKFold(3, shuffle=True, random_state=state if state is None else 0)
        grid = {"hidden_layer_sizes": [(4,), (9,)], "tol": [1e-4, 0.1]}  # the larger ones do not go first
        search = module.GridSearchCV(est, grid, cv=splits).fit(X, Y)
        found.append((search.cv_results_, search.best_estimator_, np.random.randint(1000)))
    assert_same(found[1][0], found[0][0])
    assert_same_fit(found[1][1], found[0][1])
    assert found[1][2] == found[0][2]


def test_some_candidates_draw_from_the_global_generator() -> None:
    found = []
    for module in (theirs, ours):
        np.random.seed(3)
        search = module.GridSearchCV(
            classifier(), {"random_state": [None, 1, np.random.RandomState(4)]}, cv=3
        )
        found.append(search.fit(X, Y).cv_results_["mean_test_score"])
    np.testing.assert_array_equal(*found)


# ---- what a search can be asked -----------------------------------------------
@pytest.mark.parametrize(
    "options",
    [
        {"n_jobs": 2, "pre_dispatch": 1},
        {"n_jobs": -1, "pre_dispatch": "all", "return_train_score": True},
        {"refit": False},
        {"scoring": "balanced_accuracy"},
        {"scoring": ["accuracy", "f1_macro"], "refit": "f1_macro", "return_train_score": True},
        {"scoring": {"a": "accuracy", "b": make_scorer(accuracy_score, normalize=False)}, "refit": False},
        {"scoring": lambda est, X, y: {"n": est.n_iter_, "score": est.score(X, y)}, "refit": "score"},
        {"scoring": "neg_log_loss", "refit": lambda results: 1},
        {"cv": theirs.ShuffleSplit(4, random_state=0)},
        {"cv": theirs.RepeatedStratifiedKFold(n_splits=2, n_repeats=2, random_state=0)},
        {"cv": [(list(range(100)), list(range(100, 150))), (np.arange(50, 150), np.arange(50))]},
    ],
)
def test_options(options: dict[str, Any]) -> None:
    compare("GridSearchCV", classifier(), GRID, **{"cv": 3, **options})


@pytest.mark.parametrize(
    "cv", [theirs.GroupKFold(3), theirs.LeaveOneGroupOut(), theirs.StratifiedGroupKFold(3)]
)
def test_groups(cv: Any) -> None:
    compare("GridSearchCV", classifier(), GRID, cv=cv, fit_params={"groups": GROUPS})
    for call in ("cross_validate", "cross_val_score"):
        a, b = (getattr(m, call)(classifier(), X, Y, groups=GROUPS, cv=cv) for m in (ours, theirs))
        assert_same(a, b) if isinstance(a, dict) else np.testing.assert_array_equal(a, b)


def test_a_randomized_search() -> None:
    from scipy.stats import loguniform

    spaces = [
        {"alpha": loguniform(1e-5, 1e-1), "hidden_layer_sizes": [(4,), (8,)]},
        {"solver": ["sgd"], "learning_rate_init": loguniform(1e-3, 1e-1)},
    ]
    compare("RandomizedSearchCV", classifier(), spaces, n_iter=7, cv=3, random_state=2)


def test_several_grids_with_different_parameters() -> None:
    grids = [{"alpha": [0.0, 1.0]}, {"solver": ["sgd"], "momentum": [0.5, 0.9]}]
    compare("GridSearchCV", classifier(), grids, cv=3)


@pytest.mark.parametrize("error_score", [np.nan, -1.0])
@pytest.mark.parametrize("scoring", [None, ["accuracy", "f1_macro"], lambda e, X, y: {"a": e.score(X, y)}])
def test_a_candidate_that_fails(error_score: float, scoring: Any) -> None:
    grid = {"dropout": [0.0, [0.1, 0.2, 0.3]], "max_iter": [2, 0], "alpha": [0.1, 1]}
    options = {"cv": 3, "error_score": error_score, "scoring": scoring, "refit": False}
    with pytest.warns(FitFailedWarning, match="18 fits failed out of a total of 24"):
        compare("GridSearchCV", classifier(), grid, **options)


def test_a_training_that_diverges() -> None:
    grid = {"learning_rate_init": [1e-3, 1e30]}
    est = classifier(solver="sgd", max_iter=30)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compare("GridSearchCV", est, grid, cv=3, fit=(X.astype("f"), Y))


def test_errors_are_raised_where_that_is_wanted() -> None:
    for module in (theirs, ours):
        search = module.GridSearchCV(classifier(), {"max_iter": [2, -3]}, cv=3, error_score="raise")
        with pytest.raises(ValueError, match="The 'max_iter' parameter"):
            search.fit(X, Y)
        with pytest.raises(ValueError, match="All the 6 fits failed"):
            module.GridSearchCV(classifier(), {"max_iter": [0, -3]}, cv=3).fit(X, Y)
        with pytest.raises(ValueError, match="Invalid parameter 'alfa'"):
            module.GridSearchCV(classifier(), {"alfa": [1]}).fit(X, Y)
        with pytest.raises(ValueError, match="The 'error_score' parameter"):
            module.cross_validate(classifier(), X, Y, error_score="no")


@pytest.mark.parametrize("error_score", [-2.0, "raise"])
def test_a_scorer_that_fails(error_score: Any) -> None:
    def scorer(est: Any, X: Any, y: Any) -> float:
        raise RuntimeError("no score today")

    for module in (theirs, ours):
        search = module.GridSearchCV(classifier(), GRID, scoring=scorer, error_score=error_score, refit=False)
        if error_score == "raise":
            with pytest.raises(RuntimeError, match="no score today"):
                search.fit(X, Y)
        else:
            with pytest.warns(UserWarning, match="Scoring failed"):
                search.fit(X, Y)
            assert search.cv_results_["mean_test_score"].tolist() == [-2.0] * 4


def test_warnings() -> None:
    for module in (theirs, ours):
        with pytest.warns(ConvergenceWarning) as caught:
            module.GridSearchCV(classifier(), GRID, cv=3, refit=False).fit(X, Y)
        assert sum(w.category is ConvergenceWarning for w in caught) == 12
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            with pytest.raises(ValueError, match="All the 12 fits failed"):
                module.GridSearchCV(classifier(), GRID, cv=3, refit=False).fit(X, Y)


@pytest.mark.parametrize("verbose", [0, 1, 2, 3, 10])
def test_messages(verbose: int, capsys: pytest.CaptureFixture) -> None:
    said = []
    for module in (theirs, ours):
        search = module.GridSearchCV(classifier(), {"alpha": [0, 1]}, cv=2, verbose=verbose, refit=False)
        search.fit(X, Y)
        lines = capsys.readouterr().out.splitlines()
        said.append(sorted(line.split("total time")[0].replace(".", "") for line in lines))
    assert said[0] == said[1]
    assert bool(said[0]) == (verbose > 0)


def test_callbacks_are_called_here(device: str) -> None:
    import threading

    told: list[tuple] = []

    def callback(est: Any) -> bool:
        told.append((est.alpha, est.n_iter_, threading.get_ident()))
        return est.alpha > 0.5 and est.n_iter_ == 3

    search = ours.GridSearchCV(classifier(device=device, callbacks=callback), {"alpha": [0.0, 1.0]}, cv=2)
    search.set_params(refit=False).fit(X, Y)
    assert {thread for *_, thread in told} == {threading.get_ident()}
    assert sorted(n for alpha, n, _ in told if alpha > 0.5) == [1, 1, 2, 2, 3, 3]
    assert len(told) == 2 * 7 + 2 * 3


def test_a_callback_that_raises() -> None:
    def callback(est: Any) -> None:
        if est.alpha > 0.5:
            raise RuntimeError("that is enough")

    with pytest.warns(FitFailedWarning, match="that is enough"):
        mine = ours.GridSearchCV(classifier(callbacks=callback), {"alpha": [0.0, 1.0]}, cv=2).fit(X, Y)
    assert np.isnan(mine.cv_results_["mean_test_score"]).tolist() == [False, True]


# ---- pipelines and other estimators -----------------------------------------------
@pytest.mark.parametrize(
    "grid",
    [
        {"mlp__alpha": [0.0, 1e-2], "select__k": [2, 3]},
        {"scale": [StandardScaler(), MinMaxScaler(), "passthrough"], "mlp__hidden_layer_sizes": [(3,), (4,)]},
        {"mlp": [classifier(alpha=1), classifier(), LogisticRegression()], "select__k": [2, 4]},
        {"mlp": [classifier(alpha=1)], "mlp__max_iter": [2, 4]},
        {"select": [PCA(2), PCA(3, random_state=0), None]},
    ],
)
@pytest.mark.parametrize("memory", [False, True])
def test_a_pipeline(grid: dict[str, Any], memory: bool, tmp_path: Any) -> None:
    pipe = pipeline().set_params(memory=str(tmp_path) if memory else None)
    compare("GridSearchCV", pipe, grid, cv=3, return_train_score=True)


def test_first_steps_are_fitted_once_per_fold_and_settings() -> None:
    fits: list[float] = []

    class Counting(StandardScaler):
        def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
            fits.append(float(X.sum()))
            return super().fit(X, y)

    pipe = make_pipeline(Counting(), classifier())
    grid = {"mlpclassifier__alpha": [0, 1, 2], "counting__with_mean": [True, False]}
    ours.GridSearchCV(pipe, grid, cv=4, refit=False).fit(X, Y)
    assert len(fits) == 4 * 2
    assert len(set(fits)) == 4


def test_a_pipeline_with_sample_weights() -> None:
    grid = {"mlp__alpha": [0.0, 1e-2], "select__k": [2, 3]}
    for params in ({"mlp__sample_weight": W}, {"mlp__sample_weight": W, "scale__sample_weight": W}):
        compare("GridSearchCV", pipeline(), grid, cv=3, fit_params=params)
    for module in (theirs, ours):
        with pytest.raises(ValueError, match="All the 12 fits failed"):
            module.GridSearchCV(pipeline(), grid, cv=3).fit(X, Y, sample_weight=W)


@pytest.mark.parametrize("step", [False, True])
def test_metadata_routing(step: bool) -> None:
    with sklearn.config_context(enable_metadata_routing=True):
        asking = classifier().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        scorer = get_scorer("accuracy").set_score_request(sample_weight=True)
        scaler = StandardScaler().set_fit_request(sample_weight=step)
        pipe = Pipeline([("scale", scaler), ("mlp", asking)])
        for est, name in ((asking, "alpha"), (pipe, "mlp__alpha")):
            options = {"cv": theirs.GroupKFold(3).set_split_request(groups=True), "scoring": scorer}
            grid, params = {name: [0.0, 1e-2]}, {"sample_weight": W, "groups": GROUPS}
            mine = compare("GridSearchCV", est, grid, **options, fit_params=params)
            assert ours.cross_validate(est, X, Y, params=params, **options)["test_score"] is not None
            a, b = (m.cross_validate(est, X, Y, params=params, **options) for m in (ours, theirs))
            assert_same(a, b)
            assert len(mine.cv_results_["params"]) == 2
        for module in (theirs, ours):
            silent = module.GridSearchCV(classifier(), GRID)
            with pytest.raises(Exception, match="sample_weight"):
                silent.fit(X, Y, sample_weight=W)


def test_sample_weights_without_routing() -> None:
    compare("GridSearchCV", classifier(), GRID, cv=3, fit_params={"sample_weight": W})
    given = {"sample_weight": np.where(Y == 1, 0.0, W), "X_val": X[::3], "y_val": Y[::3] // 2 * 2}
    compare("GridSearchCV", classifier(), {"alpha": [0, 1]}, cv=3, fit_params=given)


def test_other_estimators_go_their_way() -> None:
    compare_any = {"C": [0.1, 1.0]}
    found = [m.GridSearchCV(LogisticRegression(), compare_any, cv=3).fit(X, Y) for m in (theirs, ours)]
    assert_same(found[1].cv_results_, found[0].cv_results_)
    a, b = (m.cross_validate(LogisticRegression(), X, Y, n_jobs=2) for m in (ours, theirs))
    assert_same(a, b)


def test_a_class_of_ones_own_with_another_fit_goes_its_way() -> None:
    class Mine(gpumlp.MLPClassifier):
        def fit(self, X: Any, y: Any, **given: Any) -> Any:
            return super().fit(-X, y, **given)

    a, b = (m.cross_val_score(Mine((4,), max_iter=5, random_state=0), X, Y) for m in (ours, theirs))
    np.testing.assert_array_equal(a, b)


# ---- cross-validation -----------------------------------------------
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"return_train_score": True, "return_estimator": True, "return_indices": True},
        {"scoring": ["accuracy", "neg_log_loss"], "cv": 3, "n_jobs": 2},
        {"params": {"sample_weight": W}, "cv": 4, "pre_dispatch": 2},
        {"verbose": 1, "cv": theirs.KFold(3)},
    ],
)
@pytest.mark.parametrize("make", [classifier, pipeline])
def test_cross_validate(options: dict[str, Any], make: Callable, device: str) -> None:
    if make is pipeline and "params" in options:
        options = {**options, "params": {"mlp__sample_weight": W}}
    a, b = (m.cross_validate(make(device=device), X, Y, **options) for m in (ours, theirs))
    assert_same(a, b)
    if "estimator" in a:
        for est, other in zip(a["estimator"], b["estimator"], strict=True):
            np.testing.assert_array_equal(est.predict_proba(X), other.predict_proba(X))


def test_estimators_of_a_cross_validation_go_on() -> None:
    a, b = (m.cross_validate(classifier(), X, Y, cv=3, return_estimator=True) for m in (ours, theirs))
    for est, other in zip(a["estimator"], b["estimator"], strict=True):
        for each in (est, other):
            each.partial_fit(X, Y)
        assert_same_fit(est, other)


@pytest.mark.parametrize("options", [{}, {"cv": 3, "scoring": "f1_macro", "n_jobs": 2, "error_score": 0.0}])
def test_cross_val_score(options: dict[str, Any]) -> None:
    a, b = (m.cross_val_score(classifier(), X, Y, **options) for m in (ours, theirs))
    np.testing.assert_array_equal(a, b)


# ---- as objects -----------------------------------------------
def test_signatures_are_theirs() -> None:
    import inspect

    for name in ours.__all__:
        given, wanted = (inspect.signature(getattr(m, name)) for m in (ours, theirs))
        extra = ["halving", "client"] if name == "RandomizedSearchCV" else ["client"]
        assert list(given.parameters) == [*wanted.parameters, *extra]
        for key, parameter in wanted.parameters.items():
            mine = given.parameters[key]
            assert (mine.default, mine.kind) == (parameter.default, parameter.kind) or (
                np.isnan(mine.default) and np.isnan(parameter.default)
            )


def test_a_search_can_be_cloned_pickled_and_nested() -> None:
    import pickle

    search = ours.GridSearchCV(classifier(), GRID, cv=3)
    other = clone(search).fit(X, Y)
    assert not hasattr(search, "cv_results_")
    again = pickle.loads(pickle.dumps(other))
    np.testing.assert_array_equal(again.predict(X), other.predict(X))
    scores = ours.cross_val_score(search, X, Y, cv=3)
    np.testing.assert_array_equal(
        scores, theirs.cross_val_score(theirs.GridSearchCV(classifier(), GRID, cv=3), X, Y, cv=3)
    )
    assert isinstance(other, theirs.GridSearchCV)
