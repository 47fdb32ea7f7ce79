"""What is particular to the CuPy executor; needs CuPy and a device (a simulated one will do)."""

import warnings

import numpy as np
import pytest
import tolerances
from contract import TANH, expected, plan, plan_steps

from gpumlp.backends import cuda_problem
from gpumlp.backends.operations import Gemm

if cuda_problem():
    pytest.skip(f"no CUDA device: {cuda_problem()}", allow_module_level=True)

import cupy

from gpumlp.backends.cuda import backend as cupy_module
from gpumlp.backends.cuda.backend import CupyBackend


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


# ---- kernels -----------------------------------------------


def test_one_compiled_kernel_for_all_shapes(counted):
    backend = CupyBackend(0)
    with counted() as c:
        for shape in [(4, 8), (1, 400), (100, 16)]:
            z = backend.zeros(shape, "float32")
            backend.launch(TANH, {"z": z, "a": z}, {}, rows=shape[0], cols=shape[1])
    assert c["kernels"] == {"gpumlp_test_tanh": 3}
    assert c["modules_loaded"] <= 1  # 0 if another test has loaded it


# ---- gemm -----------------------------------------------


def test_gemm_refuses_what_cublas_cannot_count(backend):
    """Its sizes have 32 bits; cut off, they would name other memory."""
    b = cupy.zeros((2, 2), "float32")
    a = cupy.lib.stride_tricks.as_strided(b, (2, 2), (2**34, 4))
    with pytest.raises(ValueError, match="row strides of at most 2147483647; use a smaller"):
        backend.record([Gemm(a, b, b.copy())], plan_steps(backend))


# ---- plans -----------------------------------------------


def test_graph_and_eager_give_the_same_bits():
    results = []
    for graph in (True, False):
        backend = CupyBackend(0, graph=graph)
        ops, steps, w = plan(backend)
        backend.record(ops, steps).run(4)
        results.append(w.get())
    np.testing.assert_array_equal(*results)


def test_a_replay_is_one_graph_launch_and_nothing_else(counted):
    backend = CupyBackend(0, graph=True)
    replay = backend.record(*plan(backend, n_steps=7)[:2])
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


def test_failed_capture_runs_eagerly_and_says_so_once(monkeypatch):
    def broken(calls, plan, streams):
        raise RuntimeError("cudaErrorStreamCaptureUnsupported")

    monkeypatch.setattr(cupy_module, "captured", broken)
    backend = CupyBackend(0, graph=True)
    ops, steps, w = plan(backend)
    with pytest.warns(RuntimeWarning, match="CUDA graphs are off.*CaptureUnsupported"):
        replay = backend.record(ops, steps)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backend.record(*plan(backend)[:2])
    replay.run(4)
    close(w, expected(4), "float32")


def test_a_call_that_fails_in_capture_leaves_the_stream_usable():
    backend = CupyBackend(0, graph=True)

    def fails():
        raise RuntimeError("not allowed here")

    with pytest.warns(RuntimeWarning, match="not allowed here"):
        assert backend.capture([fails]) is None
    ops, steps, _ = plan(backend)
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
    ops, steps, w = plan(backend)
    replay = backend.record(ops, steps)
    for stream in streams:
        with stream:
            replay.run()
    replay.run()
    result = backend.to_numpy(w)
    close(result, expected(4), "float32")


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
    ops, steps, w = plan(backend)
    backend.record(ops, steps).run(4)
    close(backend.to_numpy(w), expected(4), "float32")
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
