"""Repeated `update` calls on CuPy arrays: quicker, with the numbers, checks and messages of a first call."""

from __future__ import annotations

import copy
import functools
import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from launching import watch
from tolerances import RELATIVE

import gpumlp
from gpumlp.optimizers import OPTIMIZERS, Optimizer

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
def test_any_gradient_between_calls(cuda: Any, monkeypatch: Any, rule: str, change: Callable) -> None:
    """Bitwise the numbers of an optimiser that is copied before every call, so that nothing is remembered."""
    import cupy

    results, bound = [], watch(monkeypatch, cuda, "bind")
    for remember in (True, False):
        opt = OPTIMIZERS[rule](lr=0.1, l2=0.01)
        p = cupy.linspace(-1, 1, N, dtype=np.float32)
        grads = [cupy.asarray(np.random.default_rng(i).normal(size=N).astype(np.float32)) for i in range(5)]
        for step, g in enumerate(grads):
            opt = opt if remember else copy.deepcopy(opt)
            opt.update(p, change(g, p, cupy) if step == 3 else g)
        results.append((cuda.to_numpy(p), opt.t))
        assert bound[0] and (not remember or len(bound) <= 3)  # at first, and around the change
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


@pytest.fixture
def lists(cuda: Any, monkeypatch: Any) -> list[bool]:
    """Whether a list of arrays could be bound to one launch, for each time that this was tried."""
    return watch(monkeypatch, cuda, "bind_list")


SHAPES = [(7,), (1,), (3, 5), (100, 3), (512,), (513,), (4, 0)]


def _arrays(seed: int, dtype: Any = np.float32, shapes: Any = SHAPES[:-1]) -> list[Any]:
    import cupy

    rng = np.random.default_rng(seed)
    return [cupy.asarray(rng.normal(size=shape).astype(dtype)) for shape in shapes]


def _one_by_one(make: Callable, params: list[Any], grads: list[list[Any]]) -> list[Any]:
    """The parameters after updates by an optimiser of its own for each of them."""
    params, optimizers = [p.copy() for p in params], [make() for _ in params]
    for step in grads:
        for opt, p, g in zip(optimizers, params, step, strict=True):
            opt.update(p, g.copy())
    return params


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "make",
    [
        # Muon's matrices take several launches each
        *(functools.partial(rule, lr=0.1) for name, rule in OPTIMIZERS.items() if name != "muon"),
        functools.partial(gpumlp.SGD, momentum=0.9, l1=0.01, proximal=True),
        functools.partial(gpumlp.RMSProp, centered=True, momentum=0.9, l1=0.01),
        functools.partial(gpumlp.Adam, amsgrad=True, l2=0.1, weight_decay=0.1),
    ],
)
def test_a_list_has_the_numbers_of_its_arrays_one_by_one(
    cuda: Any, lists: list, make: Callable, dtype: Any
) -> None:
    params, grads = _arrays(0, dtype), [_arrays(1 + step, dtype) for step in range(5)]
    expected, opt = _one_by_one(make, params, grads), make()
    for step in grads:
        opt.update(params, step)
    assert lists == [True]
    for p, e in zip(params, expected, strict=True):
        assert np.array_equal(cuda.to_numpy(p), cuda.to_numpy(e))


def test_a_list_is_one_launch_and_its_addresses_are_sent_when_they_change(cuda: Any, simgpu: Any) -> None:
    params, grads, others = _arrays(0), _arrays(1), _arrays(2)
    opt = gpumlp.Adam(lr=0.1)
    for _ in range(2):
        opt.update(params, grads)
    everything = [grads, grads, *[grads, grads, others] * 4]
    expected = _one_by_one(lambda: gpumlp.Adam(lr=0.1), _arrays(0), everything)
    with simgpu.watch() as c:
        for _ in range(4):
            opt.update(params, grads)
            opt.update(params, grads)
            opt.update(params, others)
    assert c["kernel_launches"] == 12 and opt.t == 14
    assert c["memcpy_h2d_count"] == 7 and c["memcpy_d2h_count"] == c["memcpy_d2d_count"] == c["mallocs"] == 0
    assert c["stream_syncs"] + c["device_syncs"] == 0
    for p, e in zip(params, expected, strict=True):
        assert np.array_equal(cuda.to_numpy(p), cuda.to_numpy(e))


