"""The one table of tolerances, each with its reason.

`close(actual, expected, what)` compares with the row `what` for the type of `actual`; an error may be `rtol`
of the expected value plus `atol`.  Numbers are in units of the type's epsilon where rounding sets them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

EPS = {np.dtype(np.float32): 2.0**-23, np.dtype(np.float64): 2.0**-52}

#: name: (rtol, atol), in epsilons of the type
IN_EPSILONS = {
    # moved, not computed
    "exact": (0, 0),
    # a handful of roundings, and functions good to 2 ulp; atol for values that come out of 1 - x or x + 1
    "elementwise": (16, 8),
    # derivative from the stored output: a has 2 ulp, and a (1 - a), 1 - a^2 cancel at a = 1
    "derivative": (16, 16),
    # one more rounding when dropout's factor is undone: a * (1 / (1 - p)) * (1 - p)
    "dropout": (16, 32),
    # sums over a row of up to 1000 terms in any order: the error of sequential summation is at most n eps / 2
    # of the sum of magnitudes; atol is for sums of about 1 with cancelling signs
    "row sum": (600, 600),
    # sqrt, two divisions and about ten roundings on values of size 1
    "optimizer": (32, 16),
    # softmax of a few numbers of size 1: a dozen roundings and functions good to 2 ulp
    "softmax": (32, 32),
    # a product: k products of numbers of size 1, summed in any order; to be scaled by k
    "product": (0, 4),
    # sums of 65537 squares in chunks of 512
    "long sum": (600, 0),
}

#: name: (rtol, atol) for float32, the same for float64
ABSOLUTE = {
    # 100 steps on numbers of size 1; both sides round differently at each step (target of the project: 1e-10)
    "100 steps": {np.dtype(np.float64): (1e-10, 1e-10), np.dtype(np.float32): (2e-4, 2e-4)},
    # 50 steps of training a whole network on two executors (target: 1e-4 and 1e-10)
    "50 training steps": {np.dtype(np.float64): (1e-10, 1e-10), np.dtype(np.float32): (1e-4, 1e-4)},
    # forward, loss and gradients of a network against PyTorch in double precision
    "network": {np.dtype(np.float64): (1e-11, 1e-12), np.dtype(np.float32): (1e-4, 1e-5)},
    # central differences with step 1e-5: truncation 1e-10 f''', rounding 1e-16 / 1e-5 = 1e-11
    "central differences": {np.dtype(np.float64): (1e-6, 1e-7)},
    # minima found by thousands of steps against closed forms or solvers (target: 1e-5 relative)
    "optimum": {np.dtype(np.float64): (1e-5, 1e-6)},
    # a plan of kernels and products on a CUDA device against NumPy: sums of up to 65 numbers of size 1 in
    # another order and in pieces; with partial sums of up to 16, roundings add up to 16 eps sqrt(65)
    "small plan": {np.dtype(np.float64): (1e-12, 1e-12), np.dtype(np.float32): (2e-5, 2e-5)},
    # softmax of numbers of size 5 in rows of up to 1500: the sum in another order, exp good to 2 ulp of an
    # argument that is rounded at sizes up to 30
    "softmax of long rows": {np.dtype(np.float64): (1e-12, 0), np.dtype(np.float32): (2e-5, 0)},
    # figures computed from sums of a few hundred values
    "figures": {np.dtype(np.float64): (1e-12, 1e-12), np.dtype(np.float32): (1e-5, 1e-6)},
}

#: relative tolerances of figures and parameters that come out of whole runs
RELATIVE = {
    # float64: a closed form of a few operations, or the same operations in another order
    "few roundings": 1e-12,
    # float64: some epochs, whose roundings add up
    "run": 1e-9,
    # float32: a handful of roundings, or sums of losses in another order
    "float32 roundings": 1e-6,
    # float32: sums over some hundred rows in another order
    "float32 sums": 1e-5,
    # float32: some epochs, whose roundings add up
    "float32 run": 1e-4,
}

#: size of the difference to the gradient in float32, relative, in the norm of a layer: roundings of 2^-11
#: (float16) and 2^-8 (bfloat16) at some ten places in a row, partly cancelling.  TF32 may be made by cutting
#: bits off, up to 2^-10 and always towards zero, which does not cancel
GRADIENT = {"tf32": 5e-3, "float16": 4e-3, "bfloat16": 3e-2}


#: parameters of 16 bits, kept as float32 copies: half a unit in the last place of the largest, and the
#: copies' own roundings
HALF = {"float16": 2.0**-11 + 2.0**-18, "bfloat16": 2.0**-8 + 2.0**-18}


def tolerance(what: str, dtype: Any) -> tuple[float, float]:
    """(rtol, atol) of one row for one type."""
    dtype = np.dtype(dtype)
    if what in ABSOLUTE:
        return ABSOLUTE[what][dtype]
    rtol, atol = IN_EPSILONS[what]
    return rtol * EPS[dtype], atol * EPS[dtype]


def close(actual: Any, expected: Any, what: str, scale: float = 1.0, dtype: Any = None) -> None:
    """Assert that `actual` is `expected` within row `what`; `scale` is the size of the summed numbers.

    NaN equals NaN, infinities must have the same sign.
    """
    actual = np.asarray(actual)
    rtol, atol = tolerance(what, dtype or actual.dtype)
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol * scale, equal_nan=True, err_msg=what)
