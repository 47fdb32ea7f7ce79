"""Adam and AdamW."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from gpumlp.kernels.optimizers.moments import Moments
from gpumlp.kernels.optimizers.rule import bias_correction

__all__ = ["Adam", "AdamW"]


@dataclass
class Adam(Moments):
    """Adam with bias correction (d2l.ai 12.10; Kingma & Ba 2015, Algorithm 1)::

        v = b1 v + (1 - b1) g          v^ = v / (1 - b1^t)
        s = b2 s + (1 - b2) g^2        s^ = s / (1 - b2^t)
        w -= lr v^ / (sqrt(s^) + eps)

    Parameters
    ----------
    lr : float
    betas : (float, float)
        b1 and b2, each in [0, 1).
    eps : float
        > 0.
    eps_hat : bool
        eps is added to the uncorrected root: ``w -= lr sqrt(1 - b2^t) / (1 - b1^t) v / (sqrt(s) + eps)``, as
        scikit-learn, Keras, Chainer and thinc do.  At t = 1 that eps weighs 1 / sqrt(1 - b2) = 31.6 times
        more.
    amsgrad : bool
        Use the largest s so far in the root (Reddi et al. 2018; bias-corrected afterwards, as in PyTorch).
    l1, l2, weight_decay, proximal
        See `gpumlp.optimizers.Rule`.

    Notes
    -----
    PyTorch's default eps is 1e-8, the textbook's 1e-6.

    Examples
    --------
    >>> import numpy as np, gpumlp
    >>> w = np.array([1.0])
    >>> gpumlp.Adam(lr=0.1).update(w, np.array([2.0]))
    >>> round(float(w[0]), 6)
    0.9
    """

    name: ClassVar[str] = "adam"
    eps_hat: bool = False
    amsgrad: bool = False

    def options(self) -> tuple[str, ...]:
        flags = {"epshat": self.eps_hat, "amsgrad": self.amsgrad}
        return tuple(name for name, on in flags.items() if on)

    def state_names(self) -> tuple[str, ...]:
        names = super().state_names()
        return (*names, "s_max") if self.amsgrad else names

    def stepped(self, t: Any, lr: Any) -> dict[str, Any]:
        beta1, beta2 = self.betas
        c1, c2 = bias_correction(beta1, t), bias_correction(beta2, t)
        # s c2 overflows where sqrt(s) sqrt(c2) does not
        root = (math.sqrt if type(t) is int else np.sqrt)(c2)
        return {"lr": lr, "c1": c1 / root if self.eps_hat else c1, "root_c2": root}

    def text(self) -> str:
        lines = [self.moments]
        s = "s"
        if self.amsgrad:
            lines.append("s_max = s_max > s ? s_max : s;")
            s = "s_max"
        root = f"sqrt({s})" if self.eps_hat else f"sqrt({s}) * root_c2"
        lines.append(f"const C delta = lr * c1 * v / ({root} + eps);")
        return "\n".join(lines)

    def rule(self, grad: np.ndarray, lr: float, **values: Any) -> np.ndarray:
        v, s = self.mean(grad, values)
        if self.amsgrad:
            np.maximum(s, values["s_max"], out=values["s_max"])
            s = values["s_max"]
        root = np.sqrt(s) if self.eps_hat else np.sqrt(s) * values["root_c2"]
        return lr * values["c1"] * v / (root + values["eps"])


@dataclass
class AdamW(Adam):
    """Adam with decoupled weight decay: ``w *= 1 - lr weight_decay`` before Adam's step (Loshchilov & Hutter
    2019).

    The same as `Adam` but for the default ``weight_decay=0.01`` (PyTorch's default as well).

    Examples
    --------
    >>> import numpy as np, gpumlp
    >>> w = np.array([1.0])
    >>> gpumlp.AdamW(lr=0.1, weight_decay=0.5).update(w, np.array([0.0]))
    >>> w
    array([0.95])
    """

    name: ClassVar[str] = "adamw"
    weight_decay: float = field(default=0.01, kw_only=True)
