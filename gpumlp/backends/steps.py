"""`Steps`: what changes from step to step of a plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["Steps"]


class Steps:
    """Counters, step table and row order of a plan: one buffer on the device, and for CUDA its image on the
    host.

    A plan's arguments are frozen, so kernels read what changes from here.

    Parameters
    ----------
    backend : Backend
    columns : sequence of str
        Names of the table's columns.
    dtype : numpy.dtype
        Type of the table.
    n_steps, n_rows : int
        Capacity: steps and rows per epoch.
    members : int, optional
        Each has values and an order of its own: `table` is (n_steps, members, n_columns), `index` is
        (members, n_rows).

    Attributes
    ----------
    step : int64 array (2,), on the device
        [steps done, number of the running step + 1], which the kernels advance; see `Launch.tick`.
    table : array (n_steps, n_columns), on the device
        Values of each step.
    index : int32 array (n_rows,), on the device
        Row numbers in the order of the epoch.
    values, order : arrays on the host
        What `send` copies to `table` and `index`; on the CPU they are the same arrays.
    """

    def __init__(
        self,
        backend: Any,
        columns: Sequence[str] = (),
        dtype: Any = np.float32,
        n_steps: int = 1,
        n_rows: int = 0,
        members: int | None = None,
    ) -> None:
        if members is not None and members < 1:
            raise ValueError(f"steps: members={members}; expected at least 1, or None")
        dtype = np.dtype(dtype)  # float32 or float64
        self.backend, self.columns, self.members = backend, tuple(columns), members
        axis = () if members is None else (members,)
        used = n_steps * (members or 1) * len(self.columns) * dtype.itemsize
        start = 64 + -(-used // 64) * 64  # of the order
        self._device = backend.zeros(start + 4 * (members or 1) * n_rows, np.uint8)
        self._host = (
            self._device if isinstance(self._device, np.ndarray) else np.zeros(self._device.size, np.uint8)
        )

        def views(buffer: Any) -> tuple[Any, Any, Any]:
            table = buffer[64 : 64 + used].view(dtype).reshape(n_steps, *axis, len(self.columns))
            return buffer[:16].view(np.int64), table, buffer[start:].view(np.int32).reshape(*axis, n_rows)

        self._start, self.values, self.order = views(self._host)
        self.step, self.table, self.index = views(self._device)

    def fill(self, table: dict[str, np.ndarray]) -> None:
        """Write the columns of `values` from arrays (n_steps,) by name; others in `table` are not read.

        Of members, the arrays are (n_steps, members), or (n_steps, 1) where all have the same.
        """
        with np.errstate(over="ignore"):  # a learning rate beyond float32 is infinite
            for j, name in enumerate(self.columns):
                self.values[..., j] = table[name]

    def send(self) -> None:
        """Copy `values` and `order` to the device and start at step 0 of the table."""
        self._start[:] = 0, 1
        if self._host is not self._device:
            self.backend.copy(self._device, self._host)
