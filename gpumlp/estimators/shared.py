"""What calls of `fit` with the same rows have in common, where many estimators are fitted to them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from sklearn.utils._param_validation import validate_parameter_constraints

from gpumlp.estimators.inputs import Samples
from gpumlp.estimators.stochastic import Training
from gpumlp.model import MLP

__all__ = ["Shared"]

_IDLE = 4  # trainings that wait for another fit; each holds buffers and plans


class Shared:
    """Rows that have been checked, and networks whose plans one fit after another uses.

    All calls are given the same X, y and sample weights, by estimators that have not been fitted before.

    Attributes
    ----------
    together : bool
        The fits wait for a plan of many, see `gpumlp.estimators.stacked`.
    """

    def __init__(self) -> None:
        self.together = False
        self._valid: dict[str, Any] = {}
        self._checked: dict[tuple, tuple[Samples, dict[str, Any]]] = {}
        self._idle: list[Training] = []
        self._answering: dict[str, MLP] = {}
        self._lock = threading.Lock()

    def validate(self, est: Any) -> None:
        """Check an estimator's parameters: those that are not of one whose parameters have been checked."""
        known = self._valid if self._valid.get("") is type(est) else {}
        params = {name: getattr(est, name) for name in est._get_param_names()}
        missing = object()
        new = {name: value for name, value in params.items() if known.get(name, missing) is not value}
        validate_parameter_constraints(est._parameter_constraints, new, caller_name=type(est).__name__)
        self._valid = {**params, "": type(est)}

    def rows(self, est: Any, check: Callable[[], Samples]) -> Samples:
        """What `check` makes of the rows for an estimator, whose attributes it sets."""
        key = type(est), *(repr(getattr(est, name, None)) for name in ("class_weight", "loss"))
        with self._lock:
            if key not in self._checked:
                before = set(vars(est))
                rows = check()
                self._checked[key] = rows, {k: v for k, v in vars(est).items() if k not in before}
        rows, attributes = self._checked[key]
        vars(est).update(attributes)
        return rows

    def training(self, fits: Callable[[Training], bool]) -> Training | None:
        """One that has been given back and `fits`."""
        with self._lock:
            for place, training in enumerate(self._idle):
                if fits(training):
                    return self._idle.pop(place)
        return None

    def give(self, training: Training) -> None:
        """Give one back: its fit has ended."""
        with self._lock:
            self._idle = [training, *self._idle[: _IDLE - 1]]

    def network(self, key: str, make: Callable[[], MLP]) -> MLP:
        """The network with which estimators answer, one at a time."""
        with self._lock:
            if key not in self._answering:
                self._answering = {key: make()}
            return self._answering[key]
