"""What all update rules share: common hyper-parameters and their checks, and the kernel around a rule's text.

A rule is one file beside this one: a dataclass with the formula in its docstring, `text` (C++) and `rule`
(the same in NumPy).  It is stateless: what it remembers from step to step is in arrays that a caller keeps
(`gpumlp.optimizers.Optimizer`).  `Rule.kernel` puts the common pieces around the text, so penalties,
clipping, decay and the rule are one launch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import numpy as np
from gpumlp.kernels.checks import flag, number
from gpumlp.kernels.kernel import Kernel

__all__ = ["Rule", "bias_correction"]

_NOT_NEGATIVE = ("lr", "l1", "l2", "weight_decay")
BLOCK = 32768  # elements that the NumPy reference handles at a time: its temporaries stay in the cache


def bias_correction(beta: float, t: Any) -> Any:
    """1 / (1 - beta^t), without the cancellation that 1 - beta**t suffers for beta near 1; `t` scalar or
    array."""
    if beta == 0:
        return np.ones_like(t, float)
    return -1.0 / (math.expm1 if type(t) is int else np.expm1)(t * math.log(beta))


@dataclass
class Rule:
    """Base of the update rules.

    Parameters
    ----------
    lr : float
        Learning rate, per step; must be >= 0 and finite.  May be changed between steps, as all others.
    l1, l2 : float
        Penalties l1 |w| and (l2/2) |w|^2: their gradients l1 sign(w) (with sign(0) = 0) and l2 w are added to
        the gradient before the rule sees it.  In a `Trainer` they apply to weights, not to biases.
    weight_decay : float
        Decoupled decay (Loshchilov & Hutter 2019): w <- (1 - lr weight_decay) w before the rule's step.
    proximal : bool
        Treat l1 by soft thresholding after the step, w <- sign(w) max(|w| - lr l1, 0), which gives exact
        zeros (ISTA for plain SGD), instead of by the subgradient.
    average : float
        In [0, 1); > 0: keep a moving average a of the parameters as the state array "average", from their
        start values on: ``a = d a + (1 - d) w`` after step t (from 1), ``d = min(average, t / (t + 9))``,
        so that the first steps are soon forgotten (as TensorFlow's `ExponentialMovingAverage` with
        `num_updates`).  A `Trainer` shows the averages.
    """

    name: ClassVar[str]
    lr: float = 1e-2
    l1: float = field(default=0.0, kw_only=True)
    l2: float = field(default=0.0, kw_only=True)
    weight_decay: float = field(default=0.0, kw_only=True)
    proximal: bool = field(default=False, kw_only=True)
    average: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        self.check()

    # ---- what a rule defines -----------------------------------------------
    #: whether what the kernel gets as g is a gradient, which clipping and loss scaling scale
    scaled: ClassVar[bool] = True
    #: text that computes `C delta` (to be subtracted from the parameter) from `grad`, the state, and `lr`
    body: ClassVar[str]

    def rule(self, grad: np.ndarray, lr: float, **values: Any) -> np.ndarray:
        """The same in NumPy: updates the state arrays in `values` in place and returns delta."""
        raise TypeError(f"{type(self).__name__} must define rule()")

    def text(self) -> str:
        """The body for this object's options."""
        return self.body

    def options(self) -> tuple[str, ...]:
        """Names of the options that change the text; they become part of the kernel's name."""
        return ()

    def state_names(self) -> tuple[str, ...]:
        """State arrays, each of the parameter's shape."""
        return ()

    def state_start(self) -> dict[str, float]:
        """Initial values of state arrays that do not start at 0."""
        return {}

    def constants(self) -> dict[str, float]:
        """Hyper-parameters that the text reads and that stay the same from step to step."""
        return {}

    def stepped(self, t: Any, lr: Any) -> dict[str, Any]:
        """Values of step `t` (from 1) at learning rate `lr`, in double precision; both are numbers, or arrays
        of one shape (all steps of an epoch at once)."""
        return {"lr": lr}

    def check(self) -> None:
        """Convert all hyper-parameters to Python's numbers; ValueError if one is out of range.

        A rule with ranges of its own checks them by `in_range`, then calls this.
        """
        self.in_range("average", 0, 1)
        for f in fields(self):
            if type(f.default) is bool:
                if type(value := getattr(self, f.name)) is not bool:
                    setattr(self, f.name, flag(f"{type(self).__name__}: {f.name}", value))
            elif isinstance(f.default, (int, float)):
                self.in_range(f.name, 0 if f.name in _NOT_NEGATIVE else -math.inf)

    def in_range(
        self, name: str, low: float = -math.inf, high: float = math.inf, *, open_low: bool = False
    ) -> None:
        """Check one hyper-parameter, see `gpumlp.kernels.checks.number`."""
        value = getattr(self, name)
        inside = type(value) is float and -math.inf < value < high
        if inside and (value > low if open_low else value >= low):
            return  # the usual case; this runs at every step
        limits = [f"{'>' if open_low else '>='} {low:g}"] if low > -math.inf else []
        limits += ["finite"] if high == math.inf else [f"< {high:g}"]
        expected = f"a number {' and '.join(limits)}"
        called = f"{type(self).__name__}: {name}"
        setattr(self, name, number(called, value, low, high, open_low=open_low, expected=expected))

    def check_betas(self) -> None:
        """Check the two numbers of `betas`, for rules that have them."""
        given: Any = getattr(self, "betas")  # noqa: B009 - a field of some rules only
        try:
            beta1, beta2 = given
            betas = number("beta1", beta1, 0, 1), number("beta2", beta2, 0, 1)
        except (TypeError, ValueError):
            raise ValueError(
                f"{type(self).__name__}: betas={given!r}; expected two numbers >= 0 and < 1"
            ) from None
        setattr(self, "betas", betas)  # noqa: B010

    # ---- what is made of it -----------------------------------------------
    def hyperparameters(self) -> dict[str, Any]:
        """Constructor arguments as a dict, checked."""
        self.check()
        return {f.name: copy.deepcopy(getattr(self, f.name)) for f in fields(self)}

    def penalties(self) -> tuple[bool, bool, bool, bool]:
        """Which of l1, l2, weight decay and proximal step are on."""
        return self.l1 > 0, self.l2 > 0, self.weight_decay > 0, self.proximal and self.l1 > 0

    def arrays(self) -> tuple[str, ...]:
        """Names of all state arrays: those of the rule, and the average of the parameters."""
        return (*self.state_names(), "average") if self.average > 0 else self.state_names()

    def per_step(self, t: Any, lr: Any) -> dict[str, Any]:
        """`stepped`, and what the average needs."""
        values = self.stepped(t, lr)
        if self.average > 0:
            values["blend"] = np.maximum(1 - self.average, 9 / (np.asarray(t) + 9.0))
        return values

    def settings(self) -> tuple[Any, ...]:
        """All that a recorded launch of the kernel keeps: a plan is out of date when this changes.

        Learning rate, sizes of the penalties and `stepped` are not in it: they are given for every step.
        """
        self.check()
        kept = self.name, self.penalties(), self.average > 0, self.options()
        return *kept, *self.constants().items()

    def kernel(
        self,
        *,
        clip: bool = False,
        half: bool = False,
        guard: bool = False,
        narrow: bool = False,
        zero: bool = False,
    ) -> Kernel:
        """The fused kernel for the options and penalties in force.

        Parameters
        ----------
        clip : bool
            The gradient is multiplied by clip_scale[0].
        half : bool
            The new parameters are stored a second time, as p_half, in the storage type T.
        guard : bool
            As `clip`; where clip_scale[0] is 0, parameters and state stay as they are.
        narrow : bool
            The gradient is of the storage type T.
        zero : bool
            The gradient is set to 0 afterwards, in any case.

        Notes
        -----
        Arrays: g (read), p and the state (in place), p_half (written), and the raw array clip_scale (1,).
        """
        l1, l2, decoupled, proximal = self.penalties()
        clip = clip and not guard
        pieces = [
            *self.gradient_lines(clip and self.scaled, guard),
            "p -= decay * (lr * weight_decay) * p;" if decoupled else "",
            self.text(),
            "p -= delta;",
            "const C shrink = decay * (lr * l1);\n"  # p minus its own value is 0, or NaN if it was
            "p -= p > shrink ? shrink : (p < -shrink ? -shrink : p);"
            if proximal
            else "",
            "average += blend * (p - average);" if self.average > 0 else "",
            "}" if guard else "",
            "p_half = p;" if half else "",
            "g = C(0);" if zero else "",
        ]
        used = {"l1": l1, "l2": l2, "weight_decay": decoupled}
        stepped = [*self.per_step(1, 0.0), *(n for n, u in used.items() if u)]
        words = [
            *self.options(),
            *(["prox"] if proximal else ["l1"] if l1 else []),
            *(["l2"] if l2 else []),
            *(["wd"] if decoupled else []),
            *(["avg"] if self.average > 0 else []),
            *(["clip"] if clip else ["guard"] if guard else []),
            *(["half"] if half else []),
            *(["narrow"] if narrow else []),
            *(["zero"] if zero else []),
        ]
        gradient = f"{'T' if narrow else 'C'} g"
        return Kernel(
            name="_".join(["gpumlp", self.name, *words]),
            inputs="" if zero else gradient,
            outputs="T p_half" if half else "",
            inouts=", ".join([*([gradient] if zero else []), "C p", *(f"C {n}" for n in self.arrays())]),
            raws="C clip_scale" if clip or guard else "",
            scalars=", ".join(f"C {n}" for n in self.constants()),
            stepped=tuple(stepped),
            masked=l1 or l2 or decoupled,
            body="\n".join(filter(None, pieces)),
            reference=_reference(self.rule, l1, l2, decoupled, proximal, guard, self.scaled, zero),
        )

    def gradient_lines(self, clip: bool, guard: bool) -> list[str]:
        """The text's beginning: `C grad`, with penalties."""
        l1, l2, _, proximal = self.penalties()
        return [
            "if (clip_scale[0] > C(0)) {" if guard else "",
            "C grad = g * clip_scale[0];" if clip or (guard and self.scaled) else "C grad = g;",
            "grad += decay * l2 * p;" if l2 else "",
            "grad += decay * l1 * ((p > C(0) ? C(1) : C(0)) - (p < C(0) ? C(1) : C(0)));"
            if l1 and not proximal
            else "",
        ]

    def scalars(self, kernel: Kernel) -> dict[str, float]:
        """By-value arguments for `kernel`."""
        values = self.constants()
        return {s.name: float(values[s.name]) for s in kernel.constants}

    def step_values(self, t: Any, lr: Any) -> dict[str, Any]:
        """All per-step values that a kernel of this object may read: `per_step`, and the penalties."""
        return {**self.per_step(t, lr), "l1": self.l1, "l2": self.l2, "weight_decay": self.weight_decay}


