"""The fast path of repeated calls of `Optimizer.update`: it keeps what the last call found out."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any

from gpumlp.kernels.kernel import Kernel
from gpumlp.kernels.optimizers.rule import Rule

__all__ = ["Again"]

_INFINITY, _LISTS = math.inf, (list, tuple)


class Again:
    """`update` without its preparations, for the hyper-parameters, parameters and state of the last call.

    Parameters
    ----------
    rule : Rule
    kernel : Kernel
        The rule's kernel.
    params : sequence of arrays
        Not kept alive.
    states : list of dict
        For each parameter its state arrays by name.
    runs : list
        For each parameter what `Backend.bind` returned.
    bind : callable, optional
        Combines all of `runs` into one call, if that is possible.
    """

    def __init__(
        self,
        rule: Rule,
        kernel: Kernel,
        params: Sequence[Any],
        states: list[dict[str, Any]],
        runs: list[Any],
        bind: Callable[[], Any] | None,
    ) -> None:
        self.references, self.runs = [weakref.ref(p) for p in params], runs
        self.around = runs[0].around
        #: makes `together` when it is first needed
        self.bind = bind
        self.together: Any = None
        #: state arrays as (number of the parameter, name, array); `runs` know addresses only
        self.state = [
            (number, name, entry[name]) for number, entry in enumerate(states) for name in rule.arrays()
        ]
        #: all hyper-parameters but lr, which is read for every step
        self.read = attrgetter(*(f.name for f in fields(rule) if f.name != "lr"))
        self.values = self.read(rule)
        self.direct = rule.average == 0  # then `per_step` adds nothing
        own = rule.per_step(1, 0.0)
        # behind the rule's own values, in the kernel's order: penalties
        self.fixed = [float(getattr(rule, name)) for name in kernel.stepped if name not in own]

    def __call__(self, rule: Rule, t: int, states: list[dict[str, Any]], params: Any, grads: Any) -> bool:
        """Whether step `t` could be done; nothing has changed otherwise."""
        try:
            if self.read(rule) != self.values:
                return False
        except ValueError:  # an array among them
            return False
        lr = rule.lr
        if type(lr) is not float:
            lr = _as_float(lr)
        places = self._places(states, params, grads) if 0.0 <= lr < _INFINITY else None
        if places is None:
            return False
        values = [*(rule.stepped if self.direct else rule.per_step)(t, lr).values(), *self.fixed]
        if self.around is None:
            for run, place in zip(self.runs, places):  # noqa: B905 - `strict` takes 0.2 us
                run(place, values)
            return True
        if self.bind is not None:
            self.together, self.bind = self.bind(), None
        with self.around():
            if self.together is None or not self.together(places, values):
                for run, place in zip(self.runs, places):  # noqa: B905
                    run(place, values)
        return True

    def _places(self, states: list[dict[str, Any]], params: Any, grads: Any) -> list[Any] | None:
        if type(params) not in _LISTS:
            params = (params,)
        if type(grads) not in _LISTS:
            grads = (grads,)
        if not len(params) == len(grads) == len(self.runs) == len(states):
            return None
        for number, name, array in self.state:  # it may have been loaded, moved or replaced by hand
            if states[number].get(name) is not array:
                return None
        places = []
        for held, run, p, g in zip(self.references, self.runs, params, grads):  # noqa: B905
            if held() is not p:
                return None
            place = run.place(g, p)
            if place is None:
                return None
            places.append(place)
        return places


def _as_float(lr: Any) -> float:
    return float(lr) if isinstance(lr, (int, float)) and not isinstance(lr, bool) else math.nan
