"""Yogi."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from gpumlp.kernels.optimizers.moments import Moments
from gpumlp.kernels.optimizers.rule import bias_correction

__all__ = ["Yogi"]


@dataclass
class Yogi(Moments):
    """Yogi: Adam whose s moves towards g^2 by at most (1 - b2) g^2 (d2l.ai 12.10; Zaheer et al. 2018)::

        v = b1 v + (1 - b1) g                      v^ = v / (1 - b1^t)
        s = s - (1 - b2) sign(s - g^2) g^2         s^ = s / (1 - b2^t)
        w -= lr v^ / (sqrt(s^) + eps)

    so that s does not fall quickly when gradients become small.

    Parameters
    ----------
    lr : float
    betas : (float, float)
        b1 and b2, each in [0, 1).
    eps : float
        > 0.
    bias_correction : bool
        False: v and s instead of v^ and s^, as Algorithm 2 of the paper is printed.  The textbook, optax and
        the authors' code correct.
    initial_accumulator : float
        s0; optax and the authors' code use 1e-6.
    l1, l2, weight_decay, proximal
        See `gpumlp.optimizers.Rule`.

    Examples
    --------
    >>> import numpy as np, gpumlp
    >>> w = np.array([1.0])
    >>> gpumlp.Yogi(lr=0.1).update(w, np.array([2.0]))
    >>> round(float(w[0]), 6)
    0.90005
    """

    name: ClassVar[str] = "yogi"
    lr: float = 1e-2
    eps: float = 1e-3
    bias_correction: bool = True
    initial_accumulator: float = 0.0

    def check(self) -> None:
        self.in_range("initial_accumulator", 0)
        super().check()

    def options(self) -> tuple[str, ...]:
        return () if self.bias_correction else ("plain",)

    def state_start(self) -> dict[str, float]:
        return {"s": self.initial_accumulator}

    def constants(self) -> dict[str, float]:
        values = super().constants()
        del values["beta2"]
        return values

    def stepped(self, t: Any, lr: Any) -> dict[str, Any]:
        if not self.bias_correction:
            return {"lr": lr}
        beta1, beta2 = self.betas
        return {
            "lr": lr,
            "c1": bias_correction(beta1, t),
            "root_c2": np.sqrt(bias_correction(beta2, t)),  # see `Adam`
        }

    def text(self) -> str:
        c1, c2 = ("c1 * ", " * root_c2") if self.bias_correction else ("", "")
        return f"""\
v = beta1 * v + gain1 * grad;
const C square = grad * grad;
s -= gain2 * (s > square ? square : (s < square ? -square : C(0)));
const C delta = lr * {c1}v / (sqrt(s){c2} + eps);"""

    def rule(self, grad: np.ndarray, lr: float, **values: Any) -> np.ndarray:
        v, s, square = values["v"], values["s"], grad * grad
        v *= values["beta1"]
        v += values["gain1"] * grad
        s -= values["gain2"] * np.where(s > square, square, np.where(s < square, -square, 0))
        root = np.sqrt(s)
        if self.bias_correction:
            return lr * values["c1"] * v / (root * values["root_c2"] + values["eps"])
        return lr * v / (root + values["eps"])
