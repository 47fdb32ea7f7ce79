"""AdaGrad."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from gpumlp.kernels.optimizers.rule import Rule

__all__ = ["AdaGrad"]


@dataclass
class AdaGrad(Rule):
    """AdaGrad: ``s += g^2;  w -= lr g / sqrt(s + eps)``, s0 = 0 (d2l.ai 12.7; Duchi et al. 2011).

    Parameters
    ----------
    lr : float
    eps : float
        > 0.
    eps_in_sqrt : bool
        False: ``g / (sqrt(s) + eps)``, as PyTorch and Chainer.
    initial_accumulator : float
        s0; Keras and optax use 0.1.
    l1, l2, weight_decay, proximal
        See `gpumlp.optimizers.Rule`.

    Examples
    --------
    >>> import numpy as np, gpumlp
    >>> w = np.array([1.0])
    >>> gpumlp.AdaGrad(lr=0.1).update(w, np.array([2.0]))
    >>> round(float(w[0]), 6)
    0.9
    """

    name: ClassVar[str] = "adagrad"
    lr: float = 1e-2
    eps: float = 1e-6
    eps_in_sqrt: bool = True
    initial_accumulator: float = 0.0

    def check(self) -> None:
        self.in_range("eps", 0, open_low=True)
        self.in_range("initial_accumulator", 0)
        super().check()

    def options(self) -> tuple[str, ...]:
        return () if self.eps_in_sqrt else ("epsout",)

    def state_names(self) -> tuple[str, ...]:
        return ("s",)

    def state_start(self) -> dict[str, float]:
        return {"s": self.initial_accumulator}

    def constants(self) -> dict[str, float]:
        return {"eps": self.eps}

    def text(self) -> str:
        over_root = "* rsqrt(s + eps)" if self.eps_in_sqrt else "/ (sqrt(s) + eps)"
        return f"s += grad * grad;\nconst C delta = lr * grad {over_root};"

    def rule(self, grad: np.ndarray, lr: float, **values: Any) -> np.ndarray:
        s, eps = values["s"], values["eps"]
        s += grad * grad
        return lr * grad / (np.sqrt(s + eps) if self.eps_in_sqrt else np.sqrt(s) + eps)
