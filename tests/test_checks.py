"""Checks of single values: what is accepted becomes Python's own, all else is refused with a reason."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp import checks, schedules
from gpumlp.optimizers import OPTIMIZERS

ONE_HALF = [0.5, np.float16(0.5), np.float32(0.5), np.float64(0.5), np.longdouble(0.5), np.array(0.5, "f")]


@pytest.mark.parametrize("value", ONE_HALF, ids=lambda v: type(v).__name__)
def test_numbers(value: Any) -> None:
    got = checks.number("x", value, 0, 1)
    assert type(got) is float and got == 0.5


@pytest.mark.parametrize("value", [7, np.int8(7), np.uint64(7), np.array(7)], ids=lambda v: type(v).__name__)
def test_whole_numbers(value: Any) -> None:
    for got in (checks.whole("n", value), checks.seed("n", value), checks.number("n", value)):
        assert type(got) is int and got == 7


@pytest.mark.parametrize("value", [True, np.True_, 1, np.array(True), np.int32(1)])
def test_flags(value: Any) -> None:
    assert checks.flag("f", value) is True
    assert checks.flag("f", value == 0) is False


@pytest.mark.parametrize(
    "value",
    [None, "1", True, np.True_, [0.5], np.array([0.5]), 1j, math.nan, math.inf, 10**400, object(), b"1"],
    ids=lambda v: type(v).__name__,
)
def test_no_numbers(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^x=.*; expected a finite number$"):
        checks.number("x", value)


@pytest.mark.parametrize(
    "value", [None, "1", True, np.True_, 3.0, np.float32(3), [3], np.array([3, 4]), 0, -1]
)
def test_no_whole_numbers(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^n=.*; expected an integer >= 1$"):
        checks.whole("n", value)


@pytest.mark.parametrize("value", [None, "True", 2, 0.5, 1.0, [True], np.array([True])])
def test_no_flags(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^f=.*; expected True or False$"):
        checks.flag("f", value)


def test_ends_of_ranges() -> None:
    assert checks.number("x", 0, 0) == 0
    assert checks.whole("n", 3, 0, 4) == 3 and checks.whole("n", 0, 0) == 0
    assert checks.seed("s", 0) == 0 and checks.seed("s", 2**63 - 1) == 2**63 - 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: checks.number("x", 0, 0, open_low=True), "x=0; expected a finite number > 0"),
        (lambda: checks.number("x", -1, 0), "x=-1; expected a finite number >= 0"),
        (lambda: checks.number("x", 1, 0, 1), "x=1; expected a number >= 0 and < 1"),
        (lambda: checks.number("x", 0, 0, 1, open_low=True), "x=0; expected a number > 0 and < 1"),
        (lambda: checks.number("x", "1", expected="None or a number"), "x='1'; expected None or a number"),
        (lambda: checks.whole("n", 4, 0, 4), "n=4; expected an integer >= 0 and < 4"),
        (lambda: checks.whole("n", 0, expected="rows"), "n=0; expected rows"),
        (lambda: checks.seed("s", 2**63), f"s={2**63}; expected an integer >= 0 and < 2^63"),
        (lambda: checks.seed("s", -1), "s=-1; expected an integer >= 0 and < 2^63"),
    ],
)
def test_wording(call: Any, message: str) -> None:
    with pytest.raises(ValueError) as error:
        call()
    assert str(error.value) == message


def test_some() -> None:
    assert checks.some(["a", "b"]) == "a, b"
    assert checks.some(range(20), 2) == "0, 1, ... (20)"
    assert checks.some([]) == "(none)"


def numpys(value: Any) -> list[Any]:
    """Ways to write `value` with NumPy's types."""
    if isinstance(value, bool):
        return [np.bool_(value), np.array(value)]
    if isinstance(value, tuple):
        return [list(value), np.array(value), tuple(map(np.float64, value))]
    return [np.float64(value), np.array(value)]


@pytest.mark.parametrize("rule", sorted(OPTIMIZERS))
def test_hyper_parameters_become_pythons(rule: str) -> None:
    """In the constructor, and where they are assigned later."""
    plain = OPTIMIZERS[rule]().hyperparameters()
    for name, value in plain.items():
        for given in numpys(value):
            later = OPTIMIZERS[rule]()
            setattr(later, name, given)
            for optimizer in (OPTIMIZERS[rule](**{name: given}), later):
                assert json.dumps(optimizer.hyperparameters()) == json.dumps(plain)
                assert repr(optimizer) == repr(OPTIMIZERS[rule]())


