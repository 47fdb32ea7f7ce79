"""Reading a model back; `gpumlp.load`."""

from __future__ import annotations

import os
from typing import Any

from gpumlp.backends import get_backend
from gpumlp.files.atomic import PathLike
from gpumlp.model.ensemble import Ensemble
from gpumlp.model.mlp import MLP
from gpumlp.model.saved import ENSEMBLE, Saved, bad_file, embedding_of, read, read_members

__all__ = ["load", "load_model", "model_of"]


def load(path: PathLike, device: Any = "auto") -> MLP | Ensemble:
    """Read what `MLP.save`, `Trainer.save` or `Ensemble.save` wrote.

    Parameters, errors and `extra` are those of `load_model`.
    """
    name = os.fspath(path)
    header, saved = read_members(name)
    models = [model_of(name, member, get_backend(device)) for member in saved]
    if header["format"] != ENSEMBLE:
        return models[0]
    try:
        ensemble = Ensemble([models[number] for number in header["order"]])
    except ValueError as error:
        raise bad_file(name, error) from None
    ensemble.extra = header["extra"]
    return ensemble


def load_model(path: PathLike, device: Any = "auto") -> MLP:
    """Read a model that `MLP.save` wrote (no ensemble); its `extra` attribute is what was saved with it.

    Parameters
    ----------
    path : path
    device : str
        As for `MLP`.

    Raises
    ------
    FileNotFoundError, PermissionError
        The file is not there or cannot be read.
    ModelFileError
        The file is damaged, is not a model, or has a version that this gpumlp does not know.
    """
    name = os.fspath(path)
    saved = read(name)
    return model_of(name, saved, get_backend(device))  # a bad device is not the file's fault


def model_of(name: str, saved: Saved, device: Any) -> MLP:
    """The model in a file's content; `name` is for messages."""
    header = saved.header
    try:
        model = MLP(
            header["layer_sizes"],
            header["activations"],
            dropout=header["dropout"],
            init=0.0,
            dtype=header["dtype"],
            device=device,
            embedding=embedding_of(header),
        )
    except (ValueError, TypeError) as error:
        raise bad_file(name, error) from None
    model.set_parameters(saved.parameters())
    model.output = header["output"]
    model.extra = header["extra"]
    return model
