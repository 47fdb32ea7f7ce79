"""What Adam and its relatives share: running means of the gradient and of its square."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from gpumlp.kernels.optimizers.rule import Rule

__all__ = ["Moments"]


@dataclass
class Moments(Rule):
    """Base of rules that keep ``v = b1 v + (1 - b1) g`` and ``s = b2 s + (1 - b2) g^2``.

    Parameters
    ----------
    lr : float
    betas : (float, float)
        b1 and b2, each in [0, 1).
    eps : float
        > 0.
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-6

    #: text that brings v and s up to date
    moments: ClassVar[str] = "v = beta1 * v + gain1 * grad;\ns = beta2 * s + gain2 * grad * grad;"

    def mean(self, grad: np.ndarray, values: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """The same in NumPy, in place: (v, s)."""
        v, s = values["v"], values["s"]
        v *= values["beta1"]
        v += values["gain1"] * grad
        s *= values["beta2"]
        s += values["gain2"] * grad * grad
        return v, s

    def check(self) -> None:
        self.in_range("eps", 0, open_low=True)
        self.check_betas()
        super().check()

    def state_names(self) -> tuple[str, ...]:
        return ("v", "s")

    def constants(self) -> dict[str, float]:
        beta1, beta2 = self.betas  # 1 - beta in double: 1 - 0.999f is wrong by 1e-5
        return {"beta1": beta1, "gain1": 1 - beta1, "beta2": beta2, "gain2": 1 - beta2, "eps": self.eps}
