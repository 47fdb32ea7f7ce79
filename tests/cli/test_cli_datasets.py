"""The embedded digits are the ones that everybody knows."""

from __future__ import annotations

import numpy as np
import pytest

from gpumlp.datasets import load_digits


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
