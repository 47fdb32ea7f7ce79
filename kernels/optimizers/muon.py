"""Muon, and the kernels of its steps for matrices."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from gpumlp.kernels.kernel import Kernel
from gpumlp.kernels.optimizers.adam import Adam
from gpumlp.kernels.optimizers.rule import Rule

__all__ = [
    "BLEND",
    "COEFFICIENTS",
    "INVERSE_NORM",
    "ROW_SQUARES",
    "SCALE",
    "SMALLEST_NORM",
    "Applied",
    "Muon",
]

#: of the polynomial a x + b x^3 + c x^5, which moves singular values in (0, 1] to about 1 in five rounds
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
SMALLEST_NORM = 1e-7  # smaller ones count as this


@dataclass
class Muon(Adam):
    """Muon for matrices, AdamW for all other parameters (Jordan et al. 2024)::

        v = momentum v + (1 - momentum) g
        u = momentum v + (1 - momentum) g      (v without Nesterov's form)
        x = u / |u|, then ns_steps times:  A = x x^T,  x = a x + (b A + c A A) x
        w -= lr size x,     size = sqrt(max(1, n_out / n_in))

    with (a, b, c) = (3.4445, -4.7750, 2.0315): x is about U V^T of u = U S V^T, a step of the same length in
    all directions of the layer.  In a `Trainer` the matrices are the weights (n_in, n_out) of the layers; in
    `update` all 2-D arrays, which are (n_out, n_in) as in PyTorch.

    Parameters
    ----------
    lr : float
        0.02 as in the authors' code; PyTorch's default is 0.001.
    betas, eps, eps_hat, amsgrad
        AdamW's, see `Adam`.
    momentum : float
        In [0, 1).
    nesterov : bool
    match_rms : bool
        ``size = 0.2 sqrt(max(n_in, n_out))``: steps as large as AdamW's usual ones, so that its learning
        rates fit (Liu et al. 2025).
    ns_steps : int
        Newton-Schulz rounds, at least 1.
    weight_decay : float
        Decoupled, 0.1 by default as in PyTorch.
    l1, l2, proximal, average
        See `gpumlp.optimizers.Rule`.

    Notes
    -----
    A step is about 5 ns_steps + 5 operations for each layer instead of one for the whole network.  PyTorch
    computes the products in bfloat16, this package in the type of the parameters.

    Examples
    --------
    >>> import numpy as np, gpumlp
    >>> w = np.zeros((2, 2))
    >>> gpumlp.Muon(lr=0.5).update(w, np.array([[3.0, 0.0], [0.0, 3.0]]))
    >>> bool(abs(w + 0.5 * np.eye(2)).max() < 0.2)
    True
    """

    name: ClassVar[str] = "muon"
    lr: float = 0.02
    momentum: float = 0.95
    nesterov: bool = True
    match_rms: bool = False
    ns_steps: int = 5
    weight_decay: float = field(default=0.1, kw_only=True)

    def check(self) -> None:
        self.in_range("momentum", 0, 1)
        if type(self.ns_steps) is not int or self.ns_steps < 1:
            given = self.ns_steps
            self.in_range("ns_steps", 1)
            if self.ns_steps != int(self.ns_steps):
                raise ValueError(f"{type(self).__name__}: ns_steps={given!r}; expected a whole number >= 1")
            self.ns_steps = int(self.ns_steps)
        super().check()

    def options(self) -> tuple[str, ...]:
        flags = {"nesterov": self.nesterov, "rms": self.match_rms}
        return (*super().options(), *(n for n, on in flags.items() if on), f"ns{self.ns_steps}")

    def constants(self) -> dict[str, float]:
        return {**super().constants(), "momentum": self.momentum, "gain": 1 - self.momentum}

    def size(self, n_in: int, n_out: int) -> float:
        """Factor on the learning rate of a matrix (n_in, n_out)."""
        return 0.2 * math.sqrt(max(n_in, n_out)) if self.match_rms else math.sqrt(max(1, n_out / n_in))

    def direction_kernel(self, *, clip: bool = False, guard: bool = False) -> Kernel:
        """Map kernel: brings v up to date, and o = u.  Arrays: g, v, o, with penalties p (read), and
        clip_scale as in `Rule.kernel`."""
        look = "momentum * v + gain * grad" if self.nesterov else "v"
        nesterov, (l1, l2, _, proximal) = self.nesterov, self.penalties()
        l1, clip = l1 and not proximal, clip and not guard
        flags = {"nesterov": nesterov, "l1": l1, "l2": l2, "clip": clip, "guard": guard}
        lines = [
            *self.gradient_lines(clip, guard),
            "v = momentum * v + gain * grad;",
            f"o = {look};",
            "}" if guard else "",
        ]

        def reference(
            g: Any, v: Any, o: Any, momentum: float, gain: float, k: int = 0, **values: Any
        ) -> None:
            scale, decay = values.get("clip_scale"), values.get("decay", 1.0)
            if guard and not scale[0] > 0:
                return
            grad = g if scale is None else g * scale[0]
            if l2:
                grad = grad + decay * values["l2"] * values["p"]
            if l1:
                grad = grad + decay * values["l1"] * np.sign(values["p"])
            v *= momentum
            v += gain * grad
            o[...] = momentum * v + gain * grad if nesterov else v

        return Kernel(
            name="_".join(["gpumlp_muon_direction", *(name for name, on in flags.items() if on)]),
            inputs="C g, C p" if l1 or l2 else "C g",
            outputs="" if guard else "C o",
            inouts="C v, C o" if guard else "C v",
            raws="C clip_scale" if clip or guard else "",
            scalars="C momentum, C gain",
            stepped=tuple(name for name in ("l1", "l2") if flags[name]),
            masked=l1 or l2,
            body="\n".join(filter(None, lines)),
            reference=reference,
        )

    def applied(self, n_in: int, n_out: int) -> Applied:
        """The rule that moves a matrix along its direction."""
        l1 = self.l1 if self.proximal else 0.0
        more = {"weight_decay": self.weight_decay, "proximal": self.proximal, "average": self.average}
        return Applied(self.lr, self.size(n_in, n_out), l1=l1, **more)


@dataclass
class Applied(Rule):
    """``w -= lr size g`` for a direction g, with decay, proximal step and average around it."""

    name: ClassVar[str] = "muon_applied"
    scaled: ClassVar[bool] = False
    lr: float = 1e-3
    size: float = 1.0

    body: ClassVar[str] = "const C delta = lr * size * grad;"

    def constants(self) -> dict[str, float]:
        return {"size": self.size}

    def rule(self, grad: np.ndarray, lr: float, **values: Any) -> np.ndarray:
        return lr * values["size"] * grad


def _row_squares(o: np.ndarray, partial: np.ndarray, k: int) -> None:
    partial[: len(o)] = np.square(o).sum(axis=1)


ROW_SQUARES = Kernel(
    name="gpumlp_row_squares",
    rowwise=True,
    inputs="C o",
    rawouts="C partial",
    body="ROW_SUM(total, o[c] * o[c])\nROW_ONE { partial[r] = total; }",
    reference=_row_squares,
)
"""partial[r] = the sum of row r's squares."""


def _inverse_norm(partial: np.ndarray, inverse: np.ndarray, n: int, smallest: float, k: int) -> None:
    inverse[0] = 1 / np.maximum(np.sqrt(partial[:n].sum()), smallest)


INVERSE_NORM = Kernel(
    name="gpumlp_inverse_norm",
    rowwise=True,
    raws="C partial",
    rawouts="C inverse",
    scalars="int64 n, C smallest",
    body="""ROW_SUM(total, (c < n ? partial[c] : C(0)))
ROW_ONE {
    const C norm = sqrt(total);
    inverse[0] = C(1) / (norm < smallest ? smallest : norm);
}""",
    reference=_inverse_norm,
)
"""inverse[0] = 1 / max(sqrt(sum partial), smallest).  rows = 1."""


def _scale(o: np.ndarray, inverse: np.ndarray, k: int) -> None:
    o *= inverse[0]


SCALE = Kernel(name="gpumlp_scale", inouts="C o", raws="C inverse", body="o *= inverse[0];", reference=_scale)
"""o *= inverse[0]."""


def _blend(x: np.ndarray, y: np.ndarray, a: float, b: float, k: int) -> None:
    x *= a
    x += b * y


BLEND = Kernel(
    name="gpumlp_blend",
    inputs="C y",
    inouts="C x",
    scalars="C a, C b",
    body="x = a * x + b * y;",
    reference=_blend,
)
"""x = a x + b y."""
