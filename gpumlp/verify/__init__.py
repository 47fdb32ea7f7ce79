"""Whether the parts of an activation, a loss or a rule agree: derivative, C++ text, NumPy reference."""

from __future__ import annotations

from gpumlp.verify.differences import (
    GradientReport,
    activation_gradients,
    compared,
    loss_gradients,
    refuse,
)
from gpumlp.verify.texts import check_activation_text, check_loss_text, check_rule_text

__all__ = [
    "GradientReport",
    "activation_gradients",
    "check_activation_text",
    "check_loss_text",
    "check_rule_text",
    "compared",
    "loss_gradients",
    "refuse",
]
