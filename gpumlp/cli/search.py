"""The search of ``gpumlp tune``: its trials, the rows by which they are judged, and its results."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from gpumlp import distributed
from gpumlp.cli.figures import Rows, evaluate_answers, evaluate_model
from gpumlp.cli.networks import fill_defaults, make_optimizer, make_trainer, training_text
from gpumlp.cli.train import Data, diverged
from gpumlp.cli.trials import Trial, draw_settings, print_trials, trials_csv
from gpumlp.cli.values import Span
from gpumlp.errors import DivergenceError, UsageError
from gpumlp.files.atomic import replaces, replacing
from gpumlp.losses import LOSSES
from gpumlp.model import MLP, Ensemble
from gpumlp.model.ensemble import greedy_choice
from gpumlp.plots import plot_trials
from gpumlp.tables.base import counted
from gpumlp.training.halving import SuccessiveHalving
from gpumlp.training.history import EarlyStopping
from gpumlp.training.many import fit_many

__all__ = ["Search"]

_SHOWN = 10  # trials in the table
Say = Callable[[str], None]


class Search:
    """Trials on the rows of a table.

    Parameters
    ----------
    arguments : Namespace
        Batch size and epochs, if not given, are filled in.
    data : Data
        Without validation rows the training rows are cut into folds.
    spans : mapping of str to Span
        What each setting is drawn from.

    Attributes
    ----------
    trials : list of Trial
    rungs : list of int
        Of the halving.
    """

    def __init__(self, arguments: argparse.Namespace, data: Data, spans: dict[str, Span]) -> None:
        self.arguments, self.data, self.spans = arguments, data, spans
        X, self._y, self._w = data.train
        n, folds = len(X), arguments.folds or 1
        if folds > n // 2:
            raise UsageError(f"--folds {folds} needs at least {2 * folds} rows; there are {n}")
        self._folds = np.array_split(np.arange(n), folds) if folds > 1 else None
        self._rest = [np.setdiff1d(np.arange(n), fold) for fold in self._folds or []]
        self._check_classes()
        fill_defaults(arguments, n - n // folds if folds > 1 else n)
        self.halving = SuccessiveHalving(arguments.halving) if arguments.halving else None
        self.rungs = self.halving.rungs(arguments.trials, arguments.epochs) if self.halving else []
        drawn = draw_settings(spans, arguments.trials, arguments.seed)
        self.trials = [self._trial(number, settings) for number, settings in enumerate(drawn, 1)]

    def _check_classes(self) -> None:
        """A classifier cannot be trained on rows of one class."""
        if not LOSSES[self.data.prep.loss].classes:
            return
        for number, rows in enumerate(self._rest or [np.arange(len(self._y))], 1):
            found = np.unique(self._y[rows])
            if len(found) < 2:
                name = self.data.prep.classes[found[0]]
                which = f"without fold {number} the" if self._rest else "the"
                raise UsageError(
                    f"{which} training rows are all of class {name!r}; give more rows, or another --seed"
                )

    def _trial(self, number: int, settings: dict[str, float]) -> Trial:
        arguments = self.arguments
        trainers = [
            make_trainer(
                arguments,
                self.data.prep,
                self.data.train[0].shape[1],
                [int(settings["width"])] * int(settings["layers"]),
                make_optimizer(arguments, lr=settings["lr"], weight_decay=settings["weight_decay"]),
                dropout=settings["dropout"] if settings["layers"] else 0.0,
                seed=(arguments.seed + number - 1) % 2**63,
            )
            for _ in range(arguments.folds or 1)
        ]
        return Trial(number, settings, trainers)

    def describe(self, say: Say) -> None:
        """Say what will be done."""
        n, arguments = len(self.trials), self.arguments
        if self._folds is not None:
            say(f"folds     {len(self._folds)}, of {len(self._folds[-1])} training rows or one more each")
        ranges = ", ".join(f"{name.replace('_', ' ')} {span}" for name, span in self.spans.items())
        say(f"search    {counted(n, 'trial')}: {ranges}")
        rule = make_optimizer(arguments)
        say(f"training  {training_text(arguments, self.data.prep.loss, rule, ('lr', 'weight_decay'))}")
        if self.halving:
            steps = []
            for rung in self.rungs:
                n = len(self.halving.stay([0.0] * n))
                steps.append(f"{n} after epoch {rung}")
            left = ", of which go on: " + ", ".join(steps) if steps else "; too few for a rung, all go on"
            say(f"halving   {counted(len(self.trials), 'trial')}{left}")

    def train(self) -> bool:
        """Train all; whether Ctrl-C ended it."""
        arguments, data = self.arguments, self.data
        trainers = [trainer for trial in self.trials for trainer in trial.trainers]
        interrupted, error = False, None
        try:
            fit_many(
                trainers,
                *data.train[:2],
                sample_weight=data.weights(data.train),
                epochs=arguments.epochs,
                **self._validation(),
                early_stopping=EarlyStopping(patience=arguments.early_stopping),
                progress=False if arguments.quiet or arguments.json else None,
                communicator="auto",
            )
        except KeyboardInterrupt:
            if distributed.size() > 1 or not any(trial.usable for trial in self.trials):
                raise
            interrupted = True
        except DivergenceError as caught:
            error = caught
        if not any(trial.usable for trial in self.trials):
            error = error or next((t.history.error for t in trainers if t.history.error), None)
            if error is None:
                raise DivergenceError("no trial has a finite validation loss; no model was saved")
            optimizer = min((t.optimizer for t in trainers), key=lambda rule: rule.lr)
            n = len(self.trials)
            what = f"all {n} trials" if n > 1 else "the trial"
            raise diverged(arguments, error, optimizer, what) from None
        return interrupted

    def _validation(self) -> dict[str, Any]:
        """Arguments of `fit_many` that say who is judged by what, and when."""
        held = self.data.validation
        given: dict[str, Any] = {"validation": None if held is None else self.data.judging(held)}
        groups = [trial.number for trial in self.trials for _ in trial.trainers]
        if self.halving:
            given |= {"halving": self.halving, "groups": groups}
        if self._folds is not None:
            X, n = self.data.train[0], len(self.trials)
            given["rows"] = self._rest * n
            w = self._w
            folds = [(X[f], self._y[f], None if w is None else w[f]) for f in self._folds]
            given["validation"] = [self.data.judging(rows) for rows in folds] * n
        return given

    # ---- results -----------------------------------------------
    def ranked(self) -> list[Trial]:
        """Those with a validation loss, from the best to the worst."""
        return sorted((t for t in self.trials if t.usable), key=lambda trial: -trial.score)

    def ends(self) -> str:
        """How many trials ended how."""
        ends = Counter(trial.end(self.arguments.epochs, self.rungs).split()[0] for trial in self.trials)
        words = {
            "last": "trained to the last epoch",
            "stopped": "stopped early",
            "rung": "left at a rung",
            "diverged": "diverged",
            "interrupted": "interrupted",
        }
        counts = [f"{ends[key]} {text}" for key, text in words.items() if ends[key]]
        return f"{counted(len(self.trials), 'trial')}: {', '.join(counts)}"

    def choose(self) -> list[Trial]:
        """The best trial, or those that fit together."""
        best = self.ranked()
        if self.arguments.ensemble is None:
            return best[:1]
        classes = LOSSES[self.data.prep.loss].classes
        y, w = self._held()[1], self.data.weights(self._held())
        metric = "log_loss" if self.data.prep.task == "classification" else "rmse"
        numbers = greedy_choice(
            [self._answers(trial) for trial in best],
            y if classes else y.reshape(-1, 1),
            self.arguments.ensemble,
            metric,
            w,
        )
        return [best[number] for number in numbers]

    def _held(self) -> Rows:
        """The rows by which trials are judged."""
        return self.data.train if self.data.validation is None else self.data.validation

    def _answers(self, trial: Trial) -> np.ndarray:
        """Probabilities or values for these rows, each by the network that was not trained on it."""
        X = self._held()[0]
        if self._folds is None:
            return _answers(trial.trainers[0].model, X)
        parts = [_answers(t.model, X[fold]) for t, fold in zip(trial.trainers, self._folds, strict=True)]
        return np.concatenate(parts)  # folds are consecutive

    def model(self, chosen: Sequence[Trial]) -> MLP | Ensemble:
        """The network of the chosen trials, or the ensemble."""
        models = [trainer.model for trial in chosen for trainer in trial.trainers]
        return models[0] if len(models) == 1 else Ensemble(models)

    def parts(
        self, model: MLP | Ensemble, chosen: Sequence[Trial]
    ) -> dict[str, Callable[[], dict[str, float]]]:
        """How the figures of each part of the data are found."""
        prep = self.data.prep
        parts: dict[str, Callable[[], dict[str, float]]] = {
            name: partial(evaluate_model, model, prep, *rows) for name, rows in self.data.parts().items()
        }
        if self._folds is None:
            return parts
        return {"train": parts.pop("train"), "validation": partial(self._evaluate_held, chosen), **parts}

    def _evaluate_held(self, chosen: Sequence[Trial]) -> dict[str, float]:
        mean = np.mean([self._answers(trial) for trial in chosen], axis=0)
        return evaluate_answers(mean, self.data.prep, *self._held()[1:])

    def counts(self) -> dict[str, int]:
        """Rows of each part."""
        counts = {name: len(rows[1]) for name, rows in self.data.parts().items()}
        return {"validation": len(self._held()[1]), **counts}

    def names(self, chosen: Sequence[Trial]) -> str:
        """The chosen trials, with how often they are."""
        counts = Counter(trial.number for trial in chosen)
        texts = [f"{n}" if count == 1 else f"{n} ({count} times)" for n, count in counts.items()]
        return f"{'trial' if len(texts) == 1 else 'trials'} {', '.join(texts)}"

    def summary(self, chosen: Sequence[Trial]) -> dict[str, Any]:
        """What the model's file says of its training."""
        chosen_text = self.names(chosen).split(" ", 1)[1]
        found: dict[str, Any] = {"trials": len(self.trials), "chosen": chosen_text}
        if self._folds is not None:
            found["folds"] = len(self._folds)
        if len(set(map(id, chosen))) == 1:
            found |= chosen[0].settings
        return found

    def print_best(self) -> None:
        """The table of the best."""
        shown = [name for name, span in self.spans.items() if len(span.values) > 1]
        print_trials(self.ranked()[:_SHOWN], self.data.prep, shown)
        print()

    def write_csv(self) -> str:
        """Write all trials, if that was asked for; what to add to the message that they are."""
        path = self.arguments.csv
        if path is None:
            return ""
        old = replaces(path)
        text = trials_csv(self.trials, self.data.prep, self.arguments.epochs, self.rungs)
        with replacing(path) as file:
            file.write(text.encode())
        self.arguments.saved.append(path)
        return old

    def plot(self, chosen: Sequence[Trial], say: Say) -> None:
        """Draw all trials, if that was asked for."""
        path = self.arguments.plot
        if path is None:
            return
        old = replaces(path)
        trials = self.ranked()
        plot_trials(
            [trial.curve() for trial in trials],
            [-trial.score for trial in trials],
            {
                name: [t.settings[name] for t in trials]
                for name, span in self.spans.items()
                if len(span.values) > 1
            },
            path,
            logarithmic=[name for name, span in self.spans.items() if span.scale == "log"],
            early=[trial.end(self.arguments.epochs, self.rungs).startswith("rung") for trial in trials],
            chosen=[trial in chosen for trial in trials],
            rungs=self.rungs,
        )
        self.arguments.saved.append(path)
        say(f"picture saved to {path}{old}")


def _answers(model: MLP, X: np.ndarray) -> np.ndarray:
    return np.asarray(model.outputs(X, model.output)).astype(np.float64)
