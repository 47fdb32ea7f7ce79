"""What is particular to the native CPU executor: memory layouts, replay, threads, matrix products."""

from __future__ import annotations

import gc
import os
import signal
import weakref
from typing import Any

import numpy as np
import pytest
from gpumlp.kernels.kernel import Kernel
from launching import steps_with

from gpumlp.backends import get_backend
from gpumlp.backends.base import Gemm, Launch
from gpumlp.backends.native import call as native_call
from gpumlp.backends.native.backend import NativeBackend
from gpumlp.backends.numpy import NumpyBackend

pytestmark = pytest.mark.skipif(
    NativeBackend.why_not() is not None, reason=f"no native executor: {NativeBackend.why_not()}"
)


@pytest.fixture(scope="module")
def backend() -> NativeBackend:
    return NativeBackend()


def _adam(g: Any, p: Any, m: Any, v: Any, beta: float, lr: float, k: int) -> None:
    m[...] = beta * m + (1 - beta) * g
    v[...] = beta * v + (1 - beta) * g * g
    p -= lr * m / (np.sqrt(v) + 1e-6)


def adam() -> Kernel:
    return Kernel(
        name="gpumlp_test_adam",
        inputs="T g",
        inouts="T p, C m, C v",
        scalars="C beta",
        stepped=("lr",),
        reference=_adam,
        body="m = beta * m + (C(1) - beta) * g;\nv = beta * v + (C(1) - beta) * g * g;\n"
        "p -= lr * m / (sqrt(v) + C(1e-6));",
    )


def _decayed(p: Any, rate: float, k: int, decay: float) -> None:
    p -= decay * rate * p


def _tanh(z: Any, a: Any, k: int) -> None:
    a[...] = np.tanh(z)


def _gather(x: Any, index: Any, X: Any, stride: int, k: int) -> None:
    x[...] = X[index[k * stride : k * stride + len(x)]]


def _softmax(z: Any, out: Any, total_of_row: Any, k: int) -> None:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    total_of_row[: len(z)] = e.sum(axis=1)
    out[...] = e / e.sum(axis=1, keepdims=True)


def _place(out: Any, scale: int, k: int) -> None:
    r, c = np.indices(out.shape)
    out[...] = r * scale + c + 1000 * k


ADAM = adam()
DECAYED = Kernel(
    name="gpumlp_test_decay",
    inouts="T p",
    scalars="C rate",
    masked=True,
    reference=_decayed,
    body="p -= decay * rate * p;",
)
TANH = Kernel(name="gpumlp_test_tanh", inputs="T z", outputs="T a", body="a = tanh(z);", reference=_tanh)
GATHER = Kernel(
    name="gpumlp_test_gather",
    outputs="T x",
    raws="int32 index, T X",
    scalars="int64 stride",
    reference=_gather,
    body="x = X[(long long)index[k * stride + r] * ld_X + c];",
)
SOFTMAX = Kernel(
    name="gpumlp_test_softmax",
    inputs="T z",
    outputs="T out",
    rawouts="C total_of_row",
    rowwise=True,
    reference=_softmax,
    body="ROW_MAX(top, z[c])\nROW_SUM(total, exp(z[c] - top))\n"
    "ROW_EACH { out[c] = exp(z[c] - top) / total; }\n"
    "ROW_ONE { total_of_row[r] = total; }",
)
PLACE = Kernel(
    name="gpumlp_test_place",
    outputs="T out",
    scalars="int64 scale",
    reference=_place,
    body="out = C(r * scale + c + 1000 * k);",
)


def _adam_arrays(shape: Any, dtype: Any, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    arrays = {name: rng.standard_normal(shape).astype(dtype) for name in "gpmv"}
    arrays["v"] = np.asarray(np.abs(arrays["v"]))
    return arrays


def _assert_close(actual: Any, expected: Any) -> None:
    # a dozen roundings and functions good to 2 ulp, on numbers of size 1; multiply and add may be fused
    eps = np.finfo(expected.dtype).eps
    np.testing.assert_allclose(actual, expected, rtol=32 * eps, atol=32 * eps)


LAYOUTS = {
    "contiguous": lambda a: a.copy(),
    "fortran": np.asfortranarray,
    "reversed": lambda a: a[::-1].copy()[::-1],
    "padded": lambda a: np.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, 5)])[..., :-5],
    "every second": lambda a: np.repeat(a, 2, axis=0)[::2],
    "unaligned": lambda a: np.frombuffer(bytearray(b"." + a.tobytes()), a.dtype, offset=1).reshape(a.shape),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(7,), (33, 17), (3, 5, 7), (0,), (4, 0), (1, 1)])
