"""A trainer's settings, checked when it is made and whenever they are assigned."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from gpumlp import checks
from gpumlp.distributed import Communicator, get_communicator
from gpumlp.model import MLP
from gpumlp.optimizers import get_optimizer
from gpumlp.plans import check_precision
from gpumlp.schedules import get_schedule
from gpumlp.training.history import EarlyStopping, History

__all__ = ["Callback", "Settings", "check_callbacks"]

#: called with the trainer and its history; True ends the training
Callback = Callable[[Any, History], Any]


def _check_model(model: Any) -> MLP:
    if not isinstance(model, MLP):
        raise TypeError(f"model={model!r}; expected a gpumlp.MLP")
    return model


def _check_limit(clip_norm: Any) -> float | None:
    if clip_norm is None:
        return None
    return float(
        checks.number("clip_norm", clip_norm, 0, open_low=True, expected="None or a finite number > 0")
    )


def _check_communicator(communicator: Any) -> Communicator | None:
    return None if communicator is None else get_communicator(communicator)


def check_callbacks(callbacks: Any) -> list[Callback]:
    """The callbacks as a list; TypeError for what cannot be called."""
    if callable(callbacks):
        raise TypeError(f"callbacks={callbacks!r} is one function; give a list: callbacks=[...]")
    if not hasattr(callbacks, "__iter__"):
        raise TypeError(f"callbacks={callbacks!r}; expected a list of functions")
    for number, callback in enumerate(callbacks):
        if isinstance(callback, EarlyStopping):
            raise TypeError(
                f"callbacks[{number}] is an EarlyStopping; give it to fit: fit(..., early_stopping=...)"
            )
        if not callable(callback):
            raise TypeError(
                f"callbacks[{number}]={callback!r} cannot be called; expected a function of the trainer and "
                "its History"
            )
    return list(callbacks)


class Settings:
    """The attributes of a `Trainer` that may be assigned to at any time.

    A value that cannot be one is a ValueError or TypeError.
    """

    model = checks.Setting(_check_model)
    optimizer = checks.Setting(get_optimizer)
    batch_size = checks.Setting(partial(checks.whole, "batch_size"))
    clip_norm = checks.Setting(_check_limit)
    schedule = checks.Setting(get_schedule)
    seed = checks.Setting(partial(checks.seed, "seed"))
    precision = checks.Setting(check_precision)
    callbacks = checks.Setting(check_callbacks)
    communicator = checks.Setting(_check_communicator)
    reproducible = checks.Setting(partial(checks.flag, "reproducible"))
    epoch = checks.Setting(partial(checks.whole, "epoch", low=0))

    @property
    def leads(self) -> bool:
        """Whether this process shows and writes: it is alone, or rank 0."""
        return self.communicator is None or self.communicator.rank == 0