def _reference(
    rule: Callable[..., np.ndarray],
    l1: bool,
    l2: bool,
    decoupled: bool,
    proximal: bool,
    guard: bool,
    scaled: bool,
    zero: bool,
) -> Callable:
    def run(
        g: Any, p: Any, lr: Any, decay: float = 1.0, clip_scale: Any = None, k: int = 0, **values: Any
    ) -> None:
        grad = g * clip_scale[0] if clip_scale is not None and scaled else g
        penalty2, penalty1 = values.pop("l2", 0.0), values.pop("l1", 0.0)
        weight_decay, blend = values.pop("weight_decay", 0.0), values.pop("blend", 0.0)
        average = values.pop("average", None)
        if decay and l2:
            grad = grad + penalty2 * p
        if decay and l1 and not proximal:
            grad = grad + penalty1 * np.sign(p)
        delta = rule(grad, lr, **values)  # before p changes: g may be the same array
        if decay and decoupled:
            p -= (lr * weight_decay) * p
        p -= delta
        if decay and proximal:
            shrink = lr * penalty1
            p -= np.clip(p, -shrink, shrink)
        if average is not None:
            average += blend * (p - average)

    def step(g: Any, p: Any, p_half: Any = None, **values: Any) -> None:
        if not guard or values["clip_scale"][0] > 0:
            run(g, p, **values)
        if p_half is not None:
            p_half[...] = p
        if zero:
            g[...] = 0

    def blocked(g: Any, p: Any, **values: Any) -> None:
        if p.ndim != 1 or p.size <= BLOCK:
            step(g, p, **values)
            return
        whole = {n: v for n, v in values.items() if getattr(v, "shape", None) == p.shape}
        for start in range(0, p.size, BLOCK):
            part = slice(start, start + BLOCK)
            step(g[part], p[part], **{**values, **{n: v[part] for n, v in whole.items()}})

    return blocked
