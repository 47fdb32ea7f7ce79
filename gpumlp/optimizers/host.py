"""An update with options, array by array; steps are counted on the host."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpumlp.kernels.rows import CLIP, partial_rows
from gpumlp.kernels.updates import FACTOR, FINITE_SQUARES
from gpumlp.optimizers.arrays import Pairs, apart, open_number
from gpumlp.optimizers.options import Options

__all__ = ["update_each"]

_LEAST = 256  # see `partial_rows`


def update_each(optimizer: Any, backend: Any, pairs: Pairs, options: Options) -> bool:
    """Step t + 1; whether it was done, not skipped because a gradient is not finite."""
    plain, copied = [g.array for _, g in pairs], list[int]()
    if options.zero:
        plain, copied = apart(pairs, True, lambda _: True)
    grads = [g.widened() if g.half else array for (_, g), array in zip(pairs, plain, strict=True)]
    factor = _factor(backend, grads, options) if options.factor else None
    if factor is not None and options.scale is not None and not float(factor[0]) > 0:
        if options.zero:
            for _, g in pairs:
                g.array.fill(0)
        return False
    t = optimizer.t + 1
    values = optimizer.step_values(t, float(options.rates(np.array([t]))[0]))
    for number, ((p, _), grad) in enumerate(zip(pairs, grads, strict=True)):
        entry = optimizer.state[number]
        held = entry.get("master", p.array)
        arrays = {"g": grad, "p": held, **{name: entry[name] for name in optimizer.arrays()}}
        kind = {"bare": not options.decay[number], "zero": options.zero}
        optimizer.step_one(number, backend, arrays, values, factor, **kind)
        if p.half:
            p.narrow(held)
    for number in range(len(pairs)) if options.zero else ():
        if number in copied or pairs[number][1].half:
            pairs[number][1].array.fill(0)
    return True


def _factor(backend: Any, grads: list[Any], options: Options) -> Any:
    """The factor on the gradients, array (1,)."""
    real = grads[0].dtype
    sizes = [partial_rows(g.size) for g in grads]
    partial = backend.zeros(max(_LEAST, sum(rows for rows, _ in sizes)), real)
    at = 0
    for g, (rows, cols) in zip(grads, sizes, strict=True):
        flat = g if g.flags.c_contiguous else g.copy(order="C")
        arrays = {"values": flat.reshape(-1), "partial": partial[at : at + rows]}
        backend.launch(FINITE_SQUARES, arrays, {"n": g.size, "chunk": cols}, rows=rows, cols=cols)
        at += rows
    factor = backend.zeros(1, real)
    arrays = {"partial": partial, "clip_scale": factor}
    limit = math.inf if options.clip_norm is None else options.clip_norm
    if options.scale is None:
        backend.launch(CLIP, arrays, {"limit": limit}, rows=1, cols=partial.size)
    else:
        scale = backend.asarray(np.array([_number(options.scale)], real))
        arrays |= {"scale": scale, "counters": backend.zeros(2, np.int64)}
        backend.launch(FACTOR, arrays, {"limit": limit, "last": 1, "guarded": 1}, rows=1, cols=partial.size)
    return factor


def _number(scale: Any) -> float:
    return scale if isinstance(scale, float) else float(open_number("scale", scale).reshape(()))
