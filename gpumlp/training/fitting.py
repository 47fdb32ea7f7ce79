"""What `fit` asks of its rows and settings together."""

from __future__ import annotations

from typing import Any

from gpumlp.errors import suggest
from gpumlp.rows import Rows, check_two_classes, split_validation
from gpumlp.training.history import EarlyStopping

__all__ = ["check_fit", "check_monitor"]


def check_fit(
    trainer: Any, rows: Any, validation: Any, stop: EarlyStopping | None, look: bool = True
) -> tuple[Any, Any]:
    """(training rows, validation rows) of a fit on checked `rows`, fit for each other and for `stop`."""
    train, val = split_validation(trainer.model, trainer.loss, rows, validation, trainer.seed, look)
    if trainer.loss.classes and isinstance(train, Rows):
        check_two_classes(train.take(train.y))
    if stop:
        check_monitor("early stopping", stop.monitor, trainer, val)
    return train, val


def check_monitor(what: str, monitor: str, trainer: Any, val: Any) -> None:
    """ValueError if a fit with the validation rows `val` will not record the metric."""
    names = ["loss", *(f"val_{m}" for m in trainer.objective.metrics if val)]
    if monitor not in names:
        raise ValueError(
            f"{what}: {suggest('metric', monitor, names)}"
            + ("" if val else " Give validation data for the val_ metrics.")
        )
