"""What is particular to the CuPy executor; needs CuPy and a device (a simulated one will do)."""

import warnings

import numpy as np
import pytest
import tolerances
from gpumlp.kernels.kernel import Kernel
from launching import steps_with

from gpumlp.backends import cuda_problem
from gpumlp.backends.base import Gemm, Launch
from gpumlp.backends.numpy import NumpyBackend

if cuda_problem():
    pytest.skip(f"no CUDA device: {cuda_problem()}", allow_module_level=True)

import cupy

from gpumlp.backends.cuda import backend as cupy_module
from gpumlp.backends.cuda.backend import CupyBackend

SIZES = [1, 3, 127, 2**16 + 1]
HOST = NumpyBackend()


def _adam(g, p, v, s, lr, beta, k, decay=1.0):
    grad = g + decay * 0.5 * p
    v[...] = beta * v + (1 - beta) * grad
    s[...] = beta * s + (1 - beta) * grad * grad
    p -= lr * v / (np.sqrt(s) + 1e-3)


ADAM = Kernel(
    name="gpumlp_test_adam",
    inputs="T g",
    inouts="T p, C v, C s",
    scalars="C beta",
    stepped=("lr",),
    masked=True,
    body="""const C grad = g + decay * C(0.5) * p;
v = beta * v + (C(1) - beta) * grad;
s = beta * s + (C(1) - beta) * grad * grad;
p -= lr * v / (sqrt(s) + C(1e-3));""",
    reference=_adam,
)


def _tanh(z, a, k):
    np.tanh(z, out=a)


TANH = Kernel("gpumlp_test_tanh", "a = tanh(z);", _tanh, inputs="T z", outputs="T a")


def _softmax(z, out, k):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    out[...] = e / e.sum(axis=1, keepdims=True)


SOFTMAX = Kernel(
    name="gpumlp_test_softmax",
    rowwise=True,
    inputs="T z",
    outputs="T out",
    body="""ROW_MAX(top, z[c])
ROW_SUM(total, exp(z[c] - top))
ROW_EACH { out[c] = exp(z[c] - top) / total; }""",
    reference=_softmax,
)


def _gather(x, index, X, k, stride):
    x[...] = X[index[k * stride : k * stride + x.shape[0]]]


GATHER = Kernel(
    name="gpumlp_test_gather",
    outputs="T x",
    raws="int32 index, T X",
    scalars="int64 stride",
    body="x = X[(long long)index[k * stride + r] * ld_X + c];",
    reference=_gather,
)


@pytest.fixture(scope="module", params=[True, False], ids=["graph", "eager"])
def backend(request):
    return CupyBackend(0, graph=request.param)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def counted():
    return pytest.importorskip("simgpu", reason="counting needs the simulated device").watch


def close(given, expected, dtype):
    tolerances.close(cupy.asnumpy(given), expected, "small plan", dtype=dtype)


def _state(rng, shape, dtype):
    arrays = {n: rng.standard_normal(shape).astype(dtype) for n in "gpv"}
    arrays["s"] = rng.random(shape).astype(dtype)
    return arrays


