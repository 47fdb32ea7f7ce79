"""Losses: value per row, gradient with respect to the network's output z, and a metric, in one row kernel.

One row of `LOSSES` is one loss.  The loss of a batch is ``sum_i w_i l_i / sum_i w_i`` over its rows (all w_i
= 1 without sample weights); l_i is the sum over the outputs times `per_output` (1 / n_outputs for the
elementwise losses: a mean over outputs; 1 gives scikit-learn's sums).

Formulas: softmax cross-entropy d2l.ai 4.1 (with the maximum subtracted); binary cross-entropy from logits in
the form max(z, 0) - z y + log(1 + exp(-|z|)); squared error 1/2 (z - y)^2 d2l.ai 3.1; absolute error with
subgradient sign(0) = 0; Huber 1964: 1/2 d^2 for |d| <= delta, else delta (|d| - delta/2); Poisson with log
link: exp(z) - y z.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from gpumlp.kernels.kernel import Kernel

__all__ = ["LOSSES", "Loss", "evaluation_kernel", "output_kernel", "training_kernel"]


@dataclass(frozen=True)
class Loss:
    """One loss.

    Parameters
    ----------
    name : str
    value, gradient : str
        CUDA text for one output: `value` is an expression of `d`, `z[c]`, `y` ... giving the summand of
        column c.
    reference : callable
        (z, y, delta) -> (l, g): summands (rows, cols) and gradients (rows, cols), in NumPy.
    link : str
        "identity", "sigmoid", "softmax" or "exp": how predictions are made from z.
    classes : bool
        Targets are int32 class indices (rows,) instead of values (rows, cols); `value` and `gradient` are
        those of softmax cross-entropy.
    delta : float, optional
        Default of a constant that the text reads as `delta`; None if it reads none.
    """

    name: str
    value: str
    gradient: str
    reference: Callable[[np.ndarray, np.ndarray, float], tuple[np.ndarray, np.ndarray]]
    link: str = "identity"
    classes: bool = False
    delta: float | None = None

    @property
    def metric(self) -> str:
        """ "accuracy" or "rmse"."""
        return "accuracy" if self.link in ("softmax", "sigmoid") else "rmse"


def _softmax(z: np.ndarray, y: np.ndarray, delta: float) -> tuple[np.ndarray, np.ndarray]:
    top = z.max(axis=1, keepdims=True)
    e = np.exp(z - top)
    total = e.sum(axis=1, keepdims=True)
    hot = np.arange(z.shape[1]) == y[:, None]
    return np.where(hot, np.log(total) - (z - top), 0), e / total - hot


def _binary(z: np.ndarray, y: np.ndarray, delta: float) -> tuple[np.ndarray, np.ndarray]:
    e = np.exp(-np.abs(z))
    return np.maximum(z, 0) - z * y + np.log1p(e), np.where(z >= 0, 1, e) / (1 + e) - y


def _squared(z: np.ndarray, y: np.ndarray, delta: float) -> tuple[np.ndarray, np.ndarray]:
    d = z - y
    return 0.5 * d * d, d


def _absolute(z: np.ndarray, y: np.ndarray, delta: float) -> tuple[np.ndarray, np.ndarray]:
    d = z - y
    return np.abs(d), np.sign(d)


def _huber(z: np.ndarray, y: np.ndarray, delta: float) -> tuple[np.ndarray, np.ndarray]:
    d = z - y
    size = np.abs(d)
    return np.where(size <= delta, 0.5 * d * d, delta * (size - 0.5 * delta)), np.clip(d, -delta, delta)


def _poisson(z: np.ndarray, y: np.ndarray, delta: float) -> tuple[np.ndarray, np.ndarray]:
    rate = np.exp(z)
    return rate - y * z, rate - y


_Z, _Y, _D = "const C zc = z[c];", "const C yc = y[row * ld_y + c];", "const C dc = z[c] - y[row * ld_y + c];"
# sums are expressions, so repeated loads are spelled out; they hit the cache
_YC, _DC = "y[row * ld_y + c]", "(z[c] - y[row * ld_y + c])"

LOSSES: dict[str, Loss] = {
    loss.name: loss
    for loss in (
        Loss("softmax_cross_entropy", "", "", _softmax, link="softmax", classes=True),
        Loss(
            "binary_cross_entropy",
            f"(z[c] > C(0) ? z[c] : C(0)) - z[c] * {_YC} + log1p(exp(-fabs(z[c])))",
            f"{_Z}\n{_Y}\nconst C ec = exp(-fabs(zc));\n"
            "const C gc = (zc >= C(0) ? C(1) : ec) / (C(1) + ec) - yc;",
            _binary,
            link="sigmoid",
        ),
        Loss("squared_error", f"C(0.5) * {_DC} * {_DC}", f"{_D}\nconst C gc = dc;", _squared),
        Loss(
            "absolute_error",
            f"fabs({_DC})",
            f"{_D}\nconst C gc = dc > C(0) ? C(1) : (dc < C(0) ? C(-1) : dc);",  # 0, or NaN
            _absolute,
        ),
        Loss(
            "huber",
            f"(fabs({_DC}) <= delta ? C(0.5) * {_DC} * {_DC} : delta * (fabs({_DC}) - C(0.5) * delta))",
            f"{_D}\nconst C gc = dc > delta ? delta : (dc < -delta ? -delta : dc);",
            _huber,
            delta=1.0,
        ),
        Loss(
            "poisson",
            f"exp(z[c]) - {_YC} * z[c]",
            f"{_Z}\n{_Y}\nconst C gc = exp(zc) - yc;",
            _poisson,
            link="exp",
        ),
    )
}

_ROW = "const long long row = index[k * stride + r];"
_SOFTMAX_PARTS = """\
ROW_MAX(top, z[c])
ROW_SUM(total, exp(z[c] - top))
const long long label = y[row];"""
_SOFTMAX_VALUE = "log(total) - (z[label] - top)"


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
        gradient = "exp(z[c] - top) * inv_total - (c == label ? C(1) : C(0))"
        parts = f"{_SOFTMAX_PARTS}\nconst C inv_total = C(1) / total;\nconst C factor = {factor};"
        value, each = _SOFTMAX_VALUE, f"d[c] = {_weigh(f'factor * ({gradient})', weighted)};"
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
        delta: float = 1.0,
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


def evaluation_kernel(name: str, weighted: bool) -> Kernel:
    """Row kernel: row_loss as in training, and row_metric = w times (1 if right else 0) or squared error.

    A row is right if its most probable class is its label; for sigmoids with several outputs, if all of them
    are right.  Squared errors are summed over the outputs, of predictions (exp(z) for Poisson).
    """
    return _evaluation(LOSSES[name], weighted)


@functools.cache
def _evaluation(loss: Loss, weighted: bool) -> Kernel:
    if loss.classes:
        # counts what is not below the label's output; NaN never is, so it is a wrong answer
        metric = "ROW_SUM(above, (z[c] < z[label] || (z[c] == z[label] && c >= label) ? C(0) : C(1)))"
        score = "(above == C(0) ? C(1) : C(0))"
        body, value = f"{_SOFTMAX_PARTS}\n{metric}", _SOFTMAX_VALUE
    else:
        if loss.link == "sigmoid":
            right = f"({_YC} > C(0.5) ? z[c] > C(0) : z[c] <= C(0))"  # NaN is neither
            metric = f"ROW_SUM(wrong, ({right} ? C(0) : C(1)))"
            score = "(wrong == C(0) ? C(1) : C(0))"
        else:
            error = f"(exp(z[c]) - {_YC})" if loss.link == "exp" else _DC
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
        delta: float = 1.0,
        w: np.ndarray | None = None,
    ) -> None:
        out = slice(k * stride, k * stride + z.shape[0])
        rows = index[out]
        target = y[rows]
        value, _ = loss.reference(z, target, delta)
        weights = None if w is None else w[rows]
        row_loss[out] = _weighed(weights, per_output * value.sum(axis=1))
        if loss.classes:
            score = (z.argmax(axis=1) == target) & ~np.isnan(z).any(axis=1)
        elif loss.link == "sigmoid":
            score = np.where(target > 0.5, z > 0, z <= 0).all(axis=1)
        else:
            score = np.square((np.exp(z) if loss.link == "exp" else z) - target).sum(axis=1)
        row_metric[out] = _weighed(weights, score)

    return Kernel(
        name=f"gpumlp_{loss.name}_evaluate" + ("_weighted" if weighted else ""),
        rowwise=True,
        body=body,
        reference=reference,
        inputs="T z",
        raws=_raws(loss, weighted),
        rawouts="C row_loss, C row_metric",
        scalars=_scalars(loss),
    )


def _raws(loss: Loss, weighted: bool) -> str:
    return f"int32 index, {'int32' if loss.classes else 'C'} y" + (", C w" if weighted else "")


def _scalars(loss: Loss) -> str:
    if loss.classes:
        return "int64 stride"
    return "int64 stride, C per_output" + (", C delta" if loss.delta is not None else "")


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
    }[link]

    def reference(z: np.ndarray, out: np.ndarray, k: int, stride: int) -> None:
        if link == "softmax":
            e = np.exp(z - z.max(axis=1, keepdims=True))
            value = e / e.sum(axis=1, keepdims=True)
        elif link == "sigmoid":
            e = np.exp(-np.abs(z))
            value = np.where(z >= 0, 1, e) / (1 + e)
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
