"""What the ranks of a job agree on: a rank that does otherwise would make the others wait for ever."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from gpumlp.distributed import Communicator, agree
from gpumlp.rows import SourceRows
from gpumlp.training.spread import SpreadRows

__all__ = ["agreed", "check_same", "settings_of", "told"]

_Result = TypeVar("_Result")
_SOME_ROWS = 256


def agreed(communicator: Communicator | None, do: Callable[[], _Result]) -> _Result:
    """What `do` returns, if it raises nothing on any rank; else that error, told to all."""
    if communicator is None or communicator.size == 1:
        return do()
    error: BaseException | None = None
    try:
        result = do()
    except BaseException as raised:
        error = raised
    agree(communicator, error)
    return result


def told(communicator: Communicator, trainer: Any, do: Callable[[], bool]) -> bool:
    """Whether `do` is true on any rank, if all still have the same settings after it; see `agreed`."""
    error: BaseException | None = None
    ended = False
    try:
        ended = do()
    except BaseException as raised:
        error = raised
    answers = agree(communicator, error, [ended, settings_of(trainer)])
    compare([settings for _, settings in answers])
    return any(ended for ended, _ in answers)


def settings_of(trainer: Any) -> dict[str, str]:
    """What all ranks must have, as text."""
    optimizer, schedule = trainer.optimizer, trainer.schedule
    values = {
        "batch_size": trainer.batch_size,
        "optimizer": (optimizer.name, *optimizer.hyperparameters().items()),
        "optimizer.t": optimizer.t,
        "clip_norm": trainer.clip_norm,
        "schedule": schedule if hasattr(schedule, "to_dict") else type(schedule).__name__,
        "seed": trainer.seed,
        "precision": trainer.precision,
        "epoch": trainer.epoch,
        "layer_sizes": trainer.model.layer_sizes,
        "activations": trainer.model.activations,
        "dropout": trainer.model.dropouts,
        "executor": trainer.model.backend.name,
    }
    return {name: str(value) for name, value in values.items()}


def check_same(trainer: Any, train: Any, val: Any, **more: Any) -> None:
    """ValueError, on all ranks, if one has other settings, parameters or rows than rank 0."""
    communicator = trainer.communicator
    if communicator is None or communicator.size == 1:
        return
    model = trainer.model
    held = {
        **settings_of(trainer),
        "loss": f"{trainer.loss.name} {trainer.objective.delta}",
        "dtype": str(model.dtype),
        "reproducible": str(trainer.reproducible),
        **{name: str(value) for name, value in more.items()},
        "parameters": hashlib.md5(model.backend.to_numpy(model.flat).tobytes()).hexdigest(),
        **_shown("training rows", train, model.backend),
        **(_shown("validation rows", val, model.backend) if val else {"validation rows": "none"}),
    }
    compare(communicator.gather(held))


def compare(each: list[dict[str, str]]) -> None:
    """ValueError if the ranks' settings are not those of rank 0."""
    for rank, held in enumerate(each):
        for name, value in held.items():
            first = each[0].get(name)
            if value != first:
                raise ValueError(
                    f"rank {rank} of {len(each)} has {name} {value}, rank 0 has {first}; expected the same"
                    + (" (the same seed gives the same ones)" if name == "parameters" else "")
                    + (", or rows='sharded' for parts of them" if "rows" in name else "")
                )


def _shown(name: str, rows: Any, backend: Any) -> dict[str, str]:
    """Shapes and types, and of rows that all ranks have a digest of some."""
    if isinstance(rows, SpreadRows):
        return {name: f"sharded {rows.n_rows} x {rows.X.shape[1]} {rows.X.dtype}"}
    if isinstance(rows, SourceRows):
        source = rows.source
        groups = hashlib.md5(repr([*map(int, source.groups)]).encode()).hexdigest()
        return {
            name: f"{rows.n_rows} x {source.n_features} of a {type(source).__name__}",
            f"{name} (digest of its groups' sizes)": groups,
        }
    shown = {name: f"{rows.n_rows} x {rows.X.shape[1]} {rows.X.dtype}, weights: {rows.w is not None}"}
    n = rows.X.shape[0]
    some = np.unique(np.linspace(0, n - 1, min(n, _SOME_ROWS)).astype(np.int64))
    digest = hashlib.md5()
    for array in (rows.X, rows.y, rows.w):
        if array is not None:
            numbers = some if isinstance(array, np.ndarray) else backend.asarray(some)
            digest.update(backend.to_numpy(array[numbers]).tobytes())
    return {**shown, f"{name} (digest)": digest.hexdigest()}
