"""The kernels of mixed precision, on every executor: loss scale, guarded update, copy of the parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gpumlp.kernels.losses import training_kernel
from gpumlp.kernels.rows import CAST, LOSS_SCALE
from launching import HOW, Flat, Padded, run
from rules import OPTIONS, make
from tolerances import close

from gpumlp.optimizers import OPTIMIZERS

pytestmark = pytest.mark.memory


def scaled(
    backend: Any, dtype: Any, partial: Any, scaler: Any, how: str, limit: float = np.inf
) -> np.ndarray:
    """`scaler` after one launch of LOSS_SCALE with a growth of 3 steps."""
    state, sums = Flat(backend, scaler, dtype), Flat(backend, partial, dtype)
    arrays = {"partial": sums, "scaler": state}
    scalars = {"limit": limit, "growth": 3.0}
    run(backend, how, LOSS_SCALE, arrays, scalars, rows=1, cols=len(partial), dtype=dtype)
    return state.read()


@pytest.mark.parametrize("how", HOW)
def test_good_step(backend: Any, dtype: Any, how: str) -> None:
    got = scaled(backend, dtype, [4.0, 5.0], [8.0, 7.0, 1.0, 2.0], how)
    close(got, [8.0, 1 / 8, 2.0, 2.0], "elementwise")


def test_scale_grows_after_good_steps_up_to_a_limit(backend: Any, dtype: Any) -> None:
    close(scaled(backend, dtype, [1.0], [8.0, 0, 2.0, 5.0], "launch"), [16.0, 1 / 8, 0.0, 5.0], "elementwise")
    most = 2.0**24
    got = scaled(backend, dtype, [1.0], [most, 0, 2.0, 5.0], "launch")
    close(got, [most, 1 / most, 0.0, 5.0], "elementwise")


def test_factor_clips_the_unscaled_norm(backend: Any, dtype: Any) -> None:
    # the norm is sqrt(16 + 9) * 8 / 8 = 5
    got = scaled(backend, dtype, [16.0 * 64, 9.0 * 64], [8.0, 0, 0, 0], "launch", limit=1.0)
    close(got[1], 1 / 5 / 8, "elementwise")


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_overflow_halves_the_scale_and_is_counted(backend: Any, dtype: Any, bad: float, how: str) -> None:
    close(scaled(backend, dtype, [1.0, bad], [8.0, 1.0, 2.0, 4.0], how), [4.0, 0.0, 0.0, 5.0], "exact")
    close(scaled(backend, dtype, [bad], [1.0, 1.0, 0.0, 0.0], how), [1.0, 0.0, 0.0, 1.0], "exact")


@pytest.mark.cuda_sample(3)
@pytest.mark.parametrize("rule", sorted(OPTIMIZERS))
def test_guarded_update(backend: Any, dtype: Any, rule: str) -> None:
    """A factor of 0 leaves parameters and state; another one is that of clipping."""
    optimizer = make(rule, OPTIONS[rule][-1], l2=0.1, weight_decay=0.1)
    n, rng = 70, np.random.default_rng(0)
    start, g = rng.uniform(0.5, 1, n).astype(dtype), rng.uniform(1, 2, n).astype(dtype)
    values = optimizer.step_values(1, optimizer.lr)

    def update(kernel: Any, factor: float, gradient: Any, half: bool) -> list[np.ndarray]:
        arrays: dict[str, Any] = {"g": Flat(backend, gradient), "p": Flat(backend, start)}
        arrays.update((name, Flat(backend, np.full(n, 0.25, dtype))) for name in optimizer.arrays())
        arrays["clip_scale"] = Flat(backend, np.array([factor], dtype))
        if half:
            arrays["p_half"] = Flat(backend, np.zeros(n, dtype))
        stepped = {name: float(values[name]) for name in kernel.stepped}
        segments = [(0, 30, 1.0), (30, n, 0.0)] if kernel.masked else None
        run(
            backend,
            "launch",
            kernel,
            arrays,
            optimizer.scalars(kernel),
            stepped,
            rows=1,
            cols=n,
            segments=segments,
            dtype=dtype,
        )
        return [arrays[name].read() for name in ("p", *optimizer.arrays(), *(["p_half"] if half else []))]

    guarded = optimizer.kernel(half=True, guard=True)
    expected = update(optimizer.kernel(clip=True), 0.5, g, False)
    *got, copied = update(guarded, 0.5, g, True)
    for a, b in zip(got, expected, strict=True):
        close(a, b, "optimizer")
    close(copied, got[0], "exact")
    assert np.abs(got[0] - start).max() > 0
    bad = g.copy()
    bad[::3] = np.inf
    bad[1::3] = np.nan
    *kept, copied = update(guarded, 0.0, bad, True)
    close(kept[0], start, "exact")
    close(copied, start, "exact")
    for state in kept[1:]:
        close(state, np.full(n, 0.25), "exact")


@pytest.mark.parametrize("name", ["softmax_cross_entropy", "squared_error"])
def test_loss_scale_is_on_the_gradient_only(backend: Any, dtype: Any, name: str) -> None:
    rng = np.random.default_rng(0)
    z = rng.standard_normal((5, 3)).astype(dtype)
    y = np.array([0, 2, 1, 1, 0], np.int32) if name.startswith("softmax") else z + 1
    found = {}
    for scale in (None, 64.0):
        kernel = training_kernel(name, False, scale is not None)
        arrays: dict[str, Any] = {"z": Padded(backend, z), "d": Padded(backend, 0 * z)}
        arrays["index"] = backend.asarray(np.arange(5, dtype=np.int32))
        arrays["y"], arrays["row_loss"] = backend.asarray(y), Flat(backend, np.zeros(5, dtype))
        if scale is not None:
            arrays["loss_scale"] = backend.asarray(np.array([scale], dtype))
        scalars = {s.name: {"stride": 5, "per_output": 0.5}[s.name] for s in kernel.constants}
        run(backend, "launch", kernel, arrays, scalars, {"inv_weight": 0.2}, rows=5, cols=3, dtype=dtype)
        found[scale] = arrays["d"].read(), arrays["row_loss"].read()
    close(found[64.0][0], 64 * found[None][0], "elementwise")
    close(found[64.0][1], found[None][1], "exact")


@pytest.mark.parametrize("n", [1, 67])
@pytest.mark.parametrize("stored", ["float16", "bfloat16"])
def test_cast_rounds_to_nearest_even(cuda: Any, stored: str, n: int) -> None:
    torch = pytest.importorskip("torch")
    special = [
        0.0,
        -0.0,
        1.0,
        1 + 2**-11,
        1 + 3 * 2**-11,
        1 + 2**-9,
        1 + 3 * 2**-9,
        65519.0,
        65520.0,
        1e-7,
        6e-8,
    ]
    values = np.array(
        [np.inf, -np.inf, np.nan, *special, *np.random.default_rng(0).normal(0, 1, 80)], np.float32
    )
    values = values[:n] if n > 1 else values[-1:]
    kind = np.float16 if stored == "float16" else np.uint16
    p_half = cuda.zeros(n, kind)
    cuda.launch(CAST, {"p": cuda.asarray(values), "p_half": p_half}, {}, rows=1, cols=n)
    got = torch.from_numpy(cuda.to_numpy(p_half).view(np.int16)).view(getattr(torch, stored))
    expected = torch.from_numpy(values).to(getattr(torch, stored))
    np.testing.assert_array_equal(got.float().numpy(), expected.float().numpy())