def test_elementwise_layouts(backend: NativeBackend, shape: tuple, layout: str, dtype: type) -> None:
    expected = _adam_arrays(shape, dtype)
    arrays = {name: LAYOUTS[layout](a) for name, a in expected.items()}
    arrays["m"] = expected["m"].copy()  # layouts mixed
    held = dict(arrays)
    backend.elementwise(ADAM, arrays, {"beta": 0.9}, {"lr": 0.01})
    NumpyBackend().elementwise(ADAM, expected, {"beta": 0.9}, {"lr": 0.01})
    for name, array in arrays.items():
        assert array is held[name]
        _assert_close(array, expected[name])


def test_elementwise_on_one_number(backend: NativeBackend) -> None:
    a = np.zeros(())
    backend.elementwise(TANH, {"z": np.array(0.5), "a": a}, {}, {})
    _assert_close(a, np.tanh(np.array(0.5)))


def test_elementwise_in_place_and_overlapping(backend: NativeBackend) -> None:
    x = np.linspace(-3, 3, 1000)
    start = x.copy()
    backend.elementwise(TANH, {"z": x, "a": x}, {}, {})
    _assert_close(x, np.tanh(start))
    x = start.copy()
    backend.elementwise(TANH, {"z": x[:-3], "a": x[3:]}, {}, {})
    _assert_close(x[3:], np.tanh(start[:-3]))


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


def test_large_arrays_are_split_without_a_trace(backend: NativeBackend) -> None:
    """The result is bitwise that of small pieces, each run on the calling thread."""
    whole, pieces = _adam_arrays(300_001, np.float32), _adam_arrays(300_001, np.float32)
    backend.elementwise(ADAM, whole, {"beta": 0.9}, {"lr": 0.01})
    for start in range(0, 300_001, 999):
        part = {name: a[start : start + 999] for name, a in pieces.items()}
        backend.elementwise(ADAM, part, {"beta": 0.9}, {"lr": 0.01})
    assert all(np.array_equal(array, pieces[name]) for name, array in whole.items())


def test_masked_segments(backend: NativeBackend) -> None:
    segments = [(0, 5, 1.0), (5, 9, 0.0), (9, 40_000, 1.0), (40_000, 70_000, 0.0)]
    p = np.random.default_rng(0).standard_normal(70_000)
    expected = p.copy()
    backend.launch(DECAYED, {"p": p}, {"rate": 0.5}, rows=1, cols=70_000, segments=segments)
    NumpyBackend().launch(DECAYED, {"p": expected}, {"rate": 0.5}, rows=1, cols=70_000, segments=segments)
    _assert_close(p, expected)


@pytest.mark.parametrize("rows,cols", [(1, 1), (3, 10), (5, 1000), (2000, 33)])
def test_softmax_rows(backend: NativeBackend, rows: int, cols: int) -> None:
    z = np.random.default_rng(0).standard_normal((rows, cols + 3)).astype(np.float32)[:, :cols]
    arrays = {"z": z, "out": np.zeros((rows, cols), np.float32), "total_of_row": np.zeros(rows, np.float32)}
    expected = {name: a.copy() for name, a in arrays.items()}
    backend.launch(SOFTMAX, arrays, {}, rows=rows, cols=cols)
    NumpyBackend().launch(SOFTMAX, expected, {}, rows=rows, cols=cols)
    for name, array in arrays.items():  # sums of 1000 terms in another order
        np.testing.assert_allclose(array, expected[name], rtol=2e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [32, 100, 7001])
