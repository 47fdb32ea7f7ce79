"""What all update rules share: hyper-parameter checks, penalties, clipping, state, and `update` on bare
arrays.

A rule is one file beside this one: a dataclass with the formula in its docstring, `body` (the CUDA text) and
`rule` (the same in NumPy).  `Optimizer.kernel` puts the common pieces around the body, so penalties,
clipping, decay and the rule are one launch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import numpy as np
from gpumlp.kernels.kernel import Kernel

__all__ = ["Optimizer", "bias_correction", "device_of", "is_host", "to_numpy"]

_BLOCK = 32768  # elements that the NumPy reference handles at a time: its temporaries stay in the cache


def bias_correction(beta: float, t: Any) -> Any:
    """1 / (1 - beta^t), without the cancellation that 1 - beta**t suffers for beta near 1; `t` scalar or
    array."""
    if beta == 0:
        return np.ones_like(t, float)
    return -1.0 / (math.expm1 if type(t) is int else np.expm1)(t * math.log(beta))


@dataclass
class Optimizer:
    """Base of the update rules.

    Parameters
    ----------
    lr : float
        Learning rate, per step; must be >= 0 and finite.  May be changed between steps.
    l1, l2 : float
        Penalties l1 |w| and (l2/2) |w|^2: their gradients l1 sign(w) (with sign(0) = 0) and l2 w are added to
        the gradient before the rule sees it.  In a `Trainer` they apply to weights, not to biases.
    weight_decay : float
        Decoupled decay (Loshchilov & Hutter 2019): w <- (1 - lr weight_decay) w before the rule's step.
    proximal : bool
        Treat l1 by soft thresholding after the step, w <- sign(w) max(|w| - lr l1, 0), which gives exact
        zeros (ISTA for plain SGD), instead of by the subgradient.
    """

    name: ClassVar[str]
    lr: float = 1e-2
    l1: float = field(default=0.0, kw_only=True)
    l2: float = field(default=0.0, kw_only=True)
    weight_decay: float = field(default=0.0, kw_only=True)
    proximal: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        self.t = 0
        self.state: list[dict[str, Any]] = []
        self._kernels: dict[tuple, Kernel] = {}
        self._again: Any = None  # the quick way of repeated calls of `update`
        self.check()

    def __setattr__(self, name: str, value: Any) -> None:
        self.__dict__[name] = value
        if name not in ("lr", "t", "_again"):
            self.__dict__["_again"] = None  # see `update`

    def __getstate__(self) -> dict[str, Any]:
        state = [  # on the host: it may be loaded where there is no such device
            {n: a if n == "_shape" or is_host(a) else to_numpy(a) for n, a in entry.items()}
            for entry in self.state
        ]
        return {
            **self.__dict__,
            "state": state,
            "_kernels": {},  # composed again: functions cannot be pickled
            "_again": None,
        }

    # ---- what a rule defines -----------------------------------------------
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
        """Start values of state arrays that do not begin at 0."""
        return {}

    def constants(self) -> dict[str, float]:
        """Hyper-parameters that the text reads and that stay the same from step to step."""
        return {}

    def stepped(self, t: Any, lr: Any) -> dict[str, Any]:
        """Values of step `t` (from 1) at learning rate `lr`, in double precision; both are numbers, or arrays
        of one shape (all steps of an epoch at once)."""
        return {"lr": lr}

    # ---- checks -----------------------------------------------
    def check(self) -> None:
        """Raise ValueError if a hyper-parameter is out of its range."""
        for name in ("lr", "l1", "l2", "weight_decay"):
            self._in_range(name, 0.0, math.inf)

    def _in_range(self, name: str, low: float, high: float, *, open_low: bool = False) -> None:
        value = getattr(self, name)
        good = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
        good = good and (low < value if open_low else low <= value) and value < high
        if not good:
            span = f"{'>' if open_low else '>='} {low:g}" + (
                f" and < {high:g}" if high < math.inf else " and finite"
            )
            raise ValueError(f"{type(self).__name__}: {name}={value!r}; expected a number {span}")

    # ---- the kernel -----------------------------------------------
    def kernel(self, *, clip: bool = False, half: bool = False, guard: bool = False) -> Kernel:
        """The fused kernel for the options and penalties in force.

        Parameters
        ----------
        clip : bool
            The gradient is multiplied by clip_scale[0].
        half : bool
            The new parameters are stored a second time, as p_half, in the storage type T.
        guard : bool
            As `clip`; where clip_scale[0] is 0, parameters and state stay as they are.

        Notes
        -----
        Arrays: g (read), p and the state (in place), p_half (written), and the raw array clip_scale (1,).
        """
        penalties = self.l1 > 0, self.l2 > 0, self.weight_decay > 0, self.proximal and self.l1 > 0
        flags = (clip and not guard, half, guard, *penalties)
        key = (*flags, self.options())
        if key not in self._kernels:
            self._kernels[key] = self._compose(*flags)
        return self._kernels[key]

    def _compose(
        self, clip: bool, half: bool, guard: bool, l1: bool, l2: bool, decoupled: bool, proximal: bool
    ) -> Kernel:
        pieces = [
            "if (clip_scale[0] > C(0)) {" if guard else "",
            "C grad = g * clip_scale[0];" if clip or guard else "C grad = g;",
            "grad += decay * l2 * p;" if l2 else "",
            "grad += decay * l1 * ((p > C(0) ? C(1) : C(0)) - (p < C(0) ? C(1) : C(0)));"
            if l1 and not proximal
            else "",
            "p -= decay * (lr * weight_decay) * p;" if decoupled else "",
            self.text(),
            "p -= delta;",
            "const C shrink = decay * (lr * l1);\n"  # p minus its own value is 0, or NaN if it was
            "p -= p > shrink ? shrink : (p < -shrink ? -shrink : p);"
            if proximal
            else "",
            "}" if guard else "",
            "p_half = p;" if half else "",
        ]
        used = {"l1": l1, "l2": l2, "weight_decay": decoupled}
        stepped = [*self.stepped(1, 0.0), *(n for n, u in used.items() if u)]
        words = [
            *self.options(),
            *(["prox"] if proximal else ["l1"] if l1 else []),
            *(["l2"] if l2 else []),
            *(["wd"] if decoupled else []),
            *(["clip"] if clip else ["guard"] if guard else []),
            *(["half"] if half else []),
        ]
        return Kernel(
            name="_".join(["gpumlp", self.name, *words]),
            inputs="C g",
            outputs="T p_half" if half else "",
            inouts=", ".join(["C p", *(f"C {n}" for n in self.state_names())]),
            raws="C clip_scale" if clip or guard else "",
            scalars=", ".join(f"C {n}" for n in self.constants()),
            stepped=tuple(stepped),
            masked=l1 or l2 or decoupled,
            body="\n".join(filter(None, pieces)),
            reference=_reference(
                self.rule, l1=l1, l2=l2, decoupled=decoupled, proximal=proximal, guard=guard
            ),
        )

    def scalars(self, kernel: Kernel) -> dict[str, float]:
        """By-value arguments for `kernel`."""
        values = self.constants()
        return {s.name: float(values[s.name]) for s in kernel.constants}

    def step_values(self, t: Any, lr: Any) -> dict[str, Any]:
        """All per-step values that a kernel of this object may read: `stepped`, and the penalties."""
        return {**self.stepped(t, lr), "l1": self.l1, "l2": self.l2, "weight_decay": self.weight_decay}

    # ---- state -----------------------------------------------
    def init_state(self, params: Sequence[Any], backend: Any) -> None:
        """Make the state for `params` if there is none yet; else check that it fits them."""
        if self.state:
            self._check_state(params)
            return
        start, eps = self.state_start(), getattr(self, "eps", 1.0)
        for p in params:
            dtype = _state_dtype(p)
            if eps < np.finfo(dtype).tiny:
                raise ValueError(
                    f"{type(self).__name__}: eps={eps!r} is too small for {dtype}; expected at least "
                    f"{np.finfo(dtype).tiny:.2g}"
                )
            entry: dict[str, Any] = {"_shape": tuple(p.shape)}
            for name in self.state_names():
                entry[name] = backend.zeros(p.shape, dtype)
                if name in start:
                    with backend.active():
                        entry[name].fill(start[name])
            self.state.append(entry)

    def move_state(self, backend: Any) -> None:
        """Put the state arrays on the device of `backend`."""
        self._again = None
        for entry in self.state:
            for name in self.state_names():
                if device_of(entry[name]) != backend.device:
                    entry[name] = backend.asarray(to_numpy(entry[name]))

    def _check_state(self, params: Sequence[Any]) -> None:
        name, names = type(self).__name__, set(self.state_names())
        hint = "use one optimiser object per set of parameters, or call reset()"
        shapes, held = [tuple(p.shape) for p in params], [s["_shape"] for s in self.state]
        if held != shapes:
            raise ValueError(f"{name} holds state for arrays of shapes {held} and was given {shapes}; {hint}")
        for number, (p, entry) in enumerate(zip(params, self.state, strict=True)):
            have = {n: a.dtype for n, a in entry.items() if n != "_shape"}
            if set(have) != names:
                raise ValueError(
                    f"{name} holds the state arrays {sorted(have)}, its options now need {sorted(names)}; "
                    "call reset() after changing them"
                )
            wrong = [dtype for dtype in have.values() if dtype != _state_dtype(p)]
            if wrong:
                raise TypeError(f"{name} holds {wrong[0]} state for params[{number}], now {p.dtype}; {hint}")

    def reset(self) -> None:
        """Forget the state and the step count."""
        self.t = 0
        self.state = []

    def state_dict(self) -> dict[str, Any]:
        """Step count, hyper-parameters and NumPy copies of the state arrays, for `load_state_dict`."""
        arrays = [
            {n: to_numpy(a) for n, a in entry.items() if n != "_shape"} | {"_shape": entry["_shape"]}
            for entry in self.state
        ]
        return {
            "optimizer": self.name,
            "t": self.t,
            "hyperparameters": self.hyperparameters(),
            "state": arrays,
        }

    def hyperparameters(self) -> dict[str, Any]:
        """Constructor arguments as a dict."""
        return {f.name: copy.deepcopy(getattr(self, f.name)) for f in fields(self)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave, hyper-parameters included.

        State arrays are moved to the device of the parameters at the next `update`.

        Raises
        ------
        ValueError
            If the dict is of another rule or its state arrays are not those of this rule.
        """
        if state.get("optimizer") != self.name:
            raise ValueError(
                f"state of optimiser {state.get('optimizer')!r} cannot be loaded into {self.name!r}"
            )
        other = type(self)(**state["hyperparameters"])
        for entry in state["state"]:
            if set(entry) != {*other.state_names(), "_shape"}:
                raise ValueError(
                    f"state arrays {sorted(set(entry) - {'_shape'})}, expected {sorted(other.state_names())}"
                )
            for name in other.state_names():
                if np.shape(entry[name]) != tuple(entry["_shape"]):
                    raise ValueError(
                        f"state array {name!r} has shape {np.shape(entry[name])}, "
                        f"expected that of its parameter, {tuple(entry['_shape'])}"
                    )
        for f in fields(self):
            setattr(self, f.name, getattr(other, f.name))
        self.t = int(state["t"])
        self.state = [
            {n: np.array(a) if n != "_shape" else tuple(a) for n, a in entry.items()}
            for entry in state["state"]
        ]

    # ---- bare arrays -----------------------------------------------
    def update(self, params: Any, grads: Any) -> None:
        """One step on bare arrays.

        Parameters
        ----------
        params : array or list of arrays, float32 or float64, NumPy or CuPy, any shapes and strides
            Modified in place.
        grads : array or list of arrays, of the same shapes, dtypes and device
            Read only.

        Raises
        ------
        TypeError
            If a parameter and its gradient differ in dtype or device, or the dtype is not supported.
        ValueError
            If their number or shapes differ, a parameter is read-only, or the state is of other shapes.

        Notes
        -----
        The state is made at the first call and kept by this object; later calls must give the same shapes in
        the same order.

        On CUDA a list is one launch from its second call on, if its arrays are C-contiguous, of one dtype, on
        one device, and those that are written do not overlap; else there is one per array.
        """
        if self._again is None or not self._again(self, params, grads):
            from gpumlp.kernels.optimizers.update import update  # here, because it needs gpumlp.backends

            update(self, params, grads)


