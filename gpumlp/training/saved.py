"""The file of a training: a model's file (`gpumlp.model.saved`) whose header has "trainer", with the keys of
`_TRAINER`, and that holds the optimiser's state arrays."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from gpumlp.backends import get_backend
from gpumlp.checks import whole
from gpumlp.errors import DeviceError
from gpumlp.files.archive import shown
from gpumlp.files.atomic import PathLike
from gpumlp.losses import saved_loss
from gpumlp.model.load import model_of
from gpumlp.model.mlp import MLP
from gpumlp.model.saved import Saved, arrays_of, bad_file, read, write
from gpumlp.optimizers import Optimizer, optimizer_class
from gpumlp.schedules import schedule_from_dict, schedule_to_dict

__all__ = ["load_trainer", "save_trainer"]

#: keys of the header's "trainer" -> type of their value; "state" names the optimiser's state arrays
_TRAINER: dict[str, Any] = {
    "loss": str,
    "delta": (int, float, list),
    "optimizer": str,
    "hyperparameters": dict,
    "t": int,
    "state": list,
    "batch_size": int,
    "clip_norm": (int, float, type(None)),
    "schedule": (dict, type(None)),
    "seed": int,
    "precision": str,
    "epoch": int,
    "loss_scale": (list, type(None)),
}
_SINGLE = np.finfo(np.float32)  # loss scales are kept in it
_MOST_STEPS = 2**53  # t and epochs are counted in double precision


def save_trainer(trainer: Any, path: PathLike) -> None:
    """See `Trainer.save`."""
    model, optimizer = trainer.model, trainer.optimizer
    if optimizer.state:
        optimizer.init_state([model.flat], model.backend)  # raises if its options now need another one
    state = {n: a for n, a in (optimizer.state[0] if optimizer.state else {}).items() if n != "_shape"}
    scale = trainer.loss_scale_state()
    header = {
        "loss": trainer.loss.name,
        "delta": trainer.objective.delta,
        "optimizer": optimizer.name,
        "hyperparameters": optimizer.hyperparameters(),
        "t": whole("optimizer.t", optimizer.t, 0),
        "state": list(state),
        "batch_size": trainer.batch_size,
        "clip_norm": trainer.clip_norm,
        "schedule": schedule_to_dict(trainer.schedule),
        "seed": trainer.seed,
        "precision": trainer.precision,
        "epoch": trainer.epoch,
        "loss_scale": None if scale is None else [float(v) for v in scale],
    }
    for key, value in header.items():
        header[key] = _plain(value)
        try:
            json.dumps(header[key], allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"the training was not saved: its {key} is {value!r} ({error})") from None
    arrays: dict[str, np.ndarray] = {}
    for name, array in state.items():
        arrays.update(arrays_of(model, array, f"{name}_"))
    write(model, path, model.extra, {"trainer": header}, arrays)


def _plain(value: Any) -> Any:
    """The same value in Python's own numbers and lists, for JSON."""
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(v) for v in value]
    for kind, plain in ((np.bool_, bool), (np.integer, int), (np.floating, float)):
        if isinstance(value, kind):
            return plain(value)
    return value


def load_trainer(
    make: Callable[..., Any],
    path: PathLike,
    device: Any = "auto",
    *,
    schedule: Any = None,
    callbacks: Sequence[Callable] = (),
) -> Any:
    """See `Trainer.load`; `make` is the class, and the arguments are checked."""
    name = os.fspath(path)
    saved = read(name)
    given = saved.header.get("trainer")
    if given is None:
        raise bad_file(name, "it holds a model only, no training; read it with gpumlp.load")
    _check(name, given)
    if given["schedule"] is None and schedule is None:
        raise ValueError(
            f"{name!r}: the training had a schedule of its own, which a file cannot hold; give it again: "
            "Trainer.load(path, schedule=...)"
        )
    model = model_of(name, saved, get_backend(device))
    try:
        # below, only the file's values can be wrong, and what those may raise cannot be listed
        trainer = make(
            model,
            loss=saved_loss(given["loss"], given["delta"]),
            optimizer=_optimizer(given),
            batch_size=given["batch_size"],
            clip_norm=given["clip_norm"],
            schedule=_schedule(given["schedule"]) if schedule is None else schedule,
            seed=given["seed"],
            precision=given["precision"],
        )
        _restore(trainer, given, saved, model)
    except (DeviceError, MemoryError):
        raise
    except Exception as error:
        why = error if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise bad_file(name, f"the training in it cannot be restored: {shown(why, str, 600)}") from error
    trainer.callbacks = list(callbacks)
    return trainer


