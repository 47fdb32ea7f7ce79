"""Random bits for dropout: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").

A counter-based generator has no state: the bits of an element are a function of (seed, step, layer, row,
column), so every executor, thread order and replay draws the same mask.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["KEEP_TEXT", "keep_mask", "philox4x32", "step_parts"]

_STEP_BITS = 24  # a float holds integers of up to this many bits exactly

# Four columns share one counter and take one output word each.  t_low and t_high are the low 24 and the next
# 24 bits of the step number; see `step_parts`.
KEEP_TEXT = """\
unsigned x0 = (unsigned)(c >> 2), x1 = (unsigned)(r + first_row), x2 = (unsigned)t_low;
unsigned x3 = ((unsigned)layer << 24) ^ (unsigned)t_high, k0 = (unsigned)key, k1 = (unsigned)(key >> 32);
for (int round = 0; round < 10; ++round) {
    const unsigned long long p0 = 0xD2511F53ull * x0, p1 = 0xCD9E8D57ull * x2;
    x0 = (unsigned)(p1 >> 32) ^ x1 ^ k0;
    x2 = (unsigned)(p0 >> 32) ^ x3 ^ k1;
    x1 = (unsigned)p1;
    x3 = (unsigned)p0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
}
const unsigned bits = (c & 2) ? ((c & 1) ? x3 : x2) : ((c & 1) ? x1 : x0);
const bool keep = (long long)bits >= threshold;"""


def step_parts(t: Any) -> tuple[Any, Any]:
    """(t_low, t_high) of a step number, or of an array of them."""
    return t % 2**_STEP_BITS, t >> _STEP_BITS


def philox4x32(counter: tuple[Any, Any, Any, Any], key: int) -> list[np.ndarray]:
    """Ten rounds of Philox4x32.

    Parameters
    ----------
    counter : four integers or uint32 arrays that broadcast
    key : int
        64 bits.

    Returns
    -------
    list of four uint64 arrays, each value < 2^32
    """
    mask = np.uint64(0xFFFFFFFF)
    shift = np.uint64(32)
    x0, x1, x2, x3 = (np.asarray(x, np.uint64) & mask for x in counter)
    k0, k1 = key & 0xFFFFFFFF, (key >> 32) & 0xFFFFFFFF
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * x0, np.uint64(0xCD9E8D57) * x2
        x0, x1, x2, x3 = (
            (p1 >> shift) ^ x1 ^ np.uint64(k0),
            p1 & mask,
            (p0 >> shift) ^ x3 ^ np.uint64(k1),
            p0 & mask,
        )
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return [np.asarray(x) for x in (x0, x1, x2, x3)]


def keep_mask(shape: tuple[int, ...], values: dict[str, Any]) -> np.ndarray:
    """Boolean (rows, cols) mask of `KEEP_TEXT`; `values` holds t_low, t_high, layer, key, threshold, and
    first_row if it is not 0."""
    rows, cols = shape
    first_row = int(values.get("first_row", 0))
    groups = -(-cols // 4)
    x3 = ((int(values["layer"]) << 24) ^ int(values["t_high"])) & 0xFFFFFFFF
    counter = (
        np.arange(groups)[None, :],
        np.arange(first_row, first_row + rows)[:, None],
        int(values["t_low"]),
        x3,
    )
    words = np.broadcast_arrays(*philox4x32(counter, int(values["key"])))
    bits = np.stack(words, axis=-1).reshape(rows, 4 * groups)[:, :cols]
    return bits >= np.uint64(int(values["threshold"]))
