"""What `update` on bare arrays needs beside a rule: the norm of gradients that lie in many arrays, and the
factor on them, with the count of steps."""

from __future__ import annotations

import numpy as np
from gpumlp.kernels.kernel import Kernel
from gpumlp.kernels.rows import sum_kernel

__all__ = ["FACTOR", "FINITE_SQUARES", "LIST_SQUARES", "PLACE"]

PLACE = 3  #: numbers in a row of LIST_SQUARES's `places`


def _finite_squares(partial: np.ndarray, values: np.ndarray, n: int, chunk: int, k: int) -> None:
    partial[:] = 0
    for r, start in enumerate(range(0, n, chunk)):
        part = values[start : min(n, start + chunk)]
        partial[r] = np.dot(part, part) if np.isfinite(part).all() else np.nan


# v v + (v - v): NaN for what is not finite, also where v v is infinite; infinite only where v v overflows
FINITE_SQUARES = sum_kernel(
    "gpumlp_finite_squares",
    "values[first + c] * values[first + c] + (values[first + c] - values[first + c])",
    _finite_squares,
)
"""`SUM_SQUARES`, but NaN where one of the values is not finite."""


def _not_here(**_: object) -> None:
    raise NotImplementedError("addresses of a device mean nothing to NumPy")


LIST_SQUARES = Kernel(
    name="gpumlp_list_squares",
    rowwise=True,
    raws="T kind, int64 places, int32 member",
    rawouts="C partial",
    scalars="int64 chunk",
    body=f"""const long long* const place = places + {PLACE}ll * member[r];
const T* const values = (const T*)place[2];
const long long first = (r - place[0]) * chunk, n = place[1];
ROW_SUM(total, (first + c < n ? C(values[first + c]) * C(values[first + c])
    + (C(values[first + c]) - C(values[first + c])) : C(0)))
ROW_ONE {{ partial[r] = total; }}""",
    reference=_not_here,
)
"""The same for many arrays of the type T (`kind` is one of them): row r is a chunk of array member[r].

A row of `places` is [first row of the array, its size, its address]."""


def _factor(
    partial: np.ndarray,
    scale: np.ndarray,
    clip_scale: np.ndarray,
    counters: np.ndarray,
    limit: float,
    last: int,
    guarded: int,
    k: int,
) -> None:
    norm = np.sqrt(partial.sum()) / scale[0]
    factor = (1 if norm <= limit else limit / norm) / scale[0]
    good = factor > 0 or not guarded
    clip_scale[0] = factor if good else 0
    counters[0] += good
    counters[1] = max(1, min(counters[0], last))


FACTOR = Kernel(
    name="gpumlp_update_factor",
    rowwise=True,
    raws="C partial, C scale",
    rawouts="C clip_scale, int64 counters",
    scalars="C limit, int64 last, int64 guarded",
    body="""ROW_SUM(total, partial[c])
ROW_ONE {
    const C norm = sqrt(total) / scale[0];
    const C factor = (norm <= limit ? C(1) : limit / norm) / scale[0];
    const bool good = factor > C(0) || !guarded;  // NaN is not
    const long long done = counters[0] + (good ? 1 : 0), row = done < last ? done : last;
    clip_scale[0] = good ? factor : C(0);
    counters[0] = done;
    counters[1] = row > 1 ? row : 1;
}""",
    reference=_factor,
)
"""The factor on the gradients, from the sums of their squares, and the step that it is for.  rows = 1.

``clip_scale = min(1, limit / (norm / scale)) / scale``; if `guarded`, 0 where a gradient is not finite: then
the step is to be skipped, and is not counted.  `counters` are [steps done, row of the step table, from 1];
the table has `last` rows, and its last one is that of all later steps."""
