"""The order of rows: which come when, which are held out, and the key of the dropout masks.

Random scheme (all on the host, so it is the same on every device), for a trainer's `seed`:
``default_rng([seed, 1, epoch])`` shuffles the rows of epoch 0, 1, ... (a permutation of all rows; batches are
consecutive pieces of it), ``default_rng([seed, 2])`` splits off validation rows, and the first 8 bytes of
``SeedSequence([seed, 3])`` are the key of the dropout masks.  A network draws its initial values from
``default_rng([seed, 0])``.

Of a source (`rows.source`) ``default_rng([seed, 1, epoch])`` draws a permutation of the groups, in which they
are read, then for each window of consecutive rows one of its rows; ``default_rng([seed, 2, group, block])``
says which rows of a block are held out.
"""

from __future__ import annotations

import numpy as np

__all__ = ["check_fraction", "dropout_key", "epoch_order", "split_rows"]

_PIECE = 1 << 16


def epoch_order(
    seed: int, epoch: int, n_rows: int, out: np.ndarray | None = None, index: np.ndarray | None = None
) -> np.ndarray:
    """The permutation of epoch `epoch` (from 0), or with `index` that of its entries: int32 (n_rows,),
    written to `out` if given."""
    order = np.empty(n_rows, np.int32) if out is None else out
    starts = range(0, n_rows, _PIECE)  # in pieces: avoids large temporary arrays
    for start in starts:
        order[start : start + _PIECE] = np.arange(start, min(n_rows, start + _PIECE), dtype=np.int32)
    np.random.default_rng([seed, 1, epoch]).shuffle(order)
    if index is not None:
        for start in starts:
            piece = order[start : start + _PIECE]
            piece[:] = index[piece]
    return order


def split_rows(
    seed: int, n_rows: int, fraction: float, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(training rows, validation rows): a seeded split, int32; each has rows of weight > 0."""
    check_fraction(fraction, n_rows)
    order = np.random.default_rng([seed, 2]).permutation(n_rows)
    held = min(n_rows - 1, max(1, round(fraction * n_rows)))
    if weights is not None and not (weights[order[held:]].any() and weights[order[:held]].any()):
        raise ValueError(
            "sample_weight: after the split by `validation` the weights of one side are all 0; "
            "give validation rows yourself"
        )
    return order[held:].astype(np.int32), order[:held].astype(np.int32)


def check_fraction(fraction: float, n_rows: int) -> None:
    """ValueError unless `fraction` of the rows can be held out."""
    if not 0 < fraction < 1:
        raise ValueError(f"validation={fraction!r}; expected a fraction > 0 and < 1, or (X_val, y_val)")
    if n_rows < 2:
        raise ValueError(f"cannot split {n_rows} row into training and validation rows")


def dropout_key(seed: int) -> int:
    """Key of the dropout generator, as a signed 64-bit number."""
    word = np.random.SeedSequence([seed, 3]).generate_state(1, np.uint64)
    return int(word.view(np.int64)[0])
