"""Update rules as optimisers, by name.  Formula and C++ text of each are in `kernels/optimizers/`.

A new rule is one file there and one class here, named in `OPTIMIZERS`; tests, CLI and docs read this dict.
"""

from __future__ import annotations

import copy

from gpumlp.checks import flag, number
from gpumlp.errors import suggest
from gpumlp.kernels.optimizers import (
    adadelta,
    adagrad,
    adam,
    lion,
    nadam,
    radam,
    rmsprop,
    sgd,
    yogi,
)
from gpumlp.kernels.optimizers.rule import Rule
from gpumlp.optimizers.base import Optimizer
from gpumlp.optimizers.muon import Muon, newton_schulz
from gpumlp.optimizers.stacked import StackedOptimizer, stack_key

__all__ = [
    "OPTIMIZERS",
    "SGD",
    "AdaGrad",
    "Adadelta",
    "Adam",
    "AdamW",
    "Lion",
    "Muon",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSProp",
    "Rule",
    "StackedOptimizer",
    "Yogi",
    "get_optimizer",
    "newton_schulz",
    "optimizer_class",
    "stack_key",
    "with_penalties",
]


class SGD(Optimizer, sgd.SGD):
    __doc__ = sgd.SGD.__doc__


class AdaGrad(Optimizer, adagrad.AdaGrad):
    __doc__ = adagrad.AdaGrad.__doc__


class RMSProp(Optimizer, rmsprop.RMSProp):
    __doc__ = rmsprop.RMSProp.__doc__


class Adam(Optimizer, adam.Adam):
    __doc__ = adam.Adam.__doc__


class AdamW(Optimizer, adam.AdamW):
    __doc__ = adam.AdamW.__doc__


class Adadelta(Optimizer, adadelta.Adadelta):
    __doc__ = adadelta.Adadelta.__doc__


class Yogi(Optimizer, yogi.Yogi):
    __doc__ = yogi.Yogi.__doc__


class NAdam(Optimizer, nadam.NAdam):
    __doc__ = nadam.NAdam.__doc__


class RAdam(Optimizer, radam.RAdam):
    __doc__ = radam.RAdam.__doc__


class Lion(Optimizer, lion.Lion):
    __doc__ = lion.Lion.__doc__


#: name -> class; add a class of your own, and its name is known everywhere
OPTIMIZERS: dict[str, type[Optimizer]] = {
    optimizer.name: optimizer
    for optimizer in (SGD, AdaGrad, RMSProp, Adam, AdamW, Adadelta, Yogi, NAdam, RAdam, Lion, Muon)
}


def get_optimizer(spec: str | Optimizer) -> Optimizer:
    """An optimiser object: `spec` itself, or the rule of that name with its defaults."""
    if isinstance(spec, Optimizer):
        return spec
    if isinstance(spec, str):
        return optimizer_class(spec)()
    raise TypeError(
        f"optimizer={spec!r}; expected a name ({', '.join(OPTIMIZERS)}) or an object such as "
        "gpumlp.Adam(lr=1e-3)"
    )


def optimizer_class(name: str) -> type[Optimizer]:
    """The class of that name."""
    if name not in OPTIMIZERS:
        raise ValueError(
            suggest("optimizer", name, OPTIMIZERS)
            + f" A rule of your own must be in gpumlp.optimizers.OPTIMIZERS[{name!r}] first."
        )
    return OPTIMIZERS[name]


def with_penalties(
    optimizer: Optimizer, l1: float, l2: float, proximal: bool, average: float = 0.0
) -> Optimizer:
    """A copy of `optimizer` with these penalties and this average; ValueError if it has its own already."""
    optimizer = copy.deepcopy(optimizer)
    for name, given in (("l1", l1), ("l2", l2), ("average", average)):
        value = number(name, given, 0, expected="a number >= 0 and finite")
        if value == 0:
            continue
        if getattr(optimizer, name):
            raise ValueError(
                f"{name} was given twice: {value} to the Trainer and "
                f"{getattr(optimizer, name)} to the optimizer"
            )
        setattr(optimizer, name, value)
    optimizer.proximal = flag("proximal", proximal) or optimizer.proximal
    optimizer.check()
    return optimizer
