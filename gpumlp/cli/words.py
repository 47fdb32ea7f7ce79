"""The words of the command line and their values."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from gpumlp.activations import ACTIVATIONS
from gpumlp.cli.values import (
    fraction,
    hidden,
    integer,
    list_of,
    name_of,
    not_negative,
    option,
    patience,
    positive,
)
from gpumlp.errors import UsageError, nearest
from gpumlp.losses import LOSSES
from gpumlp.optimizers import OPTIMIZERS
from gpumlp.schedules import SCHEDULES
from gpumlp.version import __version__

__all__ = ["COMMANDS", "make_parser"]

DEFAULT_MODEL = "gpumlp-model.npz"

#: the rule of `gpumlp.tables.fit.detect_task`, in the words of docs/cli.md
TASK_RULE = (
    "classification if the target is text or True/False, or whole numbers of which at most 20 are distinct, "
    "in at least 10 rows and at least twice as many rows as distinct numbers; else regression"
)
_DIGITS = "left out: the embedded digits"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        stop = "" if message.endswith((".", "?")) else "."
        raise UsageError(f"{message}{stop} See '{self.prog} --help'")

    def refuse(self, words: list[str]) -> NoReturn:
        """The error for words that no option takes."""
        given = next((word for word in words if word.startswith("--")), "").split("=")[0]
        names = [name[2:] for name in self._option_string_actions if name.startswith("--")]
        near = nearest(given[2:], names) if given else None
        hint = f". Did you mean --{near}?" if near else ""
        self.error(f"unrecognized arguments: {' '.join(words)}{hint}")


# ---- the words -----------------------------------------------------------------------------------
COMMANDS = ("train", "evaluate", "predict", "info", "bench")
_TASKS = ("auto", "classification", "regression")
_DTYPES = ("float32", "float64")


def make_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = _Parser(
        prog="gpumlp",
        description="Multilayer perceptrons on NVIDIA GPUs and on CPUs.",
        allow_abbrev=False,
        epilog="'gpumlp train' without arguments trains on the handwritten digits that come with it.",
    )
    parser.add_argument("--version", action="version", version=f"gpumlp {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    _add_train(commands)
    _add_evaluate(commands)
    _add_predict(commands)
    info = _command(
        commands,
        "info",
        "versions, devices, why a GPU cannot be used; or what a model file holds",
        "system",
    )
    info.add_argument("model", nargs="?", metavar="MODEL", help="file written by 'gpumlp train' or MLP.save")
    _device(info)
    bench = _command(
        commands,
        "bench",
        "measure this machine: training step and optimiser update on each executor",
        "system",
    )
    _device(bench, default="all", text="one executor (numpy, native, cuda, ...) instead of all")
    bench.add_argument(
        "--optimizer",
        type=name_of("optimizer", OPTIMIZERS),
        default="adam",
        metavar="NAME",
        help=f"{', '.join(OPTIMIZERS)} (default: adam)",
    )
    bench.add_argument(
        "--seconds", type=positive, default=0.5, metavar="S", help="time per measurement (default: 0.5)"
    )
    return parser


def _command(commands: Any, name: str, text: str, module: str) -> argparse.ArgumentParser:
    def run(arguments: argparse.Namespace) -> None:
        from importlib import import_module

        getattr(import_module(f"gpumlp.cli.{module}"), name)(arguments)

    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False
    )
    parser.set_defaults(command=run, parser=parser)
    return parser


def _device(
    parser: Any,
    default: str = "auto",
    text: str = "auto, cpu, numpy, native, cuda, cuda:1 ... (default: auto)",
) -> None:
    parser.add_argument("--device", default=default, metavar="NAME", help=text)


def _add_train(commands: Any) -> None:
    parser = _command(commands, "train", "train a model on a table, or on the embedded digits", "train")
    parser.set_defaults(goes_on=True)  # a training is worth more than what it prints
    data = parser.add_argument_group("data")
    data.add_argument(
        "data",
        nargs="?",
        metavar="DATA",
        help=f".csv (or .csv.gz) with a header row, .npz or .npy; {_DIGITS}",
    )
    data.add_argument("--target", metavar="COL", help="column to learn (.npz: array; .npy: column number)")
    data.add_argument(
        "--features",
        type=list_of(str),
        metavar="COLS",
        help="feature columns, a,b,c (default: all others; .npz: name of the array)",
    )
    data.add_argument(
        "--drop", type=list_of(str), default=[], metavar="COLS", help="columns to leave out, a,b,c"
    )
    data.add_argument(
        "--task",
        type=name_of("task", _TASKS),
        metavar=f"{{{','.join(_TASKS)}}}",
        default="auto",
        help=f"auto (the default): {TASK_RULE}",
    )
    data.add_argument("--test", metavar="FILE", help="a file of test rows")
    data.add_argument(
        "--test-fraction",
        type=fraction,
        metavar="F",
        help="rows held out for the test (default: 0.15; 0 with --test)",
    )
    data.add_argument(
        "--validation-fraction",
        type=fraction,
        default=0.15,
        metavar="F",
        help="rows held out for validation (default: 0.15)",
    )
    data.add_argument("--no-standardize", action="store_true", help="take features and target as they are")
    _add_network(parser)
    _add_training(parser)
    output = parser.add_argument_group("output")
    output.add_argument(
        "--out", default=DEFAULT_MODEL, metavar="MODEL", help=f"model file (default: {DEFAULT_MODEL})"
    )
    output.add_argument("--plot", metavar="FILE.png", help="draw the learning curves (.png, .svg or .pdf)")
    output.add_argument("--quiet", action="store_true", help="print the final figures only")


def _add_network(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("network")
    group.add_argument(
        "--hidden",
        type=hidden,
        default=[256, 128],
        metavar="SIZES",
        help="sizes of the hidden layers (default: 256,128; none: a linear model)",
    )
    group.add_argument(
        "--activation",
        type=list_of(name_of("activation", ACTIVATIONS)),
        default=["relu"],
        metavar="NAME",
        help=f"one, or one per hidden layer: {', '.join(ACTIVATIONS)} (default: relu)",
    )
    group.add_argument(
        "--dropout",
        type=list_of(fraction),
        metavar="P",
        help="one probability, or one per hidden layer (default: 0; digits: 0.2)",
    )
    group.add_argument(
        "--dtype",
        type=name_of("dtype", _DTYPES),
        metavar=f"{{{','.join(_DTYPES)}}}",
        default="float32",
        help="of parameters and computation (default: float32)",
    )
    _device(group)
    group.add_argument(
        "--seed",
        type=integer(0),
        default=0,
        metavar="N",
        help="of split, initial values, row order, dropout (default: 0)",
    )


def _add_training(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("training")
    group.add_argument(
        "--loss",
        type=name_of("loss", LOSSES),
        metavar="NAME",
        help=f"{', '.join(LOSSES)} (default: softmax_cross_entropy or squared_error)",
    )
    group.add_argument(
        "--optimizer",
        type=name_of("optimizer", OPTIMIZERS),
        default="adam",
        metavar="NAME",
        help=f"{', '.join(OPTIMIZERS)} (default: adam)",
    )
    group.add_argument(
        "--optimizer-option",
        type=option,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any option of the optimizer, as momentum=0.9; may be repeated",
    )
    group.add_argument("--lr", type=positive, metavar="X", help="learning rate (default: the optimizer's)")
    group.add_argument(
        "--schedule",
        type=name_of("schedule", SCHEDULES),
        metavar="NAME",
        help=f"of the learning rate: {', '.join(SCHEDULES)} (default: constant)",
    )
    group.add_argument(
        "--epochs",
        type=integer(1),
        metavar="N",
        help="passes over the rows (default: 40; up to 200 for small tables, so that there are 800 steps)",
    )
    group.add_argument(
        "--batch-size",
        type=integer(1),
        metavar="N",
        help="rows per step (default: 32, 64 or 128, by the number of rows)",
    )
    group.add_argument("--l1", type=not_negative, default=0.0, metavar="X", help="penalty X |w|")
    group.add_argument("--l2", type=not_negative, default=0.0, metavar="X", help="penalty X/2 w^2")
    group.add_argument(
        "--weight-decay", type=not_negative, metavar="X", help="decoupled decay (default: the optimizer's)"
    )
    group.add_argument("--clip-norm", type=positive, metavar="X", help="longest gradient")
    group.add_argument(
        "--early-stopping",
        type=patience,
        nargs="?",
        const=10,
        metavar="PATIENCE",
        help="stop after so many epochs without a better validation loss (10 if no number is given) and "
        "restore the best weights",
    )


def _features_array(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--features",
        type=list_of(str),
        metavar="ARRAY",
        help="name of the array of features in an .npz file; for "
        "a CSV file and a model without feature names, the columns a,b,c",
    )


def _add_evaluate(commands: Any) -> None:
    parser = _command(commands, "evaluate", "figures of a model on a table", "models")
    parser.add_argument("model", metavar="MODEL", help="file written by 'gpumlp train' or MLP.save")
    parser.add_argument(
        "data", nargs="?", metavar="DATA", help=f"a file with the target, as for 'gpumlp train'; {_DIGITS}"
    )
    parser.add_argument("--target", metavar="COL", help="target column or array (default: as in training)")
    _features_array(parser)
    _device(parser)


def _add_predict(commands: Any) -> None:
    parser = _command(commands, "predict", "predictions of a model for the rows of a table", "models")
    parser.add_argument("model", metavar="MODEL", help="file written by 'gpumlp train' or MLP.save")
    parser.add_argument(
        "data",
        nargs="?",
        metavar="DATA",
        help=f"a file with the features; a target column in it is ignored; {_DIGITS}",
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE.csv", help="where to write (default: standard output)"
    )
    parser.add_argument("--proba", action="store_true", help="add the probability of each class")
    _features_array(parser)
    _device(parser)
