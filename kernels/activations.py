"""Activations: a = f(z) and the backward step d *= f'(z), with dropout of the layer's output in the same
launches.

One entry of `ACTIVATIONS` is one activation: C++ text and NumPy reference of f and f'.  f' is written with
the output `a` where that suffices (then z needs no storage of its own), else with the input `z`.

Formulas: relu, sigmoid, tanh d2l.ai 5.1; leaky_relu Maas et al. 2013; elu Clevert et al. 2016; gelu (exact,
with erf) Hendrycks & Gimpel 2016; silu Elfwing et al. 2017; softplus Dugas et al. 2001.  Dropout: d2l.ai 5.6.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from gpumlp.kernels.entry import Entry
from gpumlp.kernels.kernel import Kernel
from gpumlp.kernels.random import KEEP_TEXT, keep_mask

__all__ = ["ACTIVATIONS", "Activation", "backward_kernel", "dropout_scalars", "forward_kernel", "kernels_of"]


@dataclass(frozen=True, repr=False)
class Activation(Entry):
    """One activation: an object, or a subclass with the same as attributes and methods.

    Parameters
    ----------
    name : str
        Letters, digits and underscores.
    forward : str
        C++ expression of `z`; see `gpumlp.kernels.kernel` for what it may use.
    derivative : str
        C++ expression of `a` (or of `z` if `needs_z`), in brackets: it becomes a factor.
    f, df : callable
        The same in NumPy on arrays; df takes a (or z).
    needs_z : bool
        The output alone does not determine f', so z is kept in a buffer of its own.
    gain : float
        Factor of the He/Kaiming initialisation that keeps the variance of the signal (2 for ReLU-like ones,
        else 1).
    onnx : callable, optional
        (graph, z) -> name of the result: the same as ONNX nodes, see `gpumlp.export.graph.Graph`; without it
        networks with this activation cannot be exported.

    Examples
    --------
    >>> import numpy as np, gpumlp
    >>> class Cube(gpumlp.Activation):
    ...     name = "cube"
    ...     forward = "z * z * z"
    ...     derivative = "(C(3) * z * z)"
    ...     needs_z = True
    ...
    ...     def f(self, z):
    ...         return z**3
    ...
    ...     def df(self, z):
    ...         return 3 * z**2
    >>> gpumlp.MLP([2, 4, 1], Cube(), device="cpu").activations
    ['cube']
    """

    name: str
    forward: str
    derivative: str
    f: Callable[[np.ndarray], np.ndarray]
    df: Callable[[np.ndarray], np.ndarray]
    needs_z: bool = False
    gain: float = 1.0
    onnx: Callable[[Any, str], str] | None = None


def _sigmoid(z: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-z))


def _softplus(z: np.ndarray) -> np.ndarray:
    return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))


def _erf(z: np.ndarray) -> np.ndarray:
    return np.vectorize(math.erf, otypes=[z.dtype])(z) if z.size else z


def _phi(z: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + _erf(z * math.sqrt(0.5)))


def _gelu_slope(z: np.ndarray) -> np.ndarray:
    return _phi(z) + z * np.exp(-0.5 * z * z) * (1 / math.sqrt(2 * math.pi))


def _gelu_nodes(graph: Any, z: str) -> str:
    """ONNX has Gelu only since opset 20."""
    erf = graph.node("Erf", graph.node("Mul", z, graph.constant(0.5**0.5)))
    half = graph.node("Mul", graph.node("Add", erf, graph.constant(1.0)), graph.constant(0.5))
    return str(graph.node("Mul", z, half))


def _silu_slope(z: np.ndarray) -> np.ndarray:
    s = _sigmoid(z)
    return s * (1 + z * (1 - s))


_PHI = "C(0.5) * (C(1) + erf(z * C(0.70710678118654752440)))"
_SIGMOID = "C(1) / (C(1) + exp(-z))"

ACTIVATIONS: dict[str, Activation] = {
    a.name: a
    for a in (
        Activation(
            "relu",
            "z < C(0) ? C(0) : z",
            "(a > C(0) ? C(1) : C(0))",  # NaN stays NaN
            lambda z: np.maximum(z, 0),
            lambda a: (a > 0).astype(a.dtype),
            gain=2.0,
            onnx=lambda graph, z: graph.node("Relu", z),
        ),
        Activation(
            "tanh",
            "tanh(z)",
            "(C(1) - a * a)",
            np.tanh,
            lambda a: 1 - a * a,
            onnx=lambda graph, z: graph.node("Tanh", z),
        ),
        Activation(
            "sigmoid",
            _SIGMOID,
            "(a * (C(1) - a))",
            _sigmoid,
            lambda a: a * (1 - a),
            onnx=lambda graph, z: graph.node("Sigmoid", z),
        ),
        Activation("identity", "z", "C(1)", lambda z: z, np.ones_like, onnx=lambda graph, z: z),
        Activation(
            "leaky_relu",
            "z > C(0) ? z : C(0.01) * z",
            "(a > C(0) ? C(1) : C(0.01))",
            lambda z: np.where(z > 0, z, 0.01 * z),
            lambda a: np.where(a > 0, 1, 0.01).astype(a.dtype),
            gain=2.0,
            onnx=lambda graph, z: graph.node("LeakyRelu", z, alpha=0.01),
        ),
        Activation(
            "elu",
            "z > C(0) ? z : expm1(z)",
            "(a > C(0) ? C(1) : a + C(1))",
            lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0))),
            lambda a: np.where(a > 0, 1, a + 1),
            gain=2.0,
            onnx=lambda graph, z: graph.node("Elu", z, alpha=1.0),
        ),
        Activation(
            "gelu",
            f"z * ({_PHI})",
            f"({_PHI} + z * exp(C(-0.5) * z * z) * C(0.39894228040143267794))",
            lambda z: z * _phi(z),
            _gelu_slope,
            needs_z=True,
            gain=2.0,
            onnx=_gelu_nodes,
        ),
        Activation(
            "silu",
            f"z * ({_SIGMOID})",
            f"(({_SIGMOID}) * (C(1) + z * (C(1) - {_SIGMOID})))",
            lambda z: z * _sigmoid(z),
            _silu_slope,
            needs_z=True,
            gain=2.0,
            onnx=lambda graph, z: graph.node("Mul", z, graph.node("Sigmoid", z)),
        ),
        Activation(
            "softplus",
            "(z > C(0) ? z : C(0)) + log1p(exp(-fabs(z)))",
            "(-expm1(-a))",
            _softplus,
            lambda a: -np.expm1(-a),
            onnx=lambda graph, z: graph.node("Softplus", z),
        ),
    )
}


def forward_kernel(name: str, dropout: bool = False) -> Kernel:
    """Kernel z -> a; with `dropout`, elements are kept with probability 1 - rate and scaled by 1 / (1 -
    rate).

    The same buffer may serve as z and a.  With dropout the kernel is part of a plan: the mask depends on the
    seed, the layer, the step and the element only.
    """
    return _forward(ACTIVATIONS[name], dropout)


def backward_kernel(name: str, dropout: bool = False) -> Kernel:
    """Kernel d *= f', in place: d is the gradient with respect to a before, and to z afterwards.

    Reads `a`, the stored output of `forward_kernel` (or `z`).  With dropout, a was scaled and masked; the
    mask is drawn again rather than stored.
    """
    return _backward(ACTIVATIONS[name], dropout)


def kernels_of(activation: Activation) -> tuple[Kernel, ...]:
    """Forward and backward kernel of an activation, registered or not; then the same with dropout."""
    return tuple(make(activation, dropout) for dropout in (False, True) for make in (_forward, _backward))


_DROP_SCALARS = "C scale, C keep_scale, int64 threshold, int64 key, int64 layer, int64 first_row"


def dropout_scalars(rate: float, key: int, layer: int, first_row: int = 0) -> dict[str, float | int]:
    """By-value arguments of the kernels with dropout: an element is kept if its 32 random bits >=
    `threshold`.  `first_row` is the place of row 0 in the batch, of which these rows may be a part."""
    return {
        "scale": 1 / (1 - rate),
        "keep_scale": 1 - rate,
        "threshold": round(rate * 2**32),
        "key": key,
        "layer": layer,
        "first_row": first_row,
    }


@functools.cache
def _forward(act: Activation, dropout: bool) -> Kernel:
    def reference(z: np.ndarray, a: np.ndarray, k: int = 0, **drop: Any) -> None:
        value = act.f(z)
        if drop:  # selected, not multiplied by 0: a dropped NaN is gone
            value = np.where(keep_mask(a.shape, drop), value * np.asarray(drop["scale"], a.dtype), 0)
        a[...] = value

    body = f"a = {act.forward};"
    if dropout:
        body += f"\n{KEEP_TEXT}\na = keep ? a * scale : C(0);"
    return Kernel(
        name=f"gpumlp_{act.name}" + ("_dropout" if dropout else ""),
        inputs="T z",
        outputs="T a",
        body=body,
        scalars=_DROP_SCALARS if dropout else "",
        stepped=("t_low", "t_high") if dropout else (),
        reference=reference,
    )


@functools.cache
def _backward(act: Activation, dropout: bool) -> Kernel:
    source = "z" if act.needs_z else "a"

    def reference(d: np.ndarray, k: int = 0, **values: Any) -> None:
        x = values.pop(source)
        if not values:
            d *= act.df(x)
            return
        if not act.needs_z:
            x = x * np.asarray(values["keep_scale"], x.dtype)
        slope = np.asarray(values["scale"], d.dtype) * act.df(x)
        d[...] = np.where(keep_mask(d.shape, values), d * slope, 0)

    body = f"d = d * {act.derivative};"
    if dropout:
        undo = "" if act.needs_z else "a = a * keep_scale;\n"
        body = f"{undo}{KEEP_TEXT}\nd = keep ? d * scale * {act.derivative} : C(0);"
    return Kernel(
        name=f"gpumlp_{act.name}_backward" + ("_dropout" if dropout else ""),
        inputs=f"T {source}",
        inouts="T d",
        body=body,
        scalars=_DROP_SCALARS if dropout else "",
        stepped=("t_low", "t_high") if dropout else (),
        reference=reference,
    )
