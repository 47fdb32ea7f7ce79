"""Forward passes: recorded once for each number of rows and output function."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from gpumlp.backends.arrays import is_cuda
from gpumlp.backends.base import Plan, Steps
from gpumlp.backends.operations import Launch, Op
from gpumlp.kernels.losses import output_kernel
from gpumlp.locks import free_after_fork
from gpumlp.network import Network
from gpumlp.plans.operations import gather
from gpumlp.plans.workspace import Workspace
from gpumlp.rows import RowSource, check_features, pieces

__all__ = ["FORWARD_BYTES", "FORWARD_ROWS", "OUTPUTS", "Forward", "forward_bytes", "forward_rows"]

#: most rows that a forward pass handles at a time, and how much memory their activations may take
FORWARD_ROWS, FORWARD_BYTES = 4096, 64 << 20
#: what may be applied to a network's output
OUTPUTS = ("identity", "softmax", "sigmoid", "exp", "sorted")


def forward_bytes(network: Network, rows: int) -> int:
    """Approximate size of the activations of `rows` rows in a forward pass."""
    return network.dtype.itemsize * rows * sum(n + 8 for n in network.widths)


def forward_rows(network: Network) -> int:
    """Most rows that a forward pass of `network` (of all its members) handles at a time: a power of two."""
    rows = FORWARD_ROWS
    while rows > 64 and (network.members or 1) * forward_bytes(network, rows) > FORWARD_BYTES:
        rows //= 2
    return rows


class Forward:
    """The forward passes of a network whose parameters and activations stay the same.

    Several threads may call one object; they take turns.
    """

    def __init__(self, network: Network) -> None:
        network.check()
        self.network, self.flat, self.activations = network, network.flat, list(network.activations)
        self._passes: dict[int, _Pass] = {}

    def serves(self, network: Network) -> bool:
        """Whether these are still the forward passes of `network`."""
        return network.flat is self.flat and network.activations == self.activations

    def __call__(self, X: Any, link: str) -> Any:
        """The network's output (n_rows, n_outputs) with `link` applied, in chunks: a CuPy array if `X` is
        one, else a NumPy array.  `X` may be a `RowSource`."""
        network = self.network
        if isinstance(X, RowSource):
            return self._of_source(X, link)
        n_in, codes = network.layer_sizes[0], network.categories
        X = check_features(X, n_in, network.backend, network.dtype, categories=codes)
        n = X.shape[0]
        xp = network.backend.xp if is_cuda(X) else np
        out = xp.empty((n, network.layer_sizes[-1]), network.dtype)
        if n == 0:
            return out
        rows = min(forward_rows(network), 1 << (n - 1).bit_length())
        if rows not in self._passes:
            self._passes[rows] = _Pass(network, rows)
        for start in range(0, n, rows):
            part = slice(start, start + rows)
            self._passes[rows].run(X[part], out[part], link)
        return out

    def _of_source(self, source: RowSource, link: str) -> np.ndarray:
        out = np.empty((source.n_rows, self.network.layer_sizes[-1]), self.network.dtype)
        end = 0
        for group in range(len(source.groups)):
            for X, _, _ in pieces(source, group):
                start, end = end, end + len(X)
                try:
                    out[start:end] = self(X, link)
                except ValueError as error:
                    raise ValueError(f"{source.place(group)}: {error}") from None
        return out


class _Pass:
    """Forward pass of up to `rows` rows from a staging buffer."""

    def __init__(self, network: Network, rows: int) -> None:
        backend, n_out = network.backend, network.layer_sizes[-1]
        self.backend, self.rows = backend, rows
        self._lock = threading.RLock()  # the buffers serve one call at a time
        free_after_fork(self, "_lock")
        self.X = backend.zeros((rows, network.layer_sizes[0]), network.dtype)
        self.out = backend.zeros((rows, n_out), network.dtype)
        self.steps = Steps(backend, n_rows=rows)
        self.steps.order[:] = np.arange(rows)
        self.steps.send()
        self._space = Workspace(network, rows, training=False)
        self._plans: dict[str, Plan] = {}

    def _plan(self, link: str) -> Plan:
        if link not in self._plans:
            z, rows = self._space.z[-1], self.rows
            last = {"z": z, "out": self.out}
            ops: list[Op] = [
                gather(self._space, rows, self.X, self.steps.index, 0),
                *self._space.forward(rows),
                Launch(output_kernel(link), last, {"stride": 0}, rows, z.shape[1], tick="last"),
            ]
            self._plans[link] = self.backend.record(ops, self.steps)
        return self._plans[link]

    def run(self, X: Any, out: Any, link: str) -> None:
        """out[...] = link(network(X)) for at most `rows` rows; `out` is on the host, or where `X` is."""
        n = X.shape[0]
        with self._lock:
            self.backend.copy(self.X[:n], X)
            with self.backend.range("gpumlp:forward"):
                self._plan(link).run()
            if is_cuda(out) or self.backend.device == "cpu":
                self.backend.copy(out, self.out[:n])
            else:
                out[...] = self.backend.to_numpy(self.out[:n])
