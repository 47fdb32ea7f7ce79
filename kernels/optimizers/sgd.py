"""Stochastic gradient descent, with momentum and Nesterov's form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from gpumlp.kernels.optimizers.base import Optimizer

__all__ = ["SGD"]


@dataclass
class SGD(Optimizer):
    """Gradient descent, with momentum: ``v = b v + g;  w -= lr v``, v0 = 0 (d2l.ai 12.4, 12.6).

    Parameters
    ----------
    lr : float
    momentum : float
        b, in [0, 1).  0: plain gradient descent ``w -= lr g`` without state.
    nesterov : bool
        ``w -= lr (g + b v)`` with the new v (Sutskever et al. 2013, as PyTorch, Keras and scikit-learn).
    dampening : float
        ``v = b v + (1 - dampening) g`` from the second step on; v = g in the first (PyTorch).
    l1, l2, weight_decay, proximal
        See `gpumlp.optimizers.Optimizer`.

    Notes
    -----
    scikit-learn and Keras keep lr inside the velocity (v = b v - lr g); that is the same while lr is
    constant.

    Examples
    --------
    >>> import numpy as np, gpumlp
    >>> w = np.array([1.0, 2.0])
    >>> sgd = gpumlp.SGD(lr=0.1, momentum=0.9)
    >>> for _ in range(2):
    ...     sgd.update(w, np.array([1.0, 1.0]))
    >>> w
    array([0.71, 1.71])
    """

    name: ClassVar[str] = "sgd"
    lr: float = 1e-2
    momentum: float = 0.0
    nesterov: bool = False
    dampening: float = 0.0

    def check(self) -> None:
        super().check()
        self._in_range("momentum", 0.0, 1.0)
        self._in_range("dampening", 0.0, 1.0)
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise ValueError(
                f"SGD: nesterov=True needs momentum > 0 and dampening = 0, "
                f"given momentum={self.momentum}, dampening={self.dampening}"
            )

    def options(self) -> tuple[str, ...]:
        if self.momentum == 0:
            return ()
        return ("nesterov",) if self.nesterov else ("momentum",)

    def state_names(self) -> tuple[str, ...]:
        return ("v",) if self.momentum > 0 else ()

    def constants(self) -> dict[str, float]:
        return {"momentum": self.momentum} if self.momentum > 0 else {}

    def stepped(self, t: Any, lr: Any) -> dict[str, Any]:
        gain = {"gain": np.where(t == 1, 1.0, 1.0 - self.dampening)} if self.momentum > 0 else {}
        return {"lr": lr, **gain}

    def text(self) -> str:
        if self.momentum == 0:
            return "const C delta = lr * grad;"
        look = "grad + momentum * v" if self.nesterov else "v"
        return f"v = momentum * v + gain * grad;\nconst C delta = lr * ({look});"

    def rule(self, grad: np.ndarray, lr: float, **values: Any) -> np.ndarray:
        if self.momentum == 0:
            return lr * grad
        v, momentum = values["v"], values["momentum"]
        v *= momentum
        v += values["gain"] * grad
        return lr * (grad + momentum * v) if self.nesterov else lr * v
