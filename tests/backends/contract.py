"""Kernels of every kind, and a plan with every kind of operation, for the contract of executors."""

from __future__ import annotations

from typing import Any

import numpy as np
from gpumlp.kernels.kernel import Kernel
from launching import steps_with

from gpumlp.backends.numpy import NumpyBackend
from gpumlp.backends.operations import Gemm, Launch

HOST = NumpyBackend()
CALL: tuple[dict, dict] = ({"beta": 0.9}, {"lr": 0.01})


def _adam(g: Any, p: Any, v: Any, s: Any, lr: float, beta: float, k: int, decay: float = 1.0) -> None:
    grad = g + decay * 0.5 * p
    v[...] = beta * v + (1 - beta) * grad
    s[...] = beta * s + (1 - beta) * grad * grad
    p -= lr * v / (np.sqrt(s) + 1e-3)


def adam() -> Kernel:
    """A new kernel object each time."""
    return Kernel(
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


def _tanh(z: Any, a: Any, k: int) -> None:
    a[...] = np.tanh(z)


def _softmax(z: Any, out: Any, total_of_row: Any, k: int) -> None:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    total_of_row[: len(z)] = e.sum(axis=1)
    out[...] = e / e.sum(axis=1, keepdims=True)


def _gather(x: Any, index: Any, X: Any, k: int, stride: int) -> None:
    x[...] = X[index[k * stride : k * stride + x.shape[0]]]


def _place(out: Any, scale: int, k: int) -> None:
    r, c = np.indices(out.shape)
    out[...] = r * scale + c + 1000 * k


ADAM = adam()
TANH = Kernel("gpumlp_test_tanh", "a = tanh(z);", _tanh, inputs="T z", outputs="T a")
SOFTMAX = Kernel(
    name="gpumlp_test_softmax",
    rowwise=True,
    inputs="T z",
    outputs="T out",
    rawouts="C total_of_row",
    body="""ROW_MAX(top, z[c])
ROW_SUM(total, exp(z[c] - top))
ROW_EACH { out[c] = exp(z[c] - top) / total; }
ROW_ONE { total_of_row[r] = total; }""",
    reference=_softmax,
)
GATHER = Kernel(
    name="gpumlp_test_gather",
    outputs="T x",
    raws="int32 index, T X",
    scalars="int64 stride",
    body="x = X[(long long)index[k * stride + r] * ld_X + c];",
    reference=_gather,
)
PLACE = Kernel(
    name="gpumlp_test_place",
    outputs="T out",
    scalars="int64 scale",
    body="out = C(r * scale + c + 1000 * k);",
    reference=_place,
)


def state(shape: Any, dtype: Any, seed: int = 0) -> dict[str, np.ndarray]:
    """Arrays of `ADAM`."""
    rng = np.random.default_rng(seed)
    arrays = {n: np.asarray(rng.standard_normal(shape), dtype) for n in "gpv"}
    arrays["s"] = np.asarray(rng.random(shape), dtype)
    return arrays


def plan_steps(backend: Any, columns: tuple[str, ...] = (), n: int = 1, dtype: Any = "float32") -> Any:
    """Steps with a table of falling numbers."""
    table = np.linspace(0.1, 0.01, n * max(1, len(columns)), dtype=dtype)
    return steps_with(backend, columns, table[: n * len(columns)].reshape(n, len(columns)))


def plan(backend: Any, n_steps: int = 4, rows: int = 6, dtype: Any = "float32") -> tuple[list, Any, Any]:
    """Gather, product, tanh, product, update of the matrix (given third): every kind once or more."""
    rng = np.random.default_rng(3)
    n_in, n_out = 12, 10

    def put(*shape: int) -> Any:
        return backend.asarray(rng.standard_normal(shape).astype(dtype))

    X, x, z, a = put(50, 16)[:, :n_in], put(rows, n_in), put(rows, 16)[:, :n_out], put(rows, n_out)
    w, v, g = (put(n_in * n_out) for _ in range(3))
    s = backend.asarray(rng.random(n_in * n_out).astype(dtype))
    index = backend.asarray(rng.integers(0, 50, n_steps * rows).astype("int32"))
    matrix, gradient = (q.reshape(n_in, n_out) for q in (w, g))
    segments = [(0, 50, 1.0), (50, w.size, 0.0)]
    update = {"g": g, "p": w, "v": v, "s": s}
    ops = [
        Launch(GATHER, {"x": x, "index": index, "X": X}, {"stride": rows}, rows, n_in, tick="first"),
        Gemm(x, matrix, z),
        Launch(TANH, {"z": z, "a": a}, {}, rows, n_out),
        Gemm(x, a, gradient, trans_a=True),
        Launch(ADAM, update, {"beta": 0.9}, 1, w.size, segments, tick="last"),
    ]
    return ops, plan_steps(backend, ("unused", "lr"), n_steps, dtype), w


def expected(n: int, dtype: Any = "float32") -> np.ndarray:
    """The matrix after `n` steps of `plan`."""
    ops, steps, w = plan(HOST, dtype=dtype)
    HOST.record(ops, steps).run(n)
    return w
