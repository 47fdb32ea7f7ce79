"""Training steps and evaluations as lists of operations on buffers that already exist.

A step of a network with L layers is at most 5 L operations: gather the batch's rows; per layer a gemm and an
activation (the last activation is the loss, which also gives its gradient); back through the layers two gemms
and an activation derivative each; one optimiser launch.  A backend records the list once and replays it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpumlp.backends.base import Backend, Steps
from gpumlp.backends.operations import Launch, Op
from gpumlp.kernels.losses import evaluation_kernel, training_kernel
from gpumlp.kernels.rows import (
    CAST,
    CLIP,
    EXCHANGE,
    LOSS_SCALE,
    NOT_FINITE,
    STORE_SUM,
    SUM,
    SUM_SQUARES,
    WEIGHT_SQUARES,
    gather_kernel,
    partial_rows,
)
from gpumlp.network import Network
from gpumlp.optimizers import Muon, StackedOptimizer
from gpumlp.plans.matrices import muon_ops
from gpumlp.plans.members import launch
from gpumlp.plans.objective import Objective
from gpumlp.plans.precision import GROWTH_STEPS, Precision
from gpumlp.plans.workspace import Workspace
from gpumlp.rows import Rows

__all__ = [
    "evaluation_ops",
    "exchange_ops",
    "gather",
    "not_finite_ops",
    "optimizer_ops",
    "penalty_ops",
    "sum_ops",
    "training_ops",
]


def gather(space: Workspace, n: int, X: Any, index: Any, stride: int) -> Launch:
    """Copy the next `n` rows of `X`, with the numbers index[k stride:], to the network's input."""
    if space.embedded:
        return space.embedded.gather(n, X, index, stride)
    kernel = gather_kernel(None if X.dtype == space.network.dtype else X.dtype.name)
    arrays = {"x": space.a[0][..., :n, :], "index": index, "X": X}
    extents = {"X": (1, space.network.layer_sizes[0]), "index": (n,)}
    more: dict[str, Any] = {"shared": ["X"], "tick": "first", "extents": extents}
    return launch(space.network, kernel, arrays, {"stride": stride}, n, X.shape[1], **more)


def _loss(
    kernel: Any,
    space: Workspace,
    n: int,
    stride: int,
    rows: Rows,
    steps: Steps,
    objective: Objective,
    start: int = 0,
    **own: Any,
) -> Launch:
    """The launch of a loss kernel on `n` rows; `own` are the arrays that only this kernel has."""
    arrays = {"z": space.z[-1][..., :n, :], "index": steps.index[..., start:], "y": rows.y, **own}
    if rows.w is not None:
        arrays["w"] = rows.w
    loss, n_out, given = objective.loss, space.network.layer_sizes[-1], rows.X.shape[0]
    if loss.levels:
        arrays["delta"] = space.network.backend.asarray(np.array(objective.delta, space.network.dtype))
    values = {"stride": stride, "per_output": objective.per_output, "delta": objective.delta}
    values["centre"] = objective.centre
    scalars = {s.name: values[s.name] for s in kernel.constants}
    extents = {
        "y": (given,) if loss.classes else (given, loss.targets(n_out)),
        "delta": (n_out,),
        "w": (given,),
        "index": (n,),
        "row_loss": (n,),
        "row_metric": (n,),
    }
    extents = {name: shape for name, shape in extents.items() if name in arrays}
    shared = ["y", *(["w"] if rows.w is not None and rows.w.ndim == 1 else []), *(["delta"] * loss.levels)]
    return launch(space.network, kernel, arrays, scalars, n, n_out, shared=shared, extents=extents)


def training_ops(
    space: Workspace,
    n: int,
    stride: int,
    rows: Rows,
    steps: Steps,
    row_loss: Any,
    grads: Any,
    objective: Objective,
    key: Any,
    start: int = 0,
) -> list[Op]:
    """Gather, forward, loss, backward: everything up to the gradient of the data loss in `grads`.

    Parameters
    ----------
    space : Workspace
    n, stride : int
        Rows of this plan's steps, and of full batches: step k begins at place k stride of the order.
    rows : Rows
        On the network's device.
    steps : Steps
    row_loss : array (n_rows,)
        Receives the loss of each row, in the order of the epoch.
    grads : array (flat_size,)
        Receives the gradient.
    key : int
        Key of the dropout masks; of members one each.
    start : int
        The place in the batch of the first of the `n` rows, if they are only a part of it.
    """
    scaler = space.precision.scaler
    kernel = training_kernel(objective.loss.name, rows.w is not None, scaler is not None)
    own = {"d": space.d[-1][..., :n, :], "row_loss": row_loss[..., start:]}
    if scaler is not None:
        own["loss_scale"] = scaler
    return [
        gather(space, n, rows.X, steps.index[..., start:], stride),
        *space.forward(n, key, start),
        _loss(kernel, space, n, stride, rows, steps, objective, start, **own),
        *space.backward(n, grads, key, start),
    ]


