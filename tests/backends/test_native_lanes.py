"""Map kernels that the native executor may compute in vectors by hand: any text that works with numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gpumlp.kernels.kernel import Kernel
from tolerances import close

from gpumlp.backends.native.backend import NativeBackend
from gpumlp.backends.native.build import kernel_source
from gpumlp.optimizers import OPTIMIZERS

pytestmark = pytest.mark.skipif(
    NativeBackend.why_not() is not None, reason=f"no native executor: {NativeBackend.why_not()}"
)

#: text that sets y from x > 0 and the numbers a = 2 and n = 3, with root = 1 / sqrt(x) -> the same in NumPy
BODIES: list[tuple[str, Callable[[Any, Any], Any]]] = [
    ("y = rsqrt(x);", lambda x, root: root),
    ("const C rate = a;\ny = rate * rsqrt(x);", lambda x, root: 2 * root),
    ("const C rate{a * a};\ny = rate * rsqrt(x);", lambda x, root: 4 * root),
    ("const C w[2] = {a, x};\ny = w[0] * rsqrt(w[1]);", lambda x, root: 2 * root),
    ("C one = 1, two = a;\ny = one / two * rsqrt(x);", lambda x, root: root / 2),
    ("y = 1;\ny += rsqrt(x);", lambda x, root: 1 + root),
    ("y = a;\ny -= rsqrt(x);", lambda x, root: 2 - root),
    ("y = x;\ny *= rsqrt(a * x / a);\ny /= 2;", lambda x, root: x * root / 2),
    ("y = rsqrt(a) * x - -x * rsqrt(x);", lambda x, root: x / np.sqrt(2) + x * root),
    ("y = (C)a * rsqrt(x) + C(3) * x + C(0.5);", lambda x, root: 2 * root + 3 * x + 0.5),
    ("y = 1 / (1 + rsqrt(x));", lambda x, root: 1 / (1 + root)),
    ("auto w = 1;\ny = rsqrt(x) + w * x + n * x;", lambda x, root: root + 4 * x),
    ("y = x;\ny++;\ny = rsqrt(y);", lambda x, root: 1 / np.sqrt(x + 1)),
    ("y = rsqrt(x) * C(c);", lambda x, root: root * np.arange(len(x))),
    ("y = x > C(1) ? rsqrt(x) : C(r);", lambda x, root: np.where(x > 1, root, 0)),
    ("y = rsqrt(x) * sqrt(x) * exp(a);", lambda x, root: np.full(len(x), np.exp(2.0))),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("number", range(len(BODIES)))
def test_what_works_with_numbers_works_with_vectors(number: int, dtype: Any) -> None:
    body, function = BODIES[number]
    kernel = Kernel(
        name=f"gpumlp_test_lanes_{number}",
        inputs="C x",
        outputs="C y",
        scalars="C a, int64 n",
        body=body,
        reference=lambda **_: None,
    )
    x = np.random.default_rng(0).uniform(0.1, 3, 45).astype(dtype)
    y = np.empty_like(x)
    NativeBackend().elementwise(kernel, {"x": x, "y": y}, {"a": 2.0, "n": 3}, {})
    exact = x.astype(np.float64)
    close(y, function(exact, 1 / np.sqrt(exact)), "elementwise")


def test_arrays_of_other_types_go_by_numbers() -> None:
    kernel = Kernel(
        name="gpumlp_test_lanes_bytes",
        inputs="float32 x",
        outputs="uint8 y",
        body="y = rsqrt(x) * x * x * rsqrt(x) * 3;",
        reference=lambda **_: None,
    )
    x, y = np.arange(1, 41, dtype=np.float32), np.full(400, 99, np.uint8)
    NativeBackend().elementwise(kernel, {"x": x, "y": y[:40]}, {}, {})
    assert (y[40:] == 99).all() and np.abs(y[:40].astype(int) - 3 * x).max() <= 1


def test_which_rules_are_computed_in_vectors() -> None:
    found = {
        name: "GPUMLP_LANES"
        in kernel_source(rule(l2=0.1, weight_decay=0.1).kernel(), np.dtype("f4")).split("extern")[1]
        for name, rule in OPTIMIZERS.items()
    }
    in_vectors = {"adagrad", "rmsprop", "adadelta"}
    assert found == {name: name in in_vectors for name in OPTIMIZERS}
