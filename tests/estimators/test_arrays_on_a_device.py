"""Data on a CUDA device: used there, answered there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse
from sklearn.datasets import load_diabetes, load_iris, make_multilabel_classification
from tolerances import RELATIVE

import gpumlp
from gpumlp import MLPClassifier, MLPRegressor

pytestmark = [
    pytest.mark.skipif(gpumlp.backends.cuda_problem() is not None, reason="no CUDA device"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]
X, Y = load_iris(return_X_y=True)
OPTIONS: dict[str, Any] = {"hidden_layer_sizes": (6,), "max_iter": 4, "random_state": 0}


@pytest.fixture(scope="module")
def cupy() -> Any:
    return pytest.importorskip("cupy")


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("on_host", [False, True], ids=["y on the device", "y on the host"])
@pytest.mark.parametrize("classes", [2, 3])
def test_classifier(cupy: Any, solver: str, on_host: bool, classes: int) -> None:
    rows = classes > Y
    A, b = cupy.asarray(X[rows]), Y[rows] * 5
    est = MLPClassifier(**OPTIONS, solver=solver).fit(A, b if on_host else cupy.asarray(b))
    host = MLPClassifier(**OPTIONS, solver=solver, device="numpy").fit(X[rows], b)
    for method in ("predict", "predict_proba", "predict_log_proba"):
        got = getattr(est, method)(A)
        assert isinstance(got, cupy.ndarray)
        np.testing.assert_allclose(
            got.get(), getattr(host, method)(X[rows]), rtol=RELATIVE["float32 roundings"], atol=1e-9
        )
        assert isinstance(getattr(est, method)(X[rows]), np.ndarray)
    assert all(isinstance(c, np.ndarray) for c in est.coefs_)
    assert est.score(A, cupy.asarray(b)) == est.score(X[rows], b) == host.score(X[rows], b)
    np.testing.assert_array_equal(est.classes_, [0, 5, 10][:classes])


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("targets", [1, 2])
def test_regressor(cupy: Any, early_stopping: bool, targets: int) -> None:
    A, b = load_diabetes(return_X_y=True)
    A, b = (A[:120] * 20).astype(np.float32), np.stack([b[:120] / 100] * targets, axis=1).astype(np.float32)
    b = b[:, 0] if targets == 1 else b
    w = np.linspace(0.5, 1.5, 120)
    options = {**OPTIONS, "early_stopping": early_stopping}
    est = MLPRegressor(**options).fit(cupy.asarray(A), cupy.asarray(b), cupy.asarray(w))
    host = MLPRegressor(**options, device="numpy").fit(A, b, w)
    # four epochs in single precision
    np.testing.assert_allclose(
        est.predict(cupy.asarray(A)).get(), host.predict(A), rtol=RELATIVE["float32 run"], atol=1e-5
    )
    np.testing.assert_allclose(est.loss_curve_, host.loss_curve_, rtol=RELATIVE["float32 sums"])
    assert est.score(cupy.asarray(A), cupy.asarray(b)) == pytest.approx(host.score(A, b), rel=1e-3)


def test_multilabel_and_text_classes(cupy: Any) -> None:
    A, b = make_multilabel_classification(n_samples=40, random_state=0)
    est = MLPClassifier(**OPTIONS).fit(cupy.asarray(A), cupy.asarray(b))
    got = est.predict(cupy.asarray(A))
    assert isinstance(got, cupy.ndarray) and got.shape == b.shape
    np.testing.assert_array_equal(got.get(), est.predict(A))
    names = np.array(["a", "b", "c"])[Y]
    text = MLPClassifier(**OPTIONS, early_stopping=True, scoring="f1_macro").fit(cupy.asarray(X), names)
    np.testing.assert_array_equal(text.predict(cupy.asarray(X)), text.predict(X))  # CuPy holds no text


def test_partial_fit_and_validation(cupy: Any) -> None:
    A, b = cupy.asarray(X), cupy.asarray(Y)
    est = MLPClassifier(**OPTIONS)
    host = MLPClassifier(**OPTIONS, device="numpy")
    for _ in range(3):
        est.partial_fit(A, b, classes=cupy.asarray([0, 1, 2]))
        host.partial_fit(X, Y, classes=[0, 1, 2])
    np.testing.assert_allclose(est.coefs_[0], host.coefs_[0], rtol=1e-8)
    fitted = MLPClassifier(**OPTIONS).fit(A, b, X_val=A[:30], y_val=b[:30])
    assert len(fitted.validation_loss_curve_) == 4


def test_other_speakers_of_the_interface(cupy: Any) -> None:
    class Box:
        """What another library's array looks like."""

        def __init__(self, array: Any) -> None:
            self.array = array

        @property
        def __cuda_array_interface__(self) -> dict[str, Any]:
            return self.array.__cuda_array_interface__

    est = MLPClassifier(**OPTIONS).fit(Box(cupy.asarray(X)), Box(cupy.asarray(Y)))
    assert isinstance(est.predict(Box(cupy.asarray(X))), cupy.ndarray)


def test_sparse_and_pickle(cupy: Any) -> None:
    import pickle

    est = MLPClassifier(**OPTIONS, device="cuda").fit(scipy.sparse.csr_array(X), Y)
    again = pickle.loads(pickle.dumps(est))
    np.testing.assert_array_equal(again.predict(cupy.asarray(X)).get(), est.predict(X))
    cpu = again.set_params(device="cpu")
    np.testing.assert_array_equal(cpu.predict(X), est.predict(X))


def test_bad_device_data(cupy: Any) -> None:
    A, b = cupy.asarray(X), cupy.asarray(Y)
    est = MLPClassifier(**OPTIONS)
    bad = A.copy()
    bad[2, 1] = np.nan
    for arrays, message in (
        ((bad, b), "Input X contains NaN"),
        ((A[:, 0], b), "Expected 2D array, got 1D array instead"),
        ((A, b[:7]), r"inconsistent numbers of samples: \[150, 7\]"),
        ((A[:0], b[:0]), r"Found array with 0 sample\(s\)"),
        ((A.astype(complex), b), "needs real numbers"),
        ((A, None), "requires y to be passed"),
    ):
        with pytest.raises(ValueError, match=message):
            est.fit(*arrays)
    with pytest.raises(ValueError, match="X has 2 features, but MLPClassifier is expecting 4"):
        est.fit(A, b).predict(A[:, :2])
    with pytest.raises(TypeError, match="on a CUDA device but the model is on cpu"):
        MLPClassifier(**OPTIONS, device="cpu").fit(A, b)


def test_an_epoch_is_one_copy_each_way(cupy: Any) -> None:
    simgpu = pytest.importorskip("simgpu", reason="counts copies on the simulated device")
    A, b = cupy.asarray(X.astype(np.float32)), cupy.asarray(Y)

    def copies(epochs: int) -> tuple[int, int, int]:
        with simgpu.watch() as c:
            MLPClassifier(**{**OPTIONS, "max_iter": epochs}, batch_size=40).fit(A, b)
        return c["memcpy_h2d_count"], c["memcpy_d2h_count"], c["graph_launches"]

    copies(1)  # compiles
    few, many = copies(2), copies(7)
    assert [(m - f) / 5 for f, m in zip(few, many, strict=True)] == [1, 1, 5]  # 4 steps and the sums
