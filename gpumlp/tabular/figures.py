"""Figures of answers to rows whose targets are known."""

from __future__ import annotations

import numpy as np

__all__ = ["class_figures", "value_figures"]

_MOST_CLASSES = 100  # with which the area under the curve is computed: each needs a sort


def class_figures(p: np.ndarray, y: np.ndarray, w: np.ndarray | None = None) -> dict[str, float]:
    """Of probabilities (n, n_classes) for rows of classes `y`: "accuracy", "log_loss" and "auc".

    Parameters
    ----------
    p : array (n, n_classes)
    y : int array (n,)
        Class numbers; -1 for a class that has no probability.
    w : array (n,), optional
        Weights of the rows.

    Returns
    -------
    dict of str to float
        "auc" is the area under the ROC curve, of more than two classes the mean over each against the rest;
        it is left out where all rows are of one class, or for more than 100 classes.
    """
    n_classes = p.shape[1]
    right = np.where(y >= 0, p[np.arange(len(y)), y], 0).astype(np.float64)
    loss = -np.log(np.clip(right, np.finfo(np.float64).eps, 1))
    found = {
        "accuracy": float(np.average(p.argmax(axis=1) == y, weights=w)),
        "log_loss": float(np.average(loss, weights=w)),
    }
    if n_classes <= _MOST_CLASSES:
        which = [1] if n_classes == 2 else range(n_classes)
        areas = [area for k in which if (area := _area(y == k, p[:, k], w)) is not None]
        if areas:
            found["auc"] = float(np.mean(areas))
    return found


def _area(positive: np.ndarray, score: np.ndarray, w: np.ndarray | None) -> float | None:
    """Probability that a positive row has the higher score than a negative one; ties count half."""
    w = np.ones(len(score)) if w is None else w
    values, place = np.unique(score, return_inverse=True)
    up = np.bincount(place, w * positive, len(values))
    down = np.bincount(place, w * ~positive, len(values))
    pairs = up.sum() * down.sum()
    below = np.cumsum(down) - down
    return float((up * (below + 0.5 * down)).sum() / pairs) if pairs > 0 else None


def value_figures(values: np.ndarray, y: np.ndarray, w: np.ndarray | None = None) -> dict[str, float]:
    """Of values (n,) or (n, n_outputs) for rows with the targets `y`: "rmse", "mae" (mean absolute error) and
    "r2" (NaN where all targets are equal), over all outputs together."""
    unit = float(np.abs(y).max(initial=0)) or 1.0  # squares of very large or small targets are no numbers
    error, scaled = (values - y) / unit, y / unit
    mean = np.average(scaled, axis=0, weights=w)
    square, spread, size = (
        float(np.average(part, axis=0, weights=w).mean())
        for part in (error**2, (scaled - mean) ** 2, np.abs(error))
    )
    return {
        "rmse": square**0.5 * unit,
        "mae": size * unit,
        "r2": 1 - square / spread if spread else float("nan"),
    }
