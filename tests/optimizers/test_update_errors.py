"""Wrong arrays and hyper-parameters: what was given, what was expected; and nothing has changed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp.optimizers import OPTIMIZERS, get_optimizer

ONE = np.ones(3, np.float32)


def frozen() -> np.ndarray:
    array = np.ones(3, np.float32)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("params", "grads", "error", "message"),
    [
        (ONE, np.ones(4, np.float32), ValueError, r"params\[0\] has shape \(3,\).*grads\[0\].*\(4,\)"),
        (
            [ONE, ONE],
            [ONE, np.ones((3, 1), np.float32)],
            ValueError,
            r"params\[1\] has shape \(3,\).*\(3, 1\)",
        ),
        ([ONE, ONE], [ONE], ValueError, "2 parameter arrays but 1 gradient"),
        (ONE, np.ones(3), TypeError, r"params\[0\] is float32 but grads\[0\] is float64"),
        (np.ones(3), np.ones(3, np.float16), TypeError, r"float64 but grads\[0\] is float16; cast"),
        (
            np.ones(3, np.uint16),
            np.ones(3, np.uint16),
            TypeError,
            "uint16; supported are float32 and float64",
        ),
        (np.ones(3, int), np.ones(3, int), TypeError, "int64; supported are float32 and float64"),
        (
            np.ones(3, complex),
            np.ones(3, complex),
            TypeError,
            "complex128; supported are float32 and float64",
        ),
        (np.ones(3, object), np.ones(3, object), TypeError, "object; supported are float32 and float64"),
        (np.ones(3, ">f4"), np.ones(3, ">f4"), TypeError, ">f4; supported are float32 and float64"),
        (1.0, 2.0, TypeError, r"params\[0\] is float and grads\[0\] is float; expected NumPy or CuPy"),
        ([[1.0, 2.0]], [[1.0, 2.0]], TypeError, r"params\[0\] is list"),
        (ONE, [1.0, 2.0, 3.0], ValueError, "1 parameter arrays but 3 gradient"),
        (frozen(), ONE, ValueError, r"params\[0\] is read-only; pass a writable array"),
    ],
)
@pytest.mark.parametrize("rule", ["sgd", "adam"])
def test_arrays(rule: str, params: Any, grads: Any, error: type, message: str) -> None:
    optimizer = OPTIMIZERS[rule]()
    before = [np.array(p) for p in params] if isinstance(params, list) else [np.array(params)]
    with pytest.raises(error, match=message):
        optimizer.update(params, grads)
    after = params if isinstance(params, list) else [params]
    assert all((np.array(a) == b).all() for a, b in zip(after, before, strict=True))
    assert optimizer.t == 0


def test_other_shapes_than_before() -> None:
    optimizer = gpumlp.Adam()
    optimizer.update([np.ones(3), np.ones(2)], [np.ones(3), np.ones(2)])
    for wrong in ([np.ones(3)], [np.ones(2), np.ones(3)], [np.ones((3, 1)), np.ones(2)]):
        with pytest.raises(ValueError, match=r"holds state.*\(3,\), \(2,\).*reset"):
            optimizer.update(wrong, [w.copy() for w in wrong])
    assert optimizer.t == 1


def test_other_dtype_than_before() -> None:
    optimizer, p = gpumlp.Adam(), np.ones(3, np.float64)
    optimizer.update(ONE.copy(), ONE)
    with pytest.raises(TypeError, match=r"float32 state.*float64"):
        optimizer.update(p, np.ones(3))
    assert (p == 1).all()


def test_option_that_needs_other_state() -> None:
    optimizer = gpumlp.RMSProp()
    optimizer.update(ONE.copy(), ONE)
    optimizer.momentum = 0.9
    with pytest.raises(ValueError, match=r"\['s'\].*\['s', 'v'\].*reset"):
        optimizer.update(ONE.copy(), ONE)
    optimizer.reset()
    optimizer.update(ONE.copy(), ONE)


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf, "0.1", None, True])
@pytest.mark.parametrize("field", ["lr", "l1", "l2", "weight_decay"])
@pytest.mark.parametrize("rule", sorted(OPTIMIZERS))
def test_common_hyper_parameters(rule: str, field: str, bad: Any) -> None:
    with pytest.raises(ValueError, match=rf"{OPTIMIZERS[rule].__name__}: {field}=.*expected a number >= 0"):
        OPTIMIZERS[rule](**{field: bad})


@pytest.mark.parametrize(
    ("rule", "options", "message"),
    [
        ("sgd", {"momentum": 1.0}, "momentum=1.0; expected a number >= 0 and < 1"),
        ("sgd", {"momentum": -0.1}, "momentum=-0.1"),
        ("sgd", {"momentum": 0.9, "dampening": 1.5}, "dampening=1.5"),
        ("sgd", {"nesterov": True}, "nesterov=True needs momentum > 0"),
        ("sgd", {"nesterov": True, "momentum": 0.9, "dampening": 0.1}, "dampening = 0"),
        ("adagrad", {"eps": 0.0}, "eps=0.0; expected a number > 0"),
        ("adagrad", {"eps": math.nan}, "eps=nan"),
        ("adagrad", {"initial_accumulator": -1.0}, "initial_accumulator=-1.0"),
        ("rmsprop", {"rho": 1.0}, "rho=1.0"),
        ("rmsprop", {"rho": math.nan}, "rho=nan"),
        ("rmsprop", {"momentum": 1.0}, "momentum=1.0"),
        ("rmsprop", {"eps": -1e-8}, "eps=-1e-08"),
        ("adam", {"betas": (0.9, 1.0)}, r"betas=\(0.9, 1.0\); expected two numbers >= 0 and < 1"),
        ("adam", {"betas": (-0.1, 0.9)}, "betas"),
        ("adam", {"betas": (math.nan, 0.9)}, "betas"),
        ("adam", {"betas": (0.9,)}, "betas"),
        ("adam", {"betas": 0.9}, "betas=0.9"),
        ("adam", {"betas": ("0.9", "0.99")}, "betas"),
        ("adam", {"eps": 0}, "eps=0"),
        ("adamw", {"weight_decay": -0.1}, "AdamW: weight_decay=-0.1"),
    ],
)
def test_own_hyper_parameters(rule: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OPTIMIZERS[rule](**options)


def test_hyper_parameter_spoiled_later() -> None:
    p, optimizer = ONE.copy(), gpumlp.SGD()
    optimizer.lr = math.nan
    with pytest.raises(ValueError, match="lr=nan"):
        optimizer.update(p, ONE)
    assert (p == 1).all()


def test_names() -> None:
    with pytest.raises(ValueError, match=r"unknown optimizer 'adm'. Did you mean 'adam'.*rmsprop"):
        get_optimizer("adm")
    with pytest.raises(TypeError, match="optimizer=3; expected a name"):
        get_optimizer(3)  # type: ignore[arg-type]


def test_numpy_with_cupy() -> None:
    cupy = pytest.importorskip("cupy")
    try:
        on_device = cupy.ones(3, cupy.float32)
    except cupy.cuda.runtime.CUDARuntimeError:
        pytest.skip("no CUDA device")
    for p, g in ((on_device, ONE), (ONE, on_device)):
        with pytest.raises(TypeError, match=r"params\[0\] is .* but grads\[0\] is .*same device"):
            gpumlp.SGD().update(p, g)


def test_subclasses_of_arrays(tmp_path: Any) -> None:
    """A memory map is an array like any other, and so is its gradient."""
    p = np.memmap(tmp_path / "p", np.float32, "w+", shape=3)
    gpumlp.SGD(lr=1.0).update(p, ONE)
    assert (np.asarray(p) == -1).all()
