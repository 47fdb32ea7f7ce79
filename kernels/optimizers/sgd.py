"""Stochastic gradient descent, with momentum and Nesterov's form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from gpumlp.kernels.optimizers.rule import Rule

__all__ = ["SGD"]


@dataclass
class SGD(Rule):
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
    lr_in_velocity : bool
        ``v = b v + lr g;  w -= v``, as scikit-learn and Keras; the same as the default while lr is constant.
    l1, l2, weight_decay, proximal
        See `gpumlp.optimizers.Rule`.

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
    lr_in_velocity: bool = False

    def check(self) -> None:
        self.in_range("momentum", 0, 1)
        self.in_range("dampening", 0, 1)
        super().check()
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise ValueError(
                f"SGD: nesterov=True needs momentum > 0 and dampening = 0, "
                f"given momentum={self.momentum}, dampening={self.dampening}"
            )

    def options(self) -> tuple[str, ...]:
        if self.momentum == 0:
            return ()
        return ("nesterov" if self.nesterov else "momentum", *(["lrin"] if self.lr_in_velocity else []))

    def state_names(self) -> tuple[str, ...]:
        return ("v",) if self.momentum > 0 else ()

    def constants(self) -> dict[str, float]:
        return {"momentum": self.momentum} if self.momentum > 0 else {}

    def stepped(self, t: Any, lr: Any) -> dict[str, Any]:
        if self.momentum == 0:
            return {"lr": lr}
        return {"lr": lr, "gain": np.where(t == 1, 1.0, 1.0 - self.dampening) if self.dampening else 1.0}

    def text(self) -> str:
        if self.momentum == 0:
            return "const C delta = lr * grad;"
        inside, outside = ("lr * ", "") if self.lr_in_velocity else ("", "lr * ")
        look = f"{inside}grad + momentum * v" if self.nesterov else "v"
        return f"v = momentum * v + {inside}gain * grad;\nconst C delta = {outside}({look});"

    def rule(self, grad: np.ndarray, lr: float, **values: Any) -> np.ndarray:
        if self.momentum == 0:
            return lr * grad
        v, momentum = values["v"], values["momentum"]
        inside, outside = (lr, 1) if self.lr_in_velocity else (1, lr)
        v *= momentum
        v += inside * values["gain"] * grad
        return outside * (inside * grad + momentum * v) if self.nesterov else outside * v
