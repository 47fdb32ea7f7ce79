"""state_dict and load_state_dict: a run that was stopped continues bitwise."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from rules import RULE_IDS, RULES, make

import gpumlp


def go(on: Any, optimizer: Any, params: list, first: int, last: int) -> None:
    for i in range(first, last):
        rng = np.random.default_rng(i)
        optimizer.update(params, [on.asarray(rng.normal(size=p.shape).astype(p.dtype)) for p in params])


@pytest.mark.cuda_sample(5)
@pytest.mark.parametrize(("rule", "options"), RULES, ids=RULE_IDS)
def test_continuation_is_bitwise(on: Any, dtype: Any, rule: str, options: dict) -> None:
    start = [np.ones((3, 2), dtype), np.ones(5, dtype)]
    straight, a = [on.asarray(p.copy()) for p in start], make(rule, options, l2=0.1)
    go(on, a, straight, 0, 7)
    stopped, b = [on.asarray(p.copy()) for p in start], make(rule, options, l2=0.1)
    go(on, b, stopped, 0, 4)
    saved = b.state_dict()
    go(on, b, [on.asarray(on.to_numpy(p)) for p in stopped], 4, 6)  # must not reach into `saved`
    c = make(rule, {"lr": 123.0} if rule != "sgd" else {"lr": 9.0, "momentum": 0.1})
    c.load_state_dict(saved)
    go(on, c, stopped, 4, 7)
    assert c.t == 7
    for p, q in zip(straight, stopped, strict=True):
        assert (on.to_numpy(p) == on.to_numpy(q)).all()


def test_contents(on: Any) -> None:
    p, adam = on.asarray(np.ones((2, 3), np.float32)), gpumlp.Adam(lr=0.25, betas=(0.8, 0.9))
    adam.update(p, p.copy())
    state = adam.state_dict()
    assert state["optimizer"] == "adam"
    assert state["t"] == 1
    assert state["hyperparameters"]["lr"] == 0.25
    json.dumps(state["hyperparameters"])  # plain values
    (entry,) = state["state"]
    assert isinstance(entry["v"], np.ndarray) and isinstance(entry["s"], np.ndarray)
    assert entry["v"].shape == (2, 3) and entry["v"].dtype == np.float32


def test_loaded_arrays_are_copies(on: Any) -> None:
    p, adam = on.asarray(np.ones(3)), gpumlp.Adam()
    adam.update(p, on.asarray(np.ones(3)))
    saved = adam.state_dict()
    keep = saved["state"][0]["v"].copy()
    other = gpumlp.Adam()
    other.load_state_dict(saved)
    other.update(p, on.asarray(np.ones(3)))
    assert (saved["state"][0]["v"] == keep).all()


def test_empty_state() -> None:
    other = gpumlp.RMSProp(lr=3.0)
    other.load_state_dict(gpumlp.RMSProp(lr=0.5, rho=0.7).state_dict())
    assert (other.lr, other.rho, other.t, other.state) == (0.5, 0.7, 0, [])


def test_state_of_another_rule() -> None:
    with pytest.raises(ValueError, match=r"'adagrad'.*'adam'"):
        gpumlp.Adam().load_state_dict(gpumlp.AdaGrad().state_dict())


def broken(change: Any) -> dict:
    adam = gpumlp.Adam()
    adam.update(np.ones(3), np.ones(3))
    state = adam.state_dict()
    change(state)
    return state


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["state"][0].pop("v"), r"\['s'\], expected \['s', 'v'\]"),
        (lambda s: s["state"][0].update(v=np.ones(4)), r"'v' has shape \(4,\).*\(3,\)"),
        (lambda s: s["hyperparameters"].update(lr=-1), "lr=-1"),
    ],
)
def test_damaged_state_changes_nothing(change: Any, message: str) -> None:
    adam = gpumlp.Adam(lr=0.5)
    adam.update(np.ones(2), np.ones(2))
    before = adam.state_dict()
    with pytest.raises(ValueError, match=message):
        adam.load_state_dict(broken(change))
    after = adam.state_dict()
    assert after["hyperparameters"] == before["hyperparameters"]
    assert (after["state"][0]["v"] == before["state"][0]["v"]).all()
