"""The greedy choice among networks on rows that were held back, also while they train; how far they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpumlp.model import MLP, greedy_choice
from gpumlp.tabular.splits import Split

__all__ = ["Choice", "Standing", "Watch"]

_SIZE = 32  # networks of an ensemble, repeated ones counted
_LOOK, _TELL = 1.0, 0.2  # least seconds between two choices, and two reports
_COST = 20  # a choice may take a twentieth of the time since the last one


@dataclass(frozen=True)
class Standing:
    """How far a fit is.

    Attributes
    ----------
    networks, training : int
        That are to be trained in all, and those of them that are not done.
    epochs, of_epochs : int
        That are done, and planned, of all networks together.
    scores : dict of str to float
        Those of the ensemble chosen so far, on the validation rows: "rmse" and "r2", or "log_loss" and
        "accuracy".  Empty until there is one.
    seconds : float
        Since the networks began.
    """

    networks: int
    training: int
    epochs: int
    of_epochs: int
    scores: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0


#: what is told how far a fit is, in the thread that called it; what it raises ends the fit
Watch = Callable[[Standing], Any]


class Choice:
    """The ensemble of each split: greedy selection among the networks that were trained on it.

    Parameters
    ----------
    problem : Problem
    splits : sequence of Split
    """

    def __init__(self, problem: Any, splits: Sequence[Split]) -> None:
        self._problem, self._splits = problem, list(splits)
        self._answers: dict[int, tuple[Split, np.ndarray]] = {}  # of a network's best epoch
        self._epoch: dict[int, int] = {}  # which one that was

    def look(self, number: int, split: Split, model: MLP, epoch: int | None) -> None:
        """Take up what `model`, the network with this number, answers after its best epoch, `epoch`."""
        if split.val is not None and self._epoch.get(number, -1) != epoch:
            answers = model.backend.to_numpy(model.outputs(self._problem.X[split.val], model.output))
            self._answers[number] = split, answers.astype(np.float64)
            self._epoch[number] = -1 if epoch is None else epoch

    def of(self, split: Split) -> tuple[list[int], np.ndarray | None]:
        """Numbers of the networks that answer for `split`, repeated ones too, and their mean answer."""
        own = {number: answers for number, (at, answers) in self._answers.items() if at is split}
        usable = [number for number, answers in own.items() if np.isfinite(answers).all()]
        if not usable or split.val is None:
            return [], None
        w = None if self._problem.w is None else self._problem.w[split.val]
        metric = "rmse" if self._problem.loss == "squared_error" else "log_loss"
        size = -(-_SIZE // len(self._splits)) if len(usable) > 1 else 1
        places = greedy_choice([own[k] for k in usable], self._problem.y[split.val], size, metric, w)
        numbers = [usable[place] for place in places]
        return numbers, sum(own[k] for k in numbers) / len(numbers)

    def scores(self, figures: Callable[..., dict[str, float]]) -> dict[str, float]:
        """Figures of all validation rows that an ensemble answers for; empty if there are none."""
        parts = [(split.val, self.of(split)[1]) for split in self._splits]
        known = [(rows, answers) for rows, answers in parts if rows is not None and answers is not None]
        if not known:
            return {}
        rows = np.concatenate([each for each, _ in known])
        w = None if self._problem.w is None else self._problem.w[rows]
        return figures(np.concatenate([answers for _, answers in known]), self._problem.y[rows], w)


class Watcher:
    """Callbacks of the trainers of a pack: they look at the networks, choose, and tell a `Watch`.

    Parameters
    ----------
    choice : Choice
    tell : Watch
    figures : callable
        (answers, y, w) -> figures.
    """

    def __init__(self, choice: Choice, tell: Watch, figures: Callable[..., dict[str, float]]) -> None:
        self._choice, self._tell, self._figures = choice, tell, figures
        self._start = self._told = time.monotonic()
        self._due = self._start + _LOOK
        self._planned: dict[int, int] = {}
        self._done: dict[int, int] = {}
        self._ended: set[int] = set()
        self._scores: dict[str, float] = {}

    def of(self, number: int, split: Split, settings: Any) -> Callable[[Any, Any], None]:
        """The callback of a network that is to be trained with these settings."""
        self._planned[number] = settings.epochs

        def look(trainer: Any, history: Any) -> None:
            self._done[number] = len(history)
            if len(history) >= settings.epochs or history.age >= settings.patience:
                self._ended.add(number)
            now = time.monotonic()
            if (now >= self._due or number in self._ended) and history.age == 0:
                self._choice.look(number, split, trainer.model, history.best_epoch)
            if now >= self._due:
                self._scores = self._choice.scores(self._figures)
                took = time.monotonic() - now
                self._due = now + took + max(_LOOK, _COST * took)
            if now >= self._told + _TELL:
                self.tell()

        return look

    def end(self) -> None:
        """Tell the last: what was chosen."""
        self._ended.update(self._planned)
        self._scores = self._choice.scores(self._figures)
        self.tell()

    def tell(self) -> None:
        """Say how far it is."""
        self._told = time.monotonic()
        networks = len(self._planned)
        planned, done = sum(self._planned.values()), sum(self._done.values())
        seconds = self._told - self._start
        self._tell(
            Standing(networks, networks - len(self._ended), done, planned, dict(self._scores), seconds)
        )
