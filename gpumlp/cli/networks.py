"""From the options of ``gpumlp train`` and ``gpumlp tune`` to networks and trainers."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from gpumlp.errors import UsageError, suggest
from gpumlp.losses import LOSSES
from gpumlp.model import MLP
from gpumlp.optimizers import OPTIMIZERS, Optimizer
from gpumlp.tables.base import counted
from gpumlp.tables.preparation import Preparation
from gpumlp.training.trainer import Trainer

__all__ = ["check_loss", "fill_defaults", "make_optimizer", "make_trainer", "training_text"]


def make_optimizer(arguments: argparse.Namespace, **given: float | None) -> Optimizer:
    """That of --optimizer and --optimizer-option, with the values `given` by options of their own."""
    rule = OPTIMIZERS[arguments.optimizer]
    values: dict[str, Any] = dict(arguments.optimizer_option)
    known = [f.name for f in fields(rule) if f.init]
    for name in values:
        if name not in known:
            raise UsageError(
                f"--optimizer-option: {suggest(f'option of {arguments.optimizer}', name, known)}"
            )
    for name, value in given.items():
        if value is not None:
            if name in values:
                raise UsageError(
                    f"{name} was given twice, by --{name.replace('_', '-')} and by --optimizer-option"
                )
            values[name] = value
    return rule(**values)


def check_loss(arguments: argparse.Namespace) -> None:
    """UsageError for a loss that a table cannot be trained with."""
    if arguments.loss is not None and LOSSES[arguments.loss].levels:
        raise UsageError(
            f"--loss {arguments.loss} has several outputs for a target, which tables do not show; in Python: "
            "gpumlp.MLPRegressor(gpumlp.Quantile(levels))"
        )


def fill_defaults(arguments: argparse.Namespace, n_rows: int) -> None:
    """Batch size and epochs by the number of rows: a small table needs more passes for enough steps."""
    if arguments.batch_size is None:
        arguments.batch_size = 32 if n_rows < 1000 else 64 if n_rows < 20_000 else 128
    if arguments.epochs is None:
        steps = math.ceil(n_rows / arguments.batch_size)
        arguments.epochs = min(200, max(40, math.ceil(800 / steps)))


def make_trainer(
    arguments: argparse.Namespace,
    prep: Preparation,
    n_inputs: int,
    hidden: Sequence[int],
    optimizer: Optimizer,
    *,
    dropout: float | Sequence[float],
    seed: int,
    **job: Any,
) -> Trainer:
    """A new network for prepared rows, and its trainer; `job` as for `Trainer`."""
    outputs = len(prep.classes) if LOSSES[prep.loss].classes else 1
    activation = arguments.activation
    if isinstance(activation, list) and len(activation) == 1:
        activation = activation[0]
    model = MLP(
        [n_inputs, *hidden, outputs],
        activation,
        dropout=dropout,
        seed=seed,
        dtype=arguments.dtype,
        device=arguments.device,
    )
    return Trainer(
        model,
        loss=prep.loss,
        optimizer=optimizer,
        batch_size=arguments.batch_size,
        l1=arguments.l1,
        l2=arguments.l2,
        clip_norm=arguments.clip_norm,
        schedule=arguments.schedule,
        seed=seed,
        **job,
    )


def training_text(
    arguments: argparse.Namespace, loss: str, optimizer: Optimizer, left_out: Sequence[str] = ()
) -> str:
    """Loss, optimiser and what was set besides: nothing that has its default value, or is `left_out`."""
    options = [] if "lr" in left_out else [f"lr {optimizer.lr:g}"]
    for f in fields(optimizer):
        value = getattr(optimizer, f.name)
        if f.init and f.name not in ("lr", *left_out) and value != f.default:
            text = ",".join(f"{v:g}" for v in value) if isinstance(value, (tuple, list)) else value
            text = f"{text:g}" if isinstance(text, float) else text
            options.append(f.name if text is True else f"{f.name} {text}")
    parts = [loss, arguments.optimizer + (f" ({', '.join(options)})" if options else "")]
    if arguments.schedule is not None:
        parts.append(f"{arguments.schedule} schedule")
    if arguments.clip_norm is not None:
        parts.append(f"clip norm {arguments.clip_norm:g}")
    stop = arguments.early_stopping
    limit = f"{'at most ' if stop else ''}{counted(arguments.epochs, 'epoch')}"
    return ", ".join(
        [*parts, f"batch {arguments.batch_size}", limit, *([f"patience {stop}"] if stop else [])]
    )
