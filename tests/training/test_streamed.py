"""Streamed training is resident training: the same batches, steps, masks and parameters."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from tolerances import RELATIVE

import gpumlp
from gpumlp.rows import Rows, check_rows
from gpumlp.training.evaluation import ResidentEvaluation
from gpumlp.training.memory import fixed_bytes, plan_memory, row_bytes
from gpumlp.training.placement import place
from gpumlp.training.streamed import StreamedEvaluation

MIB = 1 << 20


def _data(n: int, features: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    X = rng.normal(size=(n, features)).astype(np.float32)
    return X, (X[:, 0] + X[:, 1] ** 2 > 0.5).astype(np.int64)


def _train(backend: object, n: int, streaming: bool, **more: object) -> tuple[np.ndarray, gpumlp.History]:
    X, y = _data(n)
    model = gpumlp.MLP([6, 16, 2], dropout=0.2, device=backend, seed=3)  # type: ignore[arg-type]
    trainer = gpumlp.Trainer(
        model, loss="softmax_cross_entropy", optimizer=gpumlp.RMSProp(1e-2), batch_size=32, l2=1e-3
    )
    history = trainer.fit(X, y, epochs=3, streaming=streaming, **more)  # type: ignore[arg-type]
    return model.backend.to_numpy(model.flat), history


@pytest.mark.parametrize("n", [31, 32, 40, 100, 256, 1000])
def test_streamed_equals_resident(backend, n):
    w = np.linspace(0.1, 2, n)
    resident, history = _train(backend, n, False, sample_weight=w)
    streamed, streamed_history = _train(backend, n, True, sample_weight=w)
    np.testing.assert_array_equal(streamed, resident)
    np.testing.assert_allclose(
        streamed_history.loss, history.loss, rtol=RELATIVE["float32 roundings"]
    )  # another order of the sum


def test_streaming_uses_several_chunks(backend):
    X, y = _data(1000)
    model = gpumlp.MLP([6, 16, 2], device=backend)
    trainer = gpumlp.Trainer(model, loss="softmax_cross_entropy", optimizer="sgd", batch_size=32)
    session, _ = place(trainer.engine, check_rows(model, trainer.loss, X, y), None, 32, streaming=True)
    if backend.name == "cuda":  # the device is large: all rows in one chunk unless memory is short
        assert len(session.parts) >= 1
    else:
        assert [s.rows.n_rows for s in session.parts] == [224, 224, 224, 224, 104]
        assert session.n_steps == 32


def test_divergence_names_the_steps(backend):
    X, y = _data(200)
    model = gpumlp.MLP([6, 8, 1], device=backend)
    trainer = gpumlp.Trainer(model, loss="squared_error", optimizer=gpumlp.SGD(1e30), batch_size=20)
    with pytest.raises(gpumlp.DivergenceError, match=r"epoch 1, .*steps? \d+"):
        trainer.fit(X, y, epochs=3, streaming=True)


class _Small:
    """A backend of which only the name and the free memory matter."""

    name = device = "cuda:0"

    def __init__(self, available: int) -> None:
        self.available = available

    def available_bytes(self) -> int:
        return self.available


def test_plan_memory_decides_by_what_is_available():
    model = gpumlp.MLP([100, 50, 2], device="numpy")
    optimizer, n = gpumlp.Adam(), 10**6
    X, y = np.zeros((1, 100), np.float32), np.zeros(1, np.int32)
    per_row = row_bytes(model, Rows(X, y, None))
    assert per_row == 404
    fixed = fixed_bytes(model, optimizer, 128)
    assert 5 * model.flat.nbytes + 3 * 4 * 128 * 152 <= fixed <= 5 * model.flat.nbytes + 4 * 4 * 128 * 200
    model.backend = _Small(4096 * MIB)
    assert plan_memory(model, fixed, 128, n, per_row, None, "training") is None
    model.backend = _Small(fixed + 80 * MIB)
    chunk = plan_memory(model, fixed, 128, n, per_row, None, "training")
    assert chunk % 128 == 0
    assert 2 * chunk * (per_row + 8) + fixed <= fixed + 80 * MIB
    model.backend = _Small(fixed)
    with pytest.raises(MemoryError, match=r"training needs about [\d.,]+ MiB.*Lower batch_size"):
        plan_memory(model, fixed, 128, n, per_row, None, "training")


TEN_TIMES = """
import gc
import cupy
import numpy as np
import gpumlp

pool = cupy.get_default_memory_pool()
n, features, limit = 300_000, 100, 10 << 20
X = np.random.default_rng(0).random((n, features), np.float32)
y = (X[:, 0] > X[:, 1]).astype(np.int64)
assert X.nbytes > 10 * limit

def train():
    model = gpumlp.MLP([features, 2], device="cuda", seed=1)
    trainer = gpumlp.Trainer(model, loss="softmax_cross_entropy", optimizer="sgd", batch_size=2000)
    trainer.fit(X, y, epochs=1)
    return model.backend.to_numpy(model.flat)

resident = train()
gc.collect()
pool.free_all_blocks()
pool.set_limit(pool.used_bytes() + limit)
streamed = train()
assert pool.total_bytes() <= pool.get_limit()
np.testing.assert_array_equal(streamed, resident)
"""


def test_data_ten_times_the_memory_limit(backend):
    """The device's memory is limited for the test; data of ten times that size gives the resident result.
    In a process of its own: other tests leave blocks in the pool of which a part is still used."""
    if backend.name != "cuda":
        pytest.skip("only a device has memory of its own")
    done = subprocess.run([sys.executable, "-c", TEN_TIMES], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("chosen", [False, True], ids=["all", "chosen"])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "squared_error"])
def test_streamed_evaluation_equals_resident(backend, loss, weighted, chosen):
    X, y = _data(103)
    model = gpumlp.MLP([6, 8, 2 if loss.startswith("softmax") else 1], device=backend)
    trainer = gpumlp.Trainer(model, loss=loss, optimizer="sgd")
    rows = check_rows(model, trainer.loss, X, y, np.linspace(0.1, 2, len(X)) if weighted else None)
    if chosen:
        rows = replace(rows, index=np.arange(100, 0, -3, dtype=np.int32))
    sums = [backend.zeros(2, model.dtype) for _ in range(2)]
    resident = ResidentEvaluation(model, trainer.objective, rows.on(backend, model.dtype), sums[0])
    streamed = StreamedEvaluation(model, trainer.objective, rows, 10, sums[1])
    for _ in range(2):  # sums start again
        resident.run()
        streamed.run()
        expected = resident.figures(backend.to_numpy(sums[0]))
        assert streamed.figures(backend.to_numpy(sums[1])) == pytest.approx(
            expected, rel=RELATIVE["float32 sums"]
        )
