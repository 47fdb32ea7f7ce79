"""Repeated `update` calls: quicker on the CPU, with the numbers, checks and messages of a first call."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from launching import watch
from rules import OPTIONS, make
from test_update import NAMES, values

import gpumlp


def halve(opt: Any, p: Any, g: Any) -> None:
    opt.lr /= 2


def penalise(opt: Any, p: Any, g: Any) -> None:
    opt.l2 = 0.3


def forget(opt: Any, p: Any, g: Any) -> None:
    opt.reset()


def reload(opt: Any, p: Any, g: Any) -> None:
    opt.load_state_dict(opt.state_dict())


def own_gradient(opt: Any, p: Any, g: list) -> None:
    g[0] = p  # the parameter is its own gradient


def strided(opt: Any, p: Any, g: list) -> None:
    g[0] = np.repeat(np.asarray(g[0]), 2)[::2]


CHANGES = [halve, penalise, forget, reload, own_gradient, strided, None]


#: every change for one rule; for the others what their own numbers depend on
_CASES = [*(("adam", c) for c in CHANGES), *((r, c) for r in NAMES if r != "adam" for c in (halve, penalise))]


@pytest.mark.parametrize(("rule", "change"), _CASES, ids=lambda c: getattr(c, "__name__", c or "nothing"))
def test_what_changes_between_calls_counts(
    rule: str, dtype: Any, change: Callable | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bitwise the numbers of an optimiser that is copied before every call, so that nothing is remembered."""
    opt, results, cpu = make(rule, OPTIONS[rule][-1]), [], gpumlp.get_backend("cpu")
    bound = watch(monkeypatch, cpu, "bind")
    for remember in (True, False):
        one, p = copy.deepcopy(opt), values((50,), dtype, 0)
        for step in range(5):
            g = [values((50,), dtype, step)]
            if step == 3 and change:
                change(one, p, g)
            one = one if remember else copy.deepcopy(one)
            one.update([p], g)
        results.append((p, one.t))
        if remember and cpu.name != "numpy":
            assert bound[0] and len(bound) <= 3  # at first, and around the change
    assert np.array_equal(results[0][0], results[1][0]) and results[0][1] == results[1][1]


def test_a_gradient_inside_the_parameters_own_memory() -> None:
    """Every element is read before any is written, also where a loop in order would do otherwise."""
    buffer = np.arange(60.0)
    opt, quick = gpumlp.SGD(lr=0.5), buffer[10:]  # exact on these numbers
    for _ in range(3):
        opt.update(quick, np.ones(50))
    expected = buffer.copy()
    expected[10:] -= 0.5 * buffer[5:55]
    opt.update(quick, buffer[5:55])
    assert np.array_equal(buffer, expected)


def test_bad_input_after_good_calls_changes_nothing() -> None:
    opt, p, q = gpumlp.Adam(), np.ones(4), np.ones(3)
    for _ in range(3):
        opt.update([p, q], [np.ones(4), np.ones(3)])
    before, t = (p.copy(), q.copy()), opt.t
    for bad, error in (
        ([np.ones(4), np.ones(4)], ValueError),
        ([np.ones(4), np.ones(3, np.float32)], TypeError),
        ([np.ones(4)], ValueError),
        ([np.ones(4), [1.0, 1.0, 1.0]], TypeError),
    ):
        with pytest.raises(error):
            opt.update([p, q], bad)
    with pytest.raises(ValueError, match="holds state"):
        opt.update([q, p], [np.ones(3), np.ones(4)])
    opt.lr = -1.0
    with pytest.raises(ValueError, match="lr"):
        opt.update([p, q], [np.ones(4), np.ones(3)])
    opt.lr, q.flags.writeable = 0.1, False
    with pytest.raises(ValueError, match="read-only"):
        opt.update([p, q], [np.ones(4), np.ones(3)])
    assert np.array_equal(p, before[0]) and np.array_equal(q, before[1]) and opt.t == t


@pytest.mark.parametrize("whole", [False, True])
def test_a_state_array_replaced_by_hand_counts(whole: bool) -> None:
    opt, p, g = gpumlp.SGD(lr=1.0, momentum=0.5), np.zeros(4), np.ones(4)
    opt.update(p, g)
    opt.update(p, g)
    if whole:
        opt.state[0] = {**opt.state[0], "v": np.zeros(4)}
    else:
        opt.state[0]["v"] = np.zeros(4)
    opt.update(p, g)
    assert p.tolist() == [-3.5] * 4 and opt.state[0]["v"].tolist() == [1.0] * 4


def test_neither_parameters_nor_gradients_are_kept_alive() -> None:
    opt, p, g = gpumlp.RMSProp(), np.ones(4), np.ones(4)
    for _ in range(3):
        opt.update(p, g)
    watched = [weakref.ref(p), weakref.ref(g)]
    del p, g
    gc.collect()
    assert [w() for w in watched] == [None, None]
    opt.update(np.ones(4), np.ones(4))
