"""What does not fit is refused before anything is computed: the same error on each executor, nothing lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import joblib
import numpy as np
import pytest

from gpumlp import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4))
ONE, THREE = X[:, 0] - X[:, 1], X[:, :3]
LABELS = np.digitize(X[:, 0], [-0.4, 0.4])
FLAGS = np.eye(3, dtype=int)[LABELS]
W = np.ones(60)


def reg(device: str, **options: Any) -> MLPRegressor:
    return MLPRegressor(hidden_layer_sizes=(5,), max_iter=2, random_state=0, device=device, **options)


def clf(device: str, **options: Any) -> MLPClassifier:
    return MLPClassifier((5,), max_iter=2, random_state=0, device=device, **options)


def fitted_on(y: Any, **options: Any) -> Callable[[str], Any]:
    make = reg if y is ONE or y is THREE else clf
    return lambda device: make(device, **options).fit(X, y)


def bad(position: int, value: float) -> np.ndarray:
    w = W.copy()
    w[position] = value
    return w


REFUSED: dict[str, tuple[Callable[[str], Any], Callable[[Any], Any], str]] = {
    # targets
    "partial_fit, 1 to 3": (fitted_on(ONE), lambda e: e.partial_fit(X, THREE), "y has 3 .* fitted with 1"),
    "partial_fit, 3 to 1": (fitted_on(THREE), lambda e: e.partial_fit(X, ONE), "y has 1 .* fitted with 3"),
    "partial_fit, 3 to 2": (
        fitted_on(THREE),
        lambda e: e.partial_fit(X, THREE[:, :2]),
        "y has 2 .* fitted with 3",
    ),
    "warm start": (fitted_on(THREE, warm_start=True), lambda e: e.fit(X, ONE), "y has 1 .* fitted with 3"),
    "warm start, L-BFGS": (
        fitted_on(ONE, warm_start=True, solver="lbfgs"),
        lambda e: e.fit(X, THREE),
        "y has 3 .* fitted with 1",
    ),
    "y_val, 1 to 2": (
        fitted_on(ONE),
        lambda e: e.fit(X, ONE, X_val=X, y_val=THREE[:, :2]),
        "y_val has 2 .* y has 1",
    ),
    "y_val, 3 to 1": (
        fitted_on(THREE),
        lambda e: e.fit(X, THREE, X_val=X, y_val=ONE),
        "y_val has 1 .* y has 3",
    ),
    "y_val, rows": (
        fitted_on(ONE),
        lambda e: e.fit(X, ONE, X_val=X, y_val=ONE[:9]),
        r"inconsistent numbers of samples: \[60, 9\]",
    ),
    "score, 3 to 1": (fitted_on(ONE), lambda e: e.score(X, THREE), "different number of output"),
    # kinds of labels
    "partial_fit, labels to flags": (
        fitted_on(LABELS),
        lambda e: e.partial_fit(X, FLAGS),
        "y is a 0/1 matrix of 3 labels .* fitted on one label per row",
    ),
    "partial_fit, flags to labels": (
        fitted_on(FLAGS),
        lambda e: e.partial_fit(X, LABELS),
        "y is one label per row, .* fitted on a 0/1 matrix of 3 labels",
    ),
    "partial_fit, 3 to 2 flags": (
        fitted_on(FLAGS),
        lambda e: e.partial_fit(X, FLAGS[:, :2]),
        "y is a 0/1 matrix of 2 labels .* fitted on a 0/1 matrix of 3",
    ),
    "warm start, labels to flags": (
        fitted_on(LABELS, warm_start=True),
        lambda e: e.fit(X, FLAGS),
        "y is a 0/1 matrix of 3 labels .* fitted on one label per row",
    ),
    "y_val of flags": (
        fitted_on(LABELS),
        lambda e: e.fit(X, LABELS, X_val=X, y_val=FLAGS),
        "y_val is a 0/1 matrix of 3 labels .* fitted on one label per row",
    ),
    "y_val of labels": (
        fitted_on(FLAGS),
        lambda e: e.fit(X, FLAGS, X_val=X, y_val=LABELS),
        "y_val is one label per row, .* fitted on a 0/1 matrix",
    ),
    "y_val of fewer flags": (
        fitted_on(FLAGS),
        lambda e: e.fit(X, FLAGS, X_val=X, y_val=FLAGS[:, :2]),
        "y_val is a 0/1 matrix of 2 labels",
    ),
    "y_val as text": (
        fitted_on(LABELS),
        lambda e: e.fit(X, LABELS, X_val=X, y_val=LABELS.astype(str)),
        "classes not in",
    ),
    "numbers for text": (
        lambda device: clf(device).fit(X, LABELS.astype(str)),
        lambda e: e.partial_fit(X, LABELS),
        "classes not in",
    ),
    "first partial_fit with other classes than columns": (
        clf,
        lambda e: e.partial_fit(X, FLAGS, classes=[0, 1]),
        "y has 3 columns of labels, classes names 2",
    ),
    "first partial_fit with unknown labels": (
        clf,
        lambda e: e.partial_fit(X, LABELS, classes=[0, 1]),
        "classes not in",
    ),
    # features
    "X of partial_fit": (fitted_on(ONE), lambda e: e.partial_fit(X[:, :2], ONE), "X has 2 features"),
    "X of warm start": (
        fitted_on(LABELS, warm_start=True),
        lambda e: e.fit(X[:, :2], LABELS),
        "X has 2 features",
    ),
    "X_val": (fitted_on(ONE), lambda e: e.fit(X, ONE, X_val=X[:, :3], y_val=ONE), "X has 3 features"),
    "predict": (fitted_on(ONE), lambda e: e.predict(X[:, :3]), "X has 3 features"),
    "predict, NaN": (fitted_on(ONE), lambda e: e.predict(X * np.nan), "Input X contains NaN"),
    "predict_proba": (fitted_on(LABELS), lambda e: e.predict_proba(X[0]), "Expected 2D array, got 1D"),
    "score": (fitted_on(LABELS), lambda e: e.score(X[:, :3], LABELS), "X has 3 features"),
    "no rows": (fitted_on(LABELS), lambda e: e.predict(X[:0]), r"Found array with 0 sample\(s\)"),
    # the network
    "other hidden layers": (
        fitted_on(LABELS),
        lambda e: e.set_params(hidden_layer_sizes=(7,)).partial_fit(X, LABELS),
        r"hidden_layer_sizes is \[7\], but .* fitted with \[5\]",
    ),
    "L-BFGS with validation rows": (
        fitted_on(ONE, solver="lbfgs"),
        lambda e: e.fit(X, THREE, X_val=X, y_val=THREE),
        "knows no X_val",
    ),
    # weights
    "negative": (
        fitted_on(ONE),
        lambda e: e.fit(X, ONE, bad(3, -0.5)),
        "from -0.5 to 1; weights must be >= 0",
    ),
    "negative, classifier": (
        fitted_on(LABELS),
        lambda e: e.partial_fit(X, LABELS, bad(3, -1)),
        "sample_weight has values from -1 to 1",
    ),
    "infinite": (fitted_on(ONE), lambda e: e.fit(X, ONE, bad(0, np.inf)), "sample_weight contains infinity"),
    "not as many": (fitted_on(ONE), lambda e: e.fit(X, ONE, W[:9]), "sample_weight"),
    "two columns": (fitted_on(ONE), lambda e: e.fit(X, ONE, np.ones((60, 2))), "[Ss]ample.weight"),
    "validation": (
        fitted_on(ONE),
        lambda e: e.fit(X, ONE, X_val=X, y_val=ONE, sample_weight_val=bad(1, -2)),
        "sample_weight_val has values from -2 to 1",
    ),
    "no validation rows": (
        fitted_on(ONE),
        lambda e: e.fit(X, ONE, sample_weight_val=W),
        "sample_weight_val is given without X_val",
    ),
    "score, negative": (
        fitted_on(LABELS),
        lambda e: e.score(X, LABELS, bad(5, -1)),
        "weights must be >= 0 and not all 0",
    ),
    "class_weight": (
        fitted_on(LABELS),
        lambda e: e.set_params(class_weight={0: 1, 1: -1, 2: 1}).fit(X, LABELS),
        "class_weight={.*}; weights must be finite and >= 0",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, device: str) -> None:
    make, call, message = REFUSED[name]
    est = make(device)
    other = make(device)
    with pytest.raises(ValueError, match=message) as info:
        call(est)
    assert "broadcast" not in str(info.value)
    options = {k: v for k, v in est.get_params().items() if k in ("hidden_layer_sizes", "class_weight")}
    other.set_params(**options)
    assert joblib.hash(est.__getstate__()) == joblib.hash(other.__getstate__())
    if hasattr(est, "coefs_"):
        np.testing.assert_array_equal(est.predict(X), other.predict(X))


def test_a_batch_may_lack_classes(device: str) -> None:
    """Fewer labels than were fitted are no other kind of labels."""
    est = clf(device).partial_fit(X, LABELS, classes=[0, 1, 2])
    few = LABELS < 2
    est.partial_fit(X[few], LABELS[few])
    assert est.predict_proba(X).shape == (60, 3)
    full = clf(device, warm_start=True).fit(X, LABELS)
    full.fit(X, LABELS, X_val=X[few], y_val=LABELS[few])
    assert len(full.validation_loss_curve_) == 2


@pytest.mark.parametrize("kind", ["decimal", "bool", "nullable", "arrow"])
@pytest.mark.parametrize("module", ["pandas", "polars"])
def test_columns_that_are_numbers(module: str, kind: str, device: str) -> None:
    from decimal import Decimal

    pandas = pytest.importorskip("pandas")
    plain = pandas.DataFrame({"a": X[:, 0].round(2), "b": LABELS, "c": X[:, 1] > 0})
    frame = {
        "decimal": lambda: plain.assign(a=[Decimal(str(v)) for v in plain["a"]]),
        "bool": lambda: plain,
        "nullable": plain.convert_dtypes,
        "arrow": lambda: pytest.importorskip("pyarrow") and plain.convert_dtypes(dtype_backend="pyarrow"),
    }[kind]()
    if module == "polars":
        polars = pytest.importorskip("polars")
        frame = polars.DataFrame({name: frame[name].to_list() for name in frame})
    numbers = plain.astype(float).to_numpy()
    est, expected = clf(device).fit(frame, LABELS), clf(device).fit(numbers, LABELS)
    np.testing.assert_array_equal(est.predict_proba(frame), expected.predict_proba(numbers))
    np.testing.assert_array_equal(
        est.partial_fit(frame, LABELS).coefs_[0], expected.partial_fit(numbers, LABELS).coefs_[0]
    )


def test_sparse_labels(device: str) -> None:
    import scipy.sparse

    est, dense = clf(device).fit(X, scipy.sparse.csr_array(FLAGS)), clf(device).fit(X, FLAGS)
    np.testing.assert_array_equal(est.predict(X), dense.predict(X))
