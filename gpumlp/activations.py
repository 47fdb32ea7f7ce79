"""Activations by name.  Formulas and kernels are in `kernels/activations.py`."""

from __future__ import annotations

from gpumlp.errors import suggest
from gpumlp.kernels.activations import ACTIVATIONS, Activation

__all__ = ["ACTIVATIONS", "Activation", "get_activation"]


def get_activation(name: str) -> Activation:
    """The activation of that name."""
    if name not in ACTIVATIONS:
        raise ValueError(
            suggest("activation", name, ACTIVATIONS)
            + f" An activation of your own must be in gpumlp.activations.ACTIVATIONS[{name!r}] first."
        )
    return ACTIVATIONS[name]
