"""The state of an optimiser: made, checked, moved, saved and loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from gpumlp.backends.arrays import device_of
from gpumlp.checks import whole
from gpumlp.kernels.optimizers.rule import Rule
from gpumlp.optimizers.arrays import state_dtype, to_numpy

__all__ = ["Stateful"]


class Stateful(Rule):
    """A rule with state arrays; see `Optimizer`."""

    t: Any
    state: list[dict[str, Any]]
    _again: Any

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
        for entry in self.state:
            for name in entry.keys() - {"_shape"}:
                if device_of(entry[name]) != backend.device:
                    self._again = None
                    entry[name] = backend.asarray(to_numpy(entry[name]))

    def _check_state(self, params: Sequence[Any]) -> None:
        name, names = type(self).__name__, set(self.arrays())
        hint = "use one optimiser object per set of parameters, or call reset()"
        shapes, held = [tuple(p.shape) for p in params], [s["_shape"] for s in self.state]
        if held != shapes:
            raise ValueError(f"{name} holds state for arrays of shapes {held} and was given {shapes}; {hint}")
        for number, (p, entry) in enumerate(zip(params, self.state, strict=True)):
            have = {n: a.dtype for n, a in entry.items() if n != "_shape"}
            if set(have) - {"master"} != names:
                raise ValueError(
                    f"{name} holds the state arrays {sorted(have)}, its options now need {sorted(names)}; "
                    "call reset() after changing them"
                )
            if "master" in have and p.dtype.itemsize > 2:
                raise TypeError(
                    f"{name} holds a float32 copy of params[{number}], which is now {p.dtype}; {hint}"
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
            if set(entry) - {"master"} != {*other.arrays(), "_shape"}:
                raise ValueError(
                    f"state arrays {sorted(set(entry) - {'_shape'})}, expected {sorted(other.arrays())}"
                )
            for name in entry.keys() - {"_shape"}:
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
