"""The embedded data are the ones that everybody knows; the synthetic ones follow their formula."""

from __future__ import annotations

import numpy as np
import pytest

import gpumlp
from gpumlp.datasets import load_airfoil, load_digits, synthetic_regression


def test_shapes_and_ranges():
    X, y = load_digits()
    assert X.shape == (1797, 64) and X.dtype == np.float32 and (X.min(), X.max()) == (0, 16)
    assert y.shape == (1797,) and y.dtype == np.int64
    assert np.bincount(y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_same_as_scikit_learn():
    theirs = pytest.importorskip("sklearn.datasets").load_digits()
    X, y = load_digits()
    np.testing.assert_array_equal(X, theirs.data)
    np.testing.assert_array_equal(y, theirs.target)


def test_airfoil_is_the_textbook_s():
    X, y = load_airfoil()
    assert X.shape == (1503, 5) and X.dtype == y.dtype == np.float64
    assert (y.min(), y.max(), round(y.mean(), 3)) == (103.38, 140.987, 124.836)
    assert [len(np.unique(column)) for column in X.T] == [21, 27, 6, 4, 105]


@pytest.mark.parametrize(("w", "b", "n", "noise"), [((2, -3.4), 4.2, 1000, 0.01), ([0.5], -1, 50, 0)])
def test_synthetic_regression(w, b, n, noise):
    X, y = synthetic_regression(w, b, n, noise=noise, seed=3)
    assert X.shape == (n, len(w)) and y.shape == (n,) and X.dtype == y.dtype == np.float64
    rest = y - (X @ np.array(w, float) + b)
    assert abs(rest.std() - noise) <= 0.1 * noise + 1e-15 and abs(X.std() - 1) < 0.15
    np.testing.assert_array_equal(X, synthetic_regression(w, b, n, noise=noise, seed=3)[0])
    assert not np.array_equal(X, synthetic_regression(w, b, n, noise=noise)[0])


def test_rows_and_initial_weights_of_one_seed_differ():
    X, _ = synthetic_regression(np.zeros(50), n=20, seed=0)
    (W, _) = gpumlp.MLP([50, 1], init=1.0, seed=0, device="numpy").get_parameters()[0]
    assert np.abs(np.corrcoef(X, W[:, 0])[-1, :-1]).max() < 0.6


@pytest.mark.parametrize(
    "bad",
    [
        {"w": []},
        {"w": [[1.0]]},
        {"w": [np.nan]},
        {"w": "two"},
        {"b": np.inf},
        {"n": 0},
        {"noise": -1},
        {"seed": -1},
    ],
)
def test_synthetic_regression_names_what_is_wrong(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        synthetic_regression(**bad)
