"""Keeping to a time: how long a network takes, and what can be trained in the time that there is."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gpumlp.tabular.recipe import Settings
from gpumlp.tabular.splits import Split
from gpumlp.training.many import fit_many
from gpumlp.training.trainer import Trainer

__all__ = ["SPARE", "fitted_to"]

_TRIED = 40  # steps that are timed
SPARE = 0.85  # share of the time that is planned with
_TIMED = 0.1  # share of the time after which no more is timed
_FEWEST = 4  # networks that are kept before their epochs become fewer
_SHORTEST = 5  # epochs that are kept before their rows become fewer: a fit ends with an epoch


def fitted_to(
    seconds: float,
    trainer: Callable[[Settings], Trainer],
    rows: Callable[[np.ndarray], tuple[Any, ...]],
    y: np.ndarray,
    splits: Sequence[Split],
    settings: Sequence[Settings],
) -> tuple[list[Split], list[Settings], int]:
    """Splits and settings that `seconds` are enough for, and with how many networks to begin: fewer of them,
    then fewer epochs, then fewer rows.

    Parameters
    ----------
    seconds : float
    trainer : callable
        Makes a trainer for settings; some are timed on a few steps.
    rows : callable
        (X, y[, weights]) of rows with these numbers.
    y : array (n,) or (n, n_outputs)
        Of all rows; integers are class numbers.
    splits, settings
        As for `train_pack`.
    """
    start = time.monotonic()
    train = splits[0].train
    few = _some(train, _TRIED * settings[0].batch_size, y)
    epoch = _seconds_of_epoch(trainer, rows(few), settings, _TIMED * seconds) * len(train) / len(few)
    left = SPARE * max(0.0, seconds - (time.monotonic() - start))
    needed = epoch * sum(each.epochs for each in settings)
    if needed <= left:
        return list(splits), list(settings), len(settings)
    networks = int(np.clip(len(settings) * left / needed, min(_FEWEST, len(settings)), len(settings)))
    share = left / (epoch * sum(each.epochs for each in settings[:networks]))
    shorter = [
        replace(each, epochs=max(min(_SHORTEST, each.epochs), int(each.epochs * min(share, 1))))
        for each in settings
    ]
    share = left / (epoch * sum(each.epochs for each in shorter[:networks]))
    if share < 1:
        splits = [Split(_some(each.train, int(len(each.train) * share), y), each.val) for each in splits]
    return list(splits), shorter, networks


def _some(rows: np.ndarray, count: int, y: np.ndarray) -> np.ndarray:
    """About `count` of these rows, from everywhere in the table, which may be sorted; some of every class."""
    kept = rows[np.linspace(0, len(rows) - 1, min(max(2, count), len(rows))).astype(int)]
    if y.dtype.kind in "iu":
        kept = np.union1d(kept, rows[np.unique(y[rows], return_index=True)[1]])
    return kept


def _seconds_of_epoch(
    trainer: Callable[[Settings], Trainer],
    rows: tuple[Any, ...],
    settings: Sequence[Settings],
    most: float,
) -> float:
    """Of a network, where as many are trained side by side as the executor likes; tried for `most` seconds,
    or once."""
    side = min(len(settings), trainer(settings[0]).model.backend.lanes)
    trainers = [trainer(each) for each in settings[:side]]
    X, y, w = (*rows, None)[:3]
    took: list[float] = []
    while len(took) < 3 and sum(took) <= most:  # the first one compiles
        begun = time.monotonic()
        fit_many(trainers, X, y, epochs=1, sample_weight=w, progress=False)
        took.append(time.monotonic() - begun)
    return min(took) / side
