"""Training steps and forward passes as lists of operations on buffers that already exist.

A step of a network with L layers is at most 5 L operations: gather the batch's rows; per layer a gemm and an
activation (the last activation is the loss, which also gives its gradient); back through the layers two gemms
and an activation derivative each; one optimiser launch.  A backend records the list once and replays it.

What changes from step to step is in `Feed`: counters that the kernels advance, a table with one row per step
of the epoch (learning rate, bias corrections, 1 / batch weight, dropout counter) computed on the host in
double precision, and the epoch's permutation; all three travel in one copy per epoch.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpumlp.backends import Backend
from gpumlp.backends.base import Gemm, Launch, Op, Replay, Steps
from gpumlp.kernels.activations import ACTIVATIONS, backward_kernel, dropout_scalars, forward_kernel
from gpumlp.kernels.losses import evaluation_kernel, output_kernel, training_kernel
from gpumlp.kernels.rows import (
    CLIP,
    LOSS_SCALE,
    STORE_SUM,
    SUM,
    SUM_SQUARES,
    WEIGHT_SQUARES,
    gather_kernel,
    partial_rows,
)
from gpumlp.locks import free_after_fork
from gpumlp.model.mlp import pad
from gpumlp.plans.precision import GROWTH_STEPS, Precision
from gpumlp.rows.checked import check_features, is_cuda

if TYPE_CHECKING:
    from gpumlp.model.mlp import MLP
    from gpumlp.optimizers import Optimizer
    from gpumlp.training.epochs import Data, Objective

__all__ = [
    "FORWARD_BYTES",
    "FORWARD_ROWS",
    "Feed",
    "ForwardPlan",
    "Workspace",
    "evaluation_ops",
    "forward",
    "forward_bytes",
    "forward_rows",
    "optimizer_ops",
    "penalty_ops",
    "sum_ops",
    "training_ops",
]

#: most rows that a forward pass handles at a time, and what their activations may take
FORWARD_ROWS, FORWARD_BYTES = 4096, 64 << 20


def forward_bytes(model: MLP, rows: int) -> int:
    """Of the activations of `rows` rows in a forward pass; about."""
    return model.dtype.itemsize * rows * sum(n + 8 for n in model.layer_sizes)


def forward_rows(model: MLP) -> int:
    """Most rows that a forward pass of `model` handles at a time: a power of two."""
    rows = FORWARD_ROWS
    while rows > 64 and forward_bytes(model, rows) > FORWARD_BYTES:
        rows //= 2
    return rows


class Feed:
    """Counters, step table and row order: one buffer on the device, and for CUDA its image on the host.

    Parameters
    ----------
    backend : Backend
    columns : names of the table's columns
    dtype : type of the table
    n_steps, n_rows : capacity, steps and rows per epoch
    """

    def __init__(
        self, backend: Backend, columns: Sequence[str], dtype: np.dtype, n_steps: int, n_rows: int
    ) -> None:
        self.backend, self.columns = backend, tuple(columns)
        table_bytes = -(-n_steps * len(self.columns) * dtype.itemsize // 64) * 64
        self._device = backend.zeros(64 + table_bytes + 4 * n_rows, np.uint8)
        self._host = np.zeros(self._device.size, np.uint8) if is_cuda(self._device) else self._device

        def views(buffer: Any) -> tuple[Any, Any, Any]:
            table = buffer[64 : 64 + n_steps * len(self.columns) * dtype.itemsize].view(dtype)
            return (
                buffer[:16].view(np.int64),
                table.reshape(n_steps, len(self.columns)),
                buffer[64 + table_bytes :].view(np.int32),
            )

        self._step, self.table, self.order = views(self._host)
        step, table, self.index = views(self._device)
        self.steps = Steps(step, table, self.columns)

    def send(self) -> None:
        """Copy `table` and `order` to the device and start at step 0 of the table."""
        self._step[:] = 0, 1
        if self._host is not self._device:
            self.backend.copy(self._device, self._host)


class Workspace:
    """Activations and their gradients for up to `rows` rows; smaller batches use its first rows.

    a[l] is (rows, n_l), the input of layer l, followed in memory by the constant 1; z[l] the output of the
    gemm of layer l (the same buffer as a[l + 1] where the activation needs no z); d[l] the gradient with
    respect to z[l].  Their dtype is that of `precision`; with 16 bits, row strides are multiples of 8.

    full[l] is a[l] with the constant 1.  For tensor cores it has the zeros behind it as well, so that the
    inner dimension of products is a multiple of 8 (or 1, 2, 4 for narrow TF32): cuBLAS reads such rows in
    pieces of 16 bytes.
    """

    def __init__(self, model: MLP, rows: int, training: bool, precision: Precision | None = None) -> None:
        self.rows, self.model = rows, model
        self.precision = precision or Precision(model)
        backend, dtype, sizes = model.backend, self.precision.dtype, model.layer_sizes
        pad = self._pad
        self.full = [self._with_one(n) for n in sizes[:-1]]
        self.a = [full[:, :n] for full, n in zip(self.full, sizes[:-1], strict=True)]
        self.z = []
        for n, name, a in zip(sizes[1:-1], model.activations, self.a[1:], strict=True):
            self.z.append(
                backend.empty((rows, pad(n)), dtype)[:, :n] if ACTIVATIONS[name].needs_z and training else a
            )
        self.z.append(backend.empty((rows, pad(sizes[-1])), dtype)[:, : sizes[-1]])
        self.d = [backend.empty((rows, pad(n)), dtype)[:, :n] for n in sizes[1:]] if training else []

    def _pad(self, n: int) -> int:
        return pad(n) if self.precision.half is None else pad(max(n, 8))

    def _with_one(self, n: int) -> Any:
        buffer = self.model.backend.zeros((self.rows, self._pad(n + 1)), self.precision.dtype)
        buffer[:, n] = self.precision.one
        return buffer if self.precision.tensor_cores else buffer[:, : n + 1]

    def forward(self, rows: int, key: int | None = None) -> list[Op]:
        """Gemms and activations for the first `rows` rows; with `key`, dropout."""
        ops: list[Op] = []
        for n, layer in enumerate(self.model.layers):
            z = self.z[n][:rows]
            w = layer.matrix(self.precision.flat, self.full[n].shape[1])
            ops.append(Gemm(self.full[n][:rows], w, z, tf32=self.precision.tf32))
            if n < len(self.model.activations):
                kernel, scalars = self._activation(forward_kernel, n, key)
                if kernel.name != "gpumlp_identity":
                    ops.append(
                        Launch(kernel, {"z": z, "a": self.a[n + 1][:rows]}, scalars, rows, layer.n_out)
                    )
        return ops

    def backward(self, rows: int, grads: Any, key: int | None) -> list[Op]:
        """From d[-1] to `grads` (laid out as the flat buffer).

        First the gradients of all activations, which are made row by row, then those of the weights, which
        are sums over rows: executors that share the rows among threads wait only once between the two.
        """
        ops: list[Op] = []
        tf32 = self.precision.tf32
        for n in range(len(self.model.layers) - 1, 0, -1):
            layer, d, below = self.model.layers[n], self.d[n][:rows], self.d[n - 1][:rows]
            ops.append(Gemm(d, layer.matrix(self.precision.flat)[:-1], below, trans_b=True, tf32=tf32))
            kernel, scalars = self._activation(backward_kernel, n - 1, key)
            if kernel.name != "gpumlp_identity_backward":
                source = "z" if ACTIVATIONS[self.model.activations[n - 1]].needs_z else "a"
                value = (self.z[n - 1] if source == "z" else self.a[n])[:rows]
                ops.append(Launch(kernel, {source: value, "d": below}, scalars, rows, layer.n_in))
        for full, d, layer in zip(self.full, self.d, self.model.layers, strict=True):
            into = layer.matrix(grads, full.shape[1])
            ops.append(Gemm(full[:rows], d[:rows], into, trans_a=True, tf32=tf32))
        return ops

    def _activation(self, make: Any, n: int, key: int | None) -> tuple[Any, dict[str, float | int]]:
        rate = self.model.dropouts[n]
        if key is None or rate == 0:
            return make(self.model.activations[n]), {}
        return make(self.model.activations[n], True), dropout_scalars(rate, key, n)


def _gather(space: Workspace, rows: int, X: Any, index: Any, stride: int) -> Launch:
    kernel = gather_kernel(None if X.dtype == space.model.dtype else X.dtype.name)
    return Launch(
        kernel,
        {"x": space.a[0][:rows], "index": index, "X": X},
        {"stride": stride},
        rows,
        X.shape[1],
        tick="first",
    )


def _loss_scalars(kernel: Any, stride: int, objective: Objective) -> dict[str, float | int]:
    values = {"stride": stride, "per_output": objective.per_output, "delta": objective.delta}
    return {s.name: values[s.name] for s in kernel.constants}


def training_ops(
    space: Workspace,
    rows: int,
    stride: int,
    data: Data,
    feed: Feed,
    row_loss: Any,
    grads: Any,
    objective: Objective,
    key: int,
) -> list[Op]:
    """Gather, forward, loss, backward: everything up to the gradient of the data loss in `grads`."""
    scaler = space.precision.scaler
    kernel = training_kernel(objective.loss.name, data.w is not None, scaler is not None)
    arrays = {
        "z": space.z[-1][:rows],
        "d": space.d[-1][:rows],
        "index": feed.index,
        "y": data.y,
        "row_loss": row_loss,
    }
    if data.w is not None:
        arrays["w"] = data.w
    if scaler is not None:
        arrays["loss_scale"] = scaler
    scalars = _loss_scalars(kernel, stride, objective)
    return [
        _gather(space, rows, data.X, feed.index, stride),
        *space.forward(rows, key),
        Launch(kernel, arrays, scalars, rows, space.model.layer_sizes[-1]),
        *space.backward(rows, grads, key),
    ]


def optimizer_ops(
    model: MLP,
    grads: Any,
    optimizer: Optimizer,
    clip_norm: float | None,
    precision: Precision | None = None,
) -> list[Op]:
    """The optimiser launch, after the two launches of the gradient norm where clipping or loss scaling needs
    it."""
    ops: list[Op] = []
    arrays = {"g": grads, "p": model.flat}
    arrays.update((n, a) for n, a in optimizer.state[0].items() if n != "_shape")
    scaler = precision.scaler if precision else None
    half = precision.half if precision else None
    if half is not None:
        arrays["p_half"] = half
    kernel = optimizer.kernel(clip=clip_norm is not None, half=half is not None, guard=scaler is not None)
    if clip_norm is not None or scaler is not None:
        rows, cols = partial_rows(model.flat_size)
        partial = model.backend.zeros(rows, model.dtype)
        ops.append(
            Launch(
                SUM_SQUARES,
                {"values": grads, "partial": partial},
                {"n": model.flat_size, "chunk": cols},
                rows,
                cols,
            )
        )
        if scaler is not None:
            arrays["clip_scale"] = scaler[1:2]
            limits = {"limit": np.inf if clip_norm is None else clip_norm, "growth": GROWTH_STEPS}
            ops.append(Launch(LOSS_SCALE, {"partial": partial, "scaler": scaler}, limits, 1, rows))
        else:
            arrays["clip_scale"] = model.backend.zeros(1, model.dtype)
            norm = {"partial": partial, "clip_scale": arrays["clip_scale"]}
            ops.append(Launch(CLIP, norm, {"limit": clip_norm}, 1, rows))
    segments = model.segments if kernel.masked else None
    ops.append(Launch(kernel, arrays, optimizer.scalars(kernel), 1, model.flat_size, segments, tick="last"))
    return ops


def penalty_ops(model: MLP, out: Any) -> list[Op]:
    """out[k] = sum of the squared weights (not biases) before step k's update, in two launches."""
    backend, n = model.backend, model.flat_size
    is_weight = np.zeros(n, np.uint8)
    for start, stop, decay in model.segments:
        is_weight[start:stop] = decay
    rows, cols = partial_rows(n)
    partial = backend.zeros(rows, model.dtype)
    arrays = {"values": model.flat, "is_weight": backend.asarray(is_weight), "partial": partial}
    return [
        Launch(WEIGHT_SQUARES, arrays, {"n": n, "chunk": cols}, rows, cols),
        Launch(STORE_SUM, {"partial": partial, "out": out}, {}, 1, rows),
    ]


