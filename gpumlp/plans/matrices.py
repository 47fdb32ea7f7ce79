"""A step of Muon in a plan: operations for the weights of each layer, and one launch for each stretch of the
flat buffer that holds anything else."""

from __future__ import annotations

from typing import Any

from gpumlp.backends.base import Launch, Op
from gpumlp.network import Network
from gpumlp.optimizers import Muon, newton_schulz

__all__ = ["muon_ops"]


def muon_ops(
    network: Network, optimizer: Muon, arrays: dict[str, Any], *, clip: bool, half: bool, guard: bool
) -> list[Op]:
    """The operations after those of clipping; `arrays` are what the kernel of `optimizer` takes."""
    ops: list[Op] = []
    backend, direction = network.backend, optimizer.direction_kernel(clip=clip, guard=guard)
    scale = {"clip_scale": arrays["clip_scale"]} if "clip_scale" in arrays else {}
    for layer in network.layers:
        n, m = layer.n_in, layer.n_out
        at = {name: layer.matrix(a)[:-1] for name, a in arrays.items() if name != "clip_scale"}
        # the direction lies in a matrix with the rows of the layer's, so that all are read alike
        o = backend.zeros((n, layer.ld), network.dtype)[:, :m]
        own = {"g": at["g"], "p": at["p"], "v": at["v"], "o": o, **scale}
        given = {a.name: own[a.name] for a in direction.arrays}
        columns = [(0, m, 1.0)]
        masked = columns if direction.masked else None
        ops.append(Launch(direction, given, optimizer.scalars(direction), n, m, masked))
        ops += newton_schulz(backend, o, optimizer.ns_steps)
        applied = optimizer.applied(n, m)
        kernel = applied.kernel(half=half, guard=guard)
        moved = {name: at[name] for name in ("p", "p_half", "average") if name in at}
        moved.update(scale if guard else {})
        ops.append(
            Launch(
                kernel,
                {"g": o, **moved},
                applied.scalars(kernel),
                n,
                m,
                columns if kernel.masked else None,
            )
        )
    return [*ops, *_rest(network, optimizer, arrays, clip=clip, half=half, guard=guard)]


def _rest(network: Network, optimizer: Muon, arrays: dict[str, Any], **kind: bool) -> list[Op]:
    """AdamW on what is between the layers' weights: one launch for each stretch, the last one at the end."""
    kernel = optimizer.kernel(**kind)
    weights = [(layer.offset, layer.offset + layer.n_in * layer.ld) for layer in network.layers]
    starts, stops = [0, *(stop for _, stop in weights)], [*(start for start, _ in weights), network.flat_size]
    ops: list[Op] = []
    for start, stop in zip(starts, stops, strict=True):
        if start == stop:
            continue
        inside = [
            (max(a, start) - start, min(b, stop) - start, decay)
            for a, b, decay in network.segments
            if max(a, start) < min(b, stop)
        ]
        parts = {name: a if name == "clip_scale" else a[start:stop] for name, a in arrays.items()}
        segments = inside if kernel.masked else None
        ops.append(Launch(kernel, parts, optimizer.scalars(kernel), 1, stop - start, segments))
    last = ops[-1]
    assert isinstance(last, Launch)
    last.tick = "last"
    return ops
