"""100 steps in double precision against PyTorch, for every combination of options that PyTorch has."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tolerances import close

import gpumlp
from gpumlp.optimizers import OPTIMIZERS

torch = pytest.importorskip("torch")

_ON_OFF = (False, True)


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    """NAdam keeps its product of momenta in PyTorch's default type."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


L2 = (0.0, 0.03)


def _cases() -> list[tuple[str, Any, Any]]:
    """(name, our optimiser, function params -> PyTorch's)."""
    optim, cases = torch.optim, []

    def add(name: str, ours: Any, theirs: Any, **kw: Any) -> None:
        cases.append((name, ours, lambda params: theirs(params, **kw)))

    for l2 in L2:
        tag = f"-l2={l2}"
        for momentum, nesterov, dampening in (
            (0, False, 0),
            (0.9, False, 0),
            (0.9, True, 0),
            (0.8, False, 0.3),
        ):
            ours = gpumlp.SGD(lr=0.01, momentum=momentum, nesterov=nesterov, dampening=dampening, l2=l2)
            kw = {
                "lr": 0.01,
                "momentum": momentum,
                "nesterov": nesterov,
                "dampening": dampening,
                "weight_decay": l2,
            }
            add(f"sgd-{momentum}-{nesterov}-{dampening}{tag}", ours, optim.SGD, **kw)
        for start in (0.0, 0.1):
            ours = gpumlp.AdaGrad(lr=0.05, eps=1e-10, eps_in_sqrt=False, initial_accumulator=start, l2=l2)
            kw = {"lr": 0.05, "eps": 1e-10, "initial_accumulator_value": start, "weight_decay": l2}
            add(f"adagrad-{start}{tag}", ours, optim.Adagrad, **kw)
        for centered, momentum in itertools.product(_ON_OFF, (0.0, 0.9)):
            ours = gpumlp.RMSProp(
                lr=0.003, rho=0.99, eps=1e-8, eps_in_sqrt=False, centered=centered, momentum=momentum, l2=l2
            )
            kw = {"lr": 0.003, "alpha": 0.99, "eps": 1e-8, "centered": centered, "momentum": momentum}
            add(f"rmsprop-{centered}-{momentum}{tag}", ours, optim.RMSprop, **kw, weight_decay=l2)
        for amsgrad, betas in itertools.product(_ON_OFF, ((0.9, 0.999), (0.5, 0.9))):
            ours = gpumlp.Adam(lr=0.01, betas=betas, eps=1e-8, amsgrad=amsgrad, l2=l2)
            kw = {"lr": 0.01, "betas": betas, "eps": 1e-8, "amsgrad": amsgrad, "weight_decay": l2}
            add(f"adam-{amsgrad}-{betas[0]}{tag}", ours, optim.Adam, **kw)
    for amsgrad, decay in itertools.product(_ON_OFF, (0.01, 0.3)):
        ours = gpumlp.AdamW(lr=0.01, eps=1e-8, amsgrad=amsgrad, weight_decay=decay)
        kw = {"lr": 0.01, "eps": 1e-8, "amsgrad": amsgrad, "weight_decay": decay}
        add(f"adamw-{amsgrad}-{decay}", ours, optim.AdamW, **kw)
    for l2 in L2:
        tag = f"-l2={l2}"
        for lr, rho, eps in ((1.0, 0.9, 1e-6), (10.0, 0.7, 1e-3)):
            ours = gpumlp.Adadelta(lr=lr, rho=rho, eps=eps, l2=l2)
            add(f"adadelta-{rho}{tag}", ours, optim.Adadelta, lr=lr, rho=rho, eps=eps, weight_decay=l2)
        for betas, decay in itertools.product(((0.9, 0.999), (0.5, 0.9), (0.99, 0.99)), (0.0, 4e-3, 0.3)):
            ours = gpumlp.NAdam(lr=0.01, betas=betas, momentum_decay=decay, l2=l2)
            kw = {"lr": 0.01, "betas": betas, "momentum_decay": decay, "weight_decay": l2}
            add(f"nadam-{betas[0]}-{decay}{tag}", ours, optim.NAdam, **kw)
        for betas in ((0.9, 0.999), (0.5, 0.9), (0.9, 0.5)):
            ours = gpumlp.RAdam(lr=0.01, betas=betas, l2=l2)
            add(f"radam-{betas}{tag}", ours, optim.RAdam, lr=0.01, betas=betas, weight_decay=l2)
    for name in ("NAdam", "RAdam"):
        ours = getattr(gpumlp, name)(lr=0.01, weight_decay=0.3)
        kw = {"lr": 0.01, "weight_decay": 0.3, "decoupled_weight_decay": True}
        add(f"{name.lower()}-decoupled", ours, getattr(optim, name), **kw)
    return cases


#: compared in test_muon.py
ELSEWHERE = {"muon"}
CASES = _cases()


def test_every_rule_is_compared() -> None:
    known = {name.lower() for name in dir(torch.optim)}
    assert {ours.name for _, ours, _ in CASES} == (set(OPTIMIZERS) & known) - ELSEWHERE


def test_defaults_of_the_younger_rules() -> None:
    p = torch.zeros(1, requires_grad=True)
    for name in ("Adadelta", "NAdam", "RAdam"):
        theirs, ours = getattr(torch.optim, name)([p]).defaults, getattr(gpumlp, name)().hyperparameters()
        assert {key: ours[key] for key in ours.keys() & theirs.keys()} == {
            key: theirs[key] for key in ours.keys() & theirs.keys()
        }


@pytest.mark.cuda_sample(5)
@pytest.mark.parametrize("number", range(len(CASES)), ids=[name for name, _, _ in CASES])
def test_hundred_steps(on: Any, number: int) -> None:
    _, ours, make_theirs = CASES[number]
    ours.reset()
    rng = np.random.default_rng(number)
    shapes = [(7, 3), (5,), (2, 2, 2)]
    start = [rng.normal(size=shape) for shape in shapes]
    params = [on.asarray(p.copy()) for p in start]
    other = [torch.tensor(p, dtype=torch.float64, requires_grad=True) for p in start]
    theirs = make_theirs(other)
    for _ in range(100):
        grads = [
            rng.normal(size=shape) + 0.3 * q.detach().numpy() for shape, q in zip(shapes, other, strict=True)
        ]
        ours.update(params, [on.asarray(g) for g in grads])
        for q, g in zip(other, grads, strict=True):
            q.grad = torch.tensor(g)
        theirs.step()
    for p, q, first in zip(params, other, start, strict=True):
        assert np.abs(on.to_numpy(p) - first).max() > 1e-3
        close(on.to_numpy(p), q.detach().numpy(), "100 steps")
