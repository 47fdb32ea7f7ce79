"""NAdam."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from gpumlp.kernels.optimizers.moments import Moments
from gpumlp.kernels.optimizers.rule import bias_correction

__all__ = ["NAdam"]


@dataclass
class NAdam(Moments):
    """Adam with Nesterov's momentum, which is warmed up (Dozat 2016; PyTorch's form)::

        m_t = b1 (1 - 0.96^(t momentum_decay) / 2)        M_t = m_1 m_2 ... m_t
        v = b1 v + (1 - b1) g         s = b2 s + (1 - b2) g^2         s^ = s / (1 - b2^t)
        w -= lr ((1 - m_t) / (1 - M_t) g + m_(t+1) / (1 - M_(t+1)) v) / (sqrt(s^) + eps)

    Parameters
    ----------
    lr : float
    betas : (float, float)
        b1 and b2, each in [0, 1).
    eps : float
        > 0.
    momentum_decay : float
        >= 0; how fast the momentum m_t grows from b1 / 2 to b1.
    l1, l2, weight_decay, proximal
        See `gpumlp.optimizers.Rule`.

    Examples
    --------
    >>> import numpy as np, gpumlp
    >>> w = np.array([1.0])
    >>> gpumlp.NAdam(lr=0.1).update(w, np.array([2.0]))
    >>> round(float(w[0]), 6)
    0.894355
    """

    name: ClassVar[str] = "nadam"
    lr: float = 2e-3
    eps: float = 1e-8
    momentum_decay: float = 4e-3

    def check(self) -> None:
        self.in_range("momentum_decay", 0)
        super().check()

    def stepped(self, t: Any, lr: Any) -> dict[str, Any]:
        beta1, beta2 = self.betas
        now, after = (beta1 * (1 - 0.5 * 0.96 ** (n * self.momentum_decay)) for n in (t, t + 1))
        return {
            "lr": lr,
            "c_grad": (1 - now) * self._correction(t),
            "c_mean": after * self._correction(t + 1),
            "root_c2": np.sqrt(bias_correction(beta2, t)),  # see `Adam`
        }

    def _correction(self, t: Any) -> Any:
        """1 / (1 - M_t)."""
        beta1 = self.betas[0]
        if beta1 == 0:
            return np.ones_like(t, float)
        sums = _warm_up(self.momentum_decay)
        return -1.0 / np.expm1(t * math.log(beta1) + sums[np.minimum(t, len(sums) - 1)])

    def text(self) -> str:
        return (
            f"{self.moments}\nconst C delta = lr * (c_grad * grad + c_mean * v) / (sqrt(s) * root_c2 + eps);"
        )

    def rule(self, grad: np.ndarray, lr: float, **values: Any) -> np.ndarray:
        v, s = self.mean(grad, values)
        step = values["c_grad"] * grad + values["c_mean"] * v
        return lr * step / (np.sqrt(s) * values["root_c2"] + values["eps"])


@functools.lru_cache(maxsize=16)
def _warm_up(decay: float) -> np.ndarray:
    """[0, l_1, l_1 + l_2, ...] with l_i = log(1 - 0.96^(i decay) / 2), as far as they matter for 1 - M_t.

    4096 terms are enough for any `decay`: below 0.25 the last sum is less than -60 (M_t < 1e-26), from there
    on all later terms are less than 1e-18.
    """
    terms = np.log1p(-0.5 * 0.96 ** (np.arange(1, 4097) * decay))
    sums = np.concatenate([[0.0], np.cumsum(terms)])
    sums.flags.writeable = False
    return sums
