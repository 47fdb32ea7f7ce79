"""`gpumlp.warmup`, and how many kernels a training needs."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from trainers import trainer

import gpumlp
from gpumlp.backends import cuda_problem

#: trainings of a classifier with validation and a prediction, in a process of its own
_CODE = """
import json, sys
import numpy as np, gpumlp, simgpu
backend = gpumlp.get_backend("cuda")
X, y = np.zeros((3000, 20), np.float32), np.arange(3000) % 10
model = gpumlp.MLP([20, 16, 12, 10], device="cuda")
options = json.loads(sys.argv[1])
trainer = gpumlp.Trainer(model, loss="softmax_cross_entropy", optimizer="adam", **options)
trainer.fit(X, y, epochs=2, validation=(X, y), progress=False)
model.predict(X)
print(json.dumps([simgpu.counters()["modules_loaded"], sorted(backend.load_seconds)]))
"""


@pytest.mark.parametrize(
    ("options", "most"),
    [({}, 12), ({"clip_norm": 1.0}, 14), ({"precision": "bfloat16"}, 15), ({"precision": "float16"}, 17)],
    ids=["plain", "clipped", "bfloat16", "float16"],
)
def test_a_training_needs_few_kernels(cuda: Any, simgpu: Any, options: dict, most: int) -> None:
    """Mixed precision evaluates in float32, so gather and activation exist twice."""
    command = [sys.executable, "-c", _CODE, json.dumps(options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    modules, names = json.loads(done.stdout.splitlines()[-1])
    assert {"gpumlp_gather", "gpumlp_relu", "gpumlp_softmax_cross_entropy_evaluate", "gpumlp_sum"} < set(
        names
    )
    assert len(names) <= modules <= most


def test_a_training_after_warmup_compiles_nothing(cuda: Any) -> None:
    gpumlp.warmup()
    before = dict(cuda.load_seconds)
    X, y = np.zeros((6000, 30), np.float32), np.arange(6000) % 7
    model = gpumlp.MLP([30, 12, 7], device="cuda")
    trainer(model).fit(X, y, epochs=2, validation=(X[:3500], y[:3500]))
    model.predict(X)
    assert cuda.load_seconds == before


def test_names_and_seconds() -> None:
    if cuda_problem():
        pytest.skip(f"no CUDA device: {cuda_problem()}")
    from gpumlp.backends.cuda.backend import CupyBackend

    backend = CupyBackend(0)
    first = gpumlp.warmup(device=backend, optimizers=["adagrad"])
    assert {"gpumlp_adagrad", "gpumlp_squared_error", "gpumlp_relu_backward"} < set(first)
    assert all(seconds > 0 for seconds in first.values())
    assert gpumlp.warmup(device=backend, optimizers=["adagrad"]) == {}
    more = gpumlp.warmup(device=backend, optimizers=["adagrad"], activations=["relu", "tanh"])
    assert set(more) == {"gpumlp_tanh", "gpumlp_tanh_backward"}
    assert "gpumlp_adagrad_half" in gpumlp.warmup(
        device=backend, optimizers=["adagrad"], precision="bfloat16"
    )


def test_warmup_is_for_cuda_devices() -> None:
    with pytest.raises(ValueError, match="device='numpy'; warmup compiles CUDA kernels"):
        gpumlp.warmup(device="numpy")
