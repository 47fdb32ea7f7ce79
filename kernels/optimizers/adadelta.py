"""Adadelta."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from gpumlp.kernels.optimizers.rule import Rule

__all__ = ["Adadelta"]


@dataclass
class Adadelta(Rule):
    """Adadelta, whose steps have the units of the parameters (d2l.ai 12.9; Zeiler 2012, Algorithm 1)::

        s = rho s + (1 - rho) g^2
        m = sqrt(u + eps) / sqrt(s + eps) g
        u = rho u + (1 - rho) m^2
        w -= lr m

    with s0 = u0 = 0.

    Parameters
    ----------
    lr : float
        1 in the paper, and by default.  Steps begin at about ``sqrt(eps)`` and grow.
    rho : float
        In [0, 1).
    eps : float
        > 0; 1e-6 as in the paper and in PyTorch; the textbook's code has 1e-5.
    l1, l2, weight_decay, proximal
        See `gpumlp.optimizers.Rule`.

    Examples
    --------
    >>> import numpy as np, gpumlp
    >>> w = np.array([1.0])
    >>> gpumlp.Adadelta().update(w, np.array([2.0]))
    >>> round(float(w[0]), 6)
    0.996838
    """

    name: ClassVar[str] = "adadelta"
    lr: float = 1.0
    rho: float = 0.9
    eps: float = 1e-6

    # the root of u + eps by rsqrt too: then the native executor has vectors for all of it
    body: ClassVar[str] = """\
s = rho * s + gain * grad * grad;
const C spread = u + eps, move = grad * (spread * rsqrt(spread)) * rsqrt(s + eps);
u = rho * u + gain * move * move;
const C delta = lr * move;"""

    def check(self) -> None:
        self.in_range("rho", 0, 1)
        self.in_range("eps", 0, open_low=True)
        super().check()

    def state_names(self) -> tuple[str, ...]:
        return ("s", "u")

    def constants(self) -> dict[str, float]:
        return {"rho": self.rho, "gain": 1 - self.rho, "eps": self.eps}

    def rule(self, grad: np.ndarray, lr: float, **values: Any) -> np.ndarray:
        s, u, rho, gain, eps = (values[name] for name in ("s", "u", "rho", "gain", "eps"))
        s *= rho
        s += gain * grad * grad
        move = grad * np.sqrt(u + eps) / np.sqrt(s + eps)
        u *= rho
        u += gain * move * move
        return lr * move