# ---- kernels -----------------------------------------------
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("offset", [0, 1], ids=["aligned", "unaligned"])
def test_masked_map_kernel_at_any_size_and_alignment(backend, rng, n, offset, dtype):
    host = _state(rng, n, dtype)
    device = {}
    for name, a in host.items():
        device[name] = backend.zeros(n + 2, dtype)[offset : offset + n]
        device[name][...] = backend.asarray(a)
    cut = [(0, n // 3, 1.0), (n // 3, n // 2, 0.0), (n // 2, n, 1.0)]  # not at multiples of the vector width
    call = ({"beta": 0.9}, {"lr": 0.01})
    HOST.launch(ADAM, host, *call, rows=1, cols=n, segments=cut)
    backend.launch(ADAM, device, *call, rows=1, cols=n, segments=cut)
    for name in host:
        close(device[name], host[name], dtype)


@pytest.mark.parametrize("cols, stride", [(1, 1), (3, 4), (10, 16), (13, 13), (64, 72)])
def test_map_kernel_leaves_padding_alone(backend, rng, cols, stride):
    z = rng.standard_normal((5, stride)).astype("float32")
    device, out = backend.asarray(z), backend.zeros((5, stride), "float32")
    backend.launch(TANH, {"z": device[:, :cols], "a": out[:, :cols]}, {}, rows=5, cols=cols)
    expected = np.zeros_like(z)
    expected[:, :cols] = np.tanh(z[:, :cols])
    close(out, expected, "float32")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", [1, 5, 40])
@pytest.mark.parametrize("classes", [1, 2, 4, 10, 17, 200, 1000, 1500])
def test_row_kernel_for_few_and_many_classes(backend, rng, rows, classes, dtype):
    z = (5 * rng.standard_normal((rows, classes))).astype(dtype)
    out = backend.empty((rows, classes + 3), dtype)[:, :classes]
    backend.launch(SOFTMAX, {"z": backend.asarray(z), "out": out}, {}, rows=rows, cols=classes)
    expected = np.empty_like(z)
    _softmax(z, expected, 0)
    close(out, expected, dtype)


def test_row_reductions_are_repeatable_bit_by_bit(backend, rng):
    z = backend.asarray(rng.standard_normal((7, 1500)).astype("float32"))
    first, second = (backend.empty(z.shape, z.dtype) for _ in range(2))
    for out in (first, second):
        backend.launch(SOFTMAX, {"z": z, "out": out}, {}, rows=7, cols=1500)
    assert cupy.array_equal(first, second)


@pytest.mark.parametrize(
    "view", [lambda a: a, lambda a: a.T, lambda a: a[::2], lambda a: a[:, 1:], lambda a: a[::-1, ::3]]
)
def test_elementwise_on_any_strides(backend, rng, view):
    host = _state(rng, (6, 10), "float32")
    device = {n: backend.asarray(a) for n, a in host.items()}
    HOST.elementwise(ADAM, {n: view(a) for n, a in host.items()}, {"beta": 0.9}, {"lr": 0.01})
    backend.elementwise(ADAM, {n: view(a) for n, a in device.items()}, {"beta": 0.9}, {"lr": 0.01})
    for name in host:  # the elements outside of the view have not changed
        close(device[name], host[name], "float32")


def test_elementwise_on_mixed_layouts_and_empty_arrays(backend, rng):
    host = _state(rng, (4, 6), "float32")
    device = {n: backend.asarray(a) for n, a in host.items()}
    device["p"] = cupy.asfortranarray(device["p"])
    HOST.elementwise(ADAM, host, {"beta": 0.9}, {"lr": 0.01})
    backend.elementwise(ADAM, device, {"beta": 0.9}, {"lr": 0.01})
    close(device["p"], host["p"], "float32")
    backend.elementwise(ADAM, dict.fromkeys("gpvs", cupy.empty((0, 3), "float32")), {"beta": 0.9}, {"lr": 1})


def test_one_compiled_kernel_for_all_shapes(counted):
    backend = CupyBackend(0)
    with counted() as c:
        for shape in [(4, 8), (1, 400), (100, 16)]:
            z = backend.zeros(shape, "float32")
            backend.launch(TANH, {"z": z, "a": z}, {}, rows=shape[0], cols=shape[1])
    assert c["kernels"] == {"gpumlp_test_tanh": 3}
    assert c["modules_loaded"] <= 1  # 0 if another test has loaded it


@pytest.mark.parametrize(
    "change, text",
    [
        ({"a": cupy.zeros((2, 4), "float64")}, "array 'a' is float64; expected float32"),
        ({"z": np.zeros((2, 4), "float32")}, "array 'z' is on cpu; expected an array on cuda:0"),
    ],
)
def test_wrong_arrays_are_named(backend, change, text):
    arrays = {"z": cupy.zeros((2, 4), "float32"), "a": cupy.zeros((2, 4), "float32")}
    with pytest.raises(TypeError, match=text):
        backend.launch(TANH, {**arrays, **change}, {}, rows=2, cols=4)


# ---- gemm -----------------------------------------------
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("trans_a", [False, True])
@pytest.mark.parametrize("trans_b", [False, True])
@pytest.mark.parametrize("m, n, k", [(5, 7, 3), (1, 4, 9), (6, 1, 1), (33, 17, 65)])
def test_gemm_of_padded_views(backend, rng, trans_a, trans_b, m, n, k, dtype):
    def padded(rows, cols):
        host = rng.standard_normal((rows, cols + 3)).astype(dtype)
        return host[:, :cols], backend.asarray(host)[:, :cols]

    (a, da), (b, db) = padded(*((k, m) if trans_a else (m, k))), padded(*((n, k) if trans_b else (k, n)))
    c, dc = padded(m, n)
    steps = _steps(backend, [], 1)
    backend.record([Gemm(da, db, dc, trans_a, trans_b)], steps).run()
    close(dc, (a.T if trans_a else a) @ (b.T if trans_b else b), dtype)
    assert c.shape == dc.shape


def test_gemm_refuses_shapes_that_do_not_fit(backend):
    a, b = cupy.zeros((3, 4), "float32"), cupy.zeros((5, 6), "float32")
    with pytest.raises(ValueError, match=r"gemm of shapes \(3, 4\) and \(5, 6\)"):
        backend.record([Gemm(a, b, cupy.zeros((3, 6), "float32"))], _steps(backend, [], 1))


def test_gemm_refuses_what_cublas_cannot_count(backend):
    """Its sizes have 32 bits; cut off, they would name other memory."""
    b = cupy.zeros((2, 2), "float32")
    a = cupy.lib.stride_tricks.as_strided(b, (2, 2), (2**34, 4))
    with pytest.raises(ValueError, match="row strides of at most 2147483647; use a smaller"):
        backend.record([Gemm(a, b, b.copy())], _steps(backend, [], 1))


# ---- plans -----------------------------------------------
def _steps(backend, columns, n, dtype="float32"):
    table = np.linspace(0.1, 0.01, n * max(1, len(columns)), dtype=dtype)
    return steps_with(backend, tuple(columns), table[: n * len(columns)].reshape(n, len(columns)))


def _plan(backend, n_steps=4, rows=6, seed=3):
    """Gather, product, tanh, product, update of the matrix: every kind of operation once or more."""
    rng = np.random.default_rng(seed)
    n_in, n_out = 12, 10

    def put(*shape):
        return backend.asarray(rng.standard_normal(shape).astype("float32"))

    X, x, z, a = put(50, n_in), put(rows, n_in), put(rows, n_out), put(rows, n_out)
    w, v, s = put(n_in * n_out), put(n_in * n_out), backend.zeros(n_in * n_out, "float32")
    g = put(n_in * n_out)
    index = backend.asarray(rng.integers(0, 50, n_steps * rows).astype("int32"))
    steps = _steps(backend, ["unused", "lr"], n_steps)
    matrix, gradient = (q.reshape(n_in, n_out) for q in (w, g))
    ops = [
        Launch(GATHER, {"x": x, "index": index, "X": X}, {"stride": rows}, rows, n_in, tick="first"),
        Gemm(x, matrix, z),
        Launch(TANH, {"z": z, "a": a}, {}, rows, n_out),
        Gemm(x, a, gradient, trans_a=True),
        Launch(
            ADAM,
            {"g": g, "p": w, "v": v, "s": s},
            {"beta": 0.9},
            1,
            w.size,
            [(0, 50, 1.0), (50, w.size, 0.0)],
            tick="last",
        ),
    ]
    return ops, steps, w


def test_plan_agrees_with_numpy_and_counts_steps(backend):
    ops, steps, w = _plan(backend)
    expected_ops, expected_steps, expected = _plan(HOST)
    replay = backend.record(ops, steps)
    assert steps.step.tolist() == [0, 1]  # recording does not step
    replay.run(3)
    replay.run()
    HOST.record(expected_ops, expected_steps).run(4)
    close(w, expected, "float32")
    assert steps.step.tolist() == expected_steps.step.tolist() == [4, 4]


def test_recording_changes_nothing_but_outputs_of_products(backend):
    ops, steps, w = _plan(backend)
    before = w.get()
    backend.record(ops, steps)
    np.testing.assert_array_equal(w.get(), before)


def test_graph_and_eager_give_the_same_bits():
    results = []
    for graph in (True, False):
        backend = CupyBackend(0, graph=graph)
        ops, steps, w = _plan(backend)
        backend.record(ops, steps).run(4)
        results.append(w.get())
    np.testing.assert_array_equal(*results)


def test_a_replay_is_one_graph_launch_and_nothing_else(counted):
    backend = CupyBackend(0, graph=True)
    replay = backend.record(*_plan(backend, n_steps=7)[:2])
    with counted() as c:
        replay.run(7)
    with counted() as later:  # a lazy device may not have begun before
        backend.synchronize()
    assert c["graph_launches"] == 7
    assert c["graph_kernels"] + later["graph_kernels"] == 3 * 7
    assert sum(sum(d["graph_library_calls"].values()) for d in (c, later)) == 2 * 7
    other = ["kernel_launches", "stream_syncs", "device_syncs", "event_syncs", "mallocs", "memset_count"]
    other += [f"memcpy_{way}_count" for way in ("h2d", "d2h", "d2d")]
    assert {name: c[name] for name in other if c[name]} == {}
    assert c["library_calls"] == {}


def test_replay_keeps_its_arrays(backend):
    ops, steps, w = _plan(backend)
    replay = backend.record(ops, steps)
    del ops, steps
    junk = [backend.empty(120, "float32") for _ in range(20)]  # would reuse memory that was given back
    for array in junk:
        array.fill(1e9)
    replay.run(4)
    expected_ops, expected_steps, expected = _plan(HOST)
    HOST.record(expected_ops, expected_steps).run(4)
    close(w, expected, "float32")


def test_failed_capture_runs_eagerly_and_says_so_once(monkeypatch):
    def broken(calls, plan, streams):
        raise RuntimeError("cudaErrorStreamCaptureUnsupported")

    monkeypatch.setattr(cupy_module, "captured", broken)
    backend = CupyBackend(0, graph=True)
    ops, steps, w = _plan(backend)
    with pytest.warns(RuntimeWarning, match="CUDA graphs are off.*CaptureUnsupported"):
        replay = backend.record(ops, steps)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backend.record(*_plan(backend)[:2])
    replay.run(4)
    expected_ops, expected_steps, expected = _plan(HOST)
    HOST.record(expected_ops, expected_steps).run(4)
    close(w, expected, "float32")


def test_a_call_that_fails_in_capture_leaves_the_stream_usable():
    backend = CupyBackend(0, graph=True)

    def fails():
        raise RuntimeError("not allowed here")

    with pytest.warns(RuntimeWarning, match="not allowed here"):
        assert backend.capture([fails]) is None
    ops, steps, _ = _plan(backend)
    backend.record(ops, steps).run()
    assert steps.step.tolist() == [1, 1]


def test_environment_turns_graphs_off(monkeypatch):
    monkeypatch.setenv("GPUMLP_GRAPH", "0")
    assert not CupyBackend(0).graph
    monkeypatch.setenv("GPUMLP_GRAPH", "1")
    assert CupyBackend(0).graph


# ---- order, copies, memory -----------------------------------------------
def test_work_follows_the_callers_streams(backend):
    """Each step is on another stream that waits for no other by itself."""
    streams = [cupy.cuda.Stream(non_blocking=True) for _ in range(3)]
    ops, steps, w = _plan(backend)
    replay = backend.record(ops, steps)
    for stream in streams:
        with stream:
            replay.run()
    replay.run()
    result = backend.to_numpy(w)
    expected_ops, expected_steps, expected = _plan(HOST)
    HOST.record(expected_ops, expected_steps).run(4)
    close(result, expected, "float32")


def test_callers_stream_continues_after_the_work(backend):
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        z = cupy.full((64, 64), 0.5, "float32")  # the caller's own work before ...
        backend.launch(TANH, {"z": z, "a": z}, {}, rows=64, cols=64)
        result = (z * 2).get()  # ... and after
    close(result, np.full((64, 64), 2 * np.tanh(0.5), "float32"), "float32")


def test_host_copy_may_be_changed_at_once_and_does_not_wait(counted):
    backend = CupyBackend(0)
    host = np.arange(1000.0)
    target = backend.empty(1000, "float64")
    with counted() as c:
        backend.copy(target, host)
        host[:] = -1
    assert (c["memcpy_h2d_count"], c["blocking_copies"], c["stream_syncs"]) == (1, 0, 0)
    np.testing.assert_array_equal(backend.to_numpy(target), np.arange(1000.0))


def test_host_copies_larger_than_the_staging_buffer(backend, monkeypatch, rng):
    monkeypatch.setattr("gpumlp.backends.cuda.arrays.STAGING_BYTES", 1 << 16)
    host = rng.random(50_000)
    np.testing.assert_array_equal(backend.to_numpy(backend.asarray(host)), host)


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (3, 4)])
def test_arrays_go_there_and_back(backend, shape):
    host = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype("float32")
    device = backend.asarray(host, "float64")
    assert (device.shape, device.dtype) == (shape, np.float64)
    copied = backend.empty(shape, "float64")
    backend.copy(copied, device)
    np.testing.assert_array_equal(backend.to_numpy(copied), host)


