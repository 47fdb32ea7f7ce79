"""Which rows networks are trained on, and which they are judged by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Split", "make_splits"]

_SHARE, _MOST = 0.2, 25_000  # of the rows, those that are held back; and at most so many
_FOLDED = 3000  # so few rows are cut into folds, so that every row is trained on by most networks
_FOLDS = 5


@dataclass
class Split:
    """Numbers of the rows that a network is trained on, and of those that it is judged by (none: None)."""

    train: np.ndarray
    val: np.ndarray | None


def make_splits(y: np.ndarray, classes: int, networks: int, few: int, seed: int) -> list[Split]:
    """Splits of the rows, a network each, in turn.

    Parameters
    ----------
    y : array (n,) or (n, n_outputs)
        Class numbers if there are `classes`: every class has its share of both parts, and one with a single
        row is trained on.
    classes : int
        0 for a regression.
    networks : int
    few : int
        So many rows are not split.
    seed : int
    """
    n = len(y)
    rows = np.arange(n)
    if n <= few:
        return [Split(rows, None)]
    order = np.random.default_rng([seed, 4]).permutation(n)
    if classes:  # one class after the other, so that equal steps take from each its share
        order = order[np.argsort(y[order], kind="stable")]
    folds = min(_FOLDS, networks) if n <= _FOLDED else 1
    every = max(round(1 / _SHARE), n // _MOST)
    splits = []
    for fold in range(folds):
        held = np.zeros(n, bool)
        held[order[fold::every]] = True
        if classes:
            alone = np.bincount(y[~held], minlength=classes) == 0
            held &= ~alone[y]
        splits.append(Split(rows[~held], rows[held] if held.any() else None))
    return splits
