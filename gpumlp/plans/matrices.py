"""A step of Muon in a plan: operations for the weights of each layer, and one launch for each stretch of the
flat buffer that holds anything else."""

from __future__ import annotations

from typing import Any

from gpumlp.backends.operations import Launch, Op
from gpumlp.network import Network, Stack
from gpumlp.optimizers import Muon, newton_schulz
from gpumlp.plans.members import launch

__all__ = ["muon_ops"]


def muon_ops(
    network: Network,
    optimizer: Any,
    rule: Muon,
    arrays: dict[str, Any],
    *,
    clip: bool,
    half: bool,
    guard: bool,
) -> list[Op]:
    """The operations after those of clipping; `arrays` are what the kernel of `optimizer` takes.

    `rule` is the optimiser, or the `widest` of those that are stacked.
    """
    ops: list[Op] = []
    backend, direction = network.backend, rule.direction_kernel(clip=clip, guard=guard)
    scale = {"clip_scale": arrays["clip_scale"]} if "clip_scale" in arrays else {}
    for number, layer in enumerate(network.layers):
        n, m = layer.n_in, layer.n_out
        at = {name: layer.matrix(a)[..., :-1, :] for name, a in arrays.items() if name != "clip_scale"}
        # the direction lies in a matrix with the rows of the layer's, so that all are read alike
        o = backend.zeros((*network.lead, n, layer.ld), network.dtype)[..., :m]
        own = {"g": at["g"], "p": at["p"], "v": at["v"], "o": o, **scale}
        given = {a.name: own[a.name] for a in direction.arrays}
        columns = [(0, m, 1.0)]
        masked = columns if direction.masked else None
        ops.append(launch(network, direction, given, optimizer.scalars(direction), n, m, segments=masked))
        ops += newton_schulz(backend, o, rule.ns_steps)
        kernel = rule.applied(n, m).kernel(half=half, guard=guard)
        moved: dict[str, Any] = {name: at[name] for name in ("p", "p_half", "average") if name in at}
        moved.update(scale if guard else {})
        size = {"size": _sizes(network, rule, number)}
        masked = columns if kernel.masked else None
        ops.append(launch(network, kernel, {"g": o, **moved}, size, n, m, segments=masked))
    return [*ops, *_rest(network, optimizer, arrays, clip=clip, half=half, guard=guard)]


def _sizes(network: Network, rule: Muon, number: int) -> Any:
    """The factor on the learning rate of a layer; of members one each, by their own widths."""
    each = network.networks if isinstance(network, Stack) else [network]
    sizes = [rule.size(one.layers[number].n_in, one.layers[number].n_out) for one in each]
    return sizes[0] if network.members is None else sizes


def _rest(network: Network, optimizer: Any, arrays: dict[str, Any], **kind: bool) -> list[Op]:
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
        parts = {name: a if name == "clip_scale" else a[..., start:stop] for name, a in arrays.items()}
        segments = inside if kernel.masked else None
        scalars = optimizer.scalars(kernel)
        ops.append(launch(network, kernel, parts, scalars, 1, stop - start, segments=segments))
    last = ops[-1]
    assert isinstance(last, Launch)
    last.tick = "last"
    return ops
