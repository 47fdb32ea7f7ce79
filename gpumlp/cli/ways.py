"""Which way ``gpumlp train`` goes: by the recipe for tables, or one network as described by the options."""

from __future__ import annotations

import argparse
import os

from gpumlp.errors import UsageError

__all__ = ["by_recipe"]

#: options that describe one network
NETWORK = (
    *("hidden", "dropout", "activation", "dtype", "loss", "optimizer", "optimizer_option", "lr"),
    *("weight_decay", "schedule", "epochs", "batch_size", "l1", "l2", "clip_norm", "early_stopping"),
    "no_standardize",
)
#: options of the recipe
RECIPE = ("quality", "n_networks", "time_limit", "categorical", "numeric", "report")


def by_recipe(arguments: argparse.Namespace) -> bool:
    """By the recipe if one of its options was given; by one network if one of that was; else by the recipe
    for a table, and one network for arrays (.npz, .npy) and for the embedded digits."""
    recipe, network = ([name for name in names if name in arguments.given] for names in (RECIPE, NETWORK))
    if recipe and network:
        one, other = (f"--{names[0].replace('_', '-')}" for names in (recipe, network))
        raise UsageError(
            f"{one} belongs to the recipe for tables, and {other} describes one network to be trained; leave "
            "out one of them"
        )
    if recipe or network:
        return bool(recipe)
    arrays = (".npz", ".npy")
    return bool(arguments.data) and not any(
        os.path.splitext(path)[1].lower() in arrays for path in arguments.data
    )
