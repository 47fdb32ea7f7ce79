"""Successive halving of a search's candidates while they are trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gpumlp.estimators.members import FitMember
from gpumlp.model_selection.tasks import Task
from gpumlp.training.halving import SuccessiveHalving

__all__ = ["Race"]

_Candidate = list[tuple[Task, FitMember]]


class Race:
    """All candidates start; at each rung those with the worst mean test scores end.

    Parameters
    ----------
    halving : SuccessiveHalving
        Says when there is a rung, and how many candidates stay.
    metric : str or None
        The one that counts, of several.

    Attributes
    ----------
    rungs, n_epochs : list of int
        For each candidate, how many rungs it has passed, and after how many epochs its last fit ended.
    """

    def __init__(self, halving: SuccessiveHalving, metric: str | None) -> None:
        self._halving, self._metric = halving, metric
        self.rungs: list[int] = []
        self.n_epochs: list[int] = []

    def start(self, tasks: Sequence[Task], members: Sequence[FitMember]) -> list[int]:
        """The numbers of epochs after which there is a rung."""
        for member in members:
            if member.est.solver == "lbfgs":
                raise ValueError("halving needs solvers that train in epochs; a candidate has solver='lbfgs'")
        candidates: dict[int, _Candidate] = {}
        for task, member in zip(tasks, members, strict=True):
            candidates.setdefault(task.candidate, []).append((task, member))
        self._all, self._in = candidates, list(candidates)
        self.rungs = [0] * len(candidates)
        return self._halving.rungs(len(candidates), max(member.epochs for member in members))

    def cut(self, waiting: Any) -> list[Any]:
        """At a rung: the worst candidates end."""
        scores = [self._score(self._all[number]) for number in self._in]
        before, self._in = self._in, [self._in[place] for place in self._halving.stay(scores)]
        for number in self._in:
            self.rungs[number] += 1
        for number in set(before) - set(self._in):
            for _, member in self._all[number]:
                if not member.done:
                    member.retire()
        return []

    def end(self) -> None:
        """All fits have ended."""
        self.n_epochs = [max(member.n_epochs for _, member in each) for each in self._all.values()]

    def _score(self, candidate: _Candidate) -> float:
        """Its mean over the folds; -inf if a fit or a score has failed."""
        total = 0.0
        for task, member in candidate:
            if not member.done:
                member.show()
            score = -math.inf if member.failure is not None else self._number(task.score())
            total += score if math.isfinite(score) else -math.inf
        return total / len(candidate)

    def _number(self, scores: Any) -> float:
        if not isinstance(scores, dict):
            return float(scores)
        if self._metric not in scores:
            raise ValueError(
                f"halving with several metrics needs refit to name the one that counts, of "
                f"{', '.join(scores)}; got refit={self._metric!r}"
            )
        return float(scores[self._metric])
