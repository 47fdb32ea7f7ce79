"""The native executor's elementary functions against long double: errors in ulps, special values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from gpumlp.kernels.kernel import Kernel

from gpumlp.backends.native.backend import NativeBackend

pytestmark = pytest.mark.skipif(
    NativeBackend.why_not() is not None, reason=f"no native executor: {NativeBackend.why_not()}"
)

#: largest error in units in the last place; measured on x86-64 with and without fused multiply-add
BOUNDS = {"exp": 1.1, "expm1": 2.0, "log": 0.9, "log1p": 0.9, "tanh": 2.2, "erf": 2.0, "sqrt": 0.51}
BOUNDS.update(rsqrt=1.5, cospi=3.1, sinpi=3.1)
SPECIAL = [
    0.0,
    -0.0,
    np.inf,
    -np.inf,
    np.nan,
    1.0,
    -1.0,
    5e-324,
    -5e-324,
    1e-45,
    1e-38,
    1e-310,
    88.72,
    88.73,
    -87.4,
    -103.9,
    -104.1,
    709.78,
    709.79,
    -708.5,
    -745.1,
    -745.2,
    1e30,
    -1e30,
    2.0,
    0.5,
    9.0,
    20.0,
    -1.0000001,
    -0.9999999,
]


def _inputs(dtype: type) -> np.ndarray:
    special = np.array(SPECIAL).astype(dtype)
    if dtype is np.float32:
        return np.concatenate(
            [np.arange(0, 2**32, 997, np.uint64).astype(np.uint32).view(np.float32), special]
        )
    rng = np.random.default_rng(0)
    anything = rng.integers(0, 2**64, 200_000, np.uint64).view(np.float64)
    logarithmic = rng.uniform(-1, 1, 400_000) * 10.0 ** rng.uniform(-6, 3, 400_000)
    return np.concatenate(
        [
            anything,
            logarithmic,
            rng.uniform(-5, 5, 300_000),
            rng.uniform(-746, -700, 50_000),
            rng.uniform(700, 711, 50_000),
            special,
        ]
    )


def _rsqrt(x: np.ndarray) -> np.ndarray:
    return 1 / np.sqrt(x)


def _sinpi(x: np.ndarray) -> np.ndarray:
    r = np.fmod(x, 2)  # exact, and so is what follows, up to the functions of at most pi / 4
    r = r - 2 * np.copysign(np.abs(r) > 1, r)
    a = np.where(np.abs(r) > 0.5, 1 - np.abs(r), np.abs(r))
    pi = np.longdouble("3.14159265358979323846264338327950288")
    value = np.where(a > 0.25, np.cos(pi * (np.longdouble(0.5) - a)), np.sin(pi * a))
    return np.where(np.isinf(x), np.nan, np.copysign(value, np.where(r == 0, x, r)))


def _cospi(x: np.ndarray) -> np.ndarray:
    r = np.abs(np.fmod(x, 2))
    r = np.where(r > 1, 2 - r, r)
    pi = np.longdouble("3.14159265358979323846264338327950288")
    near = np.where(r < 0.25, np.cos(pi * r), np.sin(pi * (np.longdouble(0.5) - r)))
    value = np.where(r > 0.75, -np.cos(pi * (1 - r)), near)
    return np.where(np.isinf(x), np.nan, value)


def _erf(x: np.ndarray) -> np.ndarray:  # libm's is itself good to 1 ulp of a double
    return np.array([math.erf(value) for value in x.tolist()]).astype(np.longdouble)


OWN = {"erf": _erf, "rsqrt": _rsqrt, "sinpi": _sinpi, "cospi": _cospi}


def _ulps(actual: np.ndarray, exact: np.ndarray) -> np.ndarray:
    info = np.finfo(actual.dtype)
    exponent = np.floor(np.log2(np.maximum(np.abs(exact), np.longdouble(info.tiny))))
    return np.abs(actual - exact) / np.exp2(exponent - info.nmant)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.skipif(np.finfo(np.longdouble).nmant <= 52, reason="long double is no better than double here")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("body", [*(f"y = {name}(x);" for name in BOUNDS), "y = rsqrt(x * C(1));"])
def test_function(body: str, dtype: type) -> None:
    # rsqrt(x) alone is computed in vectors; a constant in the body makes it go by single numbers
    name = body[4 : body.index("(")]
    function = getattr(np, name, OWN.get(name))
    kernel = Kernel(
        name=f"gpumlp_test_{name}_{len(body)}",
        inputs="T x",
        outputs="T y",
        body=body,
        reference=lambda **_: None,
    )
    x = _inputs(dtype)
    y = np.empty_like(x)
    NativeBackend().elementwise(kernel, {"x": x, "y": y}, {}, {})
    exact = function(x.astype(np.longdouble))
    rounded = exact.astype(dtype)
    plain = np.isfinite(rounded)
    assert np.array_equal(y[~plain], rounded[~plain], equal_nan=True)
    zero = (rounded == 0) & ((x == 0) | (not name.endswith("pi")))  # that of sin(n pi) may have either sign
    assert np.array_equal(np.signbit(y[zero]), np.signbit(rounded[zero]))
    assert _ulps(y[plain], exact[plain]).max() <= BOUNDS[name]