def test_copies_between_strided_arrays(backend):
    host = np.arange(12.0).reshape(3, 4)
    target = backend.zeros((4, 3), "float64")
    backend.copy(target.T, host)
    np.testing.assert_array_equal(backend.to_numpy(target), host.T)
    backend.copy(target, backend.asarray(host).T)
    np.testing.assert_array_equal(backend.to_numpy(target.T), host)


def test_copy_refuses_other_shapes(backend):
    target = backend.zeros((3, 2), "float32")
    with pytest.raises(ValueError, match=r"copy of \(2,\) float32 into \(3, 2\)"):
        backend.copy(target, np.zeros(2, "float32"))


@pytest.mark.parametrize("dtype", ["float64", "uint8", "int64"])
def test_copy_converts(backend, dtype, monkeypatch):
    """On its way, in pieces."""
    monkeypatch.setattr("gpumlp.backends.cuda.arrays.STAGING_BYTES", 1 << 12)
    source = (np.arange(6000).reshape(3000, 2) % 251).astype(dtype)
    expected = source.astype("float32")
    for given in (source, cupy.asarray(source)):
        target = backend.zeros((3000, 2), "float32")
        backend.copy(target, given)
        assert np.array_equal(backend.to_numpy(target), expected)
    assert np.array_equal(backend.to_numpy(backend.asarray(source, "float32")), expected)


