"""The contract between rows and kernels: compiled code reads wherever it is told to, so this is checked
whenever plans are recorded or their buffers are filled."""

from __future__ import annotations

import numpy as np

from gpumlp.kernels.kernel import FIXED
from gpumlp.network import Network
from gpumlp.plans.objective import Objective
from gpumlp.rows import Rows

__all__ = ["check_contract", "check_order"]


def check_contract(rows: Rows, network: Network, objective: Objective) -> None:
    """ValueError unless kernels for `network` and `objective` may read `rows`; all on one device."""
    n, (n_in, *_, n_out) = rows.X.shape[0], network.layer_sizes
    _check("X", rows.X, (n, n_in), {network.dtype.name, *FIXED})
    if objective.loss.classes:
        _check("y", rows.y, (n,), {"int32"})
        if isinstance(rows.y, np.ndarray):
            check_order(rows.y, n_out, "y")
    else:
        _check("y", rows.y, (n, objective.loss.targets(n_out)), {network.dtype.name})
    if rows.w is not None:
        _check("w", rows.w, (n,) if rows.w.ndim == 1 else (*network.lead, n), {network.dtype.name})
    if rows.index is not None:
        _check("index", rows.index, (rows.n_rows,), {"int32"})
        check_order(rows.index, n, "index")


def check_order(numbers: np.ndarray, limit: int, name: str = "order") -> None:
    """ValueError unless all of `numbers` (int32) are at least 0 and less than `limit`."""
    if numbers.size and int(numbers.view(np.uint32).max()) >= limit:
        raise ValueError(
            f"{name} has numbers from {numbers.min()} to {numbers.max()}; expected 0 to {limit - 1}"
        )


def _check(name: str, array: object, shape: tuple[int, ...], dtypes: set[str]) -> None:
    given = getattr(array, "shape", None), str(getattr(array, "dtype", type(array).__name__))
    if given[0] != shape or given[1] not in dtypes or not array.flags.c_contiguous:  # type: ignore[attr-defined]
        raise ValueError(
            f"{name} is {given[1]} of shape {given[0]}; kernels of this plan read a C-contiguous array "
            f"of shape {shape} and type {' or '.join(sorted(dtypes))}"
        )
