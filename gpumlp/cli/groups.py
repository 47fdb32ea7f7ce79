"""Groups of options that several commands have."""

from __future__ import annotations

import argparse
from typing import Any

from gpumlp.activations import ACTIVATIONS
from gpumlp.cli.reading import columns
from gpumlp.cli.values import (
    before_data,
    fraction,
    hidden,
    integer,
    list_of,
    name_of,
    not_negative,
    option,
    positive,
)
from gpumlp.losses import LOSSES
from gpumlp.optimizers import OPTIMIZERS
from gpumlp.schedules import SCHEDULES
from gpumlp.tabular.recipe import QUALITIES

__all__ = ["add_checkpoints", "add_device", "add_network", "add_recipe", "add_training"]

DTYPES = ("float32", "float64")


def add_device(
    parser: Any,
    default: str = "auto",
    text: str = "auto, cpu, numpy, native, cuda, cuda:1 ... (default: auto)",
) -> None:
    parser.add_argument("--device", default=default, metavar="NAME", help=text)


def add_network(parser: argparse.ArgumentParser, *, one: bool) -> None:
    """Of one network; or what is the same for many."""
    # more than 60 lines: a list of options
    group = parser.add_argument_group("network")
    if one:
        group.add_argument(
            "--hidden",
            type=hidden,
            default=[256, 128],
            metavar="SIZES",
            help="sizes of the hidden layers (default: 256,128; none: a linear model)",
        )
        group.add_argument(
            "--dropout",
            type=list_of(fraction),
            metavar="P",
            help="one probability, or one per hidden layer (default: 0; digits: 0.2)",
        )
    group.add_argument(
        "--activation",
        type=list_of(name_of("activation", ACTIVATIONS)) if one else name_of("activation", ACTIVATIONS),
        default=["relu"] if one else "relu",
        metavar="NAME",
        help=f"{'one, or one per hidden layer' if one else 'of all hidden layers'}: {', '.join(ACTIVATIONS)} "
        "(default: relu)",
    )
    group.add_argument(
        "--dtype",
        type=name_of("dtype", DTYPES),
        metavar=f"{{{','.join(DTYPES)}}}",
        default="float32",
        help="of parameters and computation (default: float32)",
    )
    add_device(group)
    group.add_argument(
        "--seed",
        type=integer(0),
        default=0,
        metavar="N",
        help=f"of split, {'' if one else 'settings, '}initial values, row order, dropout (default: 0)",
    )
    group.add_argument(
        "--random-state", type=integer(0), dest="seed", default=0, metavar="N", help="the same as --seed"
    )


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """Of the recipe for tables."""
    group = parser.add_argument_group(
        "recipe",
        "Tables (CSV, Parquet, Arrow) are learnt by the recipe: an ensemble of small networks, from columns "
        "of any kind. Any option of the groups 'network' and 'training' but --seed and --device trains one "
        "network, on columns of numbers; so do arrays (.npz, .npy) and the digits, unless an option of this "
        "group is given.",
    )
    group.add_argument(
        "--quality",
        type=name_of("quality", QUALITIES),
        metavar=f"{{{','.join(QUALITIES)}}}",
        default="best",
        help="best (the default): an ensemble of many networks; medium: of fewer; fast: one network",
    )
    group.add_argument("--n-networks", type=integer(1), metavar="N", help="another number of networks")
    group.add_argument("--time-limit", type=positive, metavar="SECONDS", help="for the training")
    group.add_argument(
        "--categorical",
        type=columns,
        default=[],
        metavar="COLS",
        help="columns that are categories whatever they look like, a,b,c",
    )
    group.add_argument(
        "--numeric", type=columns, default=[], metavar="COLS", help="columns that are numbers, a,b,c"
    )


def add_training(parser: argparse.ArgumentParser, *, one: bool) -> None:
    """Of one network; or what is the same for many."""
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
    if one:
        group.add_argument(
            "--lr", type=positive, metavar="X", help="learning rate (default: the optimizer's)"
        )
        group.add_argument(
            "--weight-decay",
            type=not_negative,
            metavar="X",
            help="decoupled decay (default: the optimizer's)",
        )
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
    group.add_argument("--clip-norm", type=positive, metavar="X", help="longest gradient")
    group.add_argument(
        "--early-stopping",
        type=before_data(integer(1)),
        nargs="?",
        const=10,
        default=None if one else 10,
        metavar="PATIENCE",
        help="stop after so many epochs without a better validation loss "
        f"({'10 if no number is given' if one else 'default: 10'}) and restore the best weights",
    )


def add_checkpoints(parser: argparse.ArgumentParser) -> None:
    """Of the training of one network."""
    group = parser.add_argument_group("checkpoints of the training of one network")
    group.add_argument(
        "--checkpoint", metavar="FILE.npz", help="write the state of the training here after epochs"
    )
    group.add_argument(
        "--every", type=integer(1), default=1, metavar="N", help="after every N-th epoch (default: 1)"
    )
    group.add_argument(
        "--resume",
        action="store_true",
        help="go on from the checkpoint, if it is there, and end as the whole training would have",
    )