@pytest.mark.parametrize("cols", [1, 2, 10, 11])
def test_recorded_softmax_of_short_rows(backend: NativeBackend, rows: int, cols: int, dtype: type) -> None:
    """In plans, short rows are computed many at a time, by code made for their number of columns."""
    z = np.random.default_rng(0).standard_normal((rows, 16)).astype(dtype)[:, :cols]
    z[3, 0], z[rows - 1, cols - 1] = np.nan, np.inf
    buffer = np.full((rows + 1, 16), 77, dtype)
    arrays = {"z": z, "out": buffer[:rows, :cols], "total_of_row": np.zeros(rows, dtype)}
    expected = {name: a.copy() for name, a in arrays.items()}
    steps = steps_with(get_backend("numpy"))
    backend.record([Launch(SOFTMAX, arrays, {}, rows, cols)], steps).run()
    with np.errstate(invalid="ignore"):
        NumpyBackend().launch(SOFTMAX, expected, {}, rows=rows, cols=cols)
    for name, array in arrays.items():
        _assert_close(array, expected[name])
    assert (buffer[rows] == 77).all() and (buffer[:, cols:] == 77).all()


def test_launch_refuses_arrays_that_are_too_small_or_of_another_type(backend: NativeBackend) -> None:
    z = np.ones((4, 8))
    for bad in (np.ones((3, 8)), np.ones((4, 7)), np.ones(32), np.ones((4, 16))[:, ::2]):
        with pytest.raises(ValueError, match="array 'a'"):
            backend.launch(TANH, {"z": z, "a": bad}, {}, rows=4, cols=8)
    with pytest.raises(TypeError, match="array 'a'"):
        backend.launch(TANH, {"z": z, "a": np.ones((4, 8), np.int64)}, {}, rows=4, cols=8)


# ---- replay --------------------------------------------------------------------------------------------
def _plan(dtype: Any = np.float32, n_steps: int = 6) -> tuple[list, Any]:
    """gather -> gemm -> tanh -> gemm -> adam; with arrays that only the operations hold."""
    rng = np.random.default_rng(3)
    X = rng.standard_normal((40, 16)).astype(dtype)[:, :9]
    x, h, dw = np.zeros((8, 9), dtype), np.zeros((8, 16), dtype)[:, :5], np.zeros((9, 5), dtype)
    w = np.asarray(rng.standard_normal((9, 5)), dtype)
    flat = {"g": dw.reshape(-1), "p": w.reshape(-1), "m": np.zeros(45, dtype), "v": np.zeros(45, dtype)}
    index = rng.permutation(48).astype(np.int32) % 40
    table = np.linspace(0.1, 0.01, 2 * n_steps).reshape(n_steps, 2).astype(dtype)
    ops = [
        Launch(GATHER, {"x": x, "index": index, "X": X}, {"stride": 8}, 8, 9, tick="first"),
        Gemm(x, w, h),
        Launch(TANH, {"z": h, "a": h}, {}, 8, 5),
        Gemm(x, h, dw, trans_a=True),
        Launch(ADAM, flat, {"beta": 0.9}, 1, 45, tick="last"),
    ]
    return ops, steps_with(get_backend("numpy"), ("unused", "lr"), table)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_replay_is_that_of_numpy(backend: NativeBackend, dtype: type) -> None:
    (ops, steps), (ops2, steps2) = _plan(dtype), _plan(dtype)
    replay = backend.record(ops, steps)
    replay.run(2)
    replay.run(4)
    NumpyBackend().record(ops2, steps2).run(6)
    assert steps.step.tolist() == steps2.step.tolist() == [6, 6]
    # six steps on numbers of size 1, whose differences a division by sqrt(v) magnifies
    tolerance = {np.float32: 1e-4, np.float64: 1e-12}[dtype]
    np.testing.assert_allclose(ops[-1].arrays["p"], ops2[-1].arrays["p"], rtol=tolerance, atol=tolerance)


def test_replay_twice_is_bitwise_equal(backend: NativeBackend) -> None:
    results = []
    for burst in (1, 6):
        ops, steps = _plan()
        replay = backend.record(ops, steps)
        replay.burst = burst
        replay.run(6)
        results.append(ops[-1].arrays["p"].copy())
    assert np.array_equal(*results)


def test_replay_stops_before_the_end_of_its_table(backend: NativeBackend) -> None:
    replay = backend.record(*_plan(n_steps=3))
    with pytest.raises(IndexError, match="3 rows"):
        replay.run(4)
    replay.run(3)
    with pytest.raises(IndexError, match="3 rows"):
        replay.run()


def test_k_in_a_plan(backend: NativeBackend) -> None:
    out = np.zeros((2, 3))
    steps = steps_with(get_backend("numpy"), ("unused",), np.zeros((9, 1)), (4, 5))
    replay = backend.record([Launch(PLACE, {"out": out}, {"scale": 10}, 2, 3)], steps)
    replay.run()
    assert out.tolist() == [[4000, 4001, 4002], [4010, 4011, 4012]]


