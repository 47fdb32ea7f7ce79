"""The data sets that come with the package, and the synthetic ones of the textbook (d2l.ai)."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

import numpy as np

from gpumlp import checks

__all__ = ["load_airfoil", "load_digits", "synthetic_regression"]


def _load(name: str) -> tuple[np.ndarray, np.ndarray]:
    with (
        resources.files("gpumlp").joinpath(f"data/{name}.npz").open("rb") as file,
        np.load(file, allow_pickle=False) as arrays,
    ):
        return arrays["X"], arrays["y"]


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
    X, y = _load("digits")
    return X.astype(np.float32), y.astype(np.int64)


def load_airfoil() -> tuple[np.ndarray, np.ndarray]:
    """NASA's airfoil self-noise: 1,503 measurements in a wind tunnel, a regression.

    Returns
    -------
    X : float64 (1503, 5)
        Frequency (Hz), angle of attack (degrees), chord length (m), free-stream velocity (m/s), displacement
        thickness of the suction side (m).
    y : float64 (1503,)
        Scaled sound pressure level (dB), 103.380 to 140.987.

    Notes
    -----
    T. F. Brooks, D. S. Pope and M. A. Marcolini, "Airfoil Self-Noise and Prediction", NASA RP-1218 (1989);
    UCI Machine Learning Repository, doi 10.24432/C5VW2C, licence CC BY 4.0.  The rows are in the original
    order, in runs of one configuration: shuffle them before a split.  The textbook's chapter 12 standardises
    all six columns and keeps the first 1,500 rows.

    Examples
    --------
    >>> X, y = load_airfoil()
    >>> X.shape, X[0].tolist(), float(y[0])
    ((1503, 5), [800.0, 0.0, 0.3048, 71.3, 0.00266337], 126.201)
    """
    return _load("airfoil")


def synthetic_regression(
    w: Sequence[float] | np.ndarray = (2.0, -3.4),
    b: float = 4.2,
    n: int = 1000,
    *,
    noise: float = 0.01,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a linear model, y = X w + b + e, with X from N(0, 1) and e from N(0, noise^2).

    Parameters
    ----------
    w : sequence of float (n_features,)
    b : float
    n : int
        Number of rows.
    noise : float
        Standard deviation of e, >= 0.
    seed : int
        Of the random numbers; the same seed gives the same rows.

    Returns
    -------
    X : float64 (n, n_features)
    y : float64 (n,)

    Notes
    -----
    The defaults are those of d2l.ai 3.3.  Its example of weight decay (3.7) has 20 rows for 200 weights of
    0.01 and b = 0.05.

    Examples
    --------
    >>> X, y = synthetic_regression()
    >>> A = np.column_stack([X, np.ones(len(X))])
    >>> np.linalg.lstsq(A, y, rcond=None)[0].round(2).tolist()
    [2.0, -3.4, 4.2]
    >>> X, y = synthetic_regression(np.full(200, 0.01), 0.05, 20)
    """
    try:
        weights = np.asarray(w, np.float64)
    except (TypeError, ValueError):
        weights = np.empty(0)
    if weights.ndim != 1 or not weights.size or not np.isfinite(weights).all():
        raise ValueError(f"w={w!r}; expected one finite number per feature")
    n = checks.whole("n", n)
    b, noise = checks.number("b", b), checks.number("noise", noise, 0)
    # a stream of its own: a network of the same seed would start with the first row as its weights
    rng = np.random.default_rng([checks.seed("seed", seed), 20])
    X = rng.standard_normal((n, len(weights)))
    return X, X @ weights + b + noise * rng.standard_normal(n)
