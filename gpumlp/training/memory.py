"""How much device memory a training needs, and whether its rows fit beside that."""

from __future__ import annotations

from gpumlp.backends import Backend
from gpumlp.network import Network
from gpumlp.optimizers import Optimizer
from gpumlp.plans import Precision, forward_bytes, forward_rows
from gpumlp.rows import Rows, resident_dtype

__all__ = ["check_memory", "fixed_bytes", "plan_memory", "row_bytes", "usable_bytes"]

_MIB = 1 << 20
_CHUNK_BYTES = 256 * _MIB  # the host makes a copy of every chunk
_SHARE = 0.9  # of the available memory that is planned for: pools round sizes up


def row_bytes(network: Network, rows: Rows) -> int:
    """Bytes of one row of data on the model's device."""
    X, y, w = rows.X, rows.y, rows.w
    per_target = y.dtype.itemsize * (y.shape[1] if y.ndim > 1 else 1)
    per_input = resident_dtype(X, network.backend, network.dtype).itemsize
    return per_input * X.shape[1] + per_target + (0 if w is None else w.dtype.itemsize)


def fixed_bytes(
    network: Network, optimizer: Optimizer, batch: int, precision: Precision | None = None, evaluated: int = 0
) -> int:
    """Estimate of what training needs besides the rows: parameters, gradients, state, activations, and the
    activations of `evaluated` validation rows."""
    size = network.dtype.itemsize
    half = 0 if precision is None or precision.half is None else precision.half.nbytes
    # parameters, gradients, the best parameters; the state
    arrays = 3 + len(optimizer.arrays()) + optimizer.scratch
    widths = sum(3 * (n + 8) for n in network.widths)
    evaluation = forward_bytes(network, min(evaluated, forward_rows(network)))
    return half + size * (arrays * network.flat_size + widths * batch) + evaluation


def usable_bytes(backend: Backend) -> int | None:
    """Memory of the device that plans may use; None for the host."""
    available = backend.available_bytes()
    return None if available is None else int(available * _SHARE)


def plan_memory(
    network: Network, fixed: int, batch: int, n_rows: int, per_row: int, streaming: bool | None, what: str
) -> int | None:
    """Rows per chunk, a multiple of `batch`, or None if all rows can be on the device.

    Parameters
    ----------
    fixed, per_row : int
        Bytes that are needed besides the rows, and for each row on the device.
    what : str
        For the message: "training" or "evaluation".

    Raises
    ------
    MemoryError
        The fixed part and one batch do not fit; the message says how much is needed and what to lower.
    """
    budget = usable_bytes(network.backend)
    if budget is None:
        return max(batch, n_rows // 4 // batch * batch) if streaming else None
    per_row += network.dtype.itemsize + 4  # its loss, its place in the order
    if not streaming and (streaming is False or fixed + n_rows * per_row <= budget):
        return None
    chunk = (budget - fixed) // 2 // per_row // batch * batch
    if chunk < batch:
        need = fixed + 2 * batch * per_row
        lower = "batch_size or the network's size" if what == "training" else "the network's size"
        raise MemoryError(
            f"{what} needs about {need / _MIB:,.1f} MiB on {network.device} "
            f"({network.n_params:,} parameters, batches of {batch} rows), {max(0, budget) / _MIB:,.1f} MiB "
            f"can be used. Lower {lower}, or call gpumlp.free_memory()"
        )
    chunk = min(chunk, max(1, _CHUNK_BYTES // per_row // batch) * batch)
    return min(chunk, -(-n_rows // batch) * batch)


def check_memory(network: Network, fixed: int, n_rows: int, per_row: int, lower: str) -> None:
    """MemoryError if so many rows do not fit on the device besides `fixed` bytes; see `plan_memory`."""
    budget = usable_bytes(network.backend)
    need = fixed + n_rows * (per_row + network.dtype.itemsize + 4)
    if budget is not None and need > budget:
        raise MemoryError(
            f"rows of a source need about {need / _MIB:,.1f} MiB on {network.device} at a time "
            f"({network.n_params:,} parameters, {n_rows} rows), {max(0, budget) / _MIB:,.1f} MiB can be "
            f"used. Lower {lower} or the network's size, or call gpumlp.free_memory()"
        )
