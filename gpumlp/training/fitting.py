"""The rows of a fit: training and validation rows that fit each other, on all ranks."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpumlp.errors import suggest
from gpumlp.rows import Rows, RowSource, SourceRows, check_given, check_two_classes, split_validation
from gpumlp.training.history import EarlyStopping
from gpumlp.training.job import agreed, check_same
from gpumlp.training.shared_source import SharedSource
from gpumlp.training.spread import spread_rows

__all__ = ["check_fit", "check_monitor", "given_rows", "rows_of_fit"]


def given_rows(
    trainer: Any,
    X: Any,
    y: Any,
    w: Any = None,
    how: str | np.ndarray = "replicated",
    suffix: str = "",
    look: bool = True,
) -> Rows | SourceRows:
    """The rows that this rank was given, checked; "sharded" are its part of all, or a source that the ranks
    read together; its part may also be numbered."""
    numbers = None if isinstance(how, str) else how
    if numbers is None and how not in ("replicated", "sharded"):
        raise ValueError(f"rows={how!r}; expected 'replicated', 'sharded' or the numbers of this rank's rows")
    model, loss, communicator = trainer.model, trainer.loss, trainer.communicator
    ranks = trainer.engine.ranks
    together = numbers is None and how == "sharded"
    if (together and communicator is None) or (numbers is not None and ranks is None):
        raise ValueError(
            "rows='sharded' needs a trainer with a communicator: Trainer(..., communicator='auto')"
        )
    if numbers is not None and isinstance(X, RowSource):
        raise TypeError(f"X{suffix} is a {type(X).__name__}, whose rows have no numbers; expected 'sharded'")
    if numbers is None and (not together or ranks is None or isinstance(X, RowSource)):
        rows = agreed(communicator, lambda: check_given(model, loss, X, y, w, suffix, look=look))
        if together and ranks is not None and isinstance(rows, SourceRows):
            return SharedSource.of(rows, ranks)
        return rows
    return agreed(communicator, lambda: spread_rows(model, loss, communicator, X, y, w, suffix, numbers))


def rows_of_fit(
    trainer: Any,
    given: tuple[Any, Any, Any],
    how: str | np.ndarray,
    validation: Any,
    stop: EarlyStopping | None,
    epochs: int,
    look: bool,
) -> tuple[Any, Any]:
    """(training rows, validation rows) of a fit on `given`, (X, y, weights); all ranks have the same."""
    rows = given_rows(trainer, *given, how=how, look=look)
    how = how if isinstance(how, str) else "sharded"  # the numbers are those of the training rows
    if how == "sharded" and isinstance(validation, (tuple, list)) and len(validation) in (2, 3):
        X, y, w = [*validation, None][:3]
        validation = given_rows(trainer, X, y, w, how, "_val")
    if isinstance(validation, RowSource):
        validation = given_rows(trainer, validation, None, how=how, suffix="_val")
    train, val = agreed(trainer.communicator, lambda: check_fit(trainer, rows, validation, stop, look))
    check_same(trainer, train, val, epochs=epochs, early_stopping=stop)
    return train, val


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
