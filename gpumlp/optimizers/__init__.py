"""Update rules as optimisers, by name.  Formula and C++ text of each are in `kernels/optimizers/`.

A new rule of the package is one file and one line there, which become a class here; one of the user's is
registered (`gpumlp.register`).  Trainers, files, estimators and the command line look names up here.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import inspect
from typing import TYPE_CHECKING

import numpy as np

from gpumlp.checks import flag, number
from gpumlp.errors import register_first, suggest
from gpumlp.kernels.entry import same_class
from gpumlp.kernels.optimizers import RULES
from gpumlp.kernels.optimizers.rule import Rule
from gpumlp.optimizers.base import Optimizer
from gpumlp.optimizers.muon import Muon, newton_schulz
from gpumlp.optimizers.stacked import StackedOptimizer, stack_key
from gpumlp.verify import check_rule_text
from gpumlp.verify.names import admit

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
    "register_rule",
    "stack_key",
    "with_penalties",
]


def _with_state(file: str, name: str) -> type[Optimizer]:
    """The rule of that name with state and `update`."""
    if name == "Muon":  # has more than one kernel
        return Muon
    rule = getattr(importlib.import_module(f"gpumlp.kernels.optimizers.{file}"), name)
    return type(name, (Optimizer, rule), {"__doc__": rule.__doc__, "__module__": __name__})


#: name -> class
OPTIMIZERS: dict[str, type[Optimizer]] = {
    made.name: made for file, names in RULES.items() for made in (_with_state(file, name) for name in names)
}
_PACKAGE = frozenset(OPTIMIZERS)
globals().update({made.__name__: made for made in OPTIMIZERS.values()})

if TYPE_CHECKING:  # for editors and type checkers, which do not run the above
    from gpumlp.kernels.optimizers import adadelta, adagrad, adam, lion, nadam, radam, rmsprop, sgd, yogi

    class SGD(Optimizer, sgd.SGD): ...

    class AdaGrad(Optimizer, adagrad.AdaGrad): ...

    class RMSProp(Optimizer, rmsprop.RMSProp): ...

    class Adam(Optimizer, adam.Adam): ...

    class AdamW(Optimizer, adam.AdamW): ...

    class Adadelta(Optimizer, adadelta.Adadelta): ...

    class Yogi(Optimizer, yogi.Yogi): ...

    class NAdam(Optimizer, nadam.NAdam): ...

    class RAdam(Optimizer, radam.RAdam): ...

    class Lion(Optimizer, lion.Lion): ...


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
            suggest("optimizer", name, OPTIMIZERS) + register_first("gpumlp.optimizers.OPTIMIZERS", name)
        )
    return OPTIMIZERS[name]


def register_rule(rule: type[Rule] | Rule, *, check: bool = True, replace: bool = False) -> type[Optimizer]:
    """See `gpumlp.register`; of an object, its class is registered."""
    kind = rule if isinstance(rule, type) else type(rule)
    name = getattr(kind, "name", None)
    if not issubclass(kind, Optimizer):
        raise TypeError(f"{kind.__name__} is not an optimiser; derive it from gpumlp.Optimizer")
    known = [f.name for f in dataclasses.fields(kind)]
    for field, annotation in inspect.get_annotations(kind).items():
        if field not in known and "ClassVar" not in str(annotation):
            raise TypeError(
                f"rule {name!r}: {field} is no hyper-parameter yet; write @dataclass above {kind.__name__}"
            )

    def look() -> None:
        try:
            example = kind() if isinstance(rule, type) else copy.deepcopy(rule)
        except TypeError as error:
            raise TypeError(
                f"rule {name!r}: every hyper-parameter needs a default value ({error})"
            ) from error
        _check_steps(example)
        check_rule_text(example)

    return admit(
        "optimizer", OPTIMIZERS, _PACKAGE, kind, name, same_class, look if check else lambda: None, replace
    )


def _check_steps(rule: Rule) -> None:
    """ValueError unless what the rule says of single steps is what it says of many at once."""
    t, lr = np.arange(1, 4), np.array([0.1, 0.2, 0.3])
    many = rule.per_step(t, lr)
    for n in range(3):
        one = rule.per_step(int(t[n]), float(lr[n]))
        for name, value in one.items():
            wanted = np.broadcast_to(np.asarray(many.get(name, np.nan), float), t.shape)[n]
            if not np.isclose(float(value), wanted, rtol=1e-12, atol=0):
                raise ValueError(
                    f"rule {rule.name!r}: stepped(t, lr) gives {name}={float(value):g} for t={t[n]}, and "
                    f"{wanted:g} in an array of steps; t and lr may be numbers or arrays of one shape"
                )


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