def evaluation_ops(
    space: Workspace,
    data: Data,
    feed: Feed,
    row_loss: Any,
    row_metric: Any,
    objective: Objective,
) -> list[Op]:
    """Gather, forward without dropout, loss and metric per row of the next `space.rows` rows."""
    kernel = evaluation_kernel(objective.loss.name, data.w is not None)
    arrays = {
        "z": space.z[-1],
        "index": feed.index,
        "y": data.y,
        "row_loss": row_loss,
        "row_metric": row_metric,
    }
    if data.w is not None:
        arrays["w"] = data.w
    scalars = _loss_scalars(kernel, space.rows, objective)
    return [
        _gather(space, space.rows, data.X, feed.index, space.rows),
        *space.forward(space.rows),
        Launch(kernel, arrays, scalars, space.rows, space.model.layer_sizes[-1], tick="last"),
    ]


def sum_ops(backend: Backend, values: Any, n: int, out: Any) -> list[Launch]:
    """out[0] = sum of the first `n` of `values`, in two launches and a fixed order."""
    rows, cols = partial_rows(n)
    partial, chunk = backend.empty(rows, values.dtype), max(256, rows)  # see `partial_rows`
    return [
        Launch(SUM, {"values": values, "partial": partial}, {"n": n, "chunk": cols}, rows, cols),
        Launch(SUM, {"values": partial, "partial": out}, {"n": rows, "chunk": chunk}, 1, chunk),
    ]