@pytest.mark.parametrize("rule", sorted(OPTIMIZERS))
def test_hyper_parameters_that_are_refused(rule: str) -> None:
    for name, value in OPTIMIZERS[rule]().hyperparameters().items():
        for bad in ("x", None, np.array([0.25, 0.5, 0.75]), np.array(["0.5"]), object()):
            with pytest.raises(ValueError, match=rf"^{OPTIMIZERS[rule].__name__}: {name}=.*; expected "):
                OPTIMIZERS[rule](**{name: bad})
            later, p = OPTIMIZERS[rule](), np.ones(2)
            later.update(p, np.ones(2))
            before = p.copy()
            setattr(later, name, bad)
            with pytest.raises(ValueError, match=rf"{name}=.*; expected "):
                later.update(p, np.ones(2))
            assert np.array_equal(p, before) and later.t == 1
            setattr(later, name, value)
            later.update(p, np.ones(2))


@pytest.mark.parametrize(
    ("options", "good"),
    [
        (
            {"optimizer": gpumlp.Adam(lr=np.float32(0.5), betas=np.array([0.5, 0.75]), amsgrad=np.True_)},
            "adam",
        ),
        ({"optimizer": gpumlp.SGD(momentum=np.float32(0.5), nesterov=np.True_)}, "sgd"),
        ({"l1": np.float32(0.25), "l2": np.array(0.5), "proximal": np.True_}, "l"),
        ({"loss": gpumlp.Huber(np.float32(0.5))}, "huber"),
        ({"schedule": schedules.Step(gamma=np.float32(0.5), every=np.int64(3))}, "step"),
        ({"schedule": schedules.Exponential(np.array(0.5))}, "exponential"),
        ({"schedule": schedules.InverseScaling(np.float32(0.5), np.int8(1))}, "invscaling"),
        (
            {"schedule": schedules.Warmup(np.int64(3), schedules.Cosine(np.float16(0.5), np.array(9)))},
            "warmup",
        ),
        ({"schedule": schedules.OneCycle(*np.array([0.5, 10, 100], "f"), steps=np.int32(9))}, "onecycle"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_accepted_can_be_saved(options: dict, good: str, tmp_path: Any) -> None:
    settings = {"loss": "squared_error", "optimizer": "sgd", **options}
    trainer = gpumlp.Trainer(gpumlp.MLP([2, 1], device="numpy"), **settings)
    trainer.fit(np.ones((4, 2)), np.ones(4), epochs=1, progress=False)
    trainer.optimizer.lr = np.float32(0.25)
    trainer.save(tmp_path / "training.npz")
    loaded = gpumlp.Trainer.load(tmp_path / "training.npz", device="numpy")
    assert loaded.optimizer == trainer.optimizer and loaded.optimizer.lr == 0.25
    assert loaded.schedule == trainer.schedule and loaded.objective == trainer.objective


@pytest.mark.parametrize("bad", ["x", None, True, np.array([0.5, 0.5])])
def test_options_of_schedules_and_losses_that_are_refused(bad: Any) -> None:
    for kind in schedules.SCHEDULES.values():
        for name in vars(kind()):
            with pytest.raises((ValueError, TypeError), match=f"{kind.__name__}: {name}=.*expected"):
                kind(**{name: bad})
    with pytest.raises(ValueError, match=r"Huber: delta=.*expected a finite number > 0"):
        gpumlp.Huber(bad)


@pytest.mark.parametrize("name", ["l1", "l2", "proximal"])
@pytest.mark.parametrize("bad", ["x", None, np.array([0.5, 0.5])])
def test_penalties_of_a_trainer_that_are_refused(name: str, bad: Any) -> None:
    model = gpumlp.MLP([2, 1], device="numpy")
    with pytest.raises(ValueError, match=f"^{name}=.*expected"):
        gpumlp.Trainer(model, loss="squared_error", optimizer="sgd", **{name: bad})