def _split_types(arrays: list[Any]) -> list[Any]:
    return [a.astype(np.float64) if n % 2 else a for n, a in enumerate(arrays)]


def _misaligned_one(arrays: list[Any]) -> list[Any]:
    import cupy

    buffer = cupy.empty(arrays[1].size + 1, arrays[1].dtype)
    buffer[1:] = arrays[1]
    return [arrays[0], buffer[1:], *arrays[2:]]


@pytest.mark.parametrize("change", [_split_types, _misaligned_one])
def test_lists_that_are_launched_one_by_one(cuda: Any, lists: list, change: Callable) -> None:
    params, grads = change(_arrays(0)), [change(_arrays(1 + step)) for step in range(3)]
    expected, opt = _one_by_one(gpumlp.Adam, params, grads), gpumlp.Adam()
    for step in grads:
        opt.update(params, step)
    assert lists == [False]
    for p, e in zip(params, expected, strict=True):
        assert np.array_equal(cuda.to_numpy(p), cuda.to_numpy(e))


def test_nothing_behind_the_arrays_of_a_list_is_touched(cuda: Any, lists: list) -> None:
    starts, sizes, opt = (0, 16, 32, 48), (7, 9, 10, 12), gpumlp.SGD(lr=1.0)  # all remainders of 4
    buffer, ones = cuda.xp.zeros(64, np.float32), cuda.xp.ones(64, np.float32)
    params, grads = (
        [a[start : start + size] for start, size in zip(starts, sizes, strict=True)] for a in (buffer, ones)
    )
    for _ in range(3):
        opt.update(params, grads)
    assert lists == [True]
    expected = np.zeros(64)
    for start, size in zip(starts, sizes, strict=True):
        expected[start : start + size] = -3
    assert np.array_equal(cuda.to_numpy(buffer), expected)


def test_an_empty_array_in_a_list(cuda: Any) -> None:
    params, opt = _arrays(0, shapes=SHAPES), gpumlp.SGD(lr=0.5)
    expected = [cuda.to_numpy(p) - 1.5 for p in params]
    for _ in range(3):
        opt.update(params, [cuda.xp.ones_like(p) for p in params])
    for p, e in zip(params, expected, strict=True):
        np.testing.assert_allclose(cuda.to_numpy(p), e, rtol=RELATIVE["float32 roundings"])


def test_arrays_of_a_list_that_overlap_are_updated_in_its_order(cuda: Any, lists: list, simgpu: Any) -> None:
    """The same parameter twice, and a gradient that is another parameter: exact on these numbers."""
    xp = cuda.xp
    p, opt = xp.zeros(600, np.float32), gpumlp.SGD(lr=1.0)
    for _ in range(3):
        opt.update([p, p], [xp.full(600, 1.0, np.float32), xp.full(600, 2.0, np.float32)])
    assert np.array_equal(cuda.to_numpy(p), np.full(600, -9.0)) and lists == [False]

    a, b, opt = xp.zeros(600, np.float32), xp.zeros(600, np.float32), gpumlp.SGD(lr=1.0)
    ones = xp.ones(600, np.float32)
    for _ in range(2):
        opt.update([a, b], [ones, ones])
    assert lists == [False, True]
    with simgpu.watch() as c:  # blocks of one launch have no order
        opt.update([a, b], [ones, a])  # b -= the new a
    assert c["kernel_launches"] == 2
    assert (float(a[7]), float(b[7])) == (-3.0, 1.0) and opt.t == 3
    with simgpu.watch() as c:
        opt.update([a, b], [ones, ones])
    assert c["kernel_launches"] == 1
    assert (float(a[599]), float(b[599])) == (-4.0, 0.0)


def test_state_arrays_of_a_users_rule_may_have_any_name(cuda: Any, lists: list) -> None:
    class Odd(Optimizer):
        name = "odd"

        def state_names(self) -> tuple[str, ...]:
            return ("size", "start")

        def text(self) -> str:
            return "size += grad;\nstart = size;\nconst C delta = lr * start;"

        def rule(self, grad: np.ndarray, lr: float, **values: Any) -> np.ndarray:
            values["size"] += grad
            values["start"][...] = values["size"]
            return lr * values["start"]

    params, opt = [cuda.xp.zeros(n, np.float32) for n in (600, 7)], Odd(lr=1.0)
    for _ in range(3):
        opt.update(params, [cuda.xp.ones_like(p) for p in params])
    assert lists == [True]
    assert all(np.array_equal(cuda.to_numpy(p), np.full(p.size, -6.0)) for p in params)


