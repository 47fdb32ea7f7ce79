"""Use from several threads, moves between devices, and what remains after a failure."""

from __future__ import annotations

import sys
import threading

import numpy as np
import pytest

import gpumlp


def test_predict_from_several_threads(device):
    model = gpumlp.MLP([8, 32, 3], device=device)
    X = np.random.default_rng(0).normal(size=(40, 16, 8)).astype(np.float32)
    expected = [model.forward(x) for x in X]
    wrong: list[int] = []

    def work(offset: int) -> None:
        for i in range(60):
            n = (i + offset) % len(X)
            if not np.array_equal(model.forward(X[n]), expected[n]):
                wrong.append(n)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(offset,)) for offset in (0, 13)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []


def test_trainer_follows_the_model_to_another_gpu(device):
    if gpumlp.backends.cuda_problem(1):
        pytest.skip("needs two CUDA devices")
    X, y = np.random.default_rng(0).normal(size=(64, 4)), np.arange(64) % 2

    def train(second: str) -> np.ndarray:
        model = gpumlp.MLP([4, 8, 2], device="cuda:0")
        trainer = gpumlp.Trainer(model, loss="softmax_cross_entropy", optimizer="adam", batch_size=16)
        trainer.fit(X, y, epochs=2)
        model.to(second)
        trainer.fit(X, y, epochs=2)
        return model.backend.to_numpy(model.flat)

    np.testing.assert_array_equal(train("cuda:1"), train("cuda:0"))


def test_update_of_parameters_on_two_gpus(device):
    if gpumlp.backends.cuda_problem(1):
        pytest.skip("needs two CUDA devices")
    import cupy

    arrays = []
    for number in (0, 1):
        with cupy.cuda.Device(number):
            arrays.append((cupy.ones(5), cupy.full(5, 2.0)))
    adam = gpumlp.Adam(lr=0.5)
    for _ in range(2):
        adam.update([p for p, _ in arrays], [g for _, g in arrays])
    alone, gradient = np.ones(5), np.full(5, 2.0)
    oracle = gpumlp.Adam(lr=0.5)
    for _ in range(2):
        oracle.update(alone, gradient)
    for p, _ in arrays:
        np.testing.assert_allclose(p.get(), alone, rtol=1e-14)


def test_best_parameters_come_back_after_a_failure(device):
    X, y = np.random.default_rng(0).normal(size=(64, 4)), np.arange(64) % 2
    model = gpumlp.MLP([4, 8, 2], device=device)
    seen: list[np.ndarray] = []

    def fail(trainer: gpumlp.Trainer, history: gpumlp.History) -> None:
        seen.append(model.backend.to_numpy(model.flat))
        if len(history) == 2:
            trainer.optimizer.lr = 1e30

    trainer = gpumlp.Trainer(
        model, loss="softmax_cross_entropy", optimizer=gpumlp.SGD(0.1), batch_size=16, callbacks=[fail]
    )
    stop = gpumlp.EarlyStopping(monitor="loss", patience=5)
    with pytest.raises(gpumlp.DivergenceError, match="epoch 3"):
        trainer.fit(X, y, epochs=5, early_stopping=stop)
    np.testing.assert_array_equal(model.backend.to_numpy(model.flat), seen[1])
