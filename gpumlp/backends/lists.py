"""Lists of arrays that are updated together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gpumlp.kernels.kernel import Kernel

__all__ = ["Part"]


@dataclass(eq=False)
class Part:
    """Arrays of one type that one launch updates.

    Parameters
    ----------
    kernel : Kernel
        Of a rule.
    scalars : dict of name -> number
    compute, stored, gradient : str
        The types C and T of the kernel, and that of the gradients: "float32", "float64", "float16" or
        "bfloat16".
    grads : list of arrays
        C-contiguous, 16-byte aligned, as all others; at each step others may take their places.
    members : list of dict of name -> array
        What the kernel reads and writes beside the gradient.
    decay : list of bool, optional
        Whether penalties apply; None: to all.
    """

    kernel: Kernel
    scalars: dict[str, float]
    compute: str
    stored: str
    gradient: str
    grads: list[Any]
    members: list[dict[str, Any]]
    decay: list[bool] | None = None
