"""100 steps in double precision against optax, for the rules that PyTorch does not have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tolerances import close

import gpumlp

jax, optax = pytest.importorskip("jax"), pytest.importorskip("optax")


def yogi(**options: Any) -> Any:
    """optax starts both moments at its `initial_accumulator_value`; here the first one starts at 0."""
    return optax.chain(optax.scale_by_yogi(**options, initial_accumulator_value=0.0), optax.scale(-0.01))


CASES = {
    "yogi": (gpumlp.Yogi(lr=0.01), yogi),
    "yogi-betas": (
        gpumlp.Yogi(lr=0.01, betas=(0.5, 0.9), eps=1e-2),
        lambda: yogi(b1=0.5, b2=0.9, eps=1e-2),
    ),
    "lion": (gpumlp.Lion(lr=0.01), lambda: optax.lion(0.01, weight_decay=0.0)),
    "lion-decay": (
        gpumlp.Lion(lr=0.01, betas=(0.8, 0.6), weight_decay=0.1),
        lambda: optax.lion(0.01, b1=0.8, b2=0.6, weight_decay=0.1),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_hundred_steps(on: Any, name: str) -> None:
    ours, make_theirs = CASES[name]
    ours.reset()
    rng = np.random.default_rng(0)
    start = rng.normal(size=(7, 3))
    p = on.asarray(start.copy())
    with jax.enable_x64(True):
        theirs = make_theirs()
        q = jax.numpy.asarray(start)
        state = theirs.init(q)
        for _ in range(100):
            g = rng.normal(size=start.shape) + 0.3 * np.asarray(q)
            ours.update(p, on.asarray(g))
            moves, state = theirs.update(jax.numpy.asarray(g), state, q)
            q = optax.apply_updates(q, moves)
        assert np.abs(on.to_numpy(p) - start).max() > 1e-2
        close(on.to_numpy(p), np.asarray(q), "100 steps")
