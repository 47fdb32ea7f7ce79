"""Bad input: the exception says what was given and what was expected, and nothing has changed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import gpumlp

X = np.random.default_rng(0).normal(size=(10, 3))
LABELS = np.arange(10) % 4
VALUES = np.linspace(-1, 1, 10)


def with_bad(value: float, a: np.ndarray, *place: int) -> np.ndarray:
    a = np.array(a, float)
    a[place] = value
    return a


class Sparse:
    """Looks like a SciPy matrix."""

    shape = (10, 3)

    def tocsr(self) -> None: ...


def expect_unchanged(device: str, loss: str, error: type, message: str, call: Any, outputs: int = 4) -> None:
    model = gpumlp.MLP([3, outputs], device=device)
    trainer = gpumlp.Trainer(model, loss=loss, optimizer="adam")
    before = model.get_parameters()
    with pytest.raises(error, match=message):
        call(trainer)
    for (W, b), (W0, b0) in zip(model.get_parameters(), before, strict=True):
        assert (W == W0).all() and (b == b0).all()
    assert trainer.optimizer.t == 0 and trainer.epoch == 0


FEATURES = [
    (X[:, :2], ValueError, "X has 2 features.*built for 3"),
    (X[:, 0], ValueError, r"X has 1 dimension\(s\), shape \(10,\); expected 2: \(n_rows, 3\)$"),
    (X[0], ValueError, r"X has 1 .*shape \(3,\); .*for one row use X.reshape\(1, -1\)"),
    (X.reshape(10, 3, 1), ValueError, "X has 3 dimension"),
    (with_bad(math.nan, X, 4, 1), ValueError, r"X contains nan \(row 4, column 1; 1 such"),
    (with_bad(math.inf, X, 9, 2), ValueError, r"X contains inf \(row 9, column 2"),
    (with_bad(-math.inf, X, 0, 0), ValueError, r"X contains -inf \(row 0, column 0"),
    (with_bad(1e300, X, 2, 0), ValueError, r"X .*1e\+300.*row 2, column 0.*float32"),
    (X.astype(object), TypeError, "X holds Python objects.*expected real numbers"),
    (X.astype(complex), TypeError, "X holds complex numbers"),
    (X.astype(str), TypeError, "X holds text"),
    ([[1.0, 2.0, 3.0]] * 9 + [[1.0, 2.0]], TypeError, "X cannot be read as an array"),
    (np.ma.masked_array(X, X > 1), TypeError, "X is a masked array; fill"),
    (Sparse(), TypeError, r"X is a sparse matrix; expected a dense array: pass X.toarray\(\)"),
    (None, TypeError, "X is None; expected an array of numbers"),
]


@pytest.mark.parametrize(("bad", "error", "message"), FEATURES)
@pytest.mark.parametrize("call", ["fit", "step", "evaluate", "loss_and_grads"])
def test_features(device: str, call: str, bad: Any, error: type, message: str) -> None:
    more = {"epochs": 1} if call == "fit" else {}
    expect_unchanged(
        device, "softmax_cross_entropy", error, message, lambda t: getattr(t, call)(bad, LABELS, **more)
    )


@pytest.mark.parametrize(("bad", "error", "message"), FEATURES)
def test_features_of_forward(device: str, bad: Any, error: type, message: str) -> None:
    model = gpumlp.MLP([3, 2], device=device)
    with pytest.raises(error, match=message):
        model.forward(bad)


@pytest.mark.parametrize("call", ["fit", "step", "evaluate", "loss_and_grads"])
def test_no_rows(device: str, call: str) -> None:
    more = {"epochs": 1} if call == "fit" else {}
    expect_unchanged(
        device,
        "softmax_cross_entropy",
        ValueError,
        "X has no rows; expected at least one",
        lambda t: getattr(t, call)(X[:0], LABELS[:0], **more),
    )


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (LABELS[:9], ValueError, "X has 10 rows but y has 9"),
        (3, ValueError, "X has 10 rows but y has 0"),
        (LABELS + 1, ValueError, r"class numbers from 1 to 4; a network with 4 outputs needs 0..3"),
        (LABELS - 1, ValueError, "class numbers from -1 to 2"),
        (LABELS + 0.5, ValueError, "y holds fractions"),
        (with_bad(math.nan, LABELS, 3), ValueError, r"y contains nan \(row 3"),
        (np.eye(4)[LABELS], ValueError, r"shape \(10, 4\).*class numbers of shape \(n_rows,\).*argmax"),
        (
            LABELS.astype(object),
            TypeError,
            r"y holds Python objects.*classes, y = numpy.unique\(y, return_inv",
        ),
        (LABELS.astype(str), TypeError, "y holds text.*numpy.unique.*gpumlp.MLPClassifier"),
        (None, TypeError, "y is None; expected an array of numbers"),
        (LABELS + 0j, TypeError, "y holds complex numbers"),
        (np.zeros(10, int), ValueError, r"y holds one class only \(0\)"),
    ],
)
def test_labels(device: str, bad: Any, error: type, message: str) -> None:
    expect_unchanged(device, "softmax_cross_entropy", error, message, lambda t: t.fit(X, bad, epochs=1))


@pytest.mark.parametrize(
    ("loss", "outputs", "bad", "message"),
    [
        ("squared_error", 1, VALUES[:4], "X has 10 rows but y has 4"),
        ("squared_error", 1, np.ones((10, 2)), r"y has shape \(10, 2\), the network has 1 outputs"),
        ("squared_error", 2, VALUES, r"y has shape \(10, 1\), the network has 2 outputs; expected \(10, 2\)"),
        ("squared_error", 1, with_bad(math.inf, VALUES, 7), r"y contains inf \(row 7"),
        ("squared_error", 1, with_bad(1e300, VALUES, 7), r"y .*1e\+300.*row 7.*float32"),
        ("binary_cross_entropy", 1, VALUES, "y has values from -1 to 1.*between 0 and 1"),
        ("binary_cross_entropy", 1, np.full(10, 2), "y has values from 2 to 2"),
        ("poisson", 1, VALUES, r"y has negative values \(-1\); poisson needs counts or rates >= 0"),
    ],
)
def test_targets(device: str, loss: str, outputs: int, bad: Any, message: str) -> None:
    expect_unchanged(device, loss, ValueError, message, lambda t: t.fit(X, bad, epochs=1), outputs)


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (np.ones(9), ValueError, r"sample_weight has shape \(9,\); expected \(10,\)"),
        (np.ones((10, 1)), ValueError, r"sample_weight has shape \(10, 1\)"),
        (2.0, ValueError, r"sample_weight has shape \(\)"),
        (np.zeros(10), ValueError, "sample_weight has values from 0 to 0; .* not all 0"),
        (with_bad(-1, np.ones(10), 3), ValueError, "sample_weight has values from -1 to 1"),
        (with_bad(math.nan, np.ones(10), 3), ValueError, r"sample_weight contains nan \(row 3"),
        (np.array(["a"] * 10), TypeError, "sample_weight holds text"),
    ],
)
def test_weights(device: str, bad: Any, error: type, message: str) -> None:
    call = lambda t: t.fit(X, VALUES, epochs=1, sample_weight=bad)  # noqa: E731
    expect_unchanged(device, "squared_error", error, message, call, 1)


@pytest.mark.parametrize(
    ("validation", "error", "message"),
    [
        (0.0, ValueError, "validation=0.0; expected a fraction > 0 and < 1"),
        (1.0, ValueError, "validation=1.0"),
        (-0.5, ValueError, "validation=-0.5"),
        (math.nan, ValueError, "validation=nan"),
        ("10%", ValueError, "validation='10%'; expected a fraction"),
        (
            X[:9],
            ValueError,
            r"^validation is one ndarray of shape \(9, 3\); expected a fraction, \(X_val, y_val\),",
        ),
        (dict.fromkeys("ab", X), ValueError, "^validation is a dict; expected a fraction"),
        ((X,), ValueError, "validation has 1 parts"),
        ((X, LABELS[:3]), ValueError, "X has 10 rows but y_val has 3|X_val has 10 rows but y_val has 3"),
        ((X[:, :1], LABELS), ValueError, "X_val has 1 features"),
        ((X[:0], LABELS[:0]), ValueError, "X_val has no rows"),
        ((X, LABELS + 3), ValueError, "y_val has class numbers from 3 to 6"),
        ((with_bad(math.nan, X, 1, 1), LABELS), ValueError, "X_val contains nan"),
        ((X, LABELS, np.zeros(10)), ValueError, "not all 0"),
    ],
)
def test_validation(device: str, validation: Any, error: type, message: str) -> None:
    call = lambda t: t.fit(X, LABELS, epochs=1, validation=validation)  # noqa: E731
    expect_unchanged(device, "softmax_cross_entropy", error, message, call)


def test_fraction_of_one_row(device: str) -> None:
    call = lambda t: t.fit(X[:1], VALUES[:1], epochs=1, validation=0.5)  # noqa: E731
    expect_unchanged(device, "squared_error", ValueError, "cannot split 1 row", call, 1)


def test_split_that_leaves_no_weight(device: str) -> None:
    """All the weight falls on one side of the split: an error, not a division by zero."""
    from gpumlp.rows import split_rows

    for side in split_rows(0, 10, 0.3):
        w = np.zeros(10)
        w[side] = 1
        call = lambda t, w=w: t.fit(X, VALUES, epochs=1, validation=0.3, sample_weight=w)  # noqa: E731
        expect_unchanged(device, "squared_error", ValueError, "weights.*all 0.*split|split.*all 0", call, 1)


@pytest.mark.parametrize("epochs", [0, -1, 1.5, "3", None, True])
def test_epochs(device: str, epochs: Any) -> None:
    call = lambda t: t.fit(X, LABELS, epochs=epochs)  # noqa: E731
    expect_unchanged(device, "softmax_cross_entropy", ValueError, "epochs=.*expected an integer >= 1", call)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "batch_size=0; expected an integer >= 1"),
        ({"batch_size": -3}, ValueError, "batch_size=-3"),
        ({"batch_size": 2.5}, ValueError, "batch_size=2.5"),
        ({"batch_size": math.nan}, ValueError, "batch_size=nan"),
        ({"l1": -1.0}, ValueError, "l1=-1.0; expected a number >= 0"),
        ({"l2": math.nan}, ValueError, "l2=nan"),
        ({"l2": math.inf}, ValueError, "l2=inf"),
        ({"l2": "0.1"}, ValueError, "l2='0.1'"),
        ({"clip_norm": 0.0}, ValueError, "clip_norm=0.0; expected None or a finite number > 0"),
        ({"clip_norm": math.nan}, ValueError, "clip_norm=nan"),
        ({"clip_norm": -1}, ValueError, "clip_norm=-1"),
        ({"seed": -1}, ValueError, "seed=-1"),
        ({"seed": 1.5}, ValueError, "seed=1.5"),
        ({"schedule": "cosinus"}, ValueError, "unknown schedule 'cosinus'. Did you mean 'cosine'"),
        ({"loss": "squared_eror"}, ValueError, "unknown loss 'squared_eror'. Did you mean 'squared_error'"),
        ({"loss": 3}, TypeError, "loss=3; expected a name"),
        ({"optimizer": "adamm"}, ValueError, "unknown optimizer 'adamm'. Did you mean 'adam'"),
        ({"optimizer": gpumlp.Adam}, TypeError, "expected a name .* or an object such as"),
        ({"schedule": lambda t: 1.0}, TypeError, r"cannot be called as f\(t, total\) \(too many positional"),
        ({"schedule": gpumlp.schedules.Cosine}, TypeError, r"Cosine is a class; give an object: Cosine\("),
        ({"optimizer": gpumlp.Adam(l2=0.1), "l2": 0.2}, ValueError, "l2 was given twice: 0.2 .* 0.1"),
        ({"loss": "softmax_cross_entropy"}, ValueError, "at least 2 outputs.*has 1.*binary_cross_entropy"),
    ],
)
def test_trainer_options(options: dict, error: type, message: str) -> None:
    model = gpumlp.MLP([3, 1], device="numpy")
    with pytest.raises(error, match=message):
        gpumlp.Trainer(model, **{"loss": "squared_error", "optimizer": "adam", **options})
    assert model.output == "identity"


def test_trainer_of_something_else() -> None:
    with pytest.raises(TypeError, match=r"expected a gpumlp.MLP"):
        gpumlp.Trainer([3, 1], loss="squared_error", optimizer="sgd")  # type: ignore[arg-type]


@pytest.mark.parametrize("delta", [0.0, -1.0, math.nan, math.inf])
def test_huber(delta: float) -> None:
    with pytest.raises(ValueError, match=r"Huber: delta=.*expected a finite number > 0"):
        gpumlp.Huber(delta)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([3],), {}, r"layer_sizes=\[3\]; expected at least two positive integers"),
        (([],), {}, "layer_sizes"),
        (([3, 0, 1],), {}, "layer_sizes"),
        (([3, -2],), {}, "layer_sizes"),
        (([3, 2.5],), {}, "layer_sizes"),
        (([3, math.inf],), {}, "layer_sizes"),
        (([3, "a"],), {}, "layer_sizes"),
        ((5,), {}, "layer_sizes=5"),
        (([3, 4, 1], "reLu"), {}, "unknown activation 'reLu'. Did you mean 'relu'"),
        (([3, 1], "reLu"), {}, "unknown activation 'reLu'"),
        (([3, 4, 1], ["relu", "relu"]), {}, "activation=.* has 2 entries, the network has 1 hidden"),
        (([3, 4, 1], 7), {}, "unknown activation 7"),
        (([3, 4, 1],), {"dropout": 1.0}, "dropout=1.0; expected a probability >= 0 and < 1"),
        (([3, 1],), {"dropout": 1.0}, "dropout=1.0"),
        (([3, 4, 1],), {"dropout": -0.1}, "dropout=-0.1"),
        (([3, 4, 1],), {"dropout": math.nan}, "dropout=nan"),
        (([3, 4, 1],), {"dropout": [0.1, 0.2]}, "dropout=.* has 2 entries"),
        (([3, 4, 1],), {"init": "xavier"}, "unknown init 'xavier'. Did you mean 'xavier_"),
        (([3, 4, 1],), {"init": -1.0}, "init=-1.0"),
        (([3, 4, 1],), {"init": math.nan}, "init=nan"),
        (([3, 4, 1],), {"seed": -1}, "seed=-1"),
        (([3, 4, 1],), {"seed": 0.5}, "seed=0.5"),
        (([3, 4, 1],), {"dtype": "float16"}, "dtype='float16'; expected 'float32' or 'float64'"),
        (([3, 4, 1],), {"dtype": "int32"}, "dtype='int32'"),
        (([3, 4, 1],), {"dtype": "flaot32"}, "dtype='flaot32'"),
        (([3, 4, 1],), {"dtype": None}, "dtype=None"),
        (([3, 4, 1],), {"device": "gpu0"}, "unknown device 'gpu0'"),
    ],
)
def test_network_options(arguments: tuple, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gpumlp.MLP(*arguments, **{"device": "numpy", **options})


def test_numpy_mixed_with_cupy(device: str) -> None:
    backend = gpumlp.get_backend(device)
    if backend.xp is np:
        pytest.skip("no CUDA executor")
    there = backend.asarray
    calls = [
        (lambda t: t.fit(there(X), VALUES, epochs=1), "X is CuPy but y is NumPy"),
        (lambda t: t.fit(X, there(VALUES), epochs=1), "X is NumPy but y is CuPy"),
        (lambda t: t.fit(X, VALUES, epochs=1, validation=(X, there(VALUES))), "y_val is CuPy"),
    ]
    for call, message in calls:
        expect_unchanged(device, "squared_error", TypeError, message, call, 1)
    model = gpumlp.MLP([3, 1], device="numpy")
    with pytest.raises(
        TypeError, match=r"X is on a CUDA device but the model is on cpu; use model.to\('cuda'\)"
    ):
        model.forward(there(X))


def test_bad_values_on_the_device(device: str) -> None:
    backend = gpumlp.get_backend(device)
    if backend.xp is np:
        pytest.skip("no CUDA executor")
    bad = backend.asarray(with_bad(math.nan, X, 4, 1))
    call = lambda t: t.fit(bad, backend.asarray(VALUES), epochs=1)  # noqa: E731
    expect_unchanged(device, "squared_error", ValueError, r"X contains nan \(row 4, column 1", call, 1)
