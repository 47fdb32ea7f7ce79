"""A drop-in replacement: signatures, tools of scikit-learn, containers, pickles, messages."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import joblib
import numpy as np
import pytest
import scipy.sparse
import sklearn
from sklearn import neural_network
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.multioutput import ClassifierChain
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tolerances import RELATIVE

import gpumlp

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
X, Y = load_iris(return_X_y=True)
KINDS = ["MLPClassifier", "MLPRegressor"]


def small(kind: str = "MLPClassifier", **options: Any) -> Any:
    return getattr(gpumlp, kind)(**{"hidden_layer_sizes": (6,), "max_iter": 8, "random_state": 0, **options})


# ---- signatures -----------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["__init__", "fit", "partial_fit", "predict", "score"])
def test_signatures_begin_as_theirs(kind: str, method: str) -> None:
    theirs = inspect.signature(getattr(getattr(neural_network, kind), method)).parameters
    ours = inspect.signature(getattr(getattr(gpumlp, kind), method)).parameters
    assert list(ours)[: len(theirs)] == list(theirs)
    for name, parameter in theirs.items():
        assert (ours[name].default, ours[name].kind) == (parameter.default, parameter.kind), name


@pytest.mark.parametrize("kind", KINDS)
def test_attributes_after_a_fit(kind: str) -> None:
    for options in ({"solver": "sgd"}, {"solver": "lbfgs"}, {"early_stopping": True}):
        theirs = getattr(neural_network, kind)(**options, max_iter=3).fit(X, Y)
        ours = getattr(gpumlp, kind)(**options, max_iter=3).fit(X, Y)
        public = {name for name in vars(theirs) if name.endswith("_") and not name.startswith("_")}
        assert public <= set(vars(ours))


def test_import_needs_no_sklearn_until_asked() -> None:
    code = (
        "import sys, gpumlp; assert 'sklearn' not in sys.modules; "
        "gpumlp.MLPRegressor; assert 'sklearn' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_scikit_learn() -> None:
    code = (
        "import sys; sys.modules['sklearn'] = None\nimport gpumlp\n"
        "try:\n    gpumlp.MLPClassifier\nexcept ImportError as error:\n    print(error)"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "gpumlp.MLPClassifier needs scikit-learn" in out and "pip install scikit-learn" in out
    with pytest.raises(AttributeError, match="no attribute 'MLPTransformer'"):
        _ = gpumlp.MLPTransformer
    assert {"MLPClassifier", "Trainer"} <= set(dir(gpumlp))


# ---- tools -----------------------------------------------
def test_grid_search_in_a_pipeline(device: str) -> None:
    pipe = make_pipeline(StandardScaler(), small(device=device, max_iter=30, learning_rate_init=0.03))
    search = GridSearchCV(pipe, {"mlpclassifier__alpha": [1e-4, 1e3]}, cv=3).fit(X, Y)
    assert search.best_params_ == {"mlpclassifier__alpha": 1e-4}
    assert search.best_score_ > 0.9


def test_the_same_folds_as_theirs() -> None:
    scores = [
        cross_validate(est, X, Y, cv=4)["test_score"]
        for est in (small(), neural_network.MLPClassifier((6,), max_iter=8, random_state=0))
    ]
    np.testing.assert_array_equal(*scores)


def test_metadata_routing() -> None:
    w = np.linspace(0, 2, len(X))
    with sklearn.config_context(enable_metadata_routing=True):
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        clf = small().set_fit_request(sample_weight=True, X_val=True, y_val=True)
        pipe = make_pipeline(scaler, clf).fit(X, Y, sample_weight=w, X_val=X[:9], y_val=Y[:9])
    plain = small().fit(StandardScaler().fit_transform(X), Y, sample_weight=w)
    np.testing.assert_array_equal(pipe[-1].coefs_[0], plain.coefs_[0])
    assert len(pipe[-1].validation_loss_curve_) == 8


def test_clone_and_params() -> None:
    clf = small(
        dropout=0.2,
        class_weight={0: 1, 1: 2, 2: 3},
        scoring="f1_macro",
        l1=0.1,
        device="numpy",
        dtype="float32",
    )
    assert clone(clf).get_params() == clf.get_params()
    assert not hasattr(clone(clf.fit(X, Y)), "coefs_")
    assert "MLPClassifier(" in repr(clf) and "dropout=0.2" in repr(clf)


def test_other_meta_estimators(device: str) -> None:
    Y2 = np.stack([Y > 0, Y > 1], axis=1).astype(int)
    assert ClassifierChain(small(device=device)).fit(X, Y2).predict(X).shape == (150, 2)


# ---- containers -----------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("make", [scipy.sparse.csr_matrix, scipy.sparse.csc_array, scipy.sparse.coo_matrix])
def test_sparse_is_dense(kind: str, solver: str, make: Any, device: str) -> None:
    dense = np.where(X > 2, X, 0)
    options = {"solver": solver, "device": device, "early_stopping": solver == "adam"}
    one, other = small(kind, **options).fit(make(dense), Y), small(kind, **options).fit(dense, Y)
    np.testing.assert_array_equal(one.coefs_[0], other.coefs_[0])
    np.testing.assert_array_equal(one.predict(make(dense)), other.predict(dense))


def test_sparse_prediction_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpumlp.estimators.networks.FORWARD_ROWS", 40)
    clf = small().fit(X, Y)
    np.testing.assert_allclose(
        clf.predict_proba(scipy.sparse.csr_matrix(X)), clf.predict_proba(X), rtol=RELATIVE["few roundings"]
    )


@pytest.mark.parametrize("module", ["pandas", "polars"])
def test_data_frames(module: str) -> None:
    frames = pytest.importorskip(module)
    frame = frames.DataFrame({f"c{j}": X[:, j] for j in range(4)})
    target = frames.Series(np.array(["x", "y", "z"])[Y])
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*feature names")
        clf = small(early_stopping=True, scoring="f1_macro").fit(frame, target)
        got = clf.predict(frame)
    assert clf.feature_names_in_.tolist() == ["c0", "c1", "c2", "c3"]
    np.testing.assert_array_equal(
        got, small(early_stopping=True, scoring="f1_macro").fit(X, np.array(["x", "y", "z"])[Y]).predict(X)
    )
    with pytest.raises(ValueError, match="feature names"):
        clf.predict(frame[["c1", "c0", "c2", "c3"]])


def test_anything_with_dlpack() -> None:
    class Box:
        """An array that speaks DLPack and nothing else."""

        def __init__(self, array: np.ndarray) -> None:
            self.array = array

        def __dlpack__(self, **kwargs: Any) -> Any:
            return self.array.__dlpack__(**kwargs)

        def __dlpack_device__(self) -> tuple[int, int]:
            return self.array.__dlpack_device__()

    clf = small().fit(Box(X), Box(Y))
    np.testing.assert_array_equal(clf.predict(Box(X)), small().fit(X, Y).predict(X))


# ---- pickles, copies, threads -----------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
def test_pickle_goes_on_where_it_was(kind: str, device: str) -> None:
    est = small(kind, device=device, solver="adam")
    first = {"classes": [0, 1, 2]} if kind == "MLPClassifier" else {}
    est.partial_fit(X, Y, **first).partial_fit(X, Y)
    file = io.BytesIO()
    joblib.dump(est, file)
    file.seek(0)
    others = [pickle.loads(pickle.dumps(est)), copy.deepcopy(est), joblib.load(file)]
    expected = est.predict(X)
    for other in others:
        np.testing.assert_array_equal(other.predict(X), expected)
    est.partial_fit(X, Y)
    for other in others:  # with Adam's moments and step counter
        np.testing.assert_array_equal(other.partial_fit(X, Y).coefs_[0], est.coefs_[0])


def test_changed_coefs_change_predictions(device: str) -> None:
    reg = small("MLPRegressor", device=device).fit(X, Y)
    before = reg.predict(X)
    reg.intercepts_[-1] += 1.5
    np.testing.assert_allclose(reg.predict(X), before + 1.5, rtol=RELATIVE["few roundings"])
    reg.coefs_[-1] = np.zeros_like(reg.coefs_[-1])
    np.testing.assert_allclose(reg.predict(X), reg.intercepts_[-1][0], rtol=RELATIVE["few roundings"])


def test_predictions_from_threads() -> None:
    reg = small("MLPRegressor").fit(X, Y)
    parts = [X[k::5] for k in range(5)] * 20
    expected = [reg.predict(part) for part in parts]
    with ThreadPoolExecutor(4) as pool:
        for got, wanted in zip(pool.map(reg.predict, parts), expected, strict=True):
            np.testing.assert_array_equal(got, wanted)


def test_data_and_parameters_are_left_alone(device: str) -> None:
    given, weights = X.copy(), np.ones(len(X))
    given.flags.writeable = weights.flags.writeable = False
    clf = small(device=device, batch_size=32)
    for _ in range(2):
        clf.partial_fit(given, Y, weights, classes=[0, 1, 2])
    clf.fit(given, Y, weights).predict(given)
    np.testing.assert_array_equal(given, X)


# ---- messages -----------------------------------------------
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": -1}, "The 'alpha' parameter of MLPClassifier must be a float in the range"),
        ({"solver": "adma"}, "The 'solver' parameter of MLPClassifier must be a str among"),
        ({"activation": "rule"}, "The 'activation' parameter of MLPClassifier must be a str among"),
        ({"hidden_layer_sizes": (5, 0)}, r"hidden_layer_sizes must be > 0, got \[5, 0\]."),
        ({"dropout": 1.0}, "The 'dropout' parameter of MLPClassifier"),
        ({"dtype": "float16"}, "The 'dtype' parameter of MLPClassifier"),
        ({"scoring": "acuracy"}, "The 'scoring' parameter of MLPClassifier"),
        ({"device": "gpu0"}, "unknown device 'gpu0'"),
        ({"solver": "lbfgs", "l1": 1.0}, "solver='lbfgs' knows no X_val, l1 or dropout"),
    ],
)
def test_parameters_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**options).fit(X, Y)


@pytest.mark.parametrize("kind", KINDS)
def test_input_messages_are_theirs(kind: str) -> None:
    bad = X.copy()
    bad[3, 1] = np.nan
    cases = [(bad, Y), (X[:, 0], Y), (X, Y[:9]), (X[:0], Y[:0]), (X.astype(complex), Y), (X, None)]
    fitted = [getattr(module, kind)(max_iter=1).fit(X, Y) for module in (neural_network, gpumlp)]
    for call in [*(("fit", case) for case in cases), ("predict", (X[:, :2],)), ("predict", (bad,))]:
        messages = []
        for est in fitted:
            with pytest.raises((ValueError, TypeError)) as info:
                getattr(est, call[0])(*call[1])
            messages.append(str(info.value))
        assert messages[0] == messages[1]


def test_calls_out_of_order() -> None:
    with pytest.raises(NotFittedError):
        small().predict(X)
    with pytest.raises(NotFittedError):
        small().predict_proba(X)
    with pytest.raises(ValueError, match="classes must be passed on the first call to partial_fit"):
        small().partial_fit(X, Y)
    with pytest.raises(ValueError, match=r"`y` has classes not in `self\.classes_`"):
        small().partial_fit(X, Y, classes=[0, 1, 2]).partial_fit(X, Y + 1)
    for kind in KINDS:
        assert not hasattr(small(kind, solver="lbfgs"), "partial_fit")
    with pytest.raises(ValueError, match="X_val and y_val must be given together"):
        small().fit(X, Y, X_val=X)
    with pytest.raises(ValueError, match="poisson' needs y >= 0; y goes down to -1"):
        small("MLPRegressor", loss="poisson").fit(X, Y - 1)


def test_warnings_are_theirs() -> None:
    for options in ({"max_iter": 2}, {"solver": "lbfgs", "max_iter": 2}, {"batch_size": 1000, "max_iter": 2}):
        caught = []
        for module in (neural_network, gpumlp):
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                module.MLPClassifier(**options, random_state=0).fit(X, Y)
            caught.append([(w.category, str(w.message)) for w in seen])
        assert caught[0] == caught[1] != []
        assert caught[0][-1][0] is ConvergenceWarning


def test_parameters_that_are_not_finite(device: str) -> None:
    reg = small(
        "MLPRegressor",
        device=device,
        solver="sgd",
        learning_rate_init=1e6,
        activation="identity",
        max_iter=50,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        with pytest.raises(ValueError, match="Solver produced non-finite parameter weights"):
            reg.fit(X * 1e3, Y)
