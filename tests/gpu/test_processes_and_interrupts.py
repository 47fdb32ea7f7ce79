"""Children of fork, and Ctrl-C in the middle of a copy."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from trainers import trainer

import gpumlp

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def in_a_child(check: Callable[[], bool]) -> bool:
    """What `check` says in a child made by fork; an exception or ten seconds are no."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.alarm(10)
            status = int(not check())
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def refused(call: Callable[[], Any]) -> bool:
    try:
        call()
    except gpumlp.DeviceError as error:
        return "made by fork" in str(error) and "get_context('spawn')" in str(error)
    return False


def network() -> gpumlp.MLP:
    return gpumlp.MLP([64, 24, 10], device="cuda", seed=5)


def test_cuda_in_a_child_of_fork_is_refused(cuda: Any, digits: Any) -> None:
    """Whatever of the parent's it uses, or by its name."""
    X, y = digits[0][:100], digits[1][:100]
    t, array, opt = trainer(network()), cuda.zeros(5, np.float32), gpumlp.SGD(lr=1.0)
    t.step(X, y)
    opt.update(array, array)
    for call in (
        lambda: gpumlp.get_backend("cuda"),
        lambda: gpumlp.MLP([3, 2], device="cuda:0"),
        lambda: t.step(X, y),
        lambda: t.fit(X, y, epochs=1),
        lambda: t.model.predict(X),
        lambda: cuda.to_numpy(array),
        lambda: opt.update(array, array),
        lambda: gpumlp.SGD(lr=1.0).update(array, array),
    ):
        assert in_a_child(lambda call=call: refused(call))
    t.step(X, y)  # the parent goes on


def test_auto_in_a_child_of_fork_is_the_cpu_and_says_so(cuda: Any) -> None:
    def check() -> bool:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            name = gpumlp.get_backend("auto").device
        return name == "cpu" and any("made by fork" in str(w.message) for w in caught)

    assert in_a_child(check)


def test_a_fork_while_another_thread_works_does_not_hang(cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither lock that the thread holds is waited for in the child."""
    from gpumlp.backends.cuda import backend as module

    working, done = threading.Event(), threading.Event()

    def make(_number: int) -> Any:
        working.set()
        done.wait()
        return cuda

    monkeypatch.setattr(gpumlp.backends, "made", {"cuda:0": cuda})
    monkeypatch.setattr(gpumlp.backends, "cuda_problem", lambda _number: None)
    monkeypatch.setattr(module, "CupyBackend", make)

    def work() -> None:
        with cuda.work():
            gpumlp.get_backend("cuda:1")

    thread = threading.Thread(target=work)
    thread.start()
    working.wait()
    try:
        assert in_a_child(lambda: refused(cuda.synchronize))
        assert in_a_child(lambda: gpumlp.get_backend("numpy").device == "cpu")
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("way", ["copy", "prefetch"])
def test_a_buffer_whose_copy_was_interrupted_is_not_written(
    cuda: Any, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Ctrl-C right after the copy was started; a lazy device reads the buffer only when somebody waits."""
    from gpumlp.backends.cuda import arrays as module

    send = cuda.copy if way == "copy" else lambda dst, src: cuda.wait(cuda.prefetch([(dst, src)]))
    n = 50_000
    targets = [cuda.zeros(n, np.float32) for _ in range(4)]
    cuda.synchronize()
    usual = module.runtime.memcpyAsync

    def interrupted(*arguments: Any) -> None:
        usual(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module.runtime, "memcpyAsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            send(targets[0], np.full(n, 0, np.float32))
    for value, target in enumerate(targets[1:], 1):
        send(target, np.full(n, value, np.float32))
    for value, target in enumerate(targets):
        assert (cuda.to_numpy(target) == value).all()


def test_a_build_without_nvtx_trains(cuda: Any, digits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """CuPy then has an object in place of the module that has no function."""
    from gpumlp.backends.cuda import backend as module

    class Unavailable:
        available = False

    monkeypatch.setattr(module, "nvtx", Unavailable())
    t = trainer(network())
    t.fit(digits[0][:100], digits[1][:100], epochs=1)
    assert t.model.predict(digits[0][:5]).shape == (5,)


def test_missing_headers_are_found_before_the_device_is_chosen(
    cuda: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cupy._core import core

    def missing(_options: Any) -> Any:
        raise RuntimeError("Failed to find CUDA headers.")

    monkeypatch.setattr(core, "assemble_cupy_compiler_options", missing)
    monkeypatch.setattr(gpumlp.backends, "made", {})
    assert gpumlp.get_backend("auto").device == "cpu"
    text = r"CUDA's headers.* are missing \(Failed to find CUDA headers.\): .*'cupy-cuda1[23]x\[ctk\]'"
    with pytest.raises(gpumlp.DeviceError, match=text):
        gpumlp.get_backend("cuda")
