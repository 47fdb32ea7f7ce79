"""`Optimizer`: an update rule with its state and number of steps, for flat buffers and bare arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from typing import Any

import numpy as np

from gpumlp import backends
from gpumlp.backends.arrays import device_of
from gpumlp.checks import same, whole
from gpumlp.kernels.kernel import Kernel
from gpumlp.kernels.optimizers.rule import Rule
from gpumlp.optimizers.again import Again
from gpumlp.optimizers.arrays import as_list, check_pair, is_host, own, state_dtype, to_numpy

__all__ = ["Optimizer"]


class Optimizer(Rule):
    """A rule that remembers: base of all of `OPTIMIZERS`: `SGD`, `Adam` ...

    The hyper-parameters are attributes; assignments to them count from the next step on.

    Parameters
    ----------
    lr, l1, l2, weight_decay, proximal
        See `gpumlp.optimizers.Rule`.

    Attributes
    ----------
    t : int
        Steps done.
    state : list of dict
        For each parameter its state arrays by name, and its shape as "_shape".
    """

    #: arrays of the parameters' size that its steps in a plan need besides the state
    scratch = 0
    #: whether the step of an element depends on those of its own place only
    by_element = True

    def __post_init__(self) -> None:
        self.t = 0
        self.state: list[dict[str, Any]] = []
        self._kernels: dict[tuple[Any, ...], Kernel] = {}
        self._again: Again | None = None
        self._checked: list[Any] = []
        super().__post_init__()

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

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.state = [{n: a if n == "_shape" else own(a) for n, a in entry.items()} for entry in self.state]

    def kernel(self, *, clip: bool = False, half: bool = False, guard: bool = False) -> Kernel:
        """See `Rule.kernel`; the same object for the same options and penalties."""
        key = clip, half, guard, self.penalties(), self.options()
        if key not in self._kernels:
            self._kernels[key] = super().kernel(clip=clip, half=half, guard=guard)
        return self._kernels[key]

    def check(self) -> None:
        """See `Rule.check`; at once if nothing has been assigned since it last was called."""
        values = list(map(self.__dict__.get, self.__dataclass_fields__))
        if not same(values, self._checked):
            super().check()
            self._checked = list(map(self.__dict__.get, self.__dataclass_fields__))

    def held(self) -> list[Any]:
        """The objects that its steps depend on, besides `t`: hyper-parameters and state arrays."""
        values = list(map(self.__dict__.get, self.__dataclass_fields__))
        for entry in self.state:
            values += entry.values()
        return values

    # ---- state -----------------------------------------------
    def init_state(self, params: Sequence[Any], backend: Any) -> None:
        """Make the state for `params` if there is none yet; else check that it fits them."""
        eps = getattr(self, "eps", 1.0)
        for dtype in map(state_dtype, params):
            if eps < np.finfo(dtype).tiny:
                raise ValueError(
                    f"{type(self).__name__}: eps={eps!r} is too small for {dtype}; expected at least "
                    f"{np.finfo(dtype).tiny:.2g}"
                )
        if self.state:
            self._check_state(params)
            return
        start = self.state_start()
        for p in params:
            dtype = state_dtype(p)
            entry: dict[str, Any] = {"_shape": tuple(p.shape)}
            for name in self.arrays():
                entry[name] = backend.zeros(p.shape, dtype)
                with backend.active():
                    if name == "average":
                        entry[name][...] = p
                    elif name in start:
                        entry[name].fill(start[name])
            self.state.append(entry)

    def move_state(self, backend: Any) -> None:
        """Put the state arrays on the device of `backend`."""
        self._again = None
        for entry in self.state:
            for name in self.arrays():
                if device_of(entry[name]) != backend.device:
                    entry[name] = backend.asarray(to_numpy(entry[name]))

    def _check_state(self, params: Sequence[Any]) -> None:
        name, names = type(self).__name__, set(self.arrays())
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
            wrong = [dtype for dtype in have.values() if dtype != state_dtype(p)]
            if wrong:
                raise TypeError(f"{name} holds {wrong[0]} state for params[{number}], now {p.dtype}; {hint}")

    def reset(self) -> None:
        """Forget the state and the step count."""
        self.t = 0
        self.state = []
        self._again = None

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

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned, hyper-parameters included.

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
            if set(entry) != {*other.arrays(), "_shape"}:
                raise ValueError(
                    f"state arrays {sorted(set(entry) - {'_shape'})}, expected {sorted(other.arrays())}"
                )
            for name in other.arrays():
                if np.shape(entry[name]) != tuple(entry["_shape"]):
                    raise ValueError(
                        f"state array {name!r} has shape {np.shape(entry[name])}, "
                        f"expected that of its parameter, {tuple(entry['_shape'])}"
                    )
        t = whole("t", state["t"], 0)
        for f in fields(self):
            setattr(self, f.name, getattr(other, f.name))
        self.t = t
        self.state = [
            {n: np.array(a) if n != "_shape" else tuple(a) for n, a in entry.items()}
            for entry in state["state"]
        ]
        self._again = None

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
        whole = getattr(grads, "whole", None)  # of `gpumlp.plans.Grads`, whose arrays are parts of one buffer
        if whole is not None:
            params, grads = whole(params, self.by_element)
        again, t = self._again, self.t + 1
        if again is None or not again(self, t, self.state, params, grads):
            plist, glist = as_list(params), as_list(grads)
            if len(plist) != len(glist):
                raise ValueError(f"{len(plist)} parameter arrays but {len(glist)} gradient arrays")
            for number, (p, g) in enumerate(zip(plist, glist, strict=True)):
                check_pair(number, p, g)
            if not plist:
                return
            self._update(plist, glist, t)
        self.t = t

    def _update(self, params: list[Any], grads: list[Any], t: int) -> None:
        """Step `t` on arrays that fit together; the next one may take the fast path."""
        backend = backends.backend_of(params[0])
        self.check()
        self.init_state(params, backend)
        kernel = self.kernel()
        values = self.step_values(t, float(self.lr))
        scalars, stepped = self.scalars(kernel), {name: float(values[name]) for name in kernel.stepped}
        runs = []
        for number, (p, g) in enumerate(zip(params, grads, strict=True)):
            here = backend if number == 0 else backends.backend_of(p)
            entry = self.state[number]
            state = {}
            for name in self.arrays():
                # loaded from a state dict, or moved to another device
                if device_of(entry[name]) != device_of(p):
                    entry[name] = here.asarray(to_numpy(entry[name]))
                state[name] = entry[name]
            arrays = {"g": g, "p": p, **state}
            here.elementwise(kernel, arrays, scalars, stepped)
            runs.append(here.bind(kernel, arrays, scalars, "g"))
        # only if none of them can change but by an assignment
        constant = all(isinstance(getattr(self, f.name), (int, float, str, tuple)) for f in fields(self))
        if constant and all(runs) and all(run.around == runs[0].around for run in runs):  # on one device
            bind = partial(backend.bind_list, kernel, runs, scalars, "g") if len(runs) > 1 else None
            self._again = Again(self, kernel, params, self.state, runs, bind)
