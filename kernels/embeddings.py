"""Embeddings: what the columns of a table are made of before the first layer.

All arrays here are *column by column*: row r is one column of the table, or one output of an embedding, and
the columns are the rows of the batch.  So a row has its constants and parameters for itself, rows of the
batch lie next to each other, and a gradient is the sum along a row, in the executor's fixed order.

A number x becomes (with t = w x + b)

* ``cosine``: a0 x + c0, and a_q cos(2 pi t_q) + c_q for each of its frequencies w_q, with learnt amplitudes
  a, phases b and shifts c;
* ``periodic``: cos(2 pi w_q x) and sin(2 pi w_q x), then a small linear layer and ReLU ("PLR", Gorishniy et
  al. 2022, "On embeddings for numerical features in tabular deep learning");
* ``piecewise``: its place in each of several bins, 0 below and 1 above it, then a small linear layer (same
  paper).  The first bin is open below and the last one above.

A category becomes a learnt vector.
"""

from __future__ import annotations

import functools

import numpy as np
from gpumlp.kernels.kernel import Kernel

__all__ = [
    "CATEGORIES",
    "CATEGORIES_BACKWARD",
    "COSINE",
    "COSINE_BACKWARD",
    "PERIODIC",
    "PERIODIC_BACKWARD",
    "PIECEWISE",
    "columns_kernel",
]

_TURN = 2 * np.pi


@functools.cache
def columns_kernel(dtype: str | None = None) -> Kernel:
    """x[r, c] = X[index[k stride + c], column[r]]: columns of batch k, converted; X as for
    `kernels.rows.gather_kernel`."""

    def reference(
        x: np.ndarray, index: np.ndarray, column: np.ndarray, X: np.ndarray, k: int, stride: int
    ) -> None:
        rows = index[k * stride : k * stride + x.shape[1]]
        x[...] = X[rows[None, :], column[: x.shape[0], None]]

    return Kernel(
        name=f"gpumlp_columns_{dtype}" if dtype else "gpumlp_columns",
        outputs="C x",
        raws=f"int32 index, int32 column, {dtype or 'C'} X",
        scalars="int64 stride",
        body="x = C(X[(long long)index[k * stride + c] * ld_X + column[r]]);",
        reference=reference,
    )


