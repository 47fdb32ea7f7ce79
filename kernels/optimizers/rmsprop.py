"""RMSProp."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from gpumlp.kernels.optimizers.rule import Rule

__all__ = ["RMSProp"]


@dataclass
class RMSProp(Rule):
    """RMSProp: ``s = rho s + (1 - rho) g^2;  w -= lr g / sqrt(s + eps)``, s0 = 0 (d2l.ai 12.8; Tieleman &
    Hinton 2012).

    Parameters
    ----------
    lr : float
    rho : float
        In [0, 1).  PyTorch calls it alpha (0.99 there), the textbook gamma.
    eps : float
        > 0.
    eps_in_sqrt : bool
        False: ``g / (sqrt(s) + eps)``, as PyTorch and Chainer.
    centered : bool
        Divide by the root of the variance s - m^2 with ``m = rho m + (1 - rho) g`` (Graves 2013).  Rounding
        can make the difference negative; it is clamped at 0.
    momentum : float
        ``v = momentum v + g / root;  w -= lr v`` (PyTorch; Keras multiplies by lr before the buffer).
    l1, l2, weight_decay, proximal
        See `gpumlp.optimizers.Rule`.

    Examples
    --------
    >>> import numpy as np, gpumlp
    >>> w = np.array([1.0])
    >>> gpumlp.RMSProp(lr=0.1).update(w, np.array([2.0]))
    >>> round(float(w[0]), 6)
    0.683773
    """

    name: ClassVar[str] = "rmsprop"
    lr: float = 1e-3
    rho: float = 0.9
    eps: float = 1e-6
    eps_in_sqrt: bool = True
    centered: bool = False
    momentum: float = 0.0

    def check(self) -> None:
        self.in_range("rho", 0, 1)
        self.in_range("eps", 0, open_low=True)
        self.in_range("momentum", 0, 1)
        super().check()

    def options(self) -> tuple[str, ...]:
        flags = {"epsout": not self.eps_in_sqrt, "centered": self.centered, "momentum": self.momentum > 0}
        return tuple(name for name, on in flags.items() if on)

    def state_names(self) -> tuple[str, ...]:
        return ("s", *(["m"] if self.centered else []), *(["v"] if self.momentum > 0 else []))

    def constants(self) -> dict[str, float]:
        values = {"rho": self.rho, "gain": 1 - self.rho, "eps": self.eps}
        return {**values, "momentum": self.momentum} if self.momentum > 0 else values

    def text(self) -> str:
        variance = "s - m * m" if self.centered else "s"
        lines = ["s = rho * s + gain * grad * grad;"]
        if self.centered:
            lines += ["m = rho * m + gain * grad;", "C var = s - m * m;"]
            lines += ["var = var >= C(0) ? var : (var < C(0) ? C(0) : s);"]  # s where m * m is infinite too
            variance = "var"
        over_root = f"* rsqrt({variance} + eps)" if self.eps_in_sqrt else f"/ (sqrt({variance}) + eps)"
        if self.momentum > 0:
            lines += [f"v = momentum * v + grad {over_root};", "const C delta = lr * v;"]
        else:
            lines += [f"const C delta = lr * grad {over_root};"]
        return "\n".join(lines)

    def rule(self, grad: np.ndarray, lr: float, **values: Any) -> np.ndarray:
        s, rho, gain, eps = values["s"], values["rho"], values["gain"], values["eps"]
        s *= rho
        s += gain * grad * grad
        variance = s
        if self.centered:
            m = values["m"]
            m *= rho
            m += gain * grad
            variance = s - m * m
            variance = np.where(np.isnan(variance), s, np.maximum(variance, 0))
        step = grad / (np.sqrt(variance + eps) if self.eps_in_sqrt else np.sqrt(variance) + eps)
        if self.momentum > 0:
            v = values["v"]
            v *= values["momentum"]
            v += step
            step = v
        return lr * step
