"""Parameters and gradients of 16 bits: float32 copies that the optimiser keeps, against float64."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import oracles
import pytest
from rules import OPTIONS, make
from test_update import NAMES, values
from tolerances import HALF, close

import gpumlp

SHAPES = [(7, 3), (40,), (3, 5)]


def narrowed(x: np.ndarray, kind: str) -> np.ndarray:
    """float32 rounded to 16 bits, to nearest and even, as a float64 array."""
    if kind == "float16":
        return x.astype(np.float16).astype(float)
    mantissa, exponent = np.frexp(x.astype(np.float32).astype(float))
    return np.ldexp(np.round(mantissa * 256), exponent - 8)


def stored(x: np.ndarray, kind: str) -> np.ndarray:
    """Such numbers as an array of that type."""
    if kind == "float16":
        return x.astype(np.float16)
    return x.astype(np.dtype(pytest.importorskip("ml_dtypes").bfloat16))


def on_device(on: Any, x: np.ndarray) -> Any:
    if on.name != "cuda" or x.dtype.name != "bfloat16":
        return on.asarray(x.copy())
    try:
        return on.xp.asarray(x)
    except TypeError:
        pytest.skip("this CuPy has no bfloat16")


def read(on: Any, x: Any) -> np.ndarray:
    return (x.get() if on.name == "cuda" else x).astype(float)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize("rule", NAMES)
def test_against_float64(on: Any, rule: str, kind: str) -> None:
    """The copies are what float32 parameters would be; what is shown are the copies, rounded once."""
    optimizer, memories = make(rule, OPTIONS[rule][0]), [{} for _ in SHAPES]
    if rule == "muon" and on.name == "cuda":
        pytest.skip("matrices of Muon: tested with NumPy")
    expected = [narrowed(values(shape, "f4", n), kind) for n, shape in enumerate(SHAPES)]
    params = [on_device(on, stored(x, kind)) for x in expected]
    for t in range(1, 6):
        grads = [narrowed(values(shape, "f4", 10 * t + n), kind) for n, shape in enumerate(SHAPES)]
        given = [on_device(on, stored(g, kind)) for g in grads]
        optimizer.update(params, given, zero=t == 5)
        if t == 5:
            assert all((read(on, g) == 0).all() for g in given)
        for n, g in enumerate(grads):
            expected[n] = oracles.step(optimizer, expected[n], g, memories[n], t)
    for n, (p, q) in enumerate(zip(params, expected, strict=True)):
        master = on.to_numpy(optimizer.state[n]["master"])
        assert master.dtype == np.float32
        close(master, q, "small plan" if rule == "muon" else "optimizer", scale=4)
        assert (read(on, p) == narrowed(master, kind)).all()
        assert np.abs(read(on, p) - q).max() <= HALF[kind] * np.abs(q).max()


@pytest.mark.memory
@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_mixed_lists(on: Any, kind: str) -> None:
    """float32 parameters with narrow gradients, narrow ones with float32 gradients, and both wide."""
    types = [("f4", kind), (kind, "f4"), ("f4", "f4")]

    def typed(x: np.ndarray, name: str) -> Any:
        return on_device(on, x.astype("f4") if name == "f4" else stored(x, name))

    start = [narrowed(values(s, "f4", n), kind) for n, s in enumerate(SHAPES)]
    params, opt = [typed(x, p) for x, (p, _) in zip(start, types, strict=True)], gpumlp.Adam(lr=0.01)
    wide, reference = [on.asarray(x.astype("f4")) for x in start], gpumlp.Adam(lr=0.01)
    for t in range(3):
        grads = [narrowed(values(s, "f4", 10 * t + n), kind) for n, s in enumerate(SHAPES)]
        opt.update(params, [typed(g, own) for g, (_, own) in zip(grads, types, strict=True)], clip_norm=1.0)
        reference.update(wide, [on.asarray(g.astype("f4")) for g in grads], clip_norm=1.0)
    for n, (p, q) in enumerate(zip(params, wide, strict=True)):
        held = opt.state[n].get("master", p)
        close(on.to_numpy(held), on.to_numpy(q), "optimizer")


def test_special_values(on: Any) -> None:
    """NaN stays NaN, what is too large becomes infinite, halves go to the even neighbour."""
    start = np.array([1.0, 1 + 2.0**-8, 1 + 3 * 2.0**-8, -0.0, 3e38, np.inf, np.nan], "f4")
    p = on_device(on, stored(start, "bfloat16"))
    opt = gpumlp.SGD(lr=1.0)
    opt.update(p, on.asarray(np.zeros(7, "f4")))
    opt.state[0]["master"][...] = on.asarray(start)
    opt.update(p, on.asarray(np.zeros(7, "f4")))
    expected = [1.0, 1.0, 1 + 2.0**-6, -0.0, narrowed(start[4:5], "bfloat16")[0], np.inf, np.nan]
    assert np.array_equal(read(on, p), np.array(expected), equal_nan=True)


@pytest.mark.parametrize("how", ["state_dict", "pickle"])
def test_copies_are_saved(on: Any, how: str) -> None:
    """A run that goes on from what was saved has the bits of one that was not stopped."""
    start = values((6, 4), "f2", 0)
    straight, stopped = (on_device(on, start) for _ in range(2))
    one, other = (gpumlp.Adam(lr=1e-4, average=0.9) for _ in range(2))
    for t in range(6):
        g = values((6, 4), "f2", t)
        one.update(straight, on_device(on, g))
        if t == 3:
            if how == "pickle":
                other = pickle.loads(pickle.dumps(other))
            else:
                saved, other = other.state_dict(), gpumlp.Adam()
                other.load_state_dict(saved)
        other.update(stopped, on_device(on, g))
    masters = [on.to_numpy(o.state[0]["master"]) for o in (one, other)]
    assert np.array_equal(*masters) and (read(on, straight) == read(on, stopped)).all()
    with pytest.raises(TypeError, match=r"a float32 copy of params\[0\], which is now float32; .*reset"):
        one.update(on.asarray(start.astype("f4")), on.asarray(start.astype("f4")))


def test_types_that_do_not_fit(on: Any) -> None:
    f2, f4, f8 = (on.asarray(np.ones(3, t)) for t in ("f2", "f4", "f8"))
    for p, g in ((f8, f2), (f2, f8), (f4, f8)):
        with pytest.raises(TypeError, match=r"params\[0\] is float.. but grads\[0\] is float..; cast"):
            gpumlp.Adam().update(p, g)
