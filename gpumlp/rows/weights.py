"""The rule for the weights of rows: finite, >= 0, not all 0; only their proportions matter."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["piece_weights", "scaled_weights"]

#: weights whose mean lies within 2**-USUAL and 2**USUAL are taken as they are
USUAL = 40


def scaled_weights(w: np.ndarray, name: str = "sample_weight") -> np.ndarray:
    """Weights (n_rows,) as float64 whose sums and products are finite in float32 as well.

    Weights of a usual size stay as they are, to the bit.  Others are divided by a power of two, which is
    exact, so that the mean of those that are not 0 is about 1.

    Raises
    ------
    ValueError
        A weight is negative or not finite, or all are 0.
    """
    w = np.asarray(w, np.float64)
    if not w.size:
        return w
    low, top = float(w.min()), float(w.max())
    if not (math.isfinite(low) and math.isfinite(top)):
        row = int(np.flatnonzero(~np.isfinite(w))[0])
        raise ValueError(f"{name} contains {w[row]} (row {row}); weights must be finite")
    if low < 0 or top <= 0:
        raise ValueError(f"{name} has values from {low:g} to {top:g}; weights must be >= 0 and not all 0")
    fraction, exponent = math.frexp(top)
    part = np.ldexp(w, -exponent)  # up to 1: neither the sum nor the mean overflows
    mean = fraction if low == top else float(part.sum()) / int(np.count_nonzero(w))
    shift = exponent + math.frexp(mean)[1]
    return w if abs(shift) <= USUAL else np.ldexp(w, -shift)


def piece_weights(w: np.ndarray, name: str = "weight") -> np.ndarray:
    """Weights of some rows of a source, as float64, none of them scaled; they may all be 0.

    Raises
    ------
    ValueError
        A weight is negative, not finite, or larger than 2**USUAL.
    """
    w = np.asarray(w, np.float64)
    good = (w >= 0) & (w <= 2.0**USUAL)
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        raise ValueError(
            f"{name} contains {w[row]:g} (row {row}); weights must be >= 0 and at most 2^{USUAL}"
        )
    return w