def test_replay_owns_its_arrays(backend: NativeBackend) -> None:
    ops, steps = _plan()
    watched = weakref.ref(ops[0].arrays["X"])
    replay = backend.record(ops, steps)
    del ops, steps
    gc.collect()
    assert watched() is not None
    replay.run(6)
    del replay
    gc.collect()
    assert watched() is None


def test_compiled_kernels_do_not_keep_kernels_alive(backend: NativeBackend) -> None:
    """A kernel's reference may hold an optimiser with all its state."""
    kernel = adam()
    backend.elementwise(kernel, _adam_arrays(5, np.float32), {"beta": 0.9}, {"lr": 0.01})
    watched = [weakref.ref(kernel), weakref.ref(native_call.function_of(kernel, np.dtype(np.float32)))]
    assert all(w() is not None for w in watched)
    del kernel
    gc.collect()
    assert [w() for w in watched] == [None, None]


def test_a_signal_interrupts_a_long_replay(backend: NativeBackend) -> None:
    ops, steps = _plan()
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
    expected = _adam_arrays(500_000, np.float32)
    backend.elementwise(ADAM, expected, {"beta": 0.9}, {"lr": 0.01})
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.alarm(60)  # a child that waits for lost threads must not wait for ever
            arrays = _adam_arrays(500_000, np.float32)
            backend.elementwise(ADAM, arrays, {"beta": 0.9}, {"lr": 0.01})
            status = int(not all(np.array_equal(arrays[name], expected[name]) for name in arrays))
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


# ---- matrix products -----------------------------------------------------------------------------------
SIZES = [
    (1, 1, 1),
    (2, 3, 4),
    (32, 16, 33),
    (17, 2, 300),
    (9, 64, 256),
    (257, 40, 1),
    (130, 129, 131),
    (5, 7, 0),
    (0, 3, 4),
    (300, 12, 40),
    (90, 13, 40),
    (40, 530, 300),
    (33, 70, 1025),  # several blocks of k, of uneven depth
]


def _check_gemm(backend: NativeBackend, m: int, n: int, k: int, trans: str, dtype: type) -> None:
    rng = np.random.default_rng(0)

    def view(rows: int, cols: int) -> np.ndarray:
        return np.pad(rng.standard_normal((rows, cols)), ((0, 0), (0, 3))).astype(dtype)[:, :cols]

    a = view(*((k, m) if trans[0] == "T" else (m, k)))
    b = view(*((n, k) if trans[1] == "T" else (k, n)))
    buffer = np.full((m, n + 3), 77, dtype)
    steps = steps_with(get_backend("numpy"))
    replay = backend.record([Gemm(a, b, buffer[:, :n], trans[0] == "T", trans[1] == "T")], steps)
    replay.run()
    first = buffer.copy()
    expected = (a.T if trans[0] == "T" else a).astype(np.float64) @ (b.T if trans[1] == "T" else b).astype(
        np.float64
    )
    # k products of numbers of size 1, summed in any order
    np.testing.assert_allclose(buffer[:, :n], expected, atol=4 * max(k, 1) * np.finfo(dtype).eps)
    assert (buffer[:, n:] == 77).all()
    replay.run()
    assert np.array_equal(first, buffer)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("trans", ["NN", "TN", "NT", "TT"])
@pytest.mark.parametrize("m,n,k", SIZES)
def test_gemm(backend: NativeBackend, m: int, n: int, k: int, trans: str, dtype: type) -> None:
    _check_gemm(backend, m, n, k, trans, dtype)


def test_gemm_refuses_shapes_that_do_not_fit(backend: NativeBackend) -> None:
    steps = steps_with(get_backend("numpy"))
    with pytest.raises(ValueError, match="gemm of shapes"):
        backend.record([Gemm(np.ones((2, 3)), np.ones((4, 5)), np.ones((2, 5)))], steps)
    with pytest.raises(TypeError, match="array 'b'"):
        backend.record([Gemm(np.ones((2, 3)), np.ones((3, 5), np.float32), np.ones((2, 5)))], steps)


def test_info(backend: NativeBackend) -> None:
    info = backend.info()
    assert info["executor"] == "native" and int(info["threads"]) >= 1
    assert {"compiler", "flags", "cache", "gemm"} <= set(info)
