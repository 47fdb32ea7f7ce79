"""Lion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from gpumlp.kernels.optimizers.rule import Rule

__all__ = ["Lion"]


@dataclass
class Lion(Rule):
    """Lion: each parameter moves by lr, against a mean gradient's sign (Chen et al. 2023, Algorithm 2)::

        w -= lr sign(b1 m + (1 - b1) g)
        m = b2 m + (1 - b2) g

    with sign(0) = 0 and m0 = 0.

    Parameters
    ----------
    lr : float
        A third to a tenth of Adam's is usual, with as many times its `weight_decay`.
    betas : (float, float)
        b1 and b2, each in [0, 1).
    l1, l2, weight_decay, proximal
        See `gpumlp.optimizers.Rule`.  The authors' decay is `weight_decay`.

    Notes
    -----
    A gradient that is infinite or NaN makes its parameter NaN; its sign alone would hide it.

    Examples
    --------
    >>> import numpy as np, gpumlp
    >>> w = np.array([1.0, 1.0])
    >>> gpumlp.Lion(lr=0.125).update(w, np.array([2.0, 0.0]))
    >>> w
    array([0.875, 1.   ])
    """

    name: ClassVar[str] = "lion"
    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)

    body: ClassVar[str] = """\
const C look = beta1 * m + gain1 * grad;
m = beta2 * m + gain2 * grad;
const C delta = lr * ((look > C(0) ? C(1) : (look < C(0) ? C(-1) : C(0))) + (look - look));"""

    def check(self) -> None:
        self.check_betas()
        super().check()

    def state_names(self) -> tuple[str, ...]:
        return ("m",)

    def constants(self) -> dict[str, float]:
        beta1, beta2 = self.betas
        return {"beta1": beta1, "gain1": 1 - beta1, "beta2": beta2, "gain2": 1 - beta2}

    def rule(self, grad: np.ndarray, lr: float, **values: Any) -> np.ndarray:
        m = values["m"]
        look = values["beta1"] * m + values["gain1"] * grad
        m *= values["beta2"]
        m += values["gain2"] * grad
        return lr * (np.sign(look) + (look - look))
