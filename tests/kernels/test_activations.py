"""Activations and their derivatives against formulas on single float64 numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import oracles
import pytest
from gpumlp.kernels.activations import ACTIVATIONS, backward_kernel, dropout_scalars, forward_kernel
from launching import HOW, Flat, Padded, run
from tolerances import close

NAMES = sorted(oracles.ACTIVATIONS)
KEY, RATE, LAYER, STEP = -5_000_000_123, 0.3, 2, 2**24 * 3 + 77
DROP = {"t_low": float(STEP % 2**24), "t_high": float(STEP >> 24)}
pytestmark = pytest.mark.memory


def inputs(n: int, dtype: Any, seed: int = 0) -> np.ndarray:
    """Numbers of all sizes up to 50, both signs, zeros among them."""
    rng = np.random.default_rng([n, seed])
    z = rng.normal(0, 1, n) * 10.0 ** rng.uniform(-4, 1, n)
    z[::11] = 0
    return z.astype(dtype)


def test_every_activation_has_an_oracle() -> None:
    assert set(oracles.ACTIVATIONS) == set(ACTIVATIONS)


@pytest.mark.cuda_sample(7)
@pytest.mark.parametrize("n", [0, 1, 3, 127, 2**16 + 1])
@pytest.mark.parametrize("name", NAMES)
def test_flat(backend: Any, dtype: Any, name: str, n: int) -> None:
    z = inputs(n, dtype)
    out = Flat(backend, np.zeros(n, dtype))
    run(backend, "launch", forward_kernel(name), {"z": Flat(backend, z), "a": out}, rows=1, cols=n)
    close(out.read(), oracles.activation(name, z), "elementwise")

    upstream = np.linspace(-2, 2, n).astype(dtype)
    given = z if ACTIVATIONS[name].needs_z else oracles.activation(name, z).astype(dtype)
    d = Flat(backend, upstream)
    source = "z" if ACTIVATIONS[name].needs_z else "a"
    run(backend, "launch", backward_kernel(name), {source: Flat(backend, given), "d": d}, rows=1, cols=n)
    # the derivative is taken where the rounded output lies: elu' = a + 1 and the like are exact there
    close(d.read(), upstream.astype(float) * oracles.slope(name, z), "derivative", scale=2)


@pytest.mark.cuda_sample(5)
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", NAMES)
def test_views_in_place(backend: Any, dtype: Any, name: str, how: str) -> None:
    """z and a in one buffer whose next column is another value; columns no multiple of 4."""
    z = inputs(5 * 7, dtype, 1).reshape(5, 7)
    buffer = Padded(backend, z)
    run(backend, how, forward_kernel(name), {"z": buffer, "a": buffer}, rows=5, cols=7, dtype=dtype)
    close(buffer.read(), oracles.activation(name, z), "elementwise")


@pytest.mark.cuda_sample(5)
@pytest.mark.parametrize("name", NAMES)
def test_fewer_rows_than_the_buffer(backend: Any, dtype: Any, name: str) -> None:
    z = inputs(6 * 5, dtype, 2).reshape(6, 5)
    buffer = Padded(backend, z)
    run(backend, "launch", forward_kernel(name), {"z": buffer.view[:4], "a": buffer.view[:4]}, rows=4, cols=5)
    close(buffer.read()[:4], oracles.activation(name, z[:4]), "elementwise")
    assert (buffer.read()[4:] == z[4:]).all()


@pytest.mark.cuda_sample(5)
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", NAMES)
def test_dropout(backend: Any, dtype: Any, name: str, how: str) -> None:
    rows, cols = 6, 13
    z = inputs(rows * cols, dtype, 3).reshape(rows, cols)
    mask = oracles.kept(rows, cols, step=STEP, layer=LAYER, key=KEY, rate=RATE)
    scalars = dropout_scalars(RATE, KEY, LAYER)
    a, inner = Padded(backend, z), Padded(backend, z)
    run(
        backend,
        how,
        forward_kernel(name, True),
        {"z": inner, "a": a},
        scalars,
        DROP,
        rows=rows,
        cols=cols,
        dtype=dtype,
    )
    close(a.read(), np.where(mask, oracles.activation(name, z) / (1 - RATE), 0), "dropout")
    assert (a.read()[~mask] == 0).all()

    upstream = np.linspace(-2, 2, z.size).reshape(z.shape).astype(dtype)
    d = Padded(backend, upstream)
    source = {"z": inner} if ACTIVATIONS[name].needs_z else {"a": a}
    run(
        backend,
        how,
        backward_kernel(name, True),
        {**source, "d": d},
        scalars,
        DROP,
        rows=rows,
        cols=cols,
        dtype=dtype,
    )
    expected = np.where(mask, upstream * oracles.slope(name, z) / (1 - RATE), 0)
    close(d.read(), expected, "dropout", scale=2)


@pytest.mark.cuda_sample(5)
@pytest.mark.parametrize("name", NAMES)
def test_dropped_elements_are_zero_whatever_they_were(backend: Any, dtype: Any, name: str) -> None:
    """A dropped unit contributes nothing, be it infinite or NaN, on every executor alike."""
    rows, cols = 4, 9
    mask = oracles.kept(rows, cols, step=0, layer=0, key=7, rate=0.5)
    scalars, now = dropout_scalars(0.5, 7, 0), {"t_low": 0.0, "t_high": 0.0}
    a, d = (
        Padded(backend, np.full((rows, cols), np.nan, dtype)),
        Padded(backend, np.full((rows, cols), np.inf, dtype)),
    )
    run(backend, "launch", forward_kernel(name, True), {"z": a, "a": a}, scalars, now, rows=rows, cols=cols)
    assert (a.read()[~mask] == 0).all()
    assert np.isnan(a.read()[mask]).all()
    ones = Padded(backend, np.ones((rows, cols), dtype))
    source = "z" if ACTIVATIONS[name].needs_z else "a"
    run(
        backend,
        "launch",
        backward_kernel(name, True),
        {source: ones, "d": d},
        scalars,
        now,
        rows=rows,
        cols=cols,
    )
    assert (d.read()[~mask] == 0).all()
    assert not np.isfinite(d.read()[mask]).any() or name in ("tanh", "sigmoid", "softplus")


INF, NAN = math.inf, math.nan
#: f at NaN, inf, -inf, 1e4, -1e4, 1e30, -1e30
SPECIAL = {
    "relu": [NAN, INF, 0, 1e4, 0, 1e30, 0],
    "tanh": [NAN, 1, -1, 1, -1, 1, -1],
    "sigmoid": [NAN, 1, 0, 1, 0, 1, 0],
    "identity": [NAN, INF, -INF, 1e4, -1e4, 1e30, -1e30],
    "leaky_relu": [NAN, INF, -INF, 1e4, -100, 1e30, -1e28],
    "elu": [NAN, INF, -1, 1e4, -1, 1e30, -1],
    # x Phi(x) and x sigmoid(x) at -inf are -inf * 0: NaN, as in PyTorch
    "gelu": [NAN, INF, NAN, 1e4, 0, 1e30, 0],
    "silu": [NAN, INF, NAN, 1e4, 0, 1e30, 0],
    "softplus": [NAN, INF, 0, 1e4, 0, 1e30, 0],
}
#: f' at NaN, 1e4, -1e4, 1e30, -1e30
SPECIAL_SLOPE = {
    "relu": [None, 1, 0, 1, 0],
    "tanh": [NAN, 0, 0, 0, 0],
    "sigmoid": [NAN, 0, 0, 0, 0],
    "identity": [None, 1, 1, 1, 1],
    "leaky_relu": [None, 1, 0.01, 1, 0.01],
    "elu": [NAN, 1, 0, 1, 0],
    "gelu": [NAN, 1, 0, 1, 0],
    "silu": [NAN, 1, 0, 1, 0],
    "softplus": [NAN, 1, 0, 1, 0],
}


@pytest.mark.cuda_sample(5)
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", NAMES)
def test_special_values(backend: Any, dtype: Any, name: str, how: str) -> None:
    z = np.array([NAN, INF, -INF, 1e4, -1e4, 1e30, -1e30] * 5, dtype)  # long enough for vector code
    out = Flat(backend, np.zeros_like(z))
    run(
        backend,
        how,
        forward_kernel(name),
        {"z": Flat(backend, z), "a": out},
        rows=1,
        cols=len(z),
        dtype=dtype,
    )
    close(out.read(), np.array(SPECIAL[name] * 5, dtype), "elementwise")


@pytest.mark.cuda_sample(5)
@pytest.mark.parametrize("name", NAMES)
def test_special_slopes(backend: Any, dtype: Any, name: str) -> None:
    at = slice(1, None) if SPECIAL_SLOPE[name][0] is None else slice(None)
    z = np.array([NAN, 1e4, -1e4, 1e30, -1e30][at] * 5, dtype)
    values = np.array([SPECIAL[name][i] for i in (0, 3, 4, 5, 6)][at] * 5, dtype)
    given = z if ACTIVATIONS[name].needs_z else values
    d = Flat(backend, np.ones_like(z))
    source = "z" if ACTIVATIONS[name].needs_z else "a"
    run(backend, "launch", backward_kernel(name), {source: Flat(backend, given), "d": d}, rows=1, cols=len(z))
    close(d.read(), np.array(SPECIAL_SLOPE[name][at] * 5, dtype), "elementwise")


@pytest.mark.cuda_sample(5)
@pytest.mark.parametrize("name", NAMES)
def test_nan_gradient_stays(backend: Any, dtype: Any, name: str) -> None:
    d = Flat(backend, np.full(9, np.nan, dtype))
    source = "z" if ACTIVATIONS[name].needs_z else "a"
    half = Flat(backend, np.full(9, 0.5, dtype))
    run(backend, "launch", backward_kernel(name), {source: half, "d": d}, rows=1, cols=9)
    assert np.isnan(d.read()).all()


def test_relu_like_activations_have_gain_two() -> None:
    """Those that are 0 at 0, let large inputs through and hold negative ones back."""
    for name, act in ACTIVATIONS.items():
        low, zero, high = oracles.activation(name, np.array([-50.0, 0.0, 50.0]))
        assert act.gain == (2.0 if zero == 0 and high > 25 and low > -25 else 1.0), name
