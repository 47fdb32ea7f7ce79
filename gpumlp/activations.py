"""Activations by name, and objects of one's own.  Formulas and kernels are in `kernels/activations.py`."""

from __future__ import annotations

import pickle
from typing import Any

from gpumlp.errors import register_first, suggest
from gpumlp.kernels.activations import ACTIVATIONS, Activation
from gpumlp.kernels.entry import same_entry
from gpumlp.verify import activation_gradients, check_activation_text, refuse
from gpumlp.verify.names import admit

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "activation_name",
    "carried_activations",
    "get_activation",
    "register_activation",
    "take_activations",
]

_PACKAGE = frozenset(ACTIVATIONS)


def get_activation(name: str) -> Activation:
    """The activation of that name."""
    if name not in ACTIVATIONS:
        raise ValueError(
            suggest("activation", name, ACTIVATIONS) + register_first("gpumlp.activations.ACTIVATIONS", name)
        )
    return ACTIVATIONS[name]


def activation_name(spec: Any) -> str:
    """The name of an activation, given as name or as object; one of the user's is registered on the way."""
    if isinstance(spec, type) and issubclass(spec, Activation):
        raise TypeError(f"activation={spec.__name__} is a class; expected an object of it: {spec.__name__}()")
    if isinstance(spec, Activation):
        return register_activation(spec).name
    return get_activation(spec).name


def register_activation(activation: Activation, *, check: bool = True, replace: bool = False) -> Activation:
    """See `gpumlp.register`."""

    def look() -> None:
        for name in ("forward", "derivative"):
            if not isinstance(getattr(activation, name), str):
                raise TypeError(f"activation {activation.name!r}: {name} must be C++ text")
        for name in ("f", "df"):
            if not callable(getattr(activation, name)):
                raise TypeError(f"activation {activation.name!r}: {name} must be a function on NumPy arrays")
        if check:
            refuse(activation_gradients(activation))
        check_activation_text(activation)

    return admit("activation", ACTIVATIONS, _PACKAGE, activation, activation.name, same_entry, look, replace)


def carried_activations(names: Any) -> list[Activation]:
    """Those among `names` that are the user's own and that a pickle can hold: it brings them along."""
    own = [ACTIVATIONS[name] for name in dict.fromkeys(names) if name in ACTIVATIONS and name not in _PACKAGE]
    return [activation for activation in own if _picklable(activation)]


def take_activations(carried: list[Activation]) -> None:
    """Register those that a pickle has brought along, unless their names are known."""
    for activation in carried:
        ACTIVATIONS.setdefault(activation.name, activation)


def _picklable(activation: Activation) -> bool:
    try:
        pickle.dumps(activation)
    except Exception:  # as functions without a name
        return False
    return True