def _cosine_parts(
    x: np.ndarray, p: np.ndarray, rows: int, per: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of each output: x of its number, 2 pi t, whether it is linear, and its amplitude."""
    own = np.arange(rows) // per
    v = x[own]
    angle = x.dtype.type(_TURN) * (p[0, :rows, None] * v + p[1, :rows, None])
    return v, angle, (np.arange(rows) % per == 0)[:, None], p[2, :rows, None]


def _cosine(e: np.ndarray, x: np.ndarray, p: np.ndarray, per: int, k: int = 0) -> None:
    v, angle, linear, amplitude = _cosine_parts(x[:, : e.shape[1]], p, len(e), per)
    e[...] = amplitude * np.where(linear, v, np.cos(angle)) + p[3, : len(e), None]


COSINE = Kernel(
    name="gpumlp_cosine",
    outputs="T e",
    raws="C x, C p",
    scalars="int64 per",
    per_row="""const long long own = (unsigned)r / (unsigned)per;
const C linear = r == own * per ? C(1) : C(0);  // a choice in the sum would keep compilers from vectorising
const C w = C(2) * p[r], b = C(2) * p[ld_p + r], a = p[2 * ld_p + r], constant = p[3 * ld_p + r];
const C* const from = x + own * ld_x;""",
    body="e = a * (linear * from[c] + (C(1) - linear) * cospi(w * from[c] + b)) + constant;",
    reference=_cosine,
)
"""`per` outputs e for each number x; p (4, outputs) has the rows w, b, a and c.  The first output of a number
is the linear one, whose w and b are not used."""


def _cosine_backward(
    d: np.ndarray, x: np.ndarray, p: np.ndarray, g: np.ndarray, per: int, k: int = 0
) -> None:
    rows = len(d)
    v, angle, linear, amplitude = _cosine_parts(x[:, : d.shape[1]], p, rows, per)
    slope = d * np.where(linear, 0, np.sin(angle)) * (-_TURN * amplitude).astype(d.dtype)
    g[0, :rows] = (slope * v).sum(axis=1)
    g[1, :rows] = slope.sum(axis=1)
    g[2, :rows] = (d * np.where(linear, v, np.cos(angle))).sum(axis=1)
    g[3, :rows] = d.sum(axis=1)


COSINE_BACKWARD = Kernel(
    name="gpumlp_cosine_backward",
    rowwise=True,
    inputs="T d",
    raws="C x, C p",
    rawouts="C g",
    scalars="int64 per",
    body="""const long long own = (unsigned)r / (unsigned)per;
const C linear = r == own * per ? C(1) : C(0);
const C w = C(2) * p[r], b = C(2) * p[ld_p + r];
const C* const from = x + own * ld_x;
ROW_SUM2(to_a, d[c] * (linear * from[c] + (C(1) - linear) * cospi(w * from[c] + b)), to_c, d[c])
ROW_SUM2(to_b, d[c] * sinpi(w * from[c] + b), to_w, d[c] * sinpi(w * from[c] + b) * from[c])
ROW_ONE {
    const C slope = (C(1) - linear) * C(-6.28318530717958647693) * p[2 * ld_p + r];
    g[r] = slope * to_w;
    g[ld_g + r] = slope * to_b;
    g[2 * ld_g + r] = to_a;
    g[3 * ld_g + r] = to_c;
}""",
    reference=_cosine_backward,
)
"""g (4, outputs): the gradient of p, from d, that of e."""


def _periodic(e: np.ndarray, x: np.ndarray, w: np.ndarray, count: int, per: int, k: int = 0) -> None:
    e[...] = 0
    for own in range(len(e) // per):
        angle = x.dtype.type(_TURN) * w[own * count : (own + 1) * count, None] * x[own, : e.shape[1]]
        block = e[own * per : (own + 1) * per]
        block[:count], block[count : 2 * count], block[2 * count] = np.cos(angle), np.sin(angle), 1


PERIODIC = Kernel(
    name="gpumlp_periodic",
    outputs="T e",
    raws="C x, C w",
    scalars="int64 count, int64 per",
    per_row="""const long long own = (unsigned)r / (unsigned)per, at = r - own * per;
const C wave = at < 2 * count ? C(1) : C(0), one = at == 2 * count ? C(1) : C(0);
const C sine = at < count ? C(0) : C(0.5);  // of a half turn: cos(t - pi / 2) = sin(t)
const C turns = at < 2 * count ? C(2) * w[own * count + (at < count ? at : at - count)] : C(0);
const C* const from = x + own * ld_x;""",
    body="e = one + wave * cospi(turns * from[c] - sine);",
    reference=_periodic,
)
"""`per` rows for each number x: cosines and sines of its `count` frequencies w, a row of ones, and zeros."""


def _periodic_backward(
    e: np.ndarray, d: np.ndarray, x: np.ndarray, g: np.ndarray, count: int, per: int, n: int, k: int = 0
) -> None:
    for own in range(len(g) // count):
        cosine, sine = (e[own * per + at * count :, :n][:count] for at in (0, 1))
        to_cosine, to_sine = (d[own * per + at * count :, :n][:count] for at in (0, 1))
        slope = (cosine * to_sine - sine * to_cosine) * x[own, :n]
        g[own * count : (own + 1) * count] = _TURN * slope.sum(axis=1)


PERIODIC_BACKWARD = Kernel(
    name="gpumlp_periodic_backward",
    rowwise=True,
    raws="T e, T d, C x",
    rawouts="C g",
    scalars="int64 count, int64 per, int64 n",
    body="""const long long own = r / count, at = own * per + (r - own * count);
const long long first = at * ld_e, second = (at + count) * ld_e, d1 = at * ld_d, d2 = (at + count) * ld_d;
ROW_SUM(total, (C(e[first + c]) * C(d[d2 + c]) - C(e[second + c]) * C(d[d1 + c])) * x[own * ld_x + c])
ROW_ONE { g[r] = C(6.28318530717958647693) * total; }""",
    reference=_periodic_backward,
)
"""g: the gradient of the frequencies, from the output e of `PERIODIC` and its gradient d; cols = n."""


def _piecewise(e: np.ndarray, x: np.ndarray, bins: np.ndarray, per: int, k: int = 0) -> None:
    rows = len(e)
    start, slope, low, high = (row[:rows, None] for row in bins)
    place = (x[np.arange(rows) // per, : e.shape[1]] - start) * slope
    e[...] = np.minimum(np.maximum(place, low), high)


PIECEWISE = Kernel(
    name="gpumlp_piecewise",
    outputs="T e",
    raws="C x, C bins",
    scalars="int64 per",
    per_row="""const C start = bins[r], slope = bins[ld_bins + r];
const C low = bins[2 * ld_bins + r], high = bins[3 * ld_bins + r];
const C* const from = x + ((unsigned)r / (unsigned)per) * ld_x;""",
    body="""const C place = (from[c] - start) * slope, above = place < low ? low : place;
e = above > high ? high : above;""",
    reference=_piecewise,
)
"""`per` rows for each number x: (x - start) slope, not below `low` and not above `high`, the rows of `bins`.
With low = high it is a constant; with start 0, slope 1 and infinite limits x itself."""


def _codes(x: np.ndarray, begin: np.ndarray, own: int) -> np.ndarray:
    last = int(begin[own + 1] - begin[own]) - 1
    return np.clip(np.nan_to_num(x[own]), 0, last).astype(np.int64) + begin[own]


def _categories(
    e: np.ndarray, x: np.ndarray, vectors: np.ndarray, begin: np.ndarray, per: int, k: int = 0
) -> None:
    for own in range(len(begin) - 1):
        e[own * per : (own + 1) * per] = vectors[_codes(x[:, : e.shape[1]], begin, own), :per].T


CATEGORIES = Kernel(
    name="gpumlp_categories",
    outputs="T e",
    raws="C x, C vectors, int32 begin",
    scalars="int64 per",
    per_row="""const long long own = (unsigned)r / (unsigned)per;
const C last = C(begin[own + 1] - begin[own] - 1);
const C* const from = x + own * ld_x;
const C* const vector = vectors + begin[own] * ld_vectors + (r - own * per);""",
    body="""const C code = from[c] > C(0) ? from[c] : C(0);
e = vector[(long long)(code < last ? code : last) * ld_vectors];""",
    reference=_categories,
)
"""`per` rows for each column x of codes: the vector begin[column] + code, a row of `vectors`.  Codes that the
column does not have are its first or last one: nothing else is ever read."""


def _categories_backward(
    x: np.ndarray, d: np.ndarray, begin: np.ndarray, g: np.ndarray, per: int, n: int, k: int = 0
) -> None:
    g[: begin[-1], :per] = 0
    for own in range(len(begin) - 1):
        np.add.at(g[:, :per], _codes(x[:, :n], begin, own), d[own * per : (own + 1) * per, :n].T)


CATEGORIES_BACKWARD = Kernel(
    name="gpumlp_categories_backward",
    rowwise=True,
    raws="C x, T d, int32 begin",
    rawouts="C g",
    scalars="int64 per, int64 n",
    body="""long long own = 0;
while (r >= begin[own + 1]) ++own;
const C low = r == begin[own] ? C(-1) / C(0) : C(r - begin[own]);
const C high = r == begin[own + 1] - 1 ? C(1) / C(0) : C(r - begin[own]);
ROW_SUM(found, (x[own * ld_x + c] >= low && x[own * ld_x + c] <= high ? C(1) : C(0)))
for (long long at = 0; at < per; ++at) {
    C value = C(0);
    if (found > C(0)) {
        const long long place = (own * per + at) * ld_d;
        ROW_SUM(total, (x[own * ld_x + c] >= low && x[own * ld_x + c] <= high ? C(d[place + c]) : C(0)))
        value = total;
    }
    ROW_ONE { g[r * ld_g + at] = value; }
}""",
    reference=_categories_backward,
)
"""g: the gradient of `vectors`; row r is the sum of d over the rows of the batch that have its code, 0 if
there are none.  rows = number of vectors, cols = n.  No two threads write to one place."""
