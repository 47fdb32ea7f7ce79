"""Trainers for the tests of this folder."""

from __future__ import annotations

from typing import Any

import gpumlp


def trainer(model: Any, **options: Any) -> Any:
    """A Trainer with usual settings."""
    settings = {"loss": "softmax_cross_entropy", "optimizer": gpumlp.Adam(lr=3e-3), "batch_size": 100}
    return gpumlp.Trainer(model, **{**settings, **options})
