"""What is particular to the native CPU executor: layouts of host memory, bursts, signals, forks."""

from __future__ import annotations

import gc
import os
import signal
import weakref
from typing import Any

import numpy as np
import pytest
from contract import ADAM, CALL, HOST, TANH, adam, plan, state
from tolerances import close

from gpumlp.backends.native import call as native_call
from gpumlp.backends.native.backend import NativeBackend

pytestmark = pytest.mark.skipif(
    NativeBackend.why_not() is not None, reason=f"no native executor: {NativeBackend.why_not()}"
)


@pytest.fixture(scope="module")
def backend() -> NativeBackend:
    return NativeBackend()


LAYOUTS = {
    "contiguous": lambda a: a.copy(),
    "fortran": np.asfortranarray,
    "reversed": lambda a: a[::-1].copy()[::-1],
    "padded": lambda a: np.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, 5)])[..., :-5],
    "every second": lambda a: np.repeat(a, 2, axis=0)[::2],
    "unaligned": lambda a: np.frombuffer(bytearray(b"." + a.tobytes()), a.dtype, offset=1).reshape(a.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_elementwise_layouts(backend: NativeBackend, layout: str, dtype: Any) -> None:
    expected = state((33, 17), dtype)
    arrays = {name: LAYOUTS[layout](a) for name, a in expected.items()}
    arrays["v"] = expected["v"].copy()  # layouts mixed
    held = dict(arrays)
    backend.elementwise(ADAM, arrays, *CALL)
    HOST.elementwise(ADAM, expected, *CALL)
    for name, array in arrays.items():
        assert array is held[name]
        close(array, expected[name], "optimizer")


def test_elementwise_refuses(backend: NativeBackend) -> None:
    good = {"z": np.ones(4), "a": np.ones(4)}
    locked = np.ones(4)
    locked.flags.writeable = False
    backend.elementwise(TANH, {**good, "z": locked}, {}, {})
    for bad, error in (
        ({"a": locked}, ValueError),
        ({"a": np.ones(5)}, ValueError),
        ({"a": np.ones(4, np.float32)}, TypeError),
        ({"z": np.ones(4, int)}, TypeError),
        ({"more": np.ones(4)}, TypeError),
    ):
        with pytest.raises(error):
            backend.elementwise(TANH, {**good, **bad}, {}, {})


# ---- replay --------------------------------------------------------------------------------------------


def test_replay_twice_is_bitwise_equal(backend: NativeBackend) -> None:
    results = []
    for burst in (1, 6):
        ops, steps, _ = plan(HOST, n_steps=6)
        replay = backend.record(ops, steps)
        replay.burst = burst
        replay.run(6)
        results.append(ops[-1].arrays["p"].copy())
    assert np.array_equal(*results)


def test_replay_stops_before_the_end_of_its_table(backend: NativeBackend) -> None:
    replay = backend.record(*plan(HOST, n_steps=3)[:2])
    with pytest.raises(IndexError, match="3 rows"):
        replay.run(4)
    replay.run(3)
    with pytest.raises(IndexError, match="3 rows"):
        replay.run()


def test_compiled_kernels_do_not_keep_kernels_alive(backend: NativeBackend) -> None:
    """A kernel's reference may hold an optimiser with all its state."""
    kernel = adam()
    backend.elementwise(kernel, state(5, np.float32), *CALL)
    watched = [weakref.ref(kernel), weakref.ref(native_call.function_of(kernel, np.dtype(np.float32)))]
    assert all(w() is not None for w in watched)
    del kernel
    gc.collect()
    assert [w() for w in watched] == [None, None]


def test_a_signal_interrupts_a_long_replay(backend: NativeBackend) -> None:
    ops, steps, _ = plan(HOST, n_steps=6)
    replay = backend.record(ops[1:4], steps)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(KeyboardInterrupt):
            replay.run(10**9)  # about a quarter of an hour
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    replay.run()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_threads_after_fork(backend: NativeBackend) -> None:
    """A child of fork has none of its parent's threads and still computes what the parent does."""
    expected = state(500_000, np.float32)
    backend.elementwise(ADAM, expected, *CALL)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.alarm(60)  # a child that waits for lost threads must not wait for ever
            arrays = state(500_000, np.float32)
            backend.elementwise(ADAM, arrays, *CALL)
            status = int(not all(np.array_equal(arrays[name], expected[name]) for name in arrays))
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_info(backend: NativeBackend) -> None:
    info = backend.info()
    assert info["executor"] == "native" and int(info["threads"]) >= 1
    assert {"compiler", "flags", "cache", "gemm"} <= set(info)
