"""Numbers of a column, spread like a normal distribution by their ranks."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

__all__ = ["normal_scores", "quantiles_of"]

_LEAST, _MOST, _ROWS_PER_QUANTILE = 10, 1000, 30
_SORTED = 1_000_000  # rows that quantiles are taken from; of more, every k-th
_NORMAL = NormalDist()


def quantiles_of(values: np.ndarray, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Points of a column and the normal scores that belong to them; between two points lies a line.

    A value's rank is the middle of those that equal values share, so that a value that most rows have does
    not become an extreme one (the published recipes get this by adding noise before they take quantiles).
    The score of rank p is the normal quantile of p, where p is kept 0.5 / n away from 0 and 1.

    Parameters
    ----------
    values : float array (n,)
        Finite ones; at least one.
    weights : float array (n,), optional
        A weight of 2 is a row that is there twice.

    Returns
    -------
    points, scores : float64 arrays (m,)
        Increasing; m is the number of distinct values, or clip(n / 30, 10, 1000) if that is less.

    Examples
    --------
    >>> import numpy as np
    >>> points, scores = quantiles_of(np.array([3.0, 1.0, 2.0]))
    >>> points, scores.round(2)
    (array([1., 2., 3.]), array([-0.97,  0.  ,  0.97]))
    """
    if len(values) > _SORTED:
        every = -(-len(values) // _SORTED)
        values, weights = values[::every], None if weights is None else weights[::every]
    distinct, place = np.unique(np.asarray(values, np.float64), return_inverse=True)
    mass = np.bincount(place.ravel(), weights, minlength=len(distinct)).astype(np.float64)
    mass /= mass.sum()
    ranks = np.cumsum(mass) - mass / 2
    most = int(np.clip(len(values) / _ROWS_PER_QUANTILE, _LEAST, _MOST))
    if len(distinct) > most:
        # values at evenly spaced ranks, the first and the last included; each keeps its own rank
        wanted = np.linspace(ranks[0], ranks[-1], most)
        chosen = np.unique(np.searchsorted(ranks, wanted - 1e-12).clip(0, len(distinct) - 1))
        distinct, ranks = distinct[chosen], ranks[chosen]
    return distinct, np.array([_NORMAL.inv_cdf(p) for p in ranks.clip(1e-7, 1 - 1e-7)])


def normal_scores(values: np.ndarray, points: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """`values` on the line through (points, scores); beyond its ends those of the ends.  NaN stays NaN."""
    return np.interp(np.asarray(values, np.float64), points, scores)
