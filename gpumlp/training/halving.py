"""Successive halving: all candidates start, the worst leave at each rung, nobody starts again."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from gpumlp import checks
from gpumlp.training.history import History, maximizes
from gpumlp.training.members import Member, train
from gpumlp.training.progress import Progress

__all__ = ["Race", "SuccessiveHalving", "get_halving"]


@dataclass
class SuccessiveHalving:
    """Train the better candidates longer: at each rung, an epoch's end, the best 1/`factor` of them stay.

    Rungs are after ``ceil(epochs / factor)`` epochs, ``ceil(epochs / factor**2)`` and so on: as many as leave
    at least one candidate for the last epochs, fewer if there are too few epochs.  Of m candidates
    ``ceil(m / factor)`` stay.  (Jamieson, Talwalkar, *Non-stochastic best arm identification and
    hyperparameter optimization*, AISTATS 2016; here no candidate starts again.)

    Parameters
    ----------
    factor : float
        At least 2.
    min_epochs : int, optional
        There is no rung before this epoch's end, and more candidates are trained to the last epoch.
    monitor : str
        The recorded metric that counts: the best value of a candidate so far; if it consists of several
        networks (folds), the mean over them.  A candidate that has stopped early keeps its best value; one
        that has diverged always leaves.  Of equally good ones the first stay.
    mode : str
        "min", "max", or "auto" (max for accuracy and R2).

    Examples
    --------
    >>> import gpumlp
    >>> gpumlp.SuccessiveHalving(3).rungs(64, epochs=40)
    [2, 5, 14]
    >>> gpumlp.SuccessiveHalving(3, min_epochs=5).rungs(64, epochs=40)
    [5, 14]
    """

    factor: float = 3
    min_epochs: int | None = None
    monitor: str = "val_loss"
    mode: str = "auto"

    def __post_init__(self) -> None:
        self.factor = checks.number("SuccessiveHalving: factor", self.factor, 2)
        if self.min_epochs is not None:
            self.min_epochs = checks.whole("SuccessiveHalving: min_epochs", self.min_epochs)
        if not isinstance(self.monitor, str):
            raise ValueError(f"SuccessiveHalving: monitor={self.monitor!r}; expected the name of a metric")
        if self.mode not in ("auto", "min", "max"):
            raise ValueError(f"SuccessiveHalving: mode={self.mode!r}; expected 'auto', 'min' or 'max'")

    def rungs(self, n_candidates: int, epochs: int) -> list[int]:
        """Numbers of epochs, ascending, after which candidates leave."""
        found = [epochs]
        part = float(self.factor)
        while part <= n_candidates:
            rung = math.ceil(epochs / part)
            if rung == found[-1] or rung < (self.min_epochs or 1):
                break
            found.append(rung)
            part *= self.factor
        return found[:0:-1]

    def score(self, histories: Sequence[History]) -> float:
        """Of a candidate with these histories: higher is better, -inf if one of them has diverged."""
        sign = 1 if maximizes(self.monitor, self.mode) else -1
        total = 0.0
        for history in histories:
            values = [sign * v for v in history.metrics.get(self.monitor, ()) if math.isfinite(v)]
            total += max(values) if values and history.error is None else -math.inf
        return total / len(histories)

    def stay(self, scores: Sequence[float]) -> list[int]:
        """At a rung: the numbers, ascending, of those of the candidates with these scores that stay."""
        finite = [number for number, score in enumerate(scores) if score > -math.inf]
        best = sorted(finite, key=lambda number: -scores[number])
        return sorted(best[: math.ceil(len(scores) / self.factor)])


class Race:
    """A halving of members that are trained side by side.

    Parameters
    ----------
    halving : SuccessiveHalving
    members : sequence of Member
    groups : sequence
        For each member the candidate that it belongs to.
    """

    def __init__(
        self, halving: SuccessiveHalving, members: Sequence[Member], groups: Sequence[Hashable]
    ) -> None:
        self._halving, self._members = halving, members
        candidates: dict[Hashable, list[Member]] = {}
        for member, group in zip(members, groups, strict=True):
            candidates.setdefault(group, []).append(member)
        self._in = list(candidates.values())
        self._passed = dict.fromkeys(members, 0)

    def run(self, bar: Progress) -> str:
        """`train` them; the history of each has the number of rungs that it has passed."""
        rungs = self._halving.rungs(len(self._in), max(member.epochs for member in self._members))
        try:
            return train(self._members, bar, rungs, self._cut)
        finally:  # also after Ctrl-C
            for member, passed in self._passed.items():
                if member.history is not None:
                    member.history.rung = passed

    def _cut(self, waiting: Sequence[Member]) -> list[Member]:
        """At a rung: those of the `waiting` members that end there."""
        scores = [self._halving.score([m.history or History() for m in group]) for group in self._in]
        self._in = [self._in[number] for number in self._halving.stay(scores)]
        staying = {member for group in self._in for member in group}
        for member in staying:
            self._passed[member] += 1
        return [member for member in waiting if member not in staying]


def get_halving(spec: SuccessiveHalving | float | None) -> SuccessiveHalving | None:
    """`spec` as an object: itself, one with this factor, the default one for True, None for None or False."""
    if spec is None or spec is False:
        return None
    if spec is True:
        return SuccessiveHalving()
    if isinstance(spec, SuccessiveHalving):
        return spec
    try:
        return SuccessiveHalving(factor=spec)
    except (TypeError, ValueError):
        raise ValueError(
            f"halving={spec!r}; expected a number >= 2, or gpumlp.SuccessiveHalving(...)"
        ) from None
