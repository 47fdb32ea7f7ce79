"""Training on the CPU beside other threads, in children of fork, in joblib's workers; Ctrl-C."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp.locks import free_after_fork

SIZES = [20, 64, 64, 2]


def rows() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2000, 20)).astype(np.float32)
    return X, (X[:, :3].sum(axis=1) > 0).astype(int)


def train(device: str, epochs: int = 5, sizes: Sequence[int] = SIZES) -> np.ndarray:
    model = gpumlp.MLP(sizes, seed=1, device=device)
    trainer = gpumlp.Trainer(model, loss="softmax_cross_entropy", optimizer="adam", batch_size=256)
    trainer.fit(*rows(), epochs=epochs, progress=False)
    return np.array(model.backend.to_numpy(model.flat))


@pytest.fixture
def cpu(device: str) -> str:
    if gpumlp.get_backend(device).device != "cpu":
        pytest.skip("CUDA does not survive fork")
    return device


def test_several_threads_train_at_once(cpu: str) -> None:
    expected = train(cpu)
    results: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: results.append(train(cpu))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 3 and all(np.array_equal(result, expected) for result in results)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_in_the_middle_of_a_training(cpu: str) -> None:
    """The child, which has the forking thread only, trains to the same parameters; so does the parent."""
    # OpenBLAS, which multiplies for NumPy, hangs in a fork while it uses threads: not for so small products
    sizes = [20, 8, 8, 2] if cpu == "numpy" else SIZES
    expected, results = train(cpu, sizes=sizes), []
    thread = threading.Thread(target=lambda: results.append(train(cpu, sizes=sizes)))
    thread.start()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.alarm(60)  # must not wait for ever
            status = int(not np.array_equal(train(cpu, sizes=sizes), expected))
        finally:
            os._exit(status)
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert np.array_equal(results[0], expected)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("kind", ["model", "estimator"])
def test_a_fork_while_another_thread_predicts(cpu: str, kind: str) -> None:
    """The thread holds a lock most of the time; the child, which does not have it, predicts all the same.

    The products are so small that OpenBLAS, under the NumPy executor, takes one thread: a fork while it uses
    several hangs by itself.
    """
    X, y = (array[:1000] for array in rows())
    model: Any = gpumlp.MLP([20, 8, 8, 2], "tanh", seed=1, device=cpu)
    if kind == "estimator":
        model = gpumlp.MLPRegressor(
            hidden_layer_sizes=(8, 8), device=cpu, max_iter=1, tol=1e9, n_iter_no_change=1
        ).fit(X, y)
    expected, stop = model.predict(X), threading.Event()

    def serve() -> None:
        while not stop.is_set():
            model.predict(X)

    thread = threading.Thread(target=serve)
    thread.start()
    codes = []
    try:
        for number in range(8):
            time.sleep(0.002 * number)
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    signal.alarm(20)  # must not wait for ever
                    status = int(not np.array_equal(model.predict(X), expected))
                finally:
                    os._exit(status)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            if codes[-1]:
                break
    finally:
        stop.set()
        thread.join()
    assert codes == [0] * 8


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_lock_of_the_thread_that_forks_stays_its_own() -> None:
    """In the child, that of another thread is free, and its own is held until it is released."""

    class Owner:
        def __init__(self) -> None:
            self.lock = threading.RLock()
            free_after_fork(self, "lock")

    mine, theirs, held, done = Owner(), Owner(), threading.Event(), threading.Event()

    def hold() -> None:
        with theirs.lock:
            held.set()
            done.wait()

    def free(owner: Owner) -> bool:
        """Asked by another thread."""
        answers = []
        thread = threading.Thread(target=lambda: answers.append(owner.lock.acquire(blocking=False)))
        thread.start()
        thread.join()
        return answers[0]

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    with mine.lock:
        pid = os.fork()
        kept = not free(mine)
    if pid == 0:
        # asked by this thread: a new one may get the identity of the one that is gone
        os._exit(int(not (kept and free(mine) and theirs.lock.acquire(blocking=False))))
    assert not free(theirs)
    done.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_made_by_fork(cpu: str) -> None:
    expected = train(cpu)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert all(np.array_equal(result, expected) for result in pool.map(train, [cpu] * 4))


def test_joblib_workers(cpu: str) -> None:
    model_selection = pytest.importorskip("sklearn.model_selection")
    X, y = rows()
    est = gpumlp.MLPClassifier((16,), device=cpu, max_iter=3, random_state=0, tol=0, n_iter_no_change=99)
    with pytest.warns(match="Maximum iterations"):
        alone = model_selection.cross_val_score(est, X, y, cv=4, n_jobs=1)
    assert np.array_equal(model_selection.cross_val_score(est, X, y, cv=4, n_jobs=2), alone)


def test_ctrl_c_ends_a_long_training_within_a_second(cpu: str) -> None:
    model = gpumlp.MLP(SIZES, seed=1, device=cpu)
    trainer = gpumlp.Trainer(model, loss="softmax_cross_entropy", optimizer="adam", batch_size=256)
    trainer.fit(*rows(), epochs=1, progress=False)
    pressed = [0.0]

    def press() -> None:
        pressed[0] = time.monotonic()
        signal.raise_signal(signal.SIGINT)

    previous = signal.signal(signal.SIGALRM, lambda *_: press())
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            trainer.fit(*rows(), epochs=10**7, progress=False)
        assert time.monotonic() - pressed[0] < 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    trainer.fit(*rows(), epochs=1, progress=False)  # goes on
    assert np.isfinite(model.backend.to_numpy(model.flat)).all()
