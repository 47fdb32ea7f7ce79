"""The trials of ``gpumlp tune``: what they are drawn from, how they went, how they are shown."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpumlp.cli.figures import in_units, texts
from gpumlp.cli.values import Span
from gpumlp.tables.preparation import Preparation
from gpumlp.training.halving import SuccessiveHalving
from gpumlp.training.history import History
from gpumlp.training.trainer import Trainer

__all__ = ["Trial", "draw_settings", "print_trials", "trials_csv"]


def draw_settings(spans: Mapping[str, Span], trials: int, seed: int) -> list[dict[str, float]]:
    """A value of each span for each trial: uniform numbers of ``default_rng([seed, 5])``, in this order, so
    that the first trials are the same for any number of them."""
    numbers = np.random.default_rng([seed, 5]).random((trials, len(spans)))
    return [
        {name: span.at(float(u)) for (name, span), u in zip(spans.items(), row, strict=True)}
        for row in numbers
    ]


@dataclass(eq=False)
class Trial:
    """Networks with the same settings: one, or one for each fold.

    Attributes
    ----------
    number : int
        From 1.
    settings : dict of str to float
    trainers : list of Trainer
    """

    number: int
    settings: dict[str, float]
    trainers: list[Trainer]

    @property
    def histories(self) -> list[History]:
        """Of its networks; empty ones before they are trained."""
        return [trainer.history for trainer in self.trainers]

    @property
    def score(self) -> float:
        """Higher is better: minus the validation loss; -inf if a network has diverged, or has no epoch."""
        return SuccessiveHalving().score(self.histories)

    @property
    def usable(self) -> bool:
        """Whether it has a validation loss."""
        return self.score > -math.inf

    def figures(self, prep: Preparation) -> dict[str, float]:
        """Those of the validation rows after the best epoch, means over the folds."""
        if not self.usable:
            return {}
        found: dict[str, list[float]] = {}
        for history in self.histories:
            for name, values in history.metrics.items():
                if name.startswith("val_"):
                    found.setdefault(name, []).append(values[history.best_epoch or 0])
        return in_units({name: float(np.mean(values)) for name, values in found.items()}, prep)

    def epochs(self) -> tuple[float, int]:
        """(best epoch from 1, mean over the folds; most epochs of a fold)."""
        best = [1 + (h.best_epoch or 0) for h in self.histories]
        return float(np.mean(best)), max(len(h) for h in self.histories)

    def curve(self) -> list[float]:
        """Validation loss by epoch, as long as all its networks were trained: mean over them."""
        every = [h.metrics.get("val_loss", []) for h in self.histories]
        return [float(np.mean(values)) for values in zip(*every, strict=False)]

    def end(self, planned: int, rungs: Sequence[int]) -> str:
        """Why its training ended."""
        histories = self.histories
        if any(h.error for h in histories):
            return "diverged"
        if all(h.stopped_early for h in histories):
            return "stopped early"
        left = [h for h in histories if not h.stopped_early]
        if all(len(h) == planned for h in left):
            return "last epoch"
        rung = left[0].rung or 0
        if rung < len(rungs) and all(len(h) == rungs[rung] for h in left):
            return f"rung {rung + 1}"
        return "interrupted"


def print_trials(trials: Sequence[Trial], prep: Preparation, shown: Sequence[str]) -> None:
    """A table of `trials`, with the settings that are to be `shown`."""
    figures = [trial.figures(prep) for trial in trials]
    columns = [["trial", *(str(trial.number) for trial in trials)]]
    for name in figures[0]:
        short = name.removeprefix("val_")
        columns.append([short, *texts(short, [row[name] for row in figures])])
    for name in shown:
        columns.append([name.removeprefix("weight_"), *(f"{t.settings[name]:.3g}" for t in trials)])
    ends = [trial.epochs() for trial in trials]
    columns.append(["best epoch", *(f"{best:.3g} of {most}" for best, most in ends)])
    widths = [max(map(len, column)) for column in columns]
    for row in zip(*columns, strict=True):
        print("  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)))


def trials_csv(trials: Sequence[Trial], prep: Preparation, planned: int, rungs: Sequence[int]) -> str:
    """All trials as CSV: settings and results, one line each."""
    names = [name for trial in trials for name in trial.figures(prep)]
    metrics = list(dict.fromkeys(names))
    rows: list[list[Any]] = [
        ["trial", *trials[0].settings, *metrics, "best_epoch", "epochs", "rung", "end", "seconds"]
    ]
    for trial in trials:
        figures, (best, most) = trial.figures(prep), trial.epochs()
        seconds = sum(sum(h.metrics.get("seconds", [])) for h in trial.histories)
        rung = trial.histories[0].rung if rungs else None
        rows.append(
            [
                trial.number,
                *(f"{value:.6g}" for value in trial.settings.values()),
                *(f"{figures[name]:.9g}" if name in figures else "" for name in metrics),
                f"{best:g}" if trial.usable else "",
                most,
                "" if rung is None else rung,
                trial.end(planned, rungs),
                f"{seconds:.3f}",
            ]
        )
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