class ForwardPlan:
    """Forward pass of up to `rows` rows from a staging buffer, recorded once for each output function."""

    def __init__(self, model: MLP, rows: int) -> None:
        backend, n_out = model.backend, model.layer_sizes[-1]
        self.backend, self.rows = backend, rows
        self._lock = threading.RLock()  # the buffers serve one call at a time
        free_after_fork(self, "_lock")
        self.X = backend.zeros((rows, model.layer_sizes[0]), model.dtype)
        self.out = backend.zeros((rows, n_out), model.dtype)
        self.feed = Feed(backend, (), model.dtype, 1, rows)
        self.feed.order[:] = np.arange(rows)
        self.feed.send()
        self._space = Workspace(model, rows, training=False)
        self._replays: dict[str, Replay] = {}

    def _replay(self, link: str) -> Replay:
        if link not in self._replays:
            z, rows = self._space.z[-1], self.rows
            last = {"z": z, "out": self.out}
            ops: list[Op] = [
                _gather(self._space, rows, self.X, self.feed.index, 0),
                *self._space.forward(rows),
                Launch(output_kernel(link), last, {"stride": 0}, rows, z.shape[1], tick="last"),
            ]
            self._replays[link] = self.backend.record(ops, self.feed.steps)
        return self._replays[link]

    def run(self, X: Any, out: Any, link: str) -> None:
        """out[...] = link(network(X)) for at most `rows` rows; `out` is on the host, or where `X` is."""
        n = X.shape[0]
        with self._lock:
            self.backend.copy(self.X[:n], X)
            with self.backend.range("gpumlp:forward"):
                self._replay(link).run()
            if is_cuda(out) or self.backend.device == "cpu":
                self.backend.copy(out, self.out[:n])
            else:
                out[...] = self.backend.to_numpy(self.out[:n])


def forward(model: MLP, X: Any, link: str, plans: dict[int, ForwardPlan]) -> Any:
    """The network's output (n_rows, n_outputs) with `link` applied, in chunks; `plans` caches the recorded
    passes.

    The result is a CuPy array if `X` is one, else a NumPy array.
    """
    X = check_features(X, model.layer_sizes[0], model.backend, model.dtype)
    n = X.shape[0]
    xp = model.backend.xp if is_cuda(X) else np
    out = xp.empty((n, model.layer_sizes[-1]), model.dtype)
    if n == 0:
        return out
    rows = min(forward_rows(model), 1 << (n - 1).bit_length())
    if rows not in plans:
        plans[rows] = ForwardPlan(model, rows)
    for start in range(0, n, rows):
        part = slice(start, start + rows)
        plans[rows].run(X[part], out[part], link)
    return out
