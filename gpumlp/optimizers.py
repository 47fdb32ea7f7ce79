"""Update rules by name.  The rules themselves, formula beside CUDA text, are in `kernels/optimizers/`."""

from __future__ import annotations

from gpumlp.errors import suggest
from gpumlp.kernels.optimizers import OPTIMIZERS, SGD, AdaGrad, Adam, AdamW, Optimizer, RMSProp

__all__ = ["OPTIMIZERS", "SGD", "AdaGrad", "Adam", "AdamW", "Optimizer", "RMSProp", "get_optimizer"]


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
