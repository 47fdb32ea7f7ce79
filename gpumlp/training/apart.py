"""`fit_many` on the ranks of a job: each trains some of the networks, and all have all of them afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import numpy as np

from gpumlp.distributed import Communicator
from gpumlp.errors import DivergenceError
from gpumlp.training.history import Histories, History
from gpumlp.training.job import agreed

__all__ = ["train_apart"]


def train_apart(
    communicator: Communicator, trainers: Sequence[Any], fit: Callable[[list[int]], Any]
) -> Histories:
    """Train every size-th trainer here, by ``fit`` of their numbers, and bring the others from their ranks.

    Nothing is sent while they train.
    """
    own = list(range(communicator.rank, len(trainers), communicator.size))

    def train() -> None:
        with suppress(DivergenceError):  # of all that are here; there may be others
            if own:
                fit(own)

    agreed(communicator, train)
    for rank, found in enumerate(communicator.gather([_result(trainers[k]) for k in own])):
        if rank != communicator.rank:
            for k, result in zip(range(rank, len(trainers), communicator.size), found, strict=True):
                _take(trainers[k], result)
    how = f"{len(trainers)} networks on {communicator.size} ranks"
    return Histories([trainer.history for trainer in trainers], how)


def _result(trainer: Any) -> dict[str, Any]:
    """What a training has changed, as a communicator can send it."""
    scale, error = trainer.loss_scale_state(), trainer.history.error
    return {
        "parameters": trainer.model.backend.to_numpy(trainer.model.flat),
        "output": trainer.model.output,
        "optimizer": trainer.optimizer.state_dict(),
        "epoch": trainer.epoch,
        "loss scale": scale,
        "history": {**asdict(trainer.history), "error": None},
        "error": None if error is None else [str(error), error.where],
    }


def _take(trainer: Any, result: dict[str, Any]) -> None:
    """Make `trainer` what the one with this `_result` is."""
    model = trainer.model
    model.backend.copy(model.flat, np.asarray(result["parameters"], model.dtype))
    model.output = result["output"]
    trainer.optimizer.load_state_dict(result["optimizer"])
    trainer.epoch = result["epoch"]
    if result["loss scale"] is not None:
        trainer.restore_loss_scale(result["loss scale"])
    trainer.history = History(**result["history"])
    if result["error"] is not None:
        trainer.history.error = DivergenceError(result["error"][0])
        trainer.history.error.where = result["error"][1]
