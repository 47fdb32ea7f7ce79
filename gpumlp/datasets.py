"""The data set that comes with the package."""

from __future__ import annotations

from importlib import resources

import numpy as np

__all__ = ["load_digits"]


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """The UCI handwritten digits: 1,797 images of 8x8 pixels, ten classes.

    Returns
    -------
    X : float32 (1797, 64)
        Pixels 0 to 16, row by row.
    y : int64 (1797,)
        The digit, 0 to 9.

    Notes
    -----
    The test part of "Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak (1998), UCI
    Machine Learning Repository, doi 10.24432/C50P49, licence CC BY 4.0; the same rows as
    `sklearn.datasets.load_digits`.

    Examples
    --------
    >>> X, y = load_digits()
    >>> X.shape, X.max(), y[:3]
    ((1797, 64), np.float32(16.0), array([0, 1, 2]))
    """
    with (
        resources.files("gpumlp").joinpath("data/digits.npz").open("rb") as file,
        np.load(file, allow_pickle=False) as arrays,
    ):
        return arrays["X"].astype(np.float32), arrays["y"].astype(np.int64)
