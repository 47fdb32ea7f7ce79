"""What a caller brings along: arrays of other libraries, of other devices, and streams."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from trainers import trainer

import gpumlp


class Interface:
    """An array that has nothing but ``__cuda_array_interface__``."""

    def __init__(self, array: Any) -> None:
        self.array = array

    @property
    def __cuda_array_interface__(self) -> dict:
        return self.array.__cuda_array_interface__


class Tensor(Interface):
    """The same with a dtype of another library's kind."""

    dtype = "library.float32"


class Dlpack:
    """An array that has nothing but DLPack."""

    def __init__(self, array: Any) -> None:
        self.__dlpack__, self.__dlpack_device__ = array.__dlpack__, array.__dlpack_device__


def network(**options: Any) -> gpumlp.MLP:
    return gpumlp.MLP([64, 24, 10], **{"device": "cuda", "seed": 5, **options})


# ---- arrays -----------------------------------------------
@pytest.mark.parametrize("wrap", [Interface, Tensor, Dlpack])
def test_foreign_arrays_are_taken_without_a_copy(cuda: Any, simgpu: Any, digits: Any, wrap: Any) -> None:
    import cupy

    X, y = cupy.asarray(digits[0]), cupy.asarray(digits[1].astype(np.int32))
    t = trainer(network())
    expected = trainer(network())
    expected.fit(X, y, epochs=1)
    with simgpu.watch() as c:
        t.fit(wrap(X), wrap(y), epochs=1)
    rows = min(X.nbytes, y.nbytes)
    assert (
        c["memcpy_d2d_bytes"] < rows and c["memcpy_h2d_bytes"] < 4 * y.nbytes and c["memcpy_d2h_bytes"] < rows
    )
    np.testing.assert_array_equal(cuda.to_numpy(t.model.flat), cuda.to_numpy(expected.model.flat))
    out = t.model.forward(wrap(X))
    assert isinstance(out, cupy.ndarray)
    np.testing.assert_array_equal(out.get(), expected.model.forward(digits[0]))


def test_torch_tensors_on_the_device(cuda: Any, digits: Any) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch has no CUDA device here")
    X, y = (torch.as_tensor(a).cuda() for a in digits)
    t, expected = trainer(network()), trainer(network())
    t.fit(X, y, epochs=1)
    expected.fit(*digits, epochs=1)
    np.testing.assert_array_equal(cuda.to_numpy(t.model.flat), cuda.to_numpy(expected.model.flat))


# ---- two devices -----------------------------------------------
@pytest.fixture
def second(cuda: Any) -> Any:
    """A context in which arrays are made on the second device."""
    import cupy

    if cupy.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("needs two devices")
    return cupy.cuda.Device(1)


@pytest.mark.parametrize("use", ["fit", "forward", "step", "validation"])
def test_arrays_of_another_device_are_refused(second: Any, digits: Any, use: str) -> None:
    import cupy

    with second:
        X, y = cupy.asarray(digits[0]), cupy.asarray(digits[1])
    t = trainer(network())
    before = t.model.get_parameters()
    calls = {
        "fit": lambda: t.fit(X, y, epochs=1),
        "forward": lambda: t.model.forward(X),
        "step": lambda: t.step(X, y),
        "validation": lambda: t.fit(*digits, epochs=1, validation=(X, y)),
    }
    with pytest.raises(TypeError, match="on cuda:1 was given where one on cuda:0 is expected; copy it: "):
        calls[use]()
    for a, b in zip(before, t.model.get_parameters(), strict=True):
        np.testing.assert_array_equal(a[0], b[0])
    t.step(digits[0][:50], digits[1][:50])  # still usable


def test_parameter_and_gradient_on_two_devices_are_both_named(second: Any) -> None:
    import cupy

    p = cupy.zeros(5, np.float32)
    with second:
        g = cupy.zeros(5, np.float32)
    with pytest.raises(TypeError, match=r"params\[0\] is .*Device 0.* but grads\[0\] is .*Device 1"):
        gpumlp.SGD().update(p, g)


def test_a_model_on_the_second_device_trains_as_on_the_first(second: Any, digits: Any) -> None:
    found = []
    for device in ("cuda:0", "cuda:1"):
        t = trainer(network(device=device), precision="float16")
        t.fit(*digits, epochs=2)
        assert t.model.flat.device.id == int(device[-1])
        found.append(t.model.backend.to_numpy(t.model.flat))
    np.testing.assert_array_equal(*found)


# ---- streams -----------------------------------------------
def test_work_is_between_the_callers_own(cuda: Any, digits: Any) -> None:
    """Rows are made on the caller's stream, trained on, and overwritten there; nobody waits."""
    import cupy

    X, y = digits
    expected = trainer(network())
    expected.fit(X, y, epochs=2)
    wanted = expected.model.forward(X)
    X2, y2 = cupy.asarray(X / 2), cupy.asarray(y - 1)
    cupy.cuda.Device().synchronize()
    stream = cupy.cuda.Stream(non_blocking=True)
    t = trainer(network())
    with stream:
        own, labels = X2 * 2, y2 + 1
        t.fit(own, labels, epochs=2)
        out = t.model.forward(own)
        own[...] = np.nan  # must come after what was started before
        doubled = out * 2
    np.testing.assert_array_equal(doubled.get(stream=stream), 2 * wanted)


