"""What a training run leaves behind, and when to stop one."""

from __future__ import annotations

import copy
import html
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from gpumlp import checks
from gpumlp.errors import DivergenceError
from gpumlp.plots import plot_history

__all__ = ["EarlyStopping", "Histories", "History", "get_early_stopping", "maximizes"]

_ENDS = 5  # epochs that a notebook shows from the beginning and from the end


@dataclass(repr=False)
class History:
    """Figures of each epoch.

    Attributes
    ----------
    metrics : dict of str -> list of float
        One entry per epoch: "loss" (mean training loss over the epoch's batches, each taken before its
        update, without penalties), "lr" (of the last step), "seconds" (wall time since the epoch before,
        callbacks included; all together are the time that the training took), and with validation data
        "val_loss" and "val_accuracy" or "val_rmse" and "val_r2"; with ``precision="float16"`` "skipped"
        (steps that were left out because a gradient overflowed).  Each is also an attribute:
        ``history.val_loss``, and an item: ``history["val_loss"]``.
    best_epoch : int or None
        Epoch (from 0) of the best monitored value; without early stopping that of the lowest val_loss or
        loss.
    stopped_early : bool
    error : DivergenceError or None
        Why the training ended, if it diverged; the epochs before are recorded.
    rung : int or None
        With ``fit_many(..., halving=...)`` the number of rungs that the candidate has passed.
    """

    metrics: dict[str, list[float]] = field(default_factory=dict)
    best_epoch: int | None = None
    stopped_early: bool = False
    error: DivergenceError | None = None
    rung: int | None = None

    def diverged(self, error: DivergenceError) -> None:
        """Keep why the training ended."""
        self.error = copy.copy(error)  # without the traceback, which holds the rows

    def append(self, values: dict[str, float]) -> None:
        """Add one epoch; a metric that some epochs lack is NaN there."""
        before = len(self)
        for name in dict.fromkeys((*values, *self.metrics)):
            self.metrics.setdefault(name, [math.nan] * before).append(values.get(name, math.nan))

    def plot(self, path: Any = None, **options: Any) -> Any:
        """Draw the learning curves; arguments and value as for `gpumlp.plots.plot_history`.

        Without a path the figure is returned, which a notebook shows.
        """
        return plot_history(self, path, **options)

    @property
    def age(self) -> int:
        """Epochs since the best one."""
        return len(self) - 1 - (-1 if self.best_epoch is None else self.best_epoch)

    def __getattr__(self, name: str) -> list[float]:
        try:
            return self.__dict__["metrics"][name]
        except KeyError:
            raise AttributeError(
                f"no metric {name!r} was recorded; recorded: {', '.join(self.__dict__.get('metrics', {}))}"
            ) from None

    def __getitem__(self, name: str) -> list[float]:
        try:
            return self.metrics[name]
        except KeyError:
            raise KeyError(f"no metric {name!r} was recorded; recorded: {', '.join(self.metrics)}") from None

    __iter__ = None  # epochs or names? `metrics` and the lists in it can be iterated over

    def __contains__(self, name: object) -> bool:
        return name in self.metrics

    def __repr__(self) -> str:
        last = "".join(f", {name}={values[-1]:.4g}" for name, values in self.metrics.items() if values)
        best = "" if self.best_epoch is None else f", best_epoch={self.best_epoch}"
        ended = ", stopped_early" if self.stopped_early else ", diverged" if self.error else ""
        return f"History({len(self)} epochs{last}{best}{ended})"

    def _repr_html_(self) -> str:
        """For notebooks: a table of the epochs, of many the first, the last and the best."""
        n, best = len(self), self.best_epoch
        shown = sorted({*range(min(n, _ENDS)), *range(max(0, n - _ENDS), n)} | ({best} - {None}))
        rows, before = [], -1
        for epoch in shown:
            if epoch > before + 1:
                rows.append(f'<tr><td colspan="{1 + len(self.metrics)}">…</td></tr>')
            before = epoch
            cells = [str(epoch + 1) + (" (best)" if epoch == best else "")]
            cells += [f"{values[epoch]:.4g}" for values in self.metrics.values()]
            rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
        head = "".join(f"<th>{html.escape(name)}</th>" for name in ("epoch", *self.metrics))
        total = f"{sum(self.metrics.get('seconds', ())):.4g} s"
        return (
            f"<p>{html.escape(repr(self))}, {total} in all</p><table><tr>{head}</tr>{''.join(rows)}</table>"
        )

    def __len__(self) -> int:
        return len(self.metrics.get("loss", ()))


class Histories(list[History]):
    """Histories of networks that were trained together; `how` says in how many plans."""

    def __init__(self, histories: Iterable[History], how: str) -> None:
        super().__init__(histories)
        self.how = how

    def __repr__(self) -> str:
        return "\n".join([f"{self.how}:", *(f"[{k}] {history!r}" for k, history in enumerate(self))])


@dataclass
class EarlyStopping:
    """Stop when a recorded metric has not improved for `patience` epochs.

    Parameters
    ----------
    monitor : str
        Any recorded metric.
    patience : int
        Epochs to wait for an improvement.
    min_delta : float
        Change that counts as improvement.
    mode : str
        "min", "max", or "auto" (max for accuracy and R2).
    restore_best : bool
        Put the parameters of the best epoch back at the end.
    """

    monitor: str = "val_loss"
    patience: int = 10
    min_delta: float = 0.0
    mode: str = "auto"
    restore_best: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.monitor, str):
            raise ValueError(f"EarlyStopping: monitor={self.monitor!r}; expected the name of a metric")
        if self.mode not in ("auto", "min", "max"):
            raise ValueError(f"EarlyStopping: mode={self.mode!r}; expected 'auto', 'min' or 'max'")
        self.patience = checks.whole("EarlyStopping: patience", self.patience)
        self.min_delta = checks.number("EarlyStopping: min_delta", self.min_delta, 0)
        self.restore_best = checks.flag("EarlyStopping: restore_best", self.restore_best)

    def better(self, value: float, best: float | None) -> bool:
        """Whether `value` improves on `best`."""
        if best is None:
            return not math.isnan(value)
        gain = value - best if maximizes(self.monitor, self.mode) else best - value
        return gain > self.min_delta


def maximizes(monitor: str, mode: str) -> bool:
    """Whether higher values of a metric are better, for `mode` "min", "max" or "auto"."""
    return mode == "max" or (mode == "auto" and monitor.endswith(("accuracy", "r2")))


def get_early_stopping(spec: EarlyStopping | bool | None) -> EarlyStopping | None:
    """`spec` as an object: itself, the default one for True, None for None or False."""
    if spec is None or spec is False:
        return None
    if spec is True:
        return EarlyStopping()
    if isinstance(spec, EarlyStopping):
        return spec
    raise TypeError(f"early_stopping={spec!r}; expected True, None or gpumlp.EarlyStopping(...)")
