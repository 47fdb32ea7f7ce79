"""``gpumlp tune``."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from gpumlp import distributed
from gpumlp.backends import get_backend
from gpumlp.cli.figures import figures_of, print_figures
from gpumlp.cli.networks import check_loss, make_optimizer
from gpumlp.cli.output import check_outputs
from gpumlp.cli.ranks import together
from gpumlp.cli.reading import print_json
from gpumlp.cli.search import Search
from gpumlp.cli.train import Data, prepare, save
from gpumlp.cli.values import Span
from gpumlp.cli.words import VALIDATION
from gpumlp.errors import UsageError
from gpumlp.model import MLP
from gpumlp.optimizers import OPTIMIZERS

__all__ = ["tune"]

Say = Callable[[str], None]


def tune(arguments: argparse.Namespace) -> None:
    """Train many networks with settings that are drawn at random; save the best one, or an ensemble.

    Ctrl-C ends the trainings; the best so far is saved, if a trial has a validation loss.
    """
    say: Say = (lambda text: None) if arguments.quiet or arguments.json else print
    data, search = together(arguments, lambda: _begin(arguments, say))
    start = time.perf_counter()
    interrupted = search.train()
    if distributed.rank():
        return
    end = ", ended by Ctrl-C (once more: nothing is saved)" if interrupted else ""
    say(f"done      {search.ends()}; {time.perf_counter() - start:.1f} s{end}\n")
    chosen = search.choose()
    model = search.model(chosen)
    figures, problem = figures_of(search.parts(model, chosen))
    if interrupted and isinstance(problem, KeyboardInterrupt):
        raise problem
    # before anything is printed or drawn: that may fail, or wait for a reader
    old = save(arguments, model, data.prep, figures, **search.summary(chosen))
    if isinstance(problem, KeyboardInterrupt):
        raise KeyboardInterrupt(f" after the trainings; the model was saved to {arguments.out}") from None
    if problem is not None:
        raise problem
    old_csv = search.write_csv()
    if arguments.json:
        facts = {"model": arguments.out, "rows": search.counts(), "figures": figures}
        print_json(facts | search.summary(chosen))
    else:
        if not arguments.quiet:
            search.print_best()
        print_figures(figures, search.counts())
    what = "model" if isinstance(model, MLP) else f"{model!r}"
    say(f"\n{what} of {search.names(chosen)} saved to {arguments.out}{old}")
    if arguments.csv is not None:
        say(f"trials written to {arguments.csv}{old_csv}")
    search.plot(chosen, say)
    if interrupted:
        raise KeyboardInterrupt(f"; the best so far was saved to {arguments.out}")


def _begin(arguments: argparse.Namespace, say: Say) -> tuple[Data, Search]:
    """What can be refused before anything is trained."""
    check_outputs(arguments, arguments.csv)
    spans = _spans(arguments)
    _check_options(arguments, spans)
    data = prepare(arguments, say)
    search = Search(arguments, data, spans)
    search.describe(say)
    return data, search


def _spans(arguments: argparse.Namespace) -> dict[str, Span]:
    """What each setting is drawn from."""
    own = OPTIMIZERS[arguments.optimizer]().lr
    return {
        "lr": arguments.lr or Span((0.3 * own, 30 * own), True, "log"),
        "layers": arguments.layers,
        "width": arguments.width,
        "dropout": arguments.dropout,
        "weight_decay": arguments.weight_decay,
    }


def _check_options(arguments: argparse.Namespace, spans: dict[str, Span]) -> None:
    """Before a table is read, which may take long: what can be refused without it."""
    for name, _ in arguments.optimizer_option:
        if name in spans:
            raise UsageError(f"--optimizer-option {name}: each trial has its own; use --{_word(name)} RANGE")
    make_optimizer(arguments)
    check_loss(arguments)
    if arguments.halving and distributed.size() > 1:
        raise UsageError("--halving is for one process: it compares all trials while they train")
    if arguments.folds is not None and arguments.validation_fraction is not None:
        raise UsageError("--validation-fraction and --folds exclude each other: each fold has its turn")
    if arguments.validation_fraction == 0:
        raise UsageError("trials are judged by validation rows, and --validation-fraction is 0")
    if arguments.validation_fraction is None:
        arguments.validation_fraction = VALIDATION if arguments.folds is None else 0.0
    if arguments.folds is not None and arguments.split == "ordered":
        raise UsageError(
            "--folds and --split ordered exclude each other: folds would be trained on later rows"
        )
    get_backend(arguments.device)


def _word(name: str) -> str:
    return name.replace("_", "-")
