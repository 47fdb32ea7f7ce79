"""`Optimizer.update`: one step on bare NumPy or CuPy arrays, and the quick way of the calls that follow."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from gpumlp.kernels.kernel import Kernel
from gpumlp.kernels.optimizers.base import device_of, is_host, to_numpy

from gpumlp import backends

if TYPE_CHECKING:
    from gpumlp.kernels.optimizers.base import Optimizer

__all__ = ["Again", "update"]

_INFINITY, _LISTS = math.inf, (list, tuple)


def update(optimizer: Optimizer, params: Any, grads: Any) -> None:
    """See `Optimizer.update`."""
    plist, glist = _as_list(params), _as_list(grads)
    if len(plist) != len(glist):
        raise ValueError(f"{len(plist)} parameter arrays but {len(glist)} gradient arrays")
    for number, (p, g) in enumerate(zip(plist, glist, strict=True)):
        _check_pair(number, p, g)
    if not plist:
        return
    backend = backends.backend_of(plist[0])
    optimizer.check()
    optimizer.init_state(plist, backend)
    kernel = optimizer.kernel()
    values = optimizer.step_values(optimizer.t + 1, float(optimizer.lr))
    scalars, stepped = optimizer.scalars(kernel), {name: float(values[name]) for name in kernel.stepped}
    runs = []
    for number, (p, g) in enumerate(zip(plist, glist, strict=True)):
        here = backend if number == 0 else backends.backend_of(p)
        entry = optimizer.state[number]
        state = {}
        for name in optimizer.state_names():
            # loaded from a state dict, or moved to another device
            if device_of(entry[name]) != device_of(p):
                entry[name] = here.asarray(to_numpy(entry[name]))
            state[name] = entry[name]
        arrays = {"g": g, "p": p, **state}
        here.elementwise(kernel, arrays, scalars, stepped)
        runs.append(here.bind(kernel, arrays, scalars, "g"))
    optimizer.t += 1
    # what cannot be changed but by assigning to the optimiser, which drops this
    constant = all(isinstance(v, (int, float, tuple)) for v in optimizer.hyperparameters().values())
    if constant and all(runs) and all(run.around == runs[0].around for run in runs):  # on one device
        optimizer._again = Again(optimizer, kernel, plist, runs)
        if len(runs) > 1:
            optimizer._again.bind = partial(backend.bind_list, kernel, runs, scalars, "g")


class Again:
    """`update` without its preparations, for the parameters of the last call.

    The optimiser drops it when anything but `lr` and `t` is assigned to it.

    Parameters
    ----------
    optimizer : Optimizer
    kernel : Kernel
        The optimiser's.
    params : sequence of arrays
        Not kept alive.
    runs : list
        For each what `Backend.bind` gave.
    """

    def __init__(self, optimizer: Optimizer, kernel: Kernel, params: Sequence[Any], runs: list[Any]) -> None:
        references: list[Any] = [weakref.ref(p) for p in params]
        self.pairs = list(zip(references, runs, strict=True))
        self.around = runs[0].around
        #: makes `together`, when it is first needed: all of `runs` at once, if that is possible
        self.bind: Callable[[], Any] | None = None
        self.together: Any = None
        #: state arrays as (number of the parameter, name, array); `runs` know addresses only
        self.state = [
            (number, name, entry[name])
            for number, entry in enumerate(optimizer.state)
            for name in optimizer.state_names()
        ]
        own = optimizer.stepped(1, 0.0)
        # behind the rule's own values, in the kernel's order: penalties, which are constant
        self.fixed = [float(getattr(optimizer, name)) for name in kernel.stepped if name not in own]

    def __call__(self, optimizer: Optimizer, params: Any, grads: Any) -> bool:
        """Whether it could be done; nothing has changed otherwise."""
        lr = optimizer.lr
        if type(lr) is not float:
            lr = _as_float(lr)
        places = self._places(optimizer, params, grads) if 0.0 <= lr < _INFINITY else None
        if places is None:
            return False
        t = optimizer.t + 1
        values = [*optimizer.stepped(t, lr).values(), *self.fixed]
        if self.around is None:
            self._each(places, values)
        else:
            if self.bind is not None:
                self.together, self.bind = self.bind(), None
            with self.around():
                if self.together is None or not self.together(places, values):
                    self._each(places, values)
        optimizer.__dict__["t"] = t  # quicker than an assignment
        return True

    def _places(self, optimizer: Optimizer, params: Any, grads: Any) -> list[Any] | None:
        if type(params) not in _LISTS:
            params = (params,)
        if type(grads) not in _LISTS:
            grads = (grads,)
        if not len(params) == len(grads) == len(self.pairs):
            return None
        for number, name, array in self.state:  # replaced by hand, maybe
            if optimizer.state[number].get(name) is not array:
                return None
        places = []
        for (held, run), p, g in zip(self.pairs, params, grads):  # noqa: B905 - `strict` takes 0.2 us
            if held() is not p:
                return None
            place = run.place(g, p)
            if place is None:
                return None
            places.append(place)
        return places

    def _each(self, places: list[Any], values: list[float]) -> None:
        for (_, run), place in zip(self.pairs, places):  # noqa: B905
            run(place, values)


def _as_float(lr: Any) -> float:
    return float(lr) if isinstance(lr, (int, float)) and not isinstance(lr, bool) else math.nan


def _as_list(arrays: Any) -> list[Any]:
    if type(arrays) is list:
        return arrays
    return list(arrays) if isinstance(arrays, (list, tuple)) else [arrays]


def _check_pair(number: int, p: Any, g: Any) -> None:
    if not hasattr(p, "dtype") or not hasattr(g, "dtype") or not hasattr(p, "strides"):
        raise TypeError(
            f"params[{number}] is {type(p).__name__} and grads[{number}] is {type(g).__name__}; "
            "expected NumPy or CuPy arrays"
        )
    if is_host(p) is not is_host(g) or getattr(p, "device", None) != getattr(g, "device", None):
        raise TypeError(
            f"params[{number}] is {_where(p)} but grads[{number}] is {_where(g)}; "
            "move one of them so that both are on the same device"
        )
    if p.dtype != g.dtype:
        raise TypeError(f"params[{number}] is {p.dtype} but grads[{number}] is {g.dtype}; cast the gradient")
    if p.dtype not in (np.float32, np.float64):
        raise TypeError(f"params[{number}] is {p.dtype}; supported are float32 and float64")
    if p.shape != g.shape:
        raise ValueError(f"params[{number}] has shape {p.shape} but grads[{number}] has shape {g.shape}")
    if p.size and any(n > 1 and stride == 0 for n, stride in zip(p.shape, p.strides, strict=True)):
        raise ValueError(f"params[{number}] is broadcast: elements share memory; pass a copy")
    if isinstance(p, np.ndarray) and not p.flags.writeable:
        raise ValueError(f"params[{number}] is read-only; pass a writable array (it is updated in place)")


def _where(array: Any) -> str:
    module = type(array).__module__.split(".")[0]
    device = getattr(array, "device", None)
    return f"{module} {type(array).__name__}" + (f" on {device}" if device is not None else "")
