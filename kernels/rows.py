"""Kernels that move or sum: row gather, and the reductions for gradient norm and loss sum."""

from __future__ import annotations

import functools
import math

import numpy as np
from gpumlp.kernels.kernel import Kernel

__all__ = [
    "CAST",
    "CLIP",
    "GATHER",
    "LOSS_SCALE",
    "NOT_FINITE",
    "RESET",
    "STORE_STEP",
    "STORE_SUM",
    "SUM",
    "SUM_SQUARES",
    "WEIGHT_SQUARES",
    "ZERO",
    "gather_kernel",
    "partial_rows",
    "sum_kernel",
    "tree_kernel",
]

_FINITE = 3e38  # norms up to this one are finite in float32
_LARGEST_SCALE = 2.0**24


def partial_rows(n: int) -> tuple[int, int]:
    """(rows, cols) into which the sums below cut `n` elements; a function of `n` alone, so sums are
    repeatable.

    Neither is much larger than the root of n, because rounding errors grow with the length of a sum.  cols is
    at least 256, even for fewer elements: then a GPU runs all sums by one compiled kernel.
    """
    rows = max(1, min(n // 512, max(512, math.isqrt(n))))
    return rows, max(256, -(-n // rows))


def _gather(x: np.ndarray, index: np.ndarray, X: np.ndarray, k: int, stride: int) -> None:
    rows = index[k * stride : k * stride + x.shape[0]]
    if X.dtype == x.dtype:
        np.take(X, rows, axis=0, out=x, mode="clip")
    else:
        x[...] = X[rows]


@functools.cache
def gather_kernel(dtype: str | None = None) -> Kernel:
    """x[r] = X[index[k stride + r]]: the rows of batch k, converted; X is of type C or one of `FIXED`."""
    return Kernel(
        name=f"gpumlp_gather_{dtype}" if dtype else "gpumlp_gather",
        outputs="T x",
        raws=f"int32 index, {dtype or 'C'} X",
        scalars="int64 stride",
        body="x = C(X[(long long)index[k * stride + r] * ld_X + c]);",
        reference=_gather,
    )


GATHER = gather_kernel()


def _slices(values: np.ndarray, n: int, chunk: int) -> list[np.ndarray]:
    return [values[start : min(n, start + chunk)] for start in range(0, n, chunk)]


def _sum(partial: np.ndarray, values: np.ndarray, n: int, chunk: int, k: int) -> None:
    partial[:] = 0
    for r, part in enumerate(_slices(values, n, chunk)):
        partial[r] = part.sum()


def _sum_squares(partial: np.ndarray, values: np.ndarray, n: int, chunk: int, k: int) -> None:
    partial[:] = 0
    for r, part in enumerate(_slices(values, n, chunk)):
        partial[r] = np.dot(part, part)


def sum_kernel(name: str, expression: str, reference: object) -> Kernel:
    """partial[r] = sum of `expression` of the elements first + c of `values`, see `SUM`."""
    body = f"""const long long first = r * chunk;
ROW_SUM(total, (first + c < n ? ({expression}) : C(0)))
ROW_ONE {{ partial[r] = total; }}"""
    return Kernel(
        name=name,
        rowwise=True,
        body=body,
        reference=reference,  # type: ignore[arg-type]
        raws="C values",
        rawouts="C partial",
        scalars="int64 n, int64 chunk",
    )


SUM = sum_kernel("gpumlp_sum", "values[first + c]", _sum)
"""partial[r] = sum of values[r chunk : (r + 1) chunk]; run twice for the whole sum.  cols = chunk."""

SUM_SQUARES = sum_kernel("gpumlp_sum_squares", "values[first + c] * values[first + c]", _sum_squares)
"""The same of squares: first half of the gradient's norm."""


def _not_finite(partial: np.ndarray, values: np.ndarray, n: int, chunk: int, k: int) -> None:
    partial[:] = 0
    for r, part in enumerate(_slices(values, n, chunk)):
        partial[r] = part.size - np.count_nonzero(np.isfinite(part))


NOT_FINITE = sum_kernel(
    "gpumlp_not_finite", "values[first + c] - values[first + c] == C(0) ? C(0) : C(1)", _not_finite
)
"""The same of 1 for each value that is NaN or infinite, 0 for the others."""


def _clip(partial: np.ndarray, clip_scale: np.ndarray, limit: float, k: int) -> None:
    norm = np.sqrt(partial.sum())
    clip_scale[0] = 1 if norm <= limit else limit / norm


CLIP = Kernel(
    name="gpumlp_clip",
    rowwise=True,
    raws="C partial",
    rawouts="C clip_scale",
    scalars="C limit",
    body="""ROW_SUM(total, partial[c])
ROW_ONE {
    const C norm = sqrt(total);
    clip_scale[0] = norm <= limit ? C(1) : limit / norm;
}""",
    reference=_clip,
)
"""clip_scale = min(1, limit / sqrt(sum partial)) (Pascanu et al. 2013); NaN norms give NaN.  rows = 1."""


def _loss_scale(partial: np.ndarray, scaler: np.ndarray, limit: float, growth: float, k: int) -> None:
    scale = scaler[0]
    norm = np.sqrt(partial.sum()) / scale
    if norm <= _FINITE:
        good = scaler[2] + 1
        scaler[1] = (1 if norm <= limit else limit / norm) / scale
        scaler[2] = good if good < growth else 0
        if good >= growth:
            scaler[0] = min(2 * scale, _LARGEST_SCALE)
    else:
        scaler[:] = max(scale / 2, 1), 0, 0, scaler[3] + 1


LOSS_SCALE = Kernel(
    name="gpumlp_loss_scale",
    rowwise=True,
    raws="C partial",
    rawouts="C scaler",
    scalars="C limit, C growth",
    body="""ROW_SUM(total, partial[c])
ROW_ONE {
    const C scale = scaler[0], good = scaler[2] + C(1);
    const C norm = sqrt(total) / scale;
    if (norm <= C(3e38)) {
        scaler[1] = (norm <= limit ? C(1) : limit / norm) / scale;
        scaler[2] = good < growth ? good : C(0);
        scaler[0] = good < growth ? scale : (scale < C(8388608) ? C(2) * scale : C(16777216));
    } else {
        scaler[0] = scale > C(2) ? C(0.5) * scale : C(1);
        scaler[1] = scaler[2] = C(0);
        scaler[3] += C(1);
    }
}""",
    reference=_loss_scale,
)
"""Dynamic loss scaling (Micikevicius et al. 2018), from the sums of squares of scaled gradients.

scaler is [scale of the loss, factor on the gradients, steps since the scale changed, steps skipped].  The
factor undoes the scale and clips the norm to `limit`; it is 0 if a gradient is not finite: then the step is
to be skipped, and the scale is halved.  It is doubled after `growth` good steps.  rows = 1."""


def _cast(p: np.ndarray, p_half: np.ndarray, k: int = 0) -> None:
    p_half[...] = p


CAST = Kernel(name="gpumlp_cast", inputs="C p", outputs="T p_half", body="p_half = p;", reference=_cast)
"""p_half = p, rounded to the storage type."""


def _reset(step: np.ndarray, k: int) -> None:
    step[0] = 0


def _exchange(a: np.ndarray, b: np.ndarray, k: int) -> None:
    a[...], b[...] = b.copy(), a.copy()


EXCHANGE = Kernel(
    name="gpumlp_exchange",
    inouts="C a, C b",
    body="const C kept = a;\na = b;\nb = kept;",
    reference=_exchange,
)
"""a, b = b, a."""


def _tree(values: list[np.ndarray]) -> np.ndarray:
    if len(values) == 1:
        return values[0]
    return _tree([a + b for a, b in zip(values[::2], values[1::2], strict=True)])


@functools.cache
def tree_kernel(n: int) -> Kernel:
    """total = s0 + s1 + ... of 2, 4 or 8 summands, added in a balanced tree: ((s0 + s1) + (s2 + s3)) + ..."""
    names = [f"s{j}" for j in range(n)]

    def reference(total: np.ndarray, k: int = 0, **summands: np.ndarray) -> None:
        total[...] = _tree([summands[name] for name in names])

    terms = names
    while len(terms) > 1:
        terms = [f"({a} + {b})" for a, b in zip(terms[::2], terms[1::2], strict=True)]
    return Kernel(
        name=f"gpumlp_tree_{n}",
        inputs=", ".join(f"C {name}" for name in names),
        outputs="C total",
        body=f"total = {terms[0]};",
        reference=reference,
    )


def _zero(p: np.ndarray, k: int = 0) -> None:
    p[...] = 0


ZERO = Kernel(name="gpumlp_zero", outputs="C p", body="p = C(0);", reference=_zero)
"""p = 0."""


RESET = Kernel(
    name="gpumlp_reset", rowwise=True, rawouts="int64 step", body="ROW_ONE { step[0] = 0; }", reference=_reset
)
"""The plan's next step is number 0 again.  rows = cols = 1."""


def _store_step(table: np.ndarray, low: float, high: float, k: int) -> None:
    table[..., :2] = low, high


STORE_STEP = Kernel(
    name="gpumlp_store_step",
    outputs="C table",
    scalars="C low, C high",
    body="table = c == 0 ? low : high;",
    reference=_store_step,
)
"""A step's number, in two parts, into a row of a step table.  rows = 1, cols = 2."""


def _weight_squares(
    partial: np.ndarray, values: np.ndarray, is_weight: np.ndarray, n: int, chunk: int, k: int
) -> None:
    _sum_squares(partial, np.where(is_weight, values, 0), n, chunk, k)


WEIGHT_SQUARES = Kernel(
    name="gpumlp_weight_squares",
    rowwise=True,
    raws="C values, uint8 is_weight",
    rawouts="C partial",
    scalars="int64 n, int64 chunk",
    body="""const long long first = r * chunk;
ROW_SUM(total, (first + c < n && is_weight[first + c] ? values[first + c] * values[first + c] : C(0)))
ROW_ONE { partial[r] = total; }""",
    reference=_weight_squares,
)
"""SUM_SQUARES of the elements that are weights: first half of the L2 penalty's value."""


def _store_sum(partial: np.ndarray, out: np.ndarray, k: int) -> None:
    out[k] = partial.sum()


STORE_SUM = Kernel(
    name="gpumlp_store_sum",
    rowwise=True,
    raws="C partial",
    rawouts="C out",
    body="""ROW_SUM(total, partial[c])
ROW_ONE { out[k] = total; }""",
    reference=_store_sum,
)
"""out[k] = sum of `partial`: a value per step.  rows = 1, cols = len(partial)."""
