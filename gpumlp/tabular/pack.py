"""Training the networks of a recipe, and choosing those that answer together."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpumlp.distributed import Communicator
from gpumlp.errors import DivergenceError
from gpumlp.losses import SoftmaxCrossEntropy
from gpumlp.model import MLP, Ensemble
from gpumlp.network import Embedding
from gpumlp.optimizers import AdamW
from gpumlp.tabular.choice import Choice, Watch, Watcher
from gpumlp.tabular.clock import SPARE, fitted_to
from gpumlp.tabular.recipe import Settings
from gpumlp.tabular.splits import Split
from gpumlp.training.history import EarlyStopping, History
from gpumlp.training.many import fit_many
from gpumlp.training.trainer import Trainer

__all__ = ["Pack", "Problem", "train_pack"]

_ENDING = 0.08  # share of the time that is kept for choosing and judging


@dataclass
class Problem:
    """Rows as networks take them.

    X : float32 (n, n_inputs): first `n_numbers` numbers, then codes of categories, then the rest.
    y : int32 (n,) class numbers, or float32 (n, n_outputs), standardised.  w : float64 (n,) or None.
    n_out : outputs of a network.  loss : name of the loss.  code_sizes : numbers of the codes.
    """

    X: np.ndarray
    y: np.ndarray
    w: np.ndarray | None
    n_out: int
    loss: str
    device: Any
    n_numbers: int
    code_sizes: Sequence[int] = ()


@dataclass
class Pack:
    """Networks that were trained, and the ensemble of some of them.

    Attributes
    ----------
    ensemble : Ensemble
    folds : list of (Split, Ensemble, array or None)
        Its part for each split, and what that answers to the validation rows.
    networks : list of _Trained
        All that were trained for an epoch at least.
    late : bool
        The time was up before all were trained as planned.
    interrupted : bool
        Ctrl-C ended the training.
    """

    ensemble: Ensemble
    folds: list[tuple[Split, Ensemble, np.ndarray | None]]
    networks: list[_Trained]
    late: bool = False
    interrupted: bool = False

    def curves(self) -> list[list[float]]:
        """Validation (or training) loss of each network after each epoch."""
        return [
            list(each.history.metrics.get("val_loss", each.history.metrics["loss"])) for each in self.networks
        ]

    def summary(self) -> list[dict[str, Any]]:
        """Settings, best loss, epochs and share of each network."""
        counts = {id(model): count for model, count in self.ensemble.members()}
        return [
            {
                **each.settings.summary(),
                "loss": min(each.history.metrics.get("val_loss", each.history.metrics["loss"])),
                "epochs": len(each.history),
                "times": counts.get(id(each.model), 0),
            }
            for each in self.networks
        ]


@dataclass
class _Trained:
    """A network, what it was trained on, and how."""

    number: int
    model: MLP
    split: Split
    settings: Settings
    history: History


@dataclass(frozen=True)
class _Planned:
    """A network that is to be trained."""

    number: int
    split: Split
    settings: Settings


class _Late(Exception):
    """The time is up."""


def train_pack(
    problem: Problem,
    splits: Sequence[Split],
    settings: Sequence[Settings],
    *,
    deadline: float | None = None,
    progress: bool = False,
    watch: Watch | None = None,
    figures: Callable[..., dict[str, float]] | None = None,
    job: Communicator | None = None,
) -> Pack:
    """Train a network for each of `settings`, the k-th on split k modulo their number, and choose.

    Parameters
    ----------
    deadline : float, optional
        On the clock of `time.monotonic`; what has been trained until then is chosen from.
    progress : bool
        Show a bar.
    watch : callable, optional
        Is told how far it is, a `Standing`, several times a second at most.
    figures : callable, optional
        (answers, y, w) -> scores, for `watch`.
    job : Communicator, optional
        Its ranks share the networks; without a `deadline`.
    """
    waiting, first = list(settings), len(settings)
    if deadline is not None:
        deadline -= _ENDING * max(0.0, deadline - time.monotonic())
        splits, waiting, first = fitted_to(
            deadline - time.monotonic(),
            lambda each: _trainer(problem, each),
            lambda rows: _rows(problem, rows),
            problem.y,
            splits,
            settings,
        )
    shortened, ended = waiting != list(settings), None
    choice = Choice(problem, splits)
    watcher = Watcher(choice, watch, figures) if watch is not None and figures is not None else None
    done: list[_Trained] = []
    begun = 0
    while waiting and first > 0 and ended is None:
        start, now, waiting = time.monotonic(), waiting[:first], waiting[first:]
        planned = [_Planned(begun + k, splits[(begun + k) % len(splits)], each) for k, each in enumerate(now)]
        begun += len(now)
        trained, ended = _train(problem, planned, deadline, progress, watcher, job)
        done += trained
        if deadline is not None:  # more of them, if there is time
            now_at = time.monotonic()
            first = int(SPARE * (deadline - now_at) / (now_at - start) * len(now))
    interrupted = isinstance(ended, KeyboardInterrupt)
    if not done and ended is not None and interrupted:
        raise ended
    if not done:
        raise DivergenceError("no network was trained for an epoch")
    for each in done:
        choice.look(each.number, each.split, each.model, each.history.best_epoch)
    models = {each.number: each.model for each in done}
    folds = []
    for split in splits:
        numbers, answers = choice.of(split)
        numbers = numbers or [each.number for each in done if each.split is split]
        if numbers:
            folds.append((split, Ensemble([models[number] for number in numbers]), answers))
    if watcher is not None:
        watcher.end()
    ensemble = Ensemble([model for _, fold, _ in folds for model in fold.models])
    return Pack(ensemble, folds, done, ended is not None or shortened or bool(waiting), interrupted)


def _train(
    problem: Problem,
    planned: Sequence[_Planned],
    deadline: float | None,
    progress: bool,
    watcher: Watcher | None,
    job: Communicator | None,
) -> tuple[list[_Trained], BaseException | None]:
    """Train the networks; those that did an epoch, and what ended them early, the time or Ctrl-C."""
    trainers = [_trainer(problem, each.settings) for each in planned]
    for trainer, each in zip(trainers, planned, strict=True):
        seen = [] if watcher is None else [watcher.of(each.number, each.split, each.settings)]
        trainer.callbacks = [*seen, *_clock(deadline)]
    splits = {id(each.split): each.split for each in planned}
    val = {key: None if split.val is None else _rows(problem, split.val) for key, split in splits.items()}
    ended: BaseException | None = None
    try:
        fit_many(
            trainers,
            problem.X,
            problem.y,
            epochs=[each.settings.epochs for each in planned],
            rows=[each.split.train for each in planned],
            validation=[val[id(each.split)] for each in planned],
            sample_weight=problem.w,
            early_stopping=[
                EarlyStopping(
                    "val_loss" if each.split.val is not None else "loss", patience=each.settings.patience
                )
                for each in planned
            ],
            progress=progress,
            communicator=job,
        )
    except (_Late, KeyboardInterrupt) as error:
        if job is not None and job.size > 1:
            raise
        ended = error
    trained = [
        _Trained(each.number, trainer.model, each.split, each.settings, trainer.history)
        for each, trainer in zip(planned, trainers, strict=True)
        if len(trainer.history)
    ]
    return trained, ended


def _trainer(problem: Problem, settings: Settings) -> Trainer:
    sizes = [problem.X.shape[1], *settings.hidden, problem.n_out]
    model = MLP(
        sizes,
        settings.activation,
        dropout=settings.dropout,
        seed=settings.seed,
        dtype=problem.X.dtype.name,
        device=problem.device,
        embedding=_embedding(problem, settings),
    )
    rule = AdamW(lr=settings.lr, weight_decay=settings.weight_decay)
    smoothed = problem.loss == "softmax_cross_entropy" and settings.smoothing > 0
    return Trainer(
        model,
        loss=SoftmaxCrossEntropy(settings.smoothing) if smoothed else problem.loss,
        optimizer=rule,
        batch_size=settings.batch_size,
        average=settings.average,
        schedule=settings.schedule,
        seed=settings.seed,
    )


def _embedding(problem: Problem, settings: Settings) -> Embedding | None:
    n = problem.n_numbers
    codes = {n + k: size for k, size in enumerate(problem.code_sizes)}
    if settings.embedding is None:
        return Embedding(None, categories=codes) if codes else None
    return Embedding(columns=range(n), categories=codes, **settings.embedding)


def _clock(deadline: float | None) -> list[Any]:
    if deadline is None:
        return []

    def look(trainer: Trainer, history: History) -> None:
        if time.monotonic() > deadline:
            raise _Late

    return [look]


def _rows(problem: Problem, rows: np.ndarray) -> tuple[Any, ...]:
    w = () if problem.w is None else (problem.w[rows],)
    return (problem.X[rows], problem.y[rows], *w)