def test_streams_may_change_between_calls(cuda: Any, digits: Any) -> None:
    import cupy

    X, y = digits
    expected, t = trainer(network()), trainer(network())
    streams = [cupy.cuda.Stream(non_blocking=True) for _ in range(3)]
    for n in range(6):
        rows = slice(50 * n, 50 * n + 50)
        expected.step(X[rows], y[rows])
        with streams[n % 3]:
            t.step(X[rows], y[rows])
    with streams[1]:
        got = t.model.get_parameters()
    for a, b in zip(got, expected.model.get_parameters(), strict=True):
        np.testing.assert_array_equal(a[0], b[0])


def test_rows_of_another_device_for_estimators(cuda: Any, second: Any, digits: Any) -> None:
    """The device of X need not be the current one."""
    pytest.importorskip("sklearn")
    import cupy

    X, y = digits[0][:200], digits[1][:200]
    with second:
        X1, y1 = cupy.asarray(X), cupy.asarray(y)
    options = {"hidden_layer_sizes": (8,), "max_iter": 3, "random_state": 0}
    for solver, stop in (("adam", False), ("sgd", True), ("lbfgs", False)):
        settings = {**options, "solver": solver, "early_stopping": stop}
        est = gpumlp.MLPClassifier(**settings).fit(X1, y1)
        here = gpumlp.MLPClassifier(**settings).fit(cupy.asarray(X), cupy.asarray(y))
        assert est.predict(X1).device.id == est.predict_proba(X1).device.id == 1
        assert np.array_equal(est.coefs_[0], here.coefs_[0])
        assert est.score(X1, y1) == here.score(cupy.asarray(X), y)
    target = X1[:, 5]
    regressor = gpumlp.MLPRegressor(early_stopping=True, **options).fit(X1, target)
    assert regressor.predict(X1).device.id == 1
    gpumlp.MLPClassifier(**options).partial_fit(X1, y, classes=np.arange(10))


def test_dlpack_for_estimators(cuda: Any, digits: Any) -> None:
    pytest.importorskip("sklearn")
    import cupy

    X, y = cupy.asarray(digits[0][:100]), cupy.asarray(digits[1][:100])
    options = {"hidden_layer_sizes": (8,), "max_iter": 2, "random_state": 0}
    est = gpumlp.MLPClassifier(**options).fit(Dlpack(X), Dlpack(y))
    assert np.array_equal(est.coefs_[0], gpumlp.MLPClassifier(**options).fit(X, y).coefs_[0])
    assert isinstance(est.predict(Dlpack(X)), cupy.ndarray)


# ---- overlapping arrays, captured streams, threads -----------------------------------------------
@pytest.mark.memory
@pytest.mark.parametrize("case", ["ahead", "behind", "reversed", "transposed", "strided", "itself"])
def test_a_gradient_that_overlaps_the_parameter(cuda: Any, case: str) -> None:
    """As on the CPU: every element is read before any is written."""
    import cupy

    def arrays(xp: Any) -> tuple[Any, Any, Any]:
        a = xp.arange(2050.0)
        if case == "transposed":
            square = a[:2025].reshape(45, 45)
            return a, square, square.T
        return a, *{
            "ahead": (a[1:], a[:-1]),
            "behind": (a[:-1], a[1:]),
            "reversed": (a, a[::-1]),
            "strided": (a[2::2], a[:-2:2]),
            "itself": (a, a),
        }[case]

    results = []
    for xp in (np, cupy):
        buffer, p, g = arrays(xp)
        gpumlp.SGD(lr=0.5).update(p, g)
        results.append(cuda.to_numpy(buffer))
    assert np.array_equal(*results)


def test_a_broadcast_parameter_is_refused(cuda: Any) -> None:
    import cupy

    p = cupy.broadcast_to(cupy.ones(1), (100,))
    with pytest.raises(ValueError, match=r"params\[0\] is broadcast"):
        gpumlp.SGD(lr=1.0).update(p, cupy.ones(100))


def test_a_capture_of_the_caller_is_refused_and_breaks_nothing(cuda: Any) -> None:
    import cupy

    opt, p, g = gpumlp.SGD(lr=1.0), cupy.zeros(4), cupy.ones(4)
    stream = cupy.cuda.Stream(non_blocking=True)
    cuda.synchronize()  # p and g are there
    with stream:
        opt.update(p, g)
        stream.begin_capture()
        try:
            with pytest.raises(RuntimeError, match="being captured into a CUDA graph"):
                opt.update(p, g)
        finally:
            stream.end_capture()
    opt.update(p, g)
    stream.synchronize()
    assert cuda.to_numpy(p).tolist() == [-2] * 4 and opt.t == 2


def test_threads_get_the_same_backend(cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from threading import Barrier, Thread

    from gpumlp.backends.cuda import backend as module

    usual = module.CupyBackend
    monkeypatch.setattr(gpumlp.backends, "made", {})
    monkeypatch.setattr(module, "CupyBackend", lambda number: time.sleep(0.05) or usual(number))
    gate, found = Barrier(4), []

    def ask() -> None:
        gate.wait()
        found.append(gpumlp.get_backend("cuda"))

    threads = [Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len({id(backend) for backend in found}) == 1
