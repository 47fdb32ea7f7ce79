"""Repeated `update` calls on CuPy arrays: quicker, with the numbers, checks and messages of a first call."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp.optimizers import OPTIMIZERS

pytestmark = pytest.mark.memory
N = 1001


def _fresh(g: Any, p: Any, xp: Any) -> Any:
    return g.copy()


def _misaligned(g: Any, p: Any, xp: Any) -> Any:
    buffer = xp.empty(N + 1, g.dtype)
    buffer[1:] = g
    return buffer[1:]


def _strided(g: Any, p: Any, xp: Any) -> Any:
    return xp.repeat(g, 2)[::2]


def _itself(g: Any, p: Any, xp: Any) -> Any:
    return p


def _overlapping(g: Any, p: Any, xp: Any) -> Any:
    return p[::-1]


def _same(g: Any, p: Any, xp: Any) -> Any:
    return g


@pytest.mark.parametrize("change", [_same, _fresh, _misaligned, _strided, _itself, _overlapping])
@pytest.mark.parametrize("rule", sorted(OPTIMIZERS))
def test_any_gradient_between_calls(cuda: Any, rule: str, change: Callable) -> None:
    """Bitwise the numbers of an optimiser that is copied before every call, so that nothing is remembered."""
    import cupy

    results = []
    for remember in (True, False):
        opt = OPTIMIZERS[rule](lr=0.1, l2=0.01)
        p = cupy.linspace(-1, 1, N, dtype=np.float32)
        grads = [cupy.asarray(np.random.default_rng(i).normal(size=N).astype(np.float32)) for i in range(5)]
        for step, g in enumerate(grads):
            opt = opt if remember else copy.deepcopy(opt)
            opt.update(p, change(g, p, cupy) if step == 3 else g)
            assert not remember or opt._again is not None
        results.append((cuda.to_numpy(p), opt.t))
    assert np.array_equal(results[0][0], results[1][0]) and results[0][1] == results[1][1] == 5


@pytest.mark.parametrize("shift", [-4, 4])
def test_a_gradient_in_the_parameters_own_memory(cuda: Any, shift: int) -> None:
    """Contiguous, aligned and overlapping: every element is read before any is written."""
    import cupy

    buffer = cupy.arange(2 * N, dtype=np.float32)
    opt, p = gpumlp.SGD(lr=0.5), buffer[N - 1 : N - 1 + 900]  # exact on these numbers
    for _ in range(2):
        opt.update(p, cupy.ones(900, np.float32))
    host = cuda.to_numpy(buffer)
    expected = host[N - 1 : N - 1 + 900] - 0.5 * host[N - 1 + shift : N - 1 + shift + 900]
    opt.update(p, buffer[N - 1 + shift : N - 1 + shift + 900])
    assert np.array_equal(cuda.to_numpy(p), expected)


def test_a_list_is_one_launch_each_and_nothing_besides(cuda: Any, simgpu: Any) -> None:
    import cupy

    params = [cupy.ones((n, 3), np.float32) for n in (1, 5, 100)]
    grads = [cupy.full(p.shape, 0.5, np.float32) for p in params]
    opt = gpumlp.Adam(lr=0.1)
    opt.update(params, grads)
    with simgpu.watch() as c:
        for _ in range(4):
            opt.update(params, grads)
    assert c["kernel_launches"] == 12 and opt.t == 5
    assert c["memcpy_h2d_count"] == c["memcpy_d2h_count"] == c["memcpy_d2d_count"] == c["mallocs"] == 0
    assert c["stream_syncs"] + c["device_syncs"] + c["event_syncs"] == 0
    expected = np.ones(1)
    reference = gpumlp.Adam(lr=0.1)
    for _ in range(5):
        reference.update(expected, np.full(1, 0.5))
    for p in params:
        np.testing.assert_allclose(cuda.to_numpy(p), expected[0], rtol=1e-6)


def test_what_is_wrong_is_told_and_changes_nothing(cuda: Any) -> None:
    import cupy

    opt, p = gpumlp.RMSProp(), cupy.ones(4, np.float32)
    for _ in range(3):
        opt.update(p, cupy.ones(4, np.float32))
    before, t = cuda.to_numpy(p), opt.t
    for bad, error in (
        (cupy.ones(3, np.float32), ValueError),
        (cupy.ones(4, np.float64), TypeError),
        (np.ones(4, np.float32), TypeError),
        ([cupy.ones(4, np.float32)] * 2, ValueError),
    ):
        with pytest.raises(error):
            opt.update(p, bad)
    assert np.array_equal(cuda.to_numpy(p), before) and opt.t == t
    opt.state[0]["s"] = cupy.zeros(4, np.float32)  # replaced by hand
    opt.update(p, cupy.ones(4, np.float32))
    np.testing.assert_allclose(cuda.to_numpy(opt.state[0]["s"]), 0.1, rtol=1e-6)


def test_neither_parameters_nor_gradients_are_kept_in_memory(cuda: Any) -> None:
    import cupy

    pool = cupy.get_default_memory_pool()
    opt, p, g = gpumlp.SGD(), cupy.ones(1 << 20, np.float32), cupy.ones(1 << 20, np.float32)
    for _ in range(3):
        opt.update(p, g)
    gc.collect()
    before = pool.used_bytes()
    del p, g
    gc.collect()
    assert pool.used_bytes() <= before - 2 * (4 << 20)
    opt.update(cupy.ones(1 << 20, np.float32), cupy.ones(1 << 20, np.float32))
