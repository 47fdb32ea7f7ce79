"""The words of the command line and their values."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from gpumlp.cli.groups import add_checkpoints, add_device, add_network, add_recipe, add_training
from gpumlp.cli.reading import add_data, add_layout, columns
from gpumlp.cli.values import (
    at_least_two,
    before_data,
    class_weight,
    fraction,
    integer,
    name_of,
    not_negative,
    positive,
    registered,
    span_of,
)
from gpumlp.errors import UsageError, nearest
from gpumlp.optimizers import OPTIMIZERS
from gpumlp.version import __version__

__all__ = ["COMMANDS", "VALIDATION", "make_parser"]

DEFAULT_MODEL = "gpumlp-model.npz"
VALIDATION = 0.15  # fraction of the rows

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

    def given(self, words: list[str]) -> set[str]:
        """Names of the options among the words."""
        known = self._option_string_actions
        return {known[name].dest for word in words if (name := word.split("=")[0]) in known}

    def refuse(self, words: list[str]) -> NoReturn:
        """The error for words that no option takes."""
        given = next((word for word in words if word.startswith("--")), "").split("=")[0]
        names = [name[2:] for name in self._option_string_actions if name.startswith("--")]
        near = nearest(given[2:], names) if given else None
        hint = f". Did you mean --{near}?" if near else "" if given else " (give all files in one place)"
        self.error(f"unrecognized arguments: {' '.join(words)}{hint}")


# ---- the words -----------------------------------------------------------------------------------
COMMANDS = ("train", "tune", "evaluate", "predict", "export", "info", "bench")
_TASKS = ("auto", "classification", "regression")
_SPLITS = ("random", "ordered")


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
    _add_tune(commands)
    _add_evaluate(commands)
    _add_predict(commands)
    _add_export(commands)
    info = _command(
        commands,
        "info",
        "versions, devices, why a GPU cannot be used; or what a model file holds",
        "system",
    )
    info.add_argument(
        "model", nargs="?", metavar="MODEL", help="file of 'gpumlp train' or 'gpumlp tune', or of MLP.save"
    )
    _json(info)
    add_device(info)
    bench = _command(
        commands,
        "bench",
        "measure this machine: training step and optimiser update on each executor",
        "system",
    )
    add_device(bench, default="all", text="one executor (numpy, native, cuda, ...) instead of all")
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
    parser.add_argument(
        "--register",
        type=registered,
        action="append",
        metavar="MODULE:NAME",
        help="an activation, a loss or an optimizer of your own that a file needs; or a MODULE that "
        "registers them; may be repeated",
    )
    parser.set_defaults(command=run, parser=parser)
    return parser


def _add_train(commands: Any) -> None:
    parser = _command(commands, "train", "train a model on a table, or on the embedded digits", "train")
    parser.set_defaults(goes_on=True)  # a training is worth more than what it prints
    _add_data(parser)
    add_recipe(parser)
    add_network(parser, one=True)
    add_training(parser, one=True)
    add_checkpoints(parser)
    output = parser.add_argument_group("output")
    output.add_argument(
        "-o",
        "--output",
        "--out",
        dest="out",
        default=DEFAULT_MODEL,
        metavar="MODEL",
        help=f"model file (default: {DEFAULT_MODEL})",
    )
    output.add_argument("--plot", metavar="FILE.png", help="draw the learning curves (.png, .svg or .pdf)")
    output.add_argument(
        "--report",
        metavar="FILE.html",
        help="write a page about the model of the recipe, judged by the test rows",
    )
    output.add_argument("--quiet", action="store_true", help="print the final figures only")
    _json(output)


def _add_tune(commands: Any) -> None:
    # more than 60 lines: a list of options
    parser = _command(
        commands, "tune", "train many networks with settings drawn at random, and save the best", "tune"
    )
    parser.epilog = (
        "RANGE is LOW:HIGH, one number, or numbers with commas, of which one is drawn. Of a range for the "
        "learning rate, the weight decay and the width the logarithm is drawn uniformly."
    )
    parser.set_defaults(goes_on=True)
    _add_data(parser)
    parser.set_defaults(validation_fraction=None)  # the same, but none with --folds
    group = parser.add_argument_group("search")
    group.add_argument("--trials", type=integer(1), default=32, metavar="N", help="how many (default: 32)")
    group.add_argument(
        "--lr",
        type=span_of(positive, "log"),
        metavar="RANGE",
        help="learning rate (default: from 0.3 to 30 times the optimizer's own; adam: 0.0003:0.03)",
    )
    group.add_argument(
        "--layers",
        type=span_of(integer(0), whole=True),
        default="1:3",
        metavar="RANGE",
        help="number of hidden layers (default: 1:3; 0: a linear model)",
    )
    group.add_argument(
        "--width",
        type=span_of(integer(1), "log", whole=True),
        default="16:256",
        metavar="RANGE",
        help="units of each hidden layer (default: 16:256)",
    )
    group.add_argument(
        "--dropout",
        type=span_of(fraction),
        default="0:0.3",
        metavar="RANGE",
        help="probability (default: 0:0.3)",
    )
    group.add_argument(
        "--weight-decay",
        type=span_of(not_negative, "log"),
        default="0.0001:0.3",
        metavar="RANGE",
        help="decoupled decay (default: 0.0001:0.3)",
    )
    group.add_argument(
        "--halving",
        type=before_data(at_least_two),
        nargs="?",
        const=3.0,
        metavar="FACTOR",
        help="end the worst trials early: at rungs after ..., epochs/FACTOR^2, epochs/FACTOR epochs the best "
        "1/FACTOR of those that are left go on (3 if no number is given)",
    )
    group.add_argument(
        "--folds",
        type=integer(2),
        metavar="K",
        help="train each trial K times, each time without another K-th of the rows, and judge it by the mean "
        "over these; the best trial's K networks answer together",
    )
    group.add_argument(
        "--ensemble",
        type=integer(1),
        metavar="N",
        help="save N trials that answer together, chosen one by one (again, maybe) so that their mean is "
        "best on the validation rows",
    )
    add_network(parser, one=False)
    add_training(parser, one=False)
    output = parser.add_argument_group("output")
    output.add_argument(
        "-o",
        "--output",
        "--out",
        dest="out",
        default=DEFAULT_MODEL,
        metavar="MODEL",
        help=f"model file (default: {DEFAULT_MODEL})",
    )
    output.add_argument("--csv", metavar="FILE.csv", help="write settings and results of all trials")
    output.add_argument(
        "--plot",
        metavar="FILE.png",
        help="draw the validation loss of all trials by epoch and by each setting (.png, .svg or .pdf)",
    )
    output.add_argument("--quiet", action="store_true", help="print the final figures only")
    _json(output)


def _add_data(parser: argparse.ArgumentParser) -> None:
    data = parser.add_argument_group("data")
    add_data(data, _DIGITS)
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
        default=VALIDATION,
        metavar="F",
        help=f"rows held out for validation (default: {VALIDATION:g}; the recipe holds rows back itself)",
    )
    data.add_argument(
        "--split",
        type=name_of("split", _SPLITS),
        default="random",
        metavar=f"{{{','.join(_SPLITS)}}}",
        help="random rows are held out (the default); or the last ones, for rows in the order of time: "
        "validation rows after the training rows, test rows at the end",
    )
    data.add_argument("--weight", metavar="COL", help="column with weights of the rows")
    data.add_argument(
        "--class-weight",
        type=class_weight,
        metavar="W",
        help="factors on the weights of classes, a=2,b=1 (others: 1); balanced: all classes weigh the same",
    )
    data.add_argument("--no-standardize", action="store_true", help="take features and target as they are")


def _json(parser: Any) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object, for programs")


def _features_array(parser: argparse.ArgumentParser) -> None:
    add_layout(parser)
    parser.add_argument(
        "--features",
        type=columns,
        metavar="ARRAY",
        help="name of the array of features in an .npz file; for "
        "a CSV file and a model without feature names, the columns a,b,c",
    )


def _add_evaluate(commands: Any) -> None:
    parser = _command(commands, "evaluate", "figures of a model on a table", "models")
    parser.add_argument(
        "model", metavar="MODEL", help="file of 'gpumlp train' or 'gpumlp tune', or of MLP.save"
    )
    parser.add_argument(
        "data", nargs="*", metavar="DATA", help=f"files with the target, as for 'gpumlp train'; {_DIGITS}"
    )
    _json(parser)
    parser.add_argument("--target", metavar="COL", help="target column or array (default: as in training)")
    parser.add_argument("--weight", metavar="COL", help="column with weights of the rows")
    parser.add_argument(
        "--report", metavar="FILE.html", help="write a page about a model of the recipe, on these rows"
    )
    _features_array(parser)
    add_device(parser)


def _add_export(commands: Any) -> None:
    parser = _command(commands, "export", "a model as ONNX, for other programs", "export")
    parser.add_argument("model", metavar="MODEL", help="file of 'gpumlp train' or 'gpumlp tune', or of save")
    parser.add_argument("-o", "--output", metavar="FILE", help=".onnx (default: next to MODEL)")
    parser.add_argument("--float64", action="store_true", help="compute in double precision")


def _add_predict(commands: Any) -> None:
    parser = _command(commands, "predict", "predictions of a model for the rows of a table", "models")
    parser.add_argument(
        "model", metavar="MODEL", help="file of 'gpumlp train' or 'gpumlp tune', or of MLP.save"
    )
    parser.add_argument(
        "data",
        nargs="*",
        metavar="DATA",
        help=f"files with the features; a target column in them is ignored; {_DIGITS}",
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help=".csv or .parquet (default: CSV on standard output)"
    )
    parser.add_argument(
        "--keep", type=columns, default=[], metavar="COLS", help="columns to copy from DATA, a,b,c"
    )
    parser.add_argument("--proba", action="store_true", help="add the probability of each class")
    _features_array(parser)
    add_device(parser)