def _check(name: str, given: Any) -> None:
    """Raise ModelFileError for entries of the wrong kind and numbers out of range."""
    if not isinstance(given, dict):
        raise bad_file(name, f"the header's trainer is {shown(given)}")
    for key, kind in _TRAINER.items():
        value = given.get(key)
        if key not in given or not isinstance(value, kind) or isinstance(value, bool) or _too_large(value):
            raise bad_file(name, f"the header's trainer {key!r} is {shown(value)}")
    for key in ("t", "epoch"):
        if not 0 <= given[key] < _MOST_STEPS:
            raise bad_file(name, f"the header's trainer {key!r} is {given[key]}, expected a number >= 0")
    scale = given["loss_scale"]
    good = scale is None or (
        given["precision"] == "float16"
        and len(scale) == 4
        and all(type(v) in (int, float) and 0 <= v <= float(_SINGLE.max) for v in scale)
        and scale[0] >= float(_SINGLE.tiny)
    )
    if not good:
        raise bad_file(
            name,
            f"the header's trainer 'loss_scale' is {shown(scale)} (precision {shown(given['precision'])})",
        )


def _too_large(value: Any) -> bool:
    """Whether it holds an integer of more than 63 bits."""
    if isinstance(value, (list, dict)):
        return any(map(_too_large, value.values() if isinstance(value, dict) else value))
    return isinstance(value, int) and abs(value) >= 2**63


def _optimizer(given: dict[str, Any]) -> Optimizer:
    rule: Any = optimizer_class(given["optimizer"])
    options = {"average": 0.0, **given["hyperparameters"]}  # files of earlier versions know no average
    names = {f.name for f in fields(rule)}
    for name in sorted(names ^ set(options)):
        raise ValueError(
            f"{shown(name)} is {'missing from' if name in names else 'not one of'} its hyperparameters"
        )
    optimizer: Optimizer = rule(**{n: tuple(v) if isinstance(v, list) else v for n, v in options.items()})
    return optimizer


def _schedule(given: dict[str, Any]) -> Callable:
    schedule = schedule_from_dict(given)
    with np.errstate(all="ignore"):
        factors = schedule(np.arange(3), 3)
    if np.shape(factors) != (3,) or not np.isfinite(factors).all():
        raise ValueError(f"its schedule {schedule} gives the factors {factors}")
    return schedule


def _restore(trainer: Any, given: dict[str, Any], saved: Saved, model: MLP) -> None:
    """Give a new trainer the counts and the state of the saved one."""
    optimizer = trainer.optimizer
    held = []
    if given["t"] or given["state"]:
        if sorted(given["state"]) != sorted(optimizer.arrays()):
            raise ValueError(f"its state is {given['state']}, expected {list(optimizer.arrays())}")
        state = {n: model.flattened(saved.parameters(f"{n}_")) for n in given["state"]}
        held = [{**state, "_shape": (model.flat_size,)}]
    optimizer.load_state_dict({**optimizer.state_dict(), "t": given["t"], "state": held})
    trainer.epoch = given["epoch"]
    if given["loss_scale"] is not None:
        trainer.restore_loss_scale(np.array(given["loss_scale"], model.dtype))
