"""Running one kernel, at once or recorded, on arrays inside larger buffers that must stay untouched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpumlp.backends.base import Steps
from gpumlp.backends.operations import Launch


def watch(monkeypatch: Any, backend: Any, method: str) -> list[bool]:
    """Grows by one with each call of `backend.<method>`: whether it gave anything but None."""
    calls: list[bool] = []
    usual = getattr(backend, method)

    def call(*arguments: Any, **named: Any) -> Any:
        given = usual(*arguments, **named)
        calls.append(given is not None)
        return given

    monkeypatch.setattr(backend, method, call)
    return calls


HOW = ["launch", "record"]
#: step of a recorded kernel: not the first, so that a kernel that forgets k is found
RECORDED_K = 2
_GUARD = 123.0


class Padded:
    """A device array (rows, cols) that is a view of a buffer with more columns and rows, all set to 123."""

    def __init__(self, backend: Any, values: Any, ld: int | None = None, dtype: Any = None) -> None:
        values = np.asarray(values, dtype)
        rows, cols = values.shape
        host = np.full((rows + 1, ld or cols + 3), _GUARD, values.dtype)
        host[:rows, :cols] = values
        self.backend, self.rows, self.cols = backend, rows, cols
        self.buffer = backend.empty(host.shape, host.dtype)
        backend.copy(self.buffer, host)
        self.view = self.buffer[:rows, :cols]

    def read(self) -> np.ndarray:
        """The values; the rest of the buffer must be as it was."""
        host = self.backend.to_numpy(self.buffer)
        assert (host[self.rows :] == _GUARD).all(), "a row behind the array was written"
        assert (host[:, self.cols :] == _GUARD).all(), "columns beside the array were written"
        return host[: self.rows, : self.cols]


class Flat:
    """A device array (n,) in the middle of a longer one whose ends are set to 123."""

    def __init__(self, backend: Any, values: Any, dtype: Any = None) -> None:
        values = np.asarray(values, dtype)
        host = np.full(len(values) + 16, _GUARD, values.dtype)
        host[8:-8] = values
        self.backend, self.buffer = backend, backend.empty(host.shape, host.dtype)
        backend.copy(self.buffer, host)
        self.view = self.buffer[8 : len(values) + 8]

    def read(self) -> np.ndarray:
        """The values; the ends must be as they were."""
        host = self.backend.to_numpy(self.buffer)
        assert (host[:8] == _GUARD).all(), "elements before the array were written"
        assert (host[-8:] == _GUARD).all(), "elements behind the array were written"
        return host[8:-8]


def run(
    backend: Any,
    how: str,
    kernel: Any,
    arrays: dict[str, Any],
    scalars: dict[str, Any] | None = None,
    stepped: dict[str, float] | None = None,
    *,
    rows: int,
    cols: int,
    segments: Sequence[tuple[int, int, float]] | None = None,
    dtype: Any = np.float64,
) -> int:
    """Run `kernel` by `backend.launch` or as a recorded plan of one operation; returns the k that it saw."""
    arrays = {n: a.view if isinstance(a, (Padded, Flat)) else a for n, a in arrays.items()}
    scalars, stepped = scalars or {}, stepped or {}
    with np.errstate(all="ignore"):  # infinities and NaN are among the inputs
        if how == "launch":
            backend.launch(kernel, arrays, scalars, stepped, rows=rows, cols=cols, segments=segments)
            backend.synchronize()
            return 0
        table = np.full((RECORDED_K + 2, max(1, len(stepped))), np.nan, dtype)
        table[RECORDED_K, : len(stepped)] = list(stepped.values())
        steps = steps_with(backend, tuple(stepped), table[:, : len(stepped)], (RECORDED_K, RECORDED_K + 1))
        op = Launch(kernel, arrays, scalars, rows, cols, segments)
        backend.record([op], steps).run()
        backend.synchronize()
    return RECORDED_K


def steps_with(
    backend: Any, columns: Sequence[str] = (), table: Any = None, counters: tuple[int, int] = (0, 1)
) -> Steps:
    """Steps with this table (n_steps, n_columns) and these counters, as `send` would leave them."""
    table = np.zeros((1, len(columns)), np.float32) if table is None else np.asarray(table)
    steps = Steps(backend, columns, table.dtype, len(table))
    steps.values[:] = table
    steps.send()
    backend.copy(steps.step, np.array(counters, np.int64))
    return steps
