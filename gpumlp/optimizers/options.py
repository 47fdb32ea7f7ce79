"""What `Optimizer.update` is asked for beside arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpumlp.checks import flag, number
from gpumlp.schedules import check_known, get_schedule, learning_rates

__all__ = ["Options", "checked"]


@dataclass(frozen=True)
class Options:
    """The checked options of an update; see `Optimizer.update`.

    Attributes
    ----------
    clip_norm : float or None
    scale : float, array of one number, or None
    decay : tuple of bool
        For each array.
    lr : float
    schedule : callable
        Factors on `lr`.
    zero : bool
    """

    clip_norm: float | None
    scale: Any
    decay: tuple[bool, ...]
    lr: float
    schedule: Callable
    zero: bool
    own_lr: bool  # that of the optimiser

    @property
    def factor(self) -> bool:
        """Whether gradients are multiplied by a factor."""
        return self.clip_norm is not None or self.scale is not None

    @property
    def plain(self) -> bool:
        """Whether there are none."""
        return not self.factor and all(self.decay) and not self.zero and self.own_lr

    def rates(self, t: Any) -> np.ndarray:
        """Learning rates of the steps `t`, from 1, float64 of its shape."""
        return learning_rates(self.schedule, self.lr, np.asarray(t, np.int64) - 1, 0)


def checked(own_lr: float, n: int, clip_norm: Any, scale: Any, decay: Any, lr: Any, zero: Any) -> Options:
    """Options for `n` arrays; ValueError or TypeError for what cannot be one."""
    if clip_norm is not None:
        clip_norm = float(
            number("clip_norm", clip_norm, 0, open_low=True, expected="None or a finite number > 0")
        )
    if scale is not None and not _is_array(scale):
        expected = "None, a finite number > 0, or an array of one number on the parameters' device"
        scale = float(number("scale", scale, 0, open_low=True, expected=expected))
    schedule, same = get_schedule(None), lr is None
    if lr is not None and (callable(lr) or isinstance(lr, str)):
        schedule, lr = get_schedule(lr), own_lr
        check_known(schedule, "update()")
    lr = own_lr if lr is None else number("lr", lr, 0, expected="a number >= 0 and finite, or a schedule")
    return Options(clip_norm, scale, _flags(decay, n), float(lr), schedule, flag("zero", zero), same)


def _is_array(value: Any) -> bool:
    return hasattr(value, "__dlpack__") or hasattr(value, "__cuda_array_interface__")


def _flags(decay: Any, n: int) -> tuple[bool, ...]:
    if decay is None or isinstance(decay, (bool, np.bool_)):
        return (decay is None or bool(decay),) * n
    try:
        given = tuple(flag("decay", one) for one in decay)
    except (TypeError, ValueError):
        given = ()
    if len(given) != n:
        raise ValueError(
            f"decay={decay!r}; expected True or False for each of the {n} arrays (True: penalties and weight "
            "decay apply to it), or one for all"
        )
    return given
