"""The precision of training steps: single precision, TF32 products, or 16 bits with float32 parameters.

In the mixed modes activations, their gradients and a copy of the parameters have 16 bits; sums of products,
losses, the gradients of the parameters, parameters and optimiser state have 32.  The optimiser's launch
writes the copy.  float16 has a narrow range, so the loss is scaled up before the gradients are taken; see
`gpumlp.kernels.rows.LOSS_SCALE`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpumlp.errors import suggest
from gpumlp.kernels.rows import CAST
from gpumlp.network import Network

__all__ = ["GROWTH_STEPS", "PRECISIONS", "Precision", "check_precision"]

#: name -> dtype of the arrays of 16 bits; NumPy has no bfloat16, so its bits are kept in uint16
PRECISIONS: dict[str, Any] = {
    "float32": None,
    "tf32": None,
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(np.uint16),
}
#: number of steps without overflow after which the loss scale is doubled
GROWTH_STEPS = 2000
_FIRST_SCALE = 2.0**16
_BFLOAT16_ONE = 0x3F80


def check_precision(name: Any) -> str:
    """`name`, or ValueError."""
    if not isinstance(name, str) or name not in PRECISIONS:
        raise ValueError(suggest("precision", name, PRECISIONS))
    return name


class Precision:
    """What the products of a model's training steps read and write.

    Parameters
    ----------
    network : Network
    name : str
        One of `PRECISIONS`; "float32" means the model's dtype.
    scaler : array (4,) of the model's dtype, optional
        Room for the state of the loss scaling, which only float16 has; for members (members, 4).

    Attributes
    ----------
    dtype : numpy.dtype
        Type of activations and their gradients.
    half : array (flat_size,) or None
        Copy of the parameters in `dtype`, in the mixed modes.
    scaler : array (4,) or None
        For float16, see `LOSS_SCALE`: [scale, factor, good steps, skipped steps].
    tf32 : bool
    tensor_cores : bool
        Products are done by tensor cores.

    Raises
    ------
    ValueError
        The model's device or dtype does not have this precision.
    """

    def __init__(self, network: Network, name: str = "float32", scaler: Any = None) -> None:
        self.network, self.name, self.tf32 = network, name, name == "tf32"
        if name != "float32" and network.backend.name != "cuda":
            raise ValueError(
                f"precision={name!r} needs device='cuda'; "
                f"the model is on {network.device} ({network.backend.name})"
            )
        if name != "float32" and network.dtype != np.float32:
            raise ValueError(
                f"precision={name!r} needs a model of dtype 'float32'; this one is {network.dtype}"
            )
        stored, backend = PRECISIONS[name], network.backend
        if name == "bfloat16" and float(backend.info()["compute capability"]) < 8:
            raise ValueError(
                "precision='bfloat16' needs a GPU of compute capability 8.0 or later, this one has "
                f"{backend.info()['compute capability']}; use precision='float16'"
            )
        self.dtype = network.dtype if stored is None else stored
        self.half = None if stored is None else backend.zeros(network.flat.shape, stored)
        self.tensor_cores = name != "float32"
        self.scaler: Any = None
        if name == "float16":
            self.scaler = backend.zeros((*network.lead, 4), network.dtype) if scaler is None else scaler
            start = np.zeros(self.scaler.shape, network.dtype)
            start[..., 0] = _FIRST_SCALE
            backend.copy(self.scaler, start)

    @property
    def flat(self) -> Any:
        """Parameters that products read."""
        return self.network.flat if self.half is None else self.half

    @property
    def one(self) -> int:
        """The number 1 as it is stored."""
        return _BFLOAT16_ONE if self.name == "bfloat16" else 1

    def refresh(self) -> None:
        """Copy the parameters to `half`: before the first step, and whenever something else changed them."""
        if self.half is not None:
            arrays = {"p": self.network.flat, "p_half": self.half}
            network = self.network
            network.backend.launch(CAST, arrays, {}, rows=1, cols=network.flat_size, members=network.members)

    def loss_scale(self) -> tuple[float, int]:
        """(loss scale, steps skipped so far), read from the device; (1, 0) without loss scaling."""
        if self.scaler is None:
            return 1.0, 0
        values = self.network.backend.to_numpy(self.scaler)
        return float(values[0]), int(values[3])
