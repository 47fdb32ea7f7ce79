"""Every update rule with every combination of its options, and every combination of penalties."""

from __future__ import annotations

import itertools
from typing import Any

from gpumlp.optimizers import OPTIMIZERS

_ON_OFF = (False, True)

#: rule -> list of constructor arguments, one per combination of options
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "sgd": [
        {"lr": 0.05},
        *(
            {"lr": 0.05, "momentum": 0.9, "nesterov": nesterov, "lr_in_velocity": inside}
            for nesterov, inside in itertools.product(_ON_OFF, _ON_OFF)
        ),
        {"lr": 0.05, "momentum": 0.8, "dampening": 0.3},
        {"lr": 0.05, "momentum": 0.8, "dampening": 0.3, "lr_in_velocity": True},
    ],
    "adagrad": [
        {"lr": 0.1, "eps_in_sqrt": inside, "initial_accumulator": start}
        for inside, start in itertools.product(_ON_OFF, (0.0, 0.1))
    ],
    "rmsprop": [
        {"lr": 0.01, "eps_in_sqrt": inside, "centered": centered, "momentum": momentum}
        for inside, centered, momentum in itertools.product(_ON_OFF, _ON_OFF, (0.0, 0.9))
    ],
    "adam": [
        {"lr": 0.02, "eps_hat": hat, "amsgrad": amsgrad}
        for hat, amsgrad in itertools.product(_ON_OFF, _ON_OFF)
    ],
    "adamw": [{"lr": 0.02}, {"lr": 0.02, "amsgrad": True}],
    "adadelta": [{"lr": 1.0}, {"lr": 0.5, "rho": 0.7, "eps": 1e-3}],
    "yogi": [
        {"lr": 0.02, "bias_correction": corrected, "initial_accumulator": start}
        for corrected, start in itertools.product(_ON_OFF, (0.0, 1e-2))
    ],
    "nadam": [{"lr": 0.02, "momentum_decay": decay} for decay in (0.0, 4e-3, 0.5)],
    # 5 steps without the root, none without it, and never with it
    "radam": [{"lr": 0.02}, {"lr": 0.02, "betas": (0.8, 0.99)}, {"lr": 0.02, "betas": (0.9, 0.5)}],
    # arrays of one dimension, which these test cases have, are AdamW's
    "muon": [
        {"lr": 0.02},
        {"lr": 0.02, "momentum": 0.5, "nesterov": False, "match_rms": True, "ns_steps": 3},
        {"lr": 0.02, "amsgrad": True, "eps_hat": True},
    ],
    "lion": [{"lr": 0.02}, {"lr": 0.02, "betas": (0.5, 0.5)}],
}

#: combinations of penalties; with clipping these are all pieces that a kernel is composed of
PENALTIES: list[dict[str, Any]] = [
    {"l1": l1, "l2": l2, "weight_decay": decay, "proximal": proximal}
    for l1, proximal in ((0.0, False), (0.03, False), (0.03, True))
    for l2 in (0.0, 0.2)
    for decay in (0.0, 0.1)
]


def name_of(values: dict[str, Any]) -> str:
    """Name of a test case: what is on."""

    def text(name: str, value: Any) -> str:
        if isinstance(value, bool):
            return name
        return f"{name}={','.join(f'{v:g}' for v in (value if isinstance(value, tuple) else (value,)))}"

    return "-".join(text(name, value) for name, value in values.items() if value) or "plain"


#: (rule, options) for parametrising
RULES = [(rule, options) for rule, many in OPTIONS.items() for options in many]
RULE_IDS = [f"{rule}-{name_of(options)}" for rule, options in RULES]


def make(rule: str, options: dict[str, Any], **penalties: Any) -> Any:
    """An optimiser object."""
    return OPTIMIZERS[rule](**options, **penalties)
