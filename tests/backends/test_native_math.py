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
BOUNDS["rsqrt"] = 1.5
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


def _erf(x: np.ndarray) -> np.ndarray:  # libm's is itself good to 1 ulp of a double
    return np.array([math.erf(value) for value in x.tolist()]).astype(np.longdouble)


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
    function = getattr(np, name, {"erf": _erf, "rsqrt": _rsqrt}.get(name))
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
    assert np.array_equal(np.signbit(y[rounded == 0]), np.signbit(rounded[rounded == 0]))
    assert _ulps(y[plain], exact[plain]).max() <= BOUNDS[name]