def _reference(
    rule: Callable[..., np.ndarray], *, l1: bool, l2: bool, decoupled: bool, proximal: bool, guard: bool
) -> Callable:
    def run(
        g: Any, p: Any, lr: Any, decay: float = 1.0, clip_scale: Any = None, k: int = 0, **values: Any
    ) -> None:
        grad = g * clip_scale[0] if clip_scale is not None else g
        penalty2, penalty1 = values.pop("l2", 0.0), values.pop("l1", 0.0)
        weight_decay = values.pop("weight_decay", 0.0)
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

    def step(g: Any, p: Any, p_half: Any = None, **values: Any) -> None:
        if not guard or values["clip_scale"][0] > 0:
            run(g, p, **values)
        if p_half is not None:
            p_half[...] = p

    def blocked(g: Any, p: Any, **values: Any) -> None:
        if p.ndim != 1 or p.size <= _BLOCK:
            step(g, p, **values)
            return
        whole = {n: v for n, v in values.items() if getattr(v, "shape", None) == p.shape}
        for start in range(0, p.size, _BLOCK):
            part = slice(start, start + _BLOCK)
            step(g[part], p[part], **{**values, **{n: v[part] for n, v in whole.items()}})

    return blocked


def device_of(array: Any) -> str:
    """ "cpu" or "cuda:<number>"."""
    return "cpu" if is_host(array) else f"cuda:{array.device.id}"


def _state_dtype(p: Any) -> np.dtype:
    return np.dtype(np.float64 if p.dtype == np.float64 else np.float32)


def to_numpy(array: Any) -> np.ndarray:
    """Copy on the host."""
    return np.array(array.get() if hasattr(array, "get") else array)


def is_host(array: Any) -> bool:
    """Whether it is a NumPy array."""
    return isinstance(array, np.ndarray)
