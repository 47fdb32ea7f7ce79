"""A hyper-parameter that is changed counts from the next step on, also in the quick way of repeated calls."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import oracles
import pytest
from tolerances import close

import gpumlp
from gpumlp.optimizers import OPTIMIZERS

CHANGES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("sgd", {"momentum": 0.9}, {"momentum": 0.2}),
    ("sgd", {"momentum": 0.9}, {"nesterov": True}),
    ("sgd", {"momentum": 0.9}, {"dampening": 0.5}),
    ("sgd", {"momentum": 0.9}, {"lr_in_velocity": True}),
    ("sgd", {"l1": 0.1}, {"l1": 0.3}),
    ("sgd", {"l1": 0.1}, {"proximal": True}),
    ("adagrad", {}, {"eps": 0.5}),
    ("adagrad", {}, {"eps_in_sqrt": False, "eps": 0.5}),
    ("rmsprop", {}, {"rho": 0.2}),
    ("rmsprop", {"momentum": 0.5}, {"momentum": 0.9}),
    ("adam", {}, {"betas": (0.5, 0.9)}),
    ("adam", {}, {"betas": [0.5, 0.9]}),
    ("adam", {}, {"betas": np.array([0.5, 0.9])}),
    ("adam", {}, {"eps": 1.0}),
    ("adam", {}, {"eps_hat": True, "eps": 1.0}),
    ("adam", {}, {"l2": 0.3}),
    ("adam", {"l2": 0.1}, {"l2": 0.0}),
    ("adamw", {}, {"weight_decay": 0.4}),
    ("adamw", {}, {"lr": 0.5}),
]
IDS = [
    f"{rule}-{'-'.join(change)}-{type(next(iter(change.values()))).__name__}" for rule, _, change in CHANGES
]


@pytest.mark.cuda_sample(3)
@pytest.mark.parametrize(("rule", "options", "change"), CHANGES, ids=IDS)
def test_between_updates(on: Any, rule: str, options: dict, change: dict) -> None:
    rng = np.random.default_rng(1)
    start = rng.normal(size=24)
    optimizer, memory = OPTIMIZERS[rule](lr=0.1, **options), {}  # type: ignore[var-annotated]
    p, expected = on.asarray(start.copy()), start
    for t in range(1, 9):
        if t == 5:
            for name, value in change.items():
                setattr(optimizer, name, value)
        g = rng.normal(size=24)
        optimizer.update(p, on.asarray(g))
        expected = oracles.step(optimizer, expected, g, memory, t)
        close(on.to_numpy(p), expected, "optimizer")


@pytest.mark.parametrize(("rule", "options", "change"), CHANGES, ids=IDS)
def test_settings_tell(rule: str, options: dict, change: dict) -> None:
    """They change with what a recorded launch keeps, and only then."""
    optimizer = OPTIMIZERS[rule](lr=0.1, **options)
    before, kernel = optimizer.settings(), optimizer.kernel()
    kept = (kernel.name, optimizer.scalars(kernel))
    hash(before)
    for name, value in change.items():
        setattr(optimizer, name, value)
    after, kernel = optimizer.settings(), optimizer.kernel()
    assert (after != before) is ((kernel.name, optimizer.scalars(kernel)) != kept)
    assert copy.deepcopy(optimizer).settings() == after


def test_a_list_of_betas_may_be_changed_in_place() -> None:
    betas, p, q = [0.5, 0.9], np.ones(3), np.ones(3)
    optimizer, other = gpumlp.Adam(), gpumlp.Adam(betas=(0.5, 0.9))
    optimizer.update(p, np.ones(3)), gpumlp.Adam().update(q, np.ones(3))
    optimizer.betas = betas
    betas[0] = 0.25
    other.load_state_dict({**optimizer.state_dict(), "hyperparameters": {"betas": (0.25, 0.9)}})
    for _ in range(3):
        optimizer.update(p, np.full(3, 2.0))
        other.update(q, np.full(3, 2.0))
    assert np.array_equal(p, q) and optimizer.betas == (0.25, 0.9)


def test_an_option_that_needs_other_state_is_refused_in_the_quick_way() -> None:
    optimizer, p = gpumlp.Adam(), np.ones(3)
    for _ in range(3):
        optimizer.update(p, np.ones(3))
    optimizer.amsgrad, before = True, p.copy()
    with pytest.raises(ValueError, match=r"\['s', 'v'\].*\['s', 's_max', 'v'\].*reset"):
        optimizer.update(p, np.ones(3))
    assert np.array_equal(p, before) and optimizer.t == 3


def test_eps_too_small_for_the_state_is_refused_later_too() -> None:
    optimizer, p = gpumlp.AdaGrad(), np.ones(3, np.float32)
    optimizer.update(p, p.copy())
    optimizer.eps = 1e-50
    with pytest.raises(ValueError, match="eps=1e-50 is too small for float32"):
        optimizer.update(p, p.copy())


@pytest.mark.parametrize("t", [-5, 1.5, "3", None])
def test_step_numbers_that_make_no_sense_are_not_loaded(t: Any) -> None:
    optimizer = gpumlp.Adam()
    with pytest.raises(ValueError, match=r"t=.*expected an integer >= 0"):
        optimizer.load_state_dict({**optimizer.state_dict(), "t": t})


@pytest.mark.parametrize("whole", [False, True])
def test_a_state_that_is_emptied_by_hand_is_made_again(whole: bool) -> None:
    optimizer, p = gpumlp.SGD(lr=1.0, momentum=0.5), np.zeros(2)
    for _ in range(3):
        optimizer.update(p, np.ones(2))
    if whole:
        optimizer.state = []
    else:
        optimizer.state.clear()
    optimizer.update(p, np.ones(2))
    assert p.tolist() == [-(1 + 1.5 + 1.75) - 1] * 2 and optimizer.t == 4
