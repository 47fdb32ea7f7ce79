"""RAdam."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from gpumlp.kernels.optimizers.moments import Moments
from gpumlp.kernels.optimizers.rule import bias_correction

__all__ = ["RAdam"]


@dataclass
class RAdam(Moments):
    """Rectified Adam: steps by v^ alone until s is known well enough (Liu et al. 2020, Algorithm 2)::

        v = b1 v + (1 - b1) g         v^ = v / (1 - b1^t)         s = b2 s + (1 - b2) g^2
        n = 2 / (1 - b2) - 1          n_t = n - 2 t b2^t / (1 - b2^t)
        n_t > 5:   w -= lr v^ r_t sqrt(1 - b2^t) / (sqrt(s) + eps)
                   r_t^2 = (n_t - 4) (n_t - 2) n / ((n - 4) (n - 2) n_t)
        else:      w -= lr v^

    Parameters
    ----------
    lr : float
    betas : (float, float)
        b1 and b2, each in [0, 1).  Up to b2 = 2/3 there is no root, ever.
    eps : float
        > 0.
    l1, l2, weight_decay, proximal
        See `gpumlp.optimizers.Rule`.

    Notes
    -----
    The limit is 5 as in PyTorch and the authors' code; the paper's algorithm has 4.

    Examples
    --------
    >>> import numpy as np, gpumlp
    >>> w = np.array([1.0])
    >>> gpumlp.RAdam(lr=0.1).update(w, np.array([2.0]))
    >>> round(float(w[0]), 6)
    0.8
    """

    name: ClassVar[str] = "radam"
    lr: float = 1e-3
    eps: float = 1e-8

    def stepped(self, t: Any, lr: Any) -> dict[str, Any]:
        beta1, beta2 = self.betas
        scale = _scale(beta2, t)  # the kernel divides by scale (sqrt(s) + eps), or by 1: without a branch
        return {"lr": lr, "c1": bias_correction(beta1, t), "scale": scale, "rest": np.equal(scale, 0) * 1.0}

    def text(self) -> str:
        return f"{self.moments}\nconst C delta = lr * c1 * v / (scale * (sqrt(s) + eps) + rest);"

    def rule(self, grad: np.ndarray, lr: float, **values: Any) -> np.ndarray:
        v, s = self.mean(grad, values)
        return lr * values["c1"] * v / (values["scale"] * (np.sqrt(s) + values["eps"]) + values["rest"])


def _scale(beta2: float, t: Any) -> Any:
    """1 / (r_t sqrt(1 - b2^t)), or 0 where the second moment is not used."""
    limit = 2 / (1 - beta2) - 1
    if limit <= 5:
        return np.zeros_like(t, float)
    grown = -np.expm1(np.multiply(t, math.log(beta2)))  # 1 - b2^t
    length = limit - 2 * np.asarray(t) * (1 - grown) / grown
    known = length > 5
    length = np.where(known, length, limit)
    ratio = (limit - 4) * (limit - 2) * length / ((length - 4) * (length - 2) * limit)
    return np.where(known, np.sqrt(ratio / grown), 0.0)
