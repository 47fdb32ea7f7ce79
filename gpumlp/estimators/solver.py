"""`Solver`: the update rule of an estimator, and its learning rate."""

from __future__ import annotations

import copy
from dataclasses import fields
from typing import Any

import numpy as np

from gpumlp.optimizers import OPTIMIZERS, SGD, Optimizer

__all__ = ["Solver", "make_optimizer"]


def make_optimizer(est: Any) -> Optimizer:
    """The update rule for an estimator's parameters."""
    if est.solver == "sgd":
        momentum = min(float(est.momentum), float(np.nextafter(1, 0)))  # 1 is allowed by scikit-learn
        nesterov = bool(est.nesterovs_momentum) and momentum > 0
        return SGD(lr=0.0, momentum=momentum, nesterov=nesterov, lr_in_velocity=True)
    if isinstance(est.solver, Optimizer):
        return _own_rule(est.solver)
    rule: Any = OPTIMIZERS[est.solver]
    # those of scikit-learn's parameters that the rule has, and its placement of eps
    options = {
        "betas": (float(est.beta_1), float(est.beta_2)),
        "eps": float(est.epsilon),
        "eps_hat": True,
        "weight_decay": 0.0,
    }
    known = {f.name for f in fields(rule)}
    return rule(lr=0.0, **{name: value for name, value in options.items() if name in known})


def _own_rule(solver: Optimizer) -> Optimizer:
    """A copy of an object that was given as `solver`, without its state; penalties are the estimator's."""
    solver.check()
    usual = type(solver)()
    for name, instead in (("l1", "l1"), ("l2", "alpha"), ("weight_decay", "alpha"), ("average", None)):
        if getattr(solver, name) != getattr(usual, name):
            hint = f"give {instead} to the estimator" if instead else "a Trainer can do that"
            raise ValueError(
                f"solver={type(solver).__name__}({name}={getattr(solver, name):g}): an estimator sets this "
                f"itself; {hint}"
            )
    rule = copy.deepcopy(solver)
    rule.reset()
    return rule


class Solver:
    """An update rule with its learning rate, which changes between epochs.

    Parameters
    ----------
    est : estimator
        Its parameters are read once, here.

    Attributes
    ----------
    optimizer : Optimizer
        With moments and step counter.
    learning_rate : float
        Learning rate of the next epoch.
    """

    def __init__(self, est: Any) -> None:
        self.optimizer = make_optimizer(est)
        own = isinstance(est.solver, Optimizer)
        self.learning_rate = self.start = float(est.solver.lr if own else est.learning_rate_init)
        self.schedule = est.learning_rate if est.solver == "sgd" else "constant"
        self.power_t = est.power_t

    def iteration_ends(self, t: int) -> None:
        """After an epoch, `t` rows seen in all."""
        if self.schedule == "invscaling":
            self.learning_rate = self.start / (t + 1) ** self.power_t

    def trigger_stopping(self, message: str, verbose: Any) -> bool:
        """No progress for too long: whether to stop; "adaptive" lowers the learning rate first."""
        if self.schedule != "adaptive":
            note, stop = "Stopping.", True
        elif self.learning_rate <= 1e-6:
            note, stop = "Learning rate too small. Stopping.", True
        else:
            self.learning_rate /= 5.0
            note, stop = f"Setting learning rate to {self.learning_rate:f}", False
        if verbose:
            print(f"{message} {note}")
        return stop

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "optimizer": (type(self.optimizer), self.optimizer.state_dict())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        rule, values = state.pop("optimizer")
        self.__dict__.update(state)
        self.optimizer = rule()
        self.optimizer.load_state_dict(values)
