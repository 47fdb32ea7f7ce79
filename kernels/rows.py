"""Kernels that move or sum: row gather, and the reductions for gradient norm and loss sum."""

from __future__ import annotations

import numpy as np
from gpumlp.kernels.kernel import Kernel

__all__ = ["CLIP", "GATHER", "RESET", "STORE_SUM", "SUM", "SUM_SQUARES", "WEIGHT_SQUARES", "partial_rows"]


def partial_rows(n: int) -> tuple[int, int]:
    """(rows, cols) into which the sums below cut `n` elements; a function of `n` alone, so sums are
    repeatable."""
    rows = max(1, min(512, n // 512))
    return rows, -(-n // rows)


def _gather(x: np.ndarray, index: np.ndarray, X: np.ndarray, k: int, stride: int) -> None:
    np.take(X, index[k * stride : k * stride + x.shape[0]], axis=0, out=x, mode="clip")


GATHER = Kernel(
    name="gpumlp_gather",
    outputs="T x",
    raws="int32 index, T X",
    scalars="int64 stride",
    body="x = X[(long long)index[k * stride + r] * ld_X + c];",
    reference=_gather,
)
"""x[r] = X[index[k stride + r]]: the rows of batch k."""


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


def _sum_kernel(name: str, expression: str, reference: object) -> Kernel:
    body = f"""const long long first = r * chunk;
ROW_SUM(total, (first + c < n ? {expression} : C(0)))
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


SUM = _sum_kernel("gpumlp_sum", "values[first + c]", _sum)
"""partial[r] = sum of values[r chunk : (r + 1) chunk]; run twice for the whole sum.  cols = chunk."""

SUM_SQUARES = _sum_kernel("gpumlp_sum_squares", "values[first + c] * values[first + c]", _sum_squares)
"""The same of squares: first half of the gradient's norm."""


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


def _reset(step: np.ndarray, k: int) -> None:
    step[0] = 0


RESET = Kernel(
    name="gpumlp_reset", rowwise=True, rawouts="int64 step", body="ROW_ONE { step[0] = 0; }", reference=_reset
)
"""The plan's next step is number 0 again.  rows = cols = 1."""


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