def test_the_addresses_outlive_the_optimisers_memory_of_them(cuda: Any) -> None:
    """A launch that waits on one stream reads a table that was made on another, after it was dropped."""
    import cupy

    a, b = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
    params, opt = [cupy.zeros(n, np.float32) for n in (600, 7)], gpumlp.SGD(lr=0.5)
    grads = [cupy.ones_like(p) for p in params]
    cupy.cuda.Device().synchronize()
    with a:
        opt.update(params, grads)
        opt.update(params, grads)
    a.synchronize()
    with b:
        opt.update(params, grads)
    opt.l2 = 0.0  # drops the table
    with a:
        junk = [cupy.full(64, 0x41, np.int64) for _ in range(4)]
        a.synchronize()
    b.synchronize()
    assert len(junk) == 4 and all(np.array_equal(p.get(), np.full(p.size, -1.5)) for p in params)


def test_without_memory_for_the_addresses_arrays_go_one_by_one(cuda: Any, monkeypatch: Any) -> None:
    import cupy

    params, opt = _arrays(0), gpumlp.SGD(lr=0.5)
    expected = [cuda.to_numpy(p) - 1.5 for p in params]
    pool = cupy.cuda.MemoryPool()
    pool.set_limit(1)
    monkeypatch.setattr(cupy.cuda, "MemoryPool", lambda: pool)  # of a new executor
    monkeypatch.setattr(gpumlp.backends, "made", {})
    lists = watch(monkeypatch, gpumlp.get_backend("cuda"), "bind_list")
    for _ in range(3):
        opt.update(params, [cupy.ones_like(p) for p in params])
    assert lists == [False] and opt.t == 3
    for p, e in zip(params, expected, strict=True):
        np.testing.assert_allclose(cuda.to_numpy(p), e, rtol=RELATIVE["float32 roundings"])


def test_an_interrupt_while_addresses_are_sent_forgets_them(cuda: Any, monkeypatch: Any) -> None:
    from gpumlp.backends.cuda.arrays import Staging

    params, opt = _arrays(0), gpumlp.SGD(lr=1.0)
    ones, tens = ([cuda.xp.full_like(p, value) for p in params] for value in (1, 10))
    expected = [cuda.to_numpy(p) - 3 for p in params]
    for _ in range(2):
        opt.update(params, ones)
    send = Staging.send

    def interrupted(*args: Any) -> None:
        send(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Staging, "send", interrupted)
        opt.update(params, tens)
    assert opt.t == 2
    opt.update(params, ones)
    for p, e in zip(params, expected, strict=True):
        np.testing.assert_allclose(cuda.to_numpy(p), e, rtol=RELATIVE["float32 roundings"])


@pytest.mark.parametrize("lr", [1, np.float64(1.0)])
def test_a_learning_rate_of_any_type_of_number_is_quick(cuda: Any, simgpu: Any, lr: Any) -> None:
    params, opt = _arrays(0), gpumlp.SGD(lr=lr)
    for _ in range(2):
        opt.update(params, params)
    with simgpu.watch() as c:
        opt.update(params, params)
    assert c["kernel_launches"] == 1
    assert all(float(abs(p).max()) == 0 for p in params)


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
    np.testing.assert_allclose(cuda.to_numpy(opt.state[0]["s"]), 0.1, rtol=RELATIVE["float32 roundings"])


@pytest.mark.parametrize("arrays", [1, 2])
def test_neither_parameters_nor_gradients_are_kept_in_memory(cuda: Any, arrays: int) -> None:
    import cupy

    pool = cupy.get_default_memory_pool()
    opt = gpumlp.SGD()
    p, g = ([cupy.ones(1 << 20, np.float32) for _ in range(arrays)] for _ in range(2))
    for _ in range(3):
        opt.update(p, g)
    gc.collect()
    before = pool.used_bytes()
    del p, g
    gc.collect()
    assert pool.used_bytes() <= before - 2 * arrays * (4 << 20)
    opt.update(*([cupy.ones(1 << 20, np.float32) for _ in range(arrays)] for _ in range(2)))
