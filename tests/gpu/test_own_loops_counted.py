"""What loops of one's own ask of a CUDA device, and that rows are not looked at on the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tolerances import close

import gpumlp

ROWS = np.random.default_rng(5).normal(size=(128, 20)).astype("float32")
LABELS = np.random.default_rng(6).integers(0, 3, 128)


def counted(cuda: Any, simgpu: Any, step: Callable[[], Any]) -> dict[str, Any]:
    """The counters of one call after two others; a copy inside the device is one as well."""
    for _ in range(2):
        step()
    cuda.synchronize()
    with simgpu.watch() as found:
        step()
        cuda.synchronize()
    libraries = (*found["library_calls"].values(), *found["graph_library_calls"].values())
    syncs = [found[f"{what}_syncs"] for what in ("stream", "device", "event")]
    return {
        "launches": found["kernel_launches"] + found["graph_kernels"] + sum(libraries),
        "graphs": found["graph_launches"],
        "syncs": sum(syncs) + found["blocking_copies"] - 1,
        "copies": sum(found[f"memcpy_{way}_count"] for way in ("h2d", "d2h", "d2d")),
        "allocations": found["mallocs"],
    }


@pytest.mark.parametrize("sizes", [(20, 10), (20, 64, 10), (20, 33, 17, 10)])
def test_a_loop_of_ones_own(cuda: Any, simgpu: Any, sizes: tuple[int, ...]) -> None:
    cupy = cuda.xp
    layers = len(sizes) - 1
    model, rule = gpumlp.MLP(sizes, device="cuda"), gpumlp.Adam(lr=1e-3)
    X, T = cupy.asarray(ROWS), cupy.zeros((128, 10), "float32")

    def step(**how: Any) -> None:
        dY = (model.forward(X, keep=True, training=bool(how)) - T) / 128
        rule.update([*model.weights, *model.biases], model.backward(dY, **how))

    expected = {"launches": 5 * layers + 2, "graphs": 2, "syncs": 0, "copies": 0, "allocations": 0}
    assert counted(cuda, simgpu, step) == expected
    model.dropouts = 0.5 if layers > 1 else 0.0
    assert counted(cuda, simgpu, lambda: step(inputs=True)) == {
        **expected,
        "launches": 5 * layers + 3 + (layers > 1),
    }


@pytest.mark.parametrize("kind", ["int32", "int64", "uint8"])
def test_the_trainers_batches_wait_for_nothing(cuda: Any, simgpu: Any, kind: str) -> None:
    X, y = cuda.asarray(ROWS), cuda.asarray(LABELS.astype(kind))
    trainer = gpumlp.Trainer(
        gpumlp.MLP([20, 33, 3], device="cuda"), loss="softmax_cross_entropy", optimizer="adam", l2=0.1
    )
    for call in (
        lambda: trainer.loss_and_grads(X, y),
        lambda: trainer.step(X, y, loss=True),
        lambda: trainer.step(X, y, check=False),
    ):
        found = counted(cuda, simgpu, call)
        assert (found["syncs"], found["allocations"]) == (0, 0)


def test_figures_of_the_trainer_are_those_of_the_host(cuda: Any) -> None:
    for precision in ("float32", "float16"):
        made = []
        for place in (np.asarray, cuda.asarray):
            trainer = gpumlp.Trainer(
                gpumlp.MLP([20, 33, 3], device="cuda"),
                loss="softmax_cross_entropy",
                optimizer="adam",
                l1=0.01,
                l2=0.1,
                precision=precision,
            )
            X, y = place(ROWS), place(LABELS)
            value, grads = trainer.loss_and_grads(X, y)
            made.append([value, *(g for pair in grads for g in pair), trainer.step(X, y, loss=True)])
        for found, wanted in zip(made[1], made[0], strict=True):
            assert isinstance(found, cuda.xp.ndarray)
            close(found.get(), np.asarray(getattr(wanted, "get", lambda w=wanted: w)()), "figures")
        assert not isinstance(made[0][1], cuda.xp.ndarray)  # NumPy rows, NumPy gradients


@pytest.mark.parametrize("bad", [-1, 3, 255, 2**32 + 1, -(2**63)])
def test_class_numbers_that_are_none_give_nan(cuda: Any, bad: int) -> None:
    kind = "uint8" if bad == 255 else "int64" if abs(bad) > 2**31 else "int32"
    y = LABELS.astype(kind)
    y[77] = bad
    X, y = cuda.asarray(ROWS), cuda.asarray(y)
    trainer = gpumlp.Trainer(
        gpumlp.MLP([20, 33, 3], device="cuda"), loss="softmax_cross_entropy", optimizer="adam"
    )
    assert np.isnan(float(trainer.loss_and_grads(X, y)[0]))
    for refused in (
        lambda: trainer.loss_and_grads(X, y, check=True),
        lambda: trainer.step(X, y),
        lambda: trainer.fit(X, y, epochs=1, check=False),
    ):
        with pytest.raises(ValueError, match="class numbers from"):
            refused()
    assert np.isfinite(float(trainer.loss_and_grads(X, cuda.asarray(LABELS))[0]))  # nothing is left of it
    assert np.isnan(float(trainer.step(X, y, loss=True)))


def test_rows_and_gradients_on_other_devices(cuda: Any) -> None:
    model = gpumlp.MLP([20, 33, 3], device="cuda")
    Y = model.forward(ROWS, keep=True)  # of the host
    assert isinstance(Y, np.ndarray)
    grads = model.backward(np.ones_like(Y))
    assert all(isinstance(g, cuda.xp.ndarray) for g in grads)
    host = gpumlp.MLP([20, 33, 3], device="cpu")
    with pytest.raises(TypeError, match="X is on a CUDA device"):
        host.forward(cuda.asarray(ROWS), keep=True)
    host.forward(ROWS, keep=True)
    with pytest.raises(TypeError, match="dY is on a CUDA device"):
        host.backward(cuda.asarray(Y))
    assert np.isnan(model.forward(cuda.xp.full((4, 20), cuda.xp.nan), keep=True).get()).all()
