"""`update` on bare arrays: any shapes and strides, in place, and nothing beside them."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import oracles
import pytest
from rules import OPTIONS, make
from tolerances import close

import gpumlp

NAMES = sorted(oracles.RULES)
SHAPES: list[tuple[int, ...]] = [(), (1,), (5,), (0,), (3, 0, 2), (4, 7), (2, 3, 4), (1, 1, 1, 9)]


def values(shape: tuple[int, ...], dtype: Any, seed: int) -> np.ndarray:
    return np.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


@pytest.mark.cuda_sample(3)
@pytest.mark.parametrize("rule", NAMES)
def test_shapes_alone_and_in_a_list(on: Any, dtype: Any, rule: str) -> None:
    start = [values(shape, dtype, 1) for shape in SHAPES]
    grads = [values(shape, dtype, 2) for shape in SHAPES]
    together, whole = [on.asarray(p.copy()) for p in start], make(rule, OPTIONS[rule][0])
    for _ in range(2):
        assert whole.update(together, [on.asarray(g) for g in grads]) is None
    for p, g, got in zip(start, grads, together, strict=True):
        alone, single = on.asarray(p.copy()), make(rule, OPTIONS[rule][0])
        memory: dict = {}
        expected = p.astype(float)
        for t in (1, 2):
            single.update(alone, on.asarray(g))
            expected = oracles.step(single, expected, g, memory, t)
        close(on.to_numpy(alone), expected, "optimizer")
        assert (on.to_numpy(got) == on.to_numpy(alone)).all()
        assert got.shape == p.shape and got.dtype == dtype


VIEWS = {
    "transposed": lambda a: a.T,
    "every second": lambda a: a[::2, 1::3],
    "reversed": lambda a: a[::-1, ::-1],
    "column": lambda a: a[:, 2],
    "rows": lambda a: a[1:3],
    "cut": lambda a: a[1:5, 2:6],
    "axes swapped": lambda a: a.reshape(2, 3, 8).transpose(2, 0, 1),
    "fortran": lambda a: a[:, :4].T[1:],
}


#: layouts are the executors' business, whatever the rule: all of them for the rule with the most arrays, one
#: for each other rule
_LAYOUTS = [*(("rmsprop", view) for view in sorted(VIEWS)), *((r, "cut") for r in NAMES if r != "rmsprop")]


@pytest.mark.cuda_sample(5)
@pytest.mark.parametrize(("rule", "view"), _LAYOUTS)
def test_views(on: Any, dtype: Any, rule: str, view: str) -> None:
    """p and g are views of different layout; what lies between their elements stays."""
    cut, optimizer = VIEWS[view], make(rule, OPTIONS[rule][-1])
    base = values((6, 8), dtype, 3)
    buffer = on.asarray(base.copy())
    touched = np.zeros((6, 8), bool)
    cut(touched)[...] = True
    p = cut(buffer)
    expected, memory = cut(base).astype(float), {}
    for t in range(1, 4):
        g = values(p.shape, dtype, 3 + t)
        given = on.asarray(np.asfortranarray(g)) if t == 1 else on.asarray(np.repeat(g, 2, axis=0))[::2]
        before = on.to_numpy(given)
        optimizer.update(p, given)
        assert (on.to_numpy(given) == before).all(), "the gradient was changed"
        expected = oracles.step(optimizer, expected, g, memory, t)
    after = on.to_numpy(buffer)
    close(cut(after), expected, "optimizer")
    assert (after[~touched] == base[~touched]).all(), "elements beside the view were changed"


@pytest.mark.parametrize("rule", NAMES)
def test_gradient_broadcast_from_one_number(on: Any, dtype: Any, rule: str) -> None:
    """A gradient with strides of 0 is read like any other."""
    p, optimizer = on.asarray(np.ones((3, 5), dtype)), make(rule, OPTIONS[rule][0])
    g = on.xp.broadcast_to(on.asarray(np.array([0.5], dtype)), (3, 5))
    optimizer.update(p, g)
    expected = oracles.step(optimizer, np.ones((3, 5)), np.full((3, 5), 0.5), {}, 1)
    close(on.to_numpy(p), expected, "optimizer")


def test_tuple_and_mixed_dtypes(on: Any) -> None:
    """A list may hold float32 and float64 arrays; each keeps its own type of state."""
    optimizer = gpumlp.Adam(lr=0.1)
    params = tuple(on.asarray(np.ones(3, t)) for t in (np.float32, np.float64))
    optimizer.update(params, tuple(on.asarray(np.ones(3, t)) for t in (np.float32, np.float64)))
    assert [str(p.dtype) for p in params] == ["float32", "float64"]
    assert [str(s["v"].dtype) for s in optimizer.state] == ["float32", "float64"]


def test_nothing_to_do() -> None:
    optimizer = gpumlp.Adam()
    optimizer.update([], [])
    assert optimizer.t == 0


def test_learning_rate_may_change_between_steps(on: Any) -> None:
    """The momentum buffer is kept; only the factor on it changes."""
    p, optimizer = on.asarray(np.zeros(2)), gpumlp.SGD(lr=0.1, momentum=0.5)
    optimizer.update(p, on.asarray(np.ones(2)))  # v = 1
    optimizer.lr = 1.0
    optimizer.update(p, on.asarray(np.ones(2)))  # v = 1.5
    close(on.to_numpy(p), [-1.6, -1.6], "elementwise")
    assert optimizer.t == 2


def test_penalty_switched_on_between_steps(on: Any) -> None:
    p, optimizer = on.asarray(np.ones(2)), gpumlp.SGD(lr=0.1)
    optimizer.update(p, on.asarray(np.zeros(2)))
    optimizer.l2 = 1.0
    optimizer.update(p, on.asarray(np.zeros(2)))
    close(on.to_numpy(p), [0.9, 0.9], "elementwise")


@pytest.mark.parametrize("rule", NAMES)
def test_restart(on: Any, rule: str) -> None:
    """After reset() the same numbers come out again."""
    optimizer, results = make(rule, OPTIONS[rule][-1]), []
    for _ in range(2):
        p = on.asarray(np.ones(4))
        for i in range(3):
            optimizer.update(p, on.asarray(np.full(4, 1.0 + i)))
        results.append(on.to_numpy(p))
        optimizer.reset()
    assert (results[0] == results[1]).all()


@pytest.mark.parametrize(
    "clone", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))], ids=["copy", "pickle"]
)
@pytest.mark.parametrize("rule", NAMES)
def test_copies_go_on_independently(on: Any, rule: str, clone: Any) -> None:
    """A copy continues exactly as the original does, and neither disturbs the other."""
    optimizer = make(rule, OPTIONS[rule][-1])
    p = on.asarray(np.ones(4))
    optimizer.update(p, on.asarray(np.full(4, 2.0)))
    q, other = on.asarray(on.to_numpy(p)), clone(optimizer)
    for i in range(3):
        optimizer.update(p, on.asarray(np.full(4, 1.0 - i)))
    for i in range(3):
        other.update(q, on.asarray(np.full(4, 1.0 - i)))
    assert (on.to_numpy(p) == on.to_numpy(q)).all()
    assert other.t == optimizer.t == 4


@pytest.mark.parametrize("there", ["numpy", "device"])
def test_parameters_that_move(on: Any, there: str) -> None:
    """The state follows the parameters from NumPy to a device and back."""
    optimizer, reference = (gpumlp.Adam(lr=0.1) for _ in range(2))
    p, expected = np.ones(3), np.ones(3)
    moves = [on.asarray, np.asarray] if there == "numpy" else [np.asarray, on.asarray]
    for i, move in enumerate(2 * moves):
        q = move(p.copy())
        optimizer.update(q, move(np.full(3, 1.0 + i)))
        p = on.to_numpy(q) if q is not p else p
        reference.update(expected, np.full(3, 1.0 + i))
    close(p, expected, "optimizer")
