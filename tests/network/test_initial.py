"""Initial values of the parameters, and the layout of the flat buffer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp.network import INITS, layout, pad

WIDE = [400, 300, 200, 50]


def uniform(low_high: float) -> tuple[float, float]:
    return low_high / math.sqrt(3), low_high


#: init -> for (n_in, n_out, gain): (standard deviation, bound or None)
EXPECTED: dict[str, Any] = {
    "xavier_uniform": lambda i, o, g: uniform(math.sqrt(6 / (i + o))),
    "xavier_normal": lambda i, o, g: (math.sqrt(2 / (i + o)), None),
    "he_uniform": lambda i, o, g: uniform(math.sqrt(3 * g / i)),
    "he_normal": lambda i, o, g: (math.sqrt(g / i), None),
    "normal": lambda i, o, g: (0.01, None),
    "pytorch": lambda i, o, g: uniform(math.sqrt(1 / i)),
    "sklearn": lambda i, o, g: uniform(math.sqrt(6 / (i + o))),
    "auto": lambda i, o, g: (math.sqrt(2 / i), None) if g == 2 else uniform(math.sqrt(6 / (i + o))),
}


def test_every_init_is_tested() -> None:
    assert set(EXPECTED) == set(INITS)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("init", sorted(INITS))
def test_init_statistics(init: str, activation: str) -> None:
    model = gpumlp.MLP(WIDE, activation, init=init, dtype="float64", device="numpy")
    for n, (W, b) in enumerate(model.get_parameters()):
        gain = 2.0 if activation == "relu" and n < 2 else 1.0
        std, bound = EXPECTED[init](*W.shape, gain)
        # the sample deviation of n normal numbers has deviation std / sqrt(2 n): five of these
        assert abs(W.std() - std) < 5 * std / math.sqrt(2 * W.size)
        assert abs(W.mean()) < 5 * std / math.sqrt(W.size)
        if bound is None:
            assert np.abs(W).max() > 3 * std
        else:
            assert 0.99 * bound < np.abs(W).max() <= bound
        if init in ("sklearn", "pytorch"):
            assert 0.8 * bound < np.abs(b).max() <= bound
        else:
            assert (b == 0).all()


def test_sklearn_init_of_sigmoid_networks() -> None:
    model = gpumlp.MLP(WIDE, "sigmoid", init="sklearn", dtype="float64", device="numpy")
    for W, _ in model.get_parameters():
        bound = math.sqrt(2 / sum(W.shape))
        assert 0.99 * bound < np.abs(W).max() <= bound


def test_init_by_number() -> None:
    model = gpumlp.MLP(WIDE, init=0.25, device="numpy", dtype="float64")
    assert abs(model.get_parameters()[0][0].std() - 0.25) < 0.005
    assert all((W == 0).all() for W, _ in gpumlp.MLP(WIDE, init=0.0, device="numpy").get_parameters())


@pytest.mark.parametrize("init", sorted(INITS))
def test_same_weights_everywhere(device: str, dtype: Any, init: str) -> None:
    a = gpumlp.MLP([7, 5, 3], init=init, seed=9, device=device, dtype=dtype).get_parameters()
    b = gpumlp.MLP([7, 5, 3], init=init, seed=9, device="numpy", dtype="float64").get_parameters()
    c = gpumlp.MLP([7, 5, 3], init=init, seed=10, device=device, dtype=dtype).get_parameters()
    for (W, bias), (W0, bias0), (W1, _) in zip(a, b, c, strict=True):
        assert (W0.astype(dtype) == W).all() and (bias == bias0.astype(dtype)).all()
        assert (W != W1).any()


@pytest.mark.parametrize(
    ("n", "padded"), [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (8, 8), (9, 16), (784, 784)]
)
def test_padding(n: int, padded: int) -> None:
    assert pad(n) == padded


def test_layout_of_the_flat_buffer() -> None:
    """Blocks of 8 k rows, with rows of 1, 2, 4 or 8 k numbers, that start at multiples of 64; no more."""
    layers, size = layout([12, 5, 1])
    assert [(n.offset, n.size, n.ld) for n in layers] == [(0, 16 * 8, 8), (128, 8 * 1, 1)]
    assert size == 192


@pytest.mark.parametrize("init", ["pytorch", "sklearn"])
def test_drawn_biases_have_both_signs(init: str) -> None:
    for W, b in gpumlp.MLP(WIDE, init=init, device="numpy").get_parameters():
        assert b.min() < 0.8 * W.min() and b.max() > 0.8 * W.max()
