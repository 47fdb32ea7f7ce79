"""Losses: value per row, gradient with respect to the network's output z, and a metric, in one row kernel.

One entry of `LOSSES` (`formulas.py`) is one loss.  The loss of a batch is ``sum_i w_i l_i / sum_i w_i`` over
its rows (all w_i = 1 without sample weights); l_i is the sum over the outputs times `per_output` (1 /
n_outputs for the elementwise losses: a mean over outputs; 1 gives scikit-learn's sums).
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from gpumlp.kernels.formulas import ERROR, LEVEL_ERROR, LOSSES, TARGET, Loss
from gpumlp.kernels.kernel import Kernel

__all__ = ["LOSSES", "Loss", "evaluation_kernel", "loss_kernels_of", "output_kernel", "training_kernel"]

_ROW = "const long long row = index[k * stride + r];"
_SOFTMAX_PARTS = """\
ROW_MAX(top, z[c])
ROW_SUM(total, exp(z[c] - top))
const long long label = y[row];"""
_SOFTMAX_VALUE = "log(total) - (z[label] - top)"
_SMOOTHED_PARTS = f"{_SOFTMAX_PARTS}\nROW_SUM(spread, z[c] - top)\nROW_SUM(width, C(1))"
_SMOOTHED_VALUE = "log(total) - ((C(1) - delta) * (z[label] - top) + delta / width * spread)"
#: `place(c)`, the place of column c among the row's outputs in ascending order, NaN last
_PLACE = """\
ROW_SUM(width, C(1))
const auto place = [&](const long long at) {
    long long before = 0;
    for (long long j = 0; j < (long long)width; ++j) {
        const bool less = z[j] < z[at] || (z[at] != z[at] && z[j] == z[j]);
        const bool more = z[j] > z[at] || (z[j] != z[j] && z[at] == z[at]);
        before += less || (!more && j < at);
    }
    return before;
};"""


def _rows(
    values: dict[str, Any], z: np.ndarray, k: int, stride: int, index: np.ndarray
) -> tuple[slice, np.ndarray]:
    out = slice(k * stride, k * stride + z.shape[0])
    return out, index[out]


_WEIGHT = "const C weight = w[row];"


def _weigh(value: str, weighted: bool) -> str:
    """Text of weight * value; a row of weight 0 does not count, whatever its value is."""
    return f"(weight > C(0) ? weight * ({value}) : C(0))" if weighted else f"({value})"


def _weighed(w: np.ndarray | None, values: np.ndarray) -> np.ndarray:
    """The same in NumPy; `w` (rows,), `values` (rows,) or (rows, cols)."""
    if w is None:
        return values
    scale = w.reshape(-1, *[1] * (values.ndim - 1))
    return np.where(scale > 0, scale * values, 0)


def training_kernel(name: str, weighted: bool, scaled: bool = False) -> Kernel:
    """Row kernel: row_loss[k stride + r] = w l and d = dL/dz.

    Parameters
    ----------
    name : str
    weighted : bool
        There are sample weights w (n_rows,).
    scaled : bool
        d (not row_loss) is multiplied by loss_scale[0], so that small gradients survive in float16.

    Notes
    -----
    Arrays: z, d (rows, n_outputs); raw: index (int32; row numbers in the order of the epoch), y, [w],
    [loss_scale], row_loss.  Scalars: stride (rows of a full batch), per_output, delta (if the loss has one).
    Stepped: inv_weight, 1 / (sum of the batch's weights).
    """
    return _training(LOSSES[name], weighted, scaled)


@functools.cache
def _training(loss: Loss, weighted: bool, scaled: bool) -> Kernel:
    factor = "inv_weight" + (" * loss_scale[0]" if scaled else "")
    if loss.classes:
        wanted = "(c == label ? C(1) : C(0))"
        if loss.delta is not None:
            wanted = "((c == label ? C(1) - delta : C(0)) + delta / width)"
        gradient = f"exp(z[c] - top) * inv_total - {wanted}"
        softmax, value = _softmax_text(loss)
        parts = f"{softmax}\nconst C inv_total = C(1) / total;\nconst C factor = {factor};"
        each = f"d[c] = {_weigh(f'factor * ({gradient})', weighted)};"
    else:
        parts = f"ROW_SUM(total, {loss.value})\nconst C factor = {factor} * per_output;"
        value, each = "per_output * total", f"{loss.gradient}\nd[c] = {_weigh('factor * gc', weighted)};"
    body = f"""{_ROW}
{_WEIGHT if weighted else ""}
{parts}
ROW_ONE {{ row_loss[k * stride + r] = {_weigh(value, weighted)}; }}
ROW_EACH {{ {each} }}"""

    def reference(
        z: np.ndarray,
        d: np.ndarray,
        index: np.ndarray,
        y: np.ndarray,
        row_loss: np.ndarray,
        k: int,
        stride: int,
        inv_weight: float,
        per_output: float = 1.0,
        delta: Any = 1.0,
        w: np.ndarray | None = None,
        loss_scale: np.ndarray | None = None,
    ) -> None:
        out = slice(k * stride, k * stride + z.shape[0])
        rows = index[out]
        value, gradient = loss.reference(z, y[rows], delta)
        weights = None if w is None else w[rows]
        row_loss[out] = _weighed(weights, per_output * value.sum(axis=1))
        factor = inv_weight * per_output * (1 if loss_scale is None else loss_scale[0])
        d[...] = _weighed(weights, factor * gradient)

    return Kernel(
        name=f"gpumlp_{loss.name}" + ("_weighted" if weighted else "") + ("_scaled" if scaled else ""),
        rowwise=True,
        body=body,
        reference=reference,
        inputs="T z",
        outputs="T d",
        raws=_raws(loss, weighted) + (", C loss_scale" if scaled else ""),
        rawouts="C row_loss",
        scalars=_scalars(loss),
        stepped=("inv_weight",),
    )


def _softmax_text(loss: Loss) -> tuple[str, str]:
    """(statements, value of a row) of a loss of classes."""
    return (_SOFTMAX_PARTS, _SOFTMAX_VALUE) if loss.delta is None else (_SMOOTHED_PARTS, _SMOOTHED_VALUE)


def evaluation_kernel(name: str, weighted: bool) -> Kernel:
    """Row kernel: row_loss as in training, and row_metric = w times (1 if right else 0) or squared error.

    A row is right if its most probable class is its label; for sigmoids with several outputs, if all of them
    are right.  Squared errors are summed over the outputs, of predictions (exp(z) for Poisson); of quantiles,
    which are sorted first, that of the prediction at place `centre` counts (a scalar).
    """
    return _evaluation(LOSSES[name], weighted)


def loss_kernels_of(loss: Loss) -> tuple[Kernel, Kernel]:
    """Training and evaluation kernel of a loss, registered or not, without weights."""
    return _training(loss, False, False), _evaluation(loss, False)


@functools.cache
def _evaluation(loss: Loss, weighted: bool) -> Kernel:
    if loss.classes:
        # counts what is not below the label's output; NaN never is, so it is a wrong answer
        metric = "ROW_SUM(above, (z[c] < z[label] || (z[c] == z[label] && c >= label) ? C(0) : C(1)))"
        score = "(above == C(0) ? C(1) : C(0))"
        body, value = _softmax_text(loss)
        body = f"{body}\n{metric}"
    elif loss.levels:
        total = loss.value.replace("delta[c]", "delta[place(c)]")
        metric = f"ROW_SUM(squares, (place(c) == centre ? {LEVEL_ERROR} * {LEVEL_ERROR} : C(0)))"
        body, value, score = f"{_PLACE}\nROW_SUM(total, {total})\n{metric}", "per_output * total", "squares"
    else:
        if loss.link == "sigmoid":
            right = f"({TARGET} > C(0.5) ? z[c] > C(0) : z[c] <= C(0))"  # NaN is neither
            metric = f"ROW_SUM(wrong, ({right} ? C(0) : C(1)))"
            score = "(wrong == C(0) ? C(1) : C(0))"
        else:
            error = f"(exp(z[c]) - {TARGET})" if loss.link == "exp" else ERROR
            metric, score = f"ROW_SUM(squares, {error} * {error})", "squares"
        body, value = f"ROW_SUM(total, {loss.value})\n{metric}", "per_output * total"
    body = f"""{_ROW}
{_WEIGHT if weighted else ""}
{body}
ROW_ONE {{
    row_loss[k * stride + r] = {_weigh(value, weighted)};
    row_metric[k * stride + r] = {_weigh(score, weighted)};
}}"""

    def reference(
        z: np.ndarray,
        index: np.ndarray,
        y: np.ndarray,
        row_loss: np.ndarray,
        row_metric: np.ndarray,
        k: int,
        stride: int,
        per_output: float = 1.0,
        delta: Any = 1.0,
        centre: int = 0,
        w: np.ndarray | None = None,
    ) -> None:
        out = slice(k * stride, k * stride + z.shape[0])
        rows = index[out]
        target = y[rows]
        z = np.sort(z, axis=1) if loss.levels else z
        value, _ = loss.reference(z, target, delta)
        weights = None if w is None else w[rows]
        row_loss[out] = _weighed(weights, per_output * value.sum(axis=1))
        row_metric[out] = _weighed(weights, _score(loss, z, target, centre))

    return Kernel(
        name=f"gpumlp_{loss.name}_evaluate" + ("_weighted" if weighted else ""),
        rowwise=True,
        body=body,
        reference=reference,
        inputs="T z",
        raws=_raws(loss, weighted),
        rawouts="C row_loss, C row_metric",
        scalars=_scalars(loss) + (", int64 centre" if loss.levels else ""),
    )


def _score(loss: Loss, z: np.ndarray, target: np.ndarray, centre: int) -> np.ndarray:
    """Of each row: whether the answer is right, or the squared error."""
    if loss.classes:
        return (z.argmax(axis=1) == target) & ~np.isnan(z).any(axis=1)
    if loss.link == "sigmoid":
        return np.asarray(np.where(target > 0.5, z > 0, z <= 0).all(axis=1))
    if loss.levels:
        return np.square(z[:, centre] - target[:, 0])
    return np.square((np.exp(z) if loss.link == "exp" else z) - target).sum(axis=1)


def _raws(loss: Loss, weighted: bool) -> str:
    levels = ", C delta" if loss.levels else ""
    return f"int32 index, {'int32' if loss.classes else 'C'} y{levels}" + (", C w" if weighted else "")


def _scalars(loss: Loss) -> str:
    own = "" if loss.classes else ", C per_output"
    return "int64 stride" + own + (", C delta" if loss.delta is not None and not loss.levels else "")


@functools.cache
def output_kernel(link: str) -> Kernel:
    """Row kernel: out[k stride + r] = link(z); `out` is (n_rows, n_outputs), raw."""
    text = {
        "identity": "ROW_EACH { out[(k * stride + r) * ld_out + c] = z[c]; }",
        "exp": "ROW_EACH { out[(k * stride + r) * ld_out + c] = exp(z[c]); }",
        "sigmoid": """ROW_EACH {
    const C zc = z[c], e = exp(-fabs(zc));
    out[(k * stride + r) * ld_out + c] = (zc >= C(0) ? C(1) : e) / (C(1) + e);
}""",
        "softmax": """ROW_MAX(top, z[c])
ROW_SUM(total, exp(z[c] - top))
ROW_EACH { out[(k * stride + r) * ld_out + c] = exp(z[c] - top) / total; }""",
        "sorted": f"{_PLACE}\nROW_EACH {{ out[(k * stride + r) * ld_out + place(c)] = z[c]; }}",
    }[link]

    def reference(z: np.ndarray, out: np.ndarray, k: int, stride: int) -> None:
        if link == "softmax":
            e = np.exp(z - z.max(axis=1, keepdims=True))
            value = e / e.sum(axis=1, keepdims=True)
        elif link == "sigmoid":
            e = np.exp(-np.abs(z))
            value = np.where(z >= 0, 1, e) / (1 + e)
        elif link == "sorted":
            value = np.sort(z, axis=1)
        else:
            value = np.exp(z) if link == "exp" else z
        out[k * stride : k * stride + z.shape[0]] = value

    return Kernel(
        name=f"gpumlp_output_{link}",
        rowwise=True,
        body=text,
        reference=reference,
        inputs="T z",
        rawouts="C out",
        scalars="int64 stride",
    )