def evaluation_ops(
    space: Workspace, rows: Rows, steps: Steps, row_loss: Any, row_metric: Any, objective: Objective
) -> list[Op]:
    """Gather, forward without dropout, loss and metric per row of the next `space.rows` rows."""
    kernel, n = evaluation_kernel(objective.loss.name, rows.w is not None), space.rows
    last = _loss(kernel, space, n, n, rows, steps, objective, row_loss=row_loss, row_metric=row_metric)
    last.tick = "last"
    return [gather(space, n, rows.X, steps.index, n), *space.forward(n), last]


def optimizer_ops(
    network: Network,
    grads: Any,
    optimizer: Any,
    clip_norm: Any,
    precision: Precision | None = None,
) -> list[Op]:
    """The optimiser launch, after the two launches of the gradient norm where clipping or loss scaling needs
    it.

    Parameters
    ----------
    optimizer : Optimizer or StackedOptimizer
    clip_norm : float, or a list with one for each member, or None
    """
    ops: list[Op] = []
    arrays = {"g": grads, "p": network.flat}
    arrays.update((n, a) for n, a in optimizer.state[0].items() if n != "_shape")
    scaler = precision.scaler if precision else None
    half = precision.half if precision else None
    if half is not None:
        arrays["p_half"] = half
    kernel = optimizer.kernel(clip=clip_norm is not None, half=half is not None, guard=scaler is not None)
    if clip_norm is not None or scaler is not None:
        rows, cols = partial_rows(network.flat_size)
        partial = network.backend.zeros((*network.lead, rows), network.dtype)
        sizes = {"n": network.flat_size, "chunk": cols}
        ops.append(launch(network, SUM_SQUARES, {"values": grads, "partial": partial}, sizes, rows, cols))
        if scaler is not None:
            arrays["clip_scale"] = scaler[..., 1:2]
            limits = {"limit": np.inf if clip_norm is None else clip_norm, "growth": GROWTH_STEPS}
            ops.append(launch(network, LOSS_SCALE, {"partial": partial, "scaler": scaler}, limits, 1, rows))
        else:
            arrays["clip_scale"] = network.backend.zeros((*network.lead, 1), network.dtype)
            norm = {"partial": partial, "clip_scale": arrays["clip_scale"]}
            ops.append(launch(network, CLIP, norm, {"limit": clip_norm}, 1, rows))
    rule = optimizer.widest if isinstance(optimizer, StackedOptimizer) else optimizer
    if isinstance(rule, Muon):
        kind = {"clip": clip_norm is not None, "half": half is not None, "guard": scaler is not None}
        return [*ops, *muon_ops(network, optimizer, rule, arrays, **kind)]
    segments = network.segments if kernel.masked else None
    scalars = optimizer.scalars(kernel)
    ops.append(launch(network, kernel, arrays, scalars, 1, network.flat_size, segments=segments, tick="last"))
    return ops


def exchange_ops(network: Network, optimizer: Any, precision: Precision) -> list[Op]:
    """Exchange the parameters with their moving averages; none where the optimiser keeps none."""
    average = optimizer.state[0].get("average")
    if average is None:
        return []
    n, flat = network.flat_size, network.flat
    ops: list[Op] = [launch(network, EXCHANGE, {"a": flat, "b": average}, {}, 1, n)]
    if precision.half is not None:
        ops.append(launch(network, CAST, {"p": flat, "p_half": precision.half}, {}, 1, n))
    return ops


def penalty_ops(network: Network, out: Any) -> list[Op]:
    """out[k] = sum of the squared weights (not biases) before step k's update, in two launches."""
    backend, n = network.backend, network.flat_size
    is_weight = np.zeros(n, np.uint8)
    for start, stop, decay in network.segments:
        is_weight[start:stop] = decay
    rows, cols = partial_rows(n)
    partial = backend.zeros((*network.lead, rows), network.dtype)
    arrays = {"values": network.flat, "is_weight": backend.asarray(is_weight), "partial": partial}
    sizes = {"n": n, "chunk": cols}
    return [
        launch(network, WEIGHT_SQUARES, arrays, sizes, rows, cols, shared=["is_weight"]),
        launch(network, STORE_SUM, {"partial": partial, "out": out}, {}, 1, rows),
    ]


def sum_ops(backend: Backend, values: Any, n: Any, out: Any, kernel: Any = SUM) -> list[Launch]:
    """out[0] = sum of the first `n` of `values` (or of what `kernel` makes of them), in two launches and a
    fixed order; of members each has these arrays, and maybe a number of its own."""
    rows, cols = partial_rows(int(np.max(n)))
    members = len(values) if values.ndim == 2 else None
    partial = backend.empty((*values.shape[:-1], rows), values.dtype)
    first, second = {"values": values, "partial": partial}, {"values": partial, "partial": out}
    chunk = max(256, rows)  # see `partial_rows`
    return [
        Launch(kernel, first, {"n": n, "chunk": cols}, rows, cols, members=members),
        Launch(SUM, second, {"n": rows, "chunk": chunk}, 1, chunk, members=members),
    ]


def not_finite_ops(network: Network, out: Any) -> list[Launch]:
    """out[0] = number of parameters that are NaN or infinite (beyond 2^24: about), in two launches."""
    return sum_ops(network.backend, network.flat, network.flat_size, out, NOT_FINITE)
