"""Update rules by name.  The rules themselves, formula beside CUDA text, are in `kernels/optimizers/`."""

from __future__ import annotations

import copy

from gpumlp.errors import suggest
from gpumlp.kernels.optimizers import OPTIMIZERS, SGD, AdaGrad, Adam, AdamW, Optimizer, RMSProp

__all__ = [
    "OPTIMIZERS",
    "SGD",
    "AdaGrad",
    "Adam",
    "AdamW",
    "Optimizer",
    "RMSProp",
    "get_optimizer",
    "with_penalties",
]


def get_optimizer(spec: str | Optimizer) -> Optimizer:
    """An optimiser object: `spec` itself, or the rule of that name with its defaults."""
    if isinstance(spec, Optimizer):
        return spec
    if isinstance(spec, str):
        if spec not in OPTIMIZERS:
            raise ValueError(suggest("optimizer", spec, OPTIMIZERS))
        return OPTIMIZERS[spec]()
    raise TypeError(
        f"optimizer={spec!r}; expected a name ({', '.join(OPTIMIZERS)}) or an object such as "
        "gpumlp.Adam(lr=1e-3)"
    )


def with_penalties(optimizer: Optimizer, l1: float, l2: float, proximal: bool) -> Optimizer:
    """A copy of `optimizer` with these penalties; ValueError if it has its own already."""
    optimizer = copy.deepcopy(optimizer)
    for name, value in (("l1", l1), ("l2", l2)):
        if not isinstance(value, bool) and value == 0:
            continue
        if getattr(optimizer, name):
            raise ValueError(
                f"{name} was given twice: {value} to the Trainer and "
                f"{getattr(optimizer, name)} to the optimizer"
            )
        setattr(optimizer, name, value)
    optimizer.proximal = optimizer.proximal or bool(proximal)
    optimizer.check()
    return optimizer