class _Foreign:
    """An array of another library."""

    def __init__(self, array):
        self.array = array
        self.__cuda_array_interface__ = array.__cuda_array_interface__


class _Dlpack:
    def __init__(self, array):
        self.__dlpack__, self.__dlpack_device__ = array.__dlpack__, array.__dlpack_device__


@pytest.mark.parametrize("wrap", [lambda a: a, _Foreign, _Dlpack], ids=["cupy", "interface", "dlpack"])
def test_device_arrays_are_taken_without_a_copy(backend, wrap):
    array = cupy.arange(6, dtype="float32").reshape(2, 3)
    assert backend.asarray(wrap(array)).data.ptr == array.data.ptr
    assert backend.asarray(wrap(array), "float32").data.ptr == array.data.ptr
    assert backend.asarray(wrap(array), "float64").dtype == np.float64
    assert backend.asarray(array.T).flags.c_contiguous


@pytest.mark.skipif(cupy.cuda.runtime.getDeviceCount() < 2, reason="needs two devices")
def test_arrays_of_another_device_are_refused(backend):
    with cupy.cuda.Device(1):
        array = cupy.zeros(3, "float32")
    with pytest.raises(TypeError, match="on cuda:1 was given where one on cuda:0 is expected"):
        backend.asarray(array)
    with pytest.raises(TypeError, match="array 'z' is on cuda:1; expected an array on cuda:0"):
        backend.launch(TANH, {"z": array, "a": backend.zeros(3, "float32")}, {}, rows=1, cols=3)


@pytest.mark.skipif(cupy.cuda.runtime.getDeviceCount() < 2, reason="needs two devices")
def test_the_second_device_works_while_the_first_is_current():
    backend = CupyBackend(1)
    ops, steps, w = _plan(backend)
    backend.record(ops, steps).run(4)
    expected_ops, expected_steps, expected = _plan(HOST)
    HOST.record(expected_ops, expected_steps).run(4)
    close(backend.to_numpy(w), expected, "float32")
    assert w.device.id == 1


def test_out_of_memory_says_what_to_do(backend):
    with pytest.raises(MemoryError, match=r"8,388,608.0 MiB\) was asked for; .* free.*smaller batch_size"):
        backend.empty((2**20, 2**20), "float64")
    assert backend.zeros(3, "float32").sum() == 0


def test_info_names_device_and_versions(backend):
    info = backend.info()
    assert info["cupy"] == cupy.__version__
    assert info["cuda graphs"] == ("on" if backend.graph else "off")
    assert {"gpu", "compute capability", "memory", "driver", "runtime", "cublas"} <= set(info)
