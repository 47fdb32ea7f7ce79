"""The words of the command line and their values."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from gpumlp.activations import ACTIVATIONS
from gpumlp.cli.reading import add_data, add_layout, columns
from gpumlp.errors import UsageError, nearest, suggest
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
        hint = f". Did you mean --{near}?" if near else "" if given else " (give all files in one place)"
        self.error(f"unrecognized arguments: {' '.join(words)}{hint}")


# ---- values of options ---------------------------------------------------------------------------
def _number(text: str, low: float, high: float, *, open_low: bool = False, open_high: bool = False) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    good = (low < value if open_low else low <= value) and (value < high if open_high else value <= high)
    if not good or math.isinf(value):
        span = f"{'>' if open_low else '>='} {low:g}" + (
            f" and {'<' if open_high else '<='} {high:g}" if high < math.inf else ""
        )
        raise argparse.ArgumentTypeError(f"{text!r} is not a number {span}")
    return value


def positive(text: str) -> float:
    """A finite number > 0."""
    return _number(text, 0, math.inf, open_low=True)


def not_negative(text: str) -> float:
    """A finite number >= 0."""
    return _number(text, 0, math.inf)


def fraction(text: str) -> float:
    """A number >= 0 and < 1."""
    return _number(text, 0, 1, open_high=True)


def patience(text: str) -> int:
    """A whole number; DATA right after the option would be taken for it."""
    try:
        return _integer(1)(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error} (give DATA before it, or a number after it)") from None


def _integer(low: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if value < low or value >= 2**63:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number >= {low}")
        return value

    return convert


def _name(kind: str, known: Iterable[str]) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if text not in known:
            raise argparse.ArgumentTypeError(suggest(kind, text, known))
        return text

    return convert


def _list(convert: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    def split(text: str) -> list[Any]:
        parts = [convert(part.strip()) for part in text.split(",") if part.strip()]
        if not parts:
            raise argparse.ArgumentTypeError("the list is empty")
        return parts

    return split


def hidden(text: str) -> list[int]:
    """Sizes of the hidden layers; "none" for a linear model."""
    if text.strip().lower() == "none":
        return []
    try:
        return _list(_integer(1))(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}; for a linear model: none") from None


def option(text: str) -> tuple[str, Any]:
    """NAME=VALUE for a field of an optimiser."""
    name, sign, value = text.partition("=")
    if not sign or not name or not value:
        raise argparse.ArgumentTypeError(f"{text!r}; expected NAME=VALUE, for example momentum=0.9")
    if value.lower() in ("true", "false"):
        return name.strip(), value.lower() == "true"
    try:
        parts = tuple(map(float, value.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}; the value must be a number, true or false, or numbers with commas (betas=0.9,0.99)"
        ) from None
    return name.strip(), parts[0] if len(parts) == 1 else parts


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
    _json(info)
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
        type=_name("optimizer", OPTIMIZERS),
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
    add_data(data, _DIGITS)
    data.add_argument(
        "--task",
        type=_name("task", _TASKS),
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
    _json(output)


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
        type=_list(_name("activation", ACTIVATIONS)),
        default=["relu"],
        metavar="NAME",
        help=f"one, or one per hidden layer: {', '.join(ACTIVATIONS)} (default: relu)",
    )
    group.add_argument(
        "--dropout",
        type=_list(fraction),
        metavar="P",
        help="one probability, or one per hidden layer (default: 0; digits: 0.2)",
    )
    group.add_argument(
        "--dtype",
        type=_name("dtype", _DTYPES),
        metavar=f"{{{','.join(_DTYPES)}}}",
        default="float32",
        help="of parameters and computation (default: float32)",
    )
    _device(group)
    group.add_argument(
        "--seed",
        type=_integer(0),
        default=0,
        metavar="N",
        help="of split, initial values, row order, dropout (default: 0)",
    )


def _add_training(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("training")
    group.add_argument(
        "--loss",
        type=_name("loss", LOSSES),
        metavar="NAME",
        help=f"{', '.join(LOSSES)} (default: softmax_cross_entropy or squared_error)",
    )
    group.add_argument(
        "--optimizer",
        type=_name("optimizer", OPTIMIZERS),
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
        type=_name("schedule", SCHEDULES),
        metavar="NAME",
        help=f"of the learning rate: {', '.join(SCHEDULES)} (default: constant)",
    )
    group.add_argument(
        "--epochs",
        type=_integer(1),
        metavar="N",
        help="passes over the rows (default: 40; up to 200 for small tables, so that there are 800 steps)",
    )
    group.add_argument(
        "--batch-size",
        type=_integer(1),
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
    parser.add_argument("model", metavar="MODEL", help="file written by 'gpumlp train' or MLP.save")
    parser.add_argument(
        "data", nargs="*", metavar="DATA", help=f"files with the target, as for 'gpumlp train'; {_DIGITS}"
    )
    _json(parser)
    parser.add_argument("--target", metavar="COL", help="target column or array (default: as in training)")
    _features_array(parser)
    _device(parser)


def _add_predict(commands: Any) -> None:
    parser = _command(commands, "predict", "predictions of a model for the rows of a table", "models")
    parser.add_argument("model", metavar="MODEL", help="file written by 'gpumlp train' or MLP.save")
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
    _device(parser)
