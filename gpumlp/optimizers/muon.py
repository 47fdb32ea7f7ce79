"""`Muon` with its state, and the operations of its steps for a matrix."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpumlp import backends
from gpumlp.backends.arrays import device_of
from gpumlp.backends.base import Plan, Steps
from gpumlp.backends.operations import Gemm, Launch, Op
from gpumlp.kernels.optimizers import muon
from gpumlp.optimizers.arrays import to_numpy
from gpumlp.optimizers.base import Optimizer

__all__ = ["Muon", "newton_schulz"]


class Muon(Optimizer, muon.Muon):
    __doc__ = muon.Muon.__doc__
    scratch = 4
    by_element = False

    def __post_init__(self) -> None:
        #: by number, shape and type of a parameter: where its direction is made, and the plan that does it
        self._made: dict[tuple, tuple[Any, Plan]] = {}
        super().__post_init__()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_made": {}}

    def _update(self, params: list[Any], grads: list[Any], t: int) -> None:
        """Arrays of two dimensions are matrices; if there are none, the next step may take the fast path."""
        if not any(map(self.by_matrix, params)):
            super()._update(params, grads, t)
            return
        self.check()
        self.init_state(params, backends.backend_of(params[0]))
        values = self.step_values(t, float(self.lr))
        for number, (p, g) in enumerate(zip(params, grads, strict=True)):
            here, entry = backends.backend_of(p), self.state[number]
            for name in self.arrays():
                if device_of(entry[name]) != device_of(p):
                    entry[name] = here.asarray(to_numpy(entry[name]))
            state = {name: entry[name] for name in self.arrays()}
            self.step_one(number, here, {"g": g, "p": p, **state}, values)

    def by_matrix(self, p: Any) -> bool:
        return p.ndim == 2 and p.size > 0

    def step_one(
        self,
        number: int,
        backend: Any,
        arrays: dict[str, Any],
        values: dict[str, Any],
        factor: Any = None,
        *,
        bare: bool = False,
        zero: bool = False,
    ) -> None:
        p = arrays["p"]
        if not self.by_matrix(p):
            super().step_one(number, backend, arrays, values, factor, bare=bare, zero=zero)
            return
        rule = self.bare() if bare else self
        direction = rule.direction_kernel(clip=factor is not None)
        o, plan = self._direction(number, p, backend)
        given = {**arrays, "o": o, "clip_scale": factor}
        _run(backend, rule, direction, {a.name: given[a.name] for a in direction.arrays}, values)
        plan.run()
        if zero:
            arrays["g"].fill(0)
        applied = rule.applied(*reversed(p.shape))
        average = {"average": arrays["average"]} if self.average > 0 else {}
        _run(backend, applied, applied.kernel(), {"g": o, "p": p, **average}, values)

    def _direction(self, number: int, p: Any, backend: Any) -> tuple[Any, Plan]:
        key = number, p.shape, p.dtype, backend.device, self.ns_steps
        if key not in self._made:
            self._made = {known: made for known, made in self._made.items() if known[0] != number}
            o = backend.zeros(p.shape, p.dtype)
            self._made[key] = o, backend.record(newton_schulz(backend, o, self.ns_steps), Steps(backend))
        return self._made[key]


def _run(backend: Any, rule: Any, kernel: Any, arrays: dict[str, Any], values: dict[str, Any]) -> None:
    stepped = {name: float(values[name]) for name in kernel.stepped}
    backend.elementwise(kernel, arrays, rule.scalars(kernel), stepped)


def newton_schulz(backend: Any, o: Any, rounds: int) -> list[Op]:
    """Operations that bring the singular values of the matrix `o`, or of one for each member, to about 1, in
    place.

    The products are those of the smaller side: x x^T of a wide matrix, x^T x of a tall one.
    """
    *lead, n, m = o.shape
    members = lead[0] if lead else None
    a, b, c = muon.COEFFICIENTS
    small, wide = min(n, m), n <= m
    partial, inverse = (backend.zeros((*lead, size), o.dtype) for size in (n, 1))
    square, fourth = (_padded(backend, (*lead, small, small), o.dtype) for _ in range(2))
    moved = _padded(backend, (*lead, n, m), o.dtype)
    sizes = {"n": n, "smallest": muon.SMALLEST_NORM}
    ops: list[Op] = [
        Launch(muon.ROW_SQUARES, {"o": o, "partial": partial}, {}, n, m, members=members),
        Launch(muon.INVERSE_NORM, {"partial": partial, "inverse": inverse}, sizes, 1, n, members=members),
        Launch(muon.SCALE, {"o": o, "inverse": inverse}, {}, n, m, members=members),
    ]
    for _ in range(rounds):
        ops += [
            Gemm(o, o, square, trans_a=not wide, trans_b=wide),
            Gemm(square, square, fourth),
            Launch(muon.BLEND, {"x": square, "y": fourth}, {"a": b, "b": c}, small, small, members=members),
            Gemm(square, o, moved) if wide else Gemm(o, square, moved),
            Launch(muon.BLEND, {"x": o, "y": moved}, {"a": a, "b": 1.0}, n, m, members=members),
        ]
    return ops


def _padded(backend: Any, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """Zeros whose rows begin where vectors may be read."""
    *others, m = shape
    return backend.zeros((*others, -(-m // 8) * 8), dtype)[..., :m]
