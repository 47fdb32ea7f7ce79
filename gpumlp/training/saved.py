"""Model and training files: one .npz of plain arrays and a JSON header.  Reading one can never run code.

A file holds `header` (UTF-8 JSON as uint8) and, for layer l, `w<l>` (n_in, n_out) and `b<l>` (n_out,) in the
model's dtype.  The header has the keys of `_HEADER`; `extra` is whatever the writer wants to keep with it
(the command line: feature names, class names, standardisation and a summary of the training).

The file of a training is a model's file that holds more: the header's "trainer", with the keys of `_TRAINER`,
and for each state array of the optimiser `<name>_w<l>` and `<name>_b<l>`.
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from gpumlp.errors import ModelFileError
from gpumlp.files.atomic import PathLike, replacing
from gpumlp.losses import saved_loss
from gpumlp.model import MLP
from gpumlp.network import flatten, unflatten
from gpumlp.optimizers import optimizer_class
from gpumlp.schedules import schedule_from_dict, schedule_to_dict

if TYPE_CHECKING:
    from gpumlp.training.trainer import Trainer

__all__ = ["FORMAT_VERSION", "load_model", "load_trainer", "save_model", "save_trainer"]

FORMAT = "gpumlp-model"
FORMAT_VERSION = 1

#: keys of the header -> type of their value
_HEADER: dict[str, Any] = {
    "layer_sizes": list,
    "activations": list,
    "dropout": (int, float, list),
    "dtype": str,
    "output": str,
    "extra": dict,
}
#: keys of its "trainer" -> type of their value; "state" names the optimiser's state arrays
_TRAINER: dict[str, Any] = {
    "loss": str,
    "delta": (int, float),
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
_OUTPUTS = ("identity", "softmax", "sigmoid", "exp")

# what NumPy, zipfile and json raise for files that are damaged or made by somebody else
_READ_ERRORS = (
    ValueError,
    KeyError,
    EOFError,
    OSError,
    MemoryError,
    RuntimeError,
    NotImplementedError,
    TypeError,
    zipfile.BadZipFile,
    zlib.error,
)


def save_model(model: MLP, path: PathLike, extra: dict[str, Any] | None = None) -> None:
    """Write `model` to one file, atomically: a failing write leaves an old file at `path` as it was.

    Parameters
    ----------
    model : MLP
    path : path
        Written under exactly this name (no ending is added); the usual ending is .npz.
    extra : dict, optional
        Kept with the model; anything that JSON can hold.  None: `model.extra`, what `load_model` found.

    Raises
    ------
    ValueError
        A parameter is NaN or infinite, or `extra` is not JSON.
    OSError
        The file cannot be written.
    """
    _write(model, path, model.extra if extra is None else extra, {}, {})


def _write(
    model: MLP, path: PathLike, extra: dict[str, Any], more: dict[str, Any], arrays: dict[str, np.ndarray]
) -> None:
    parameters = model.get_parameters()
    for number, (w, b) in enumerate(parameters):
        if not (np.isfinite(w).all() and np.isfinite(b).all()):
            raise ValueError(
                f"the model was not saved: layer {number} has parameters that are NaN or infinite"
            )
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "written_by": f"gpumlp {_version()}",
        "layer_sizes": [int(n) for n in model.layer_sizes],
        "activations": list(model.activations),
        "dropout": model.dropout,
        "dtype": np.dtype(model.dtype).name,
        "output": model.output,
        "extra": extra,
        **more,
    }
    try:
        text = json.dumps(header, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"extra cannot be written as JSON: {error}") from None
    all_arrays: dict[str, Any] = {"header": np.frombuffer(text.encode(), np.uint8)}
    all_arrays.update(_named("", parameters), **arrays)
    with replacing(path) as file:
        np.savez(file, **all_arrays)


def _named(prefix: str, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, np.ndarray]:
    return {
        f"{prefix}{kind}{n}": x for n, pair in enumerate(pairs) for kind, x in zip("wb", pair, strict=True)
    }


def save_trainer(trainer: Trainer, path: PathLike) -> None:
    """See `Trainer.save`."""
    model, optimizer, backend = trainer.model, trainer.optimizer, trainer.model.backend
    state = {n: a for n, a in (optimizer.state[0] if optimizer.state else {}).items() if n != "_shape"}
    scale = trainer.loss_scale_state()
    header = {
        "loss": trainer.loss.name,
        "delta": trainer.objective.delta,
        "optimizer": optimizer.name,
        "hyperparameters": optimizer.hyperparameters(),
        "t": optimizer.t,
        "state": list(state),
        "batch_size": trainer.batch_size,
        "clip_norm": trainer.clip_norm,
        "schedule": schedule_to_dict(trainer.schedule),
        "seed": trainer.seed,
        "precision": trainer.precision,
        "epoch": trainer.epoch,
        "loss_scale": None if scale is None else [float(v) for v in scale],
    }
    arrays: dict[str, np.ndarray] = {}
    for name, array in state.items():
        host = array if isinstance(array, np.ndarray) else backend.to_numpy(array)
        arrays.update(_named(f"{name}_", unflatten(model.layers, host)))
    _write(model, path, model.extra, {"trainer": header}, arrays)


def load_trainer(
    path: PathLike, device: Any = "auto", *, schedule: Any = None, callbacks: Sequence[Callable] = ()
) -> Trainer:
    """See `Trainer.load`."""
    from gpumlp.training.trainer import Trainer  # here, because its methods import this module

    name = os.fspath(path)
    header, arrays = _read(name)
    given = header.get("trainer")
    if given is None:
        raise _bad(name, "it holds a model only, no training; read it with gpumlp.load")
    for key, kind in _TRAINER.items():
        if not isinstance(given, dict) or not isinstance(given.get(key), kind):
            raise _bad(name, f"the header's trainer {key!r} is {dict(given).get(key)!r}")
    if given["schedule"] is None and schedule is None:
        raise ValueError(
            f"{name!r}: the training had a schedule of its own, which a file cannot hold; give it again: "
            "Trainer.load(path, schedule=...)"
        )
    model = _model(name, header, arrays, device)
    try:
        rule: Any = optimizer_class(given["optimizer"])
        pairs = {f.name: given["hyperparameters"][f.name] for f in fields(rule)}
        optimizer = rule(**{n: tuple(v) if isinstance(v, list) else v for n, v in pairs.items()})
        trainer = Trainer(
            model,
            loss=saved_loss(given["loss"], given["delta"]),
            optimizer=optimizer,
            batch_size=given["batch_size"],
            clip_norm=given["clip_norm"],
            schedule=schedule if schedule is not None else schedule_from_dict(given["schedule"]),
            seed=given["seed"],
            precision=given["precision"],
            callbacks=callbacks,
        )
        state = {
            n: flatten(model.layers, _pairs(model, arrays, f"{n}_"), model.flat_size, model.dtype)
            for n in given["state"]
        }
        held = [{**state, "_shape": (model.flat_size,)}] if state or optimizer.state_names() == () else []
        trainer.optimizer.load_state_dict(
            {**trainer.optimizer.state_dict(), "t": given["t"], "state": held if given["t"] else []}
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _bad(name, f"the training in it cannot be restored: {error}") from None
    trainer.epoch = given["epoch"]
    if given["loss_scale"] is not None:
        trainer.restore_loss_scale(np.array(given["loss_scale"], model.dtype))
    return trainer


def _pairs(model: MLP, arrays: dict[str, np.ndarray], prefix: str) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(arrays[f"{prefix}w{n}"], arrays[f"{prefix}b{n}"]) for n in range(len(model.layers))]


def load_model(path: PathLike, device: Any = "auto") -> MLP:
    """Read a model that `save_model` wrote; its `extra` attribute is the dict that was saved with it.

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
        The file is damaged, is no model, or is of a version that this gpumlp does not know.
    """
    name = os.fspath(path)
    return _model(name, *_read(name), device)


def _model(name: str, header: dict[str, Any], arrays: dict[str, np.ndarray], device: Any) -> MLP:
    parameters = _check_parameters(name, header, arrays)
    try:
        model = MLP(
            header["layer_sizes"],
            header["activations"],
            dropout=header["dropout"],
            init=0.0,
            dtype=header["dtype"],
            device=device,
        )
    except (ValueError, TypeError) as error:
        raise _bad(name, str(error)) from None
    model.set_parameters(parameters)
    model.output = header["output"]
    model.extra = header["extra"]
    return model


def _version() -> str:
    from gpumlp import __version__  # here, because the package imports this module

    return __version__


def _bad(name: str, why: str) -> ModelFileError:
    return ModelFileError(f"{name!r} is not a usable gpumlp model: {why}")


def _read(name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    with open(name, "rb") as file:  # errors about the path itself are the caller's
        return _read_open(name, file)


def _read_open(name: str, file: BinaryIO) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    start = file.read(4)
    file.seek(0)
    if not start:
        raise _bad(name, "the file is empty")
    if start[:2] != b"PK":
        raise _bad(name, "it is no .npz file (models are written by 'gpumlp train' and MLP.save)")
    try:
        with np.load(file, allow_pickle=False) as archive:
            names = set(archive.files)
            if "header" not in names:
                raise _bad(name, f"this .npz file has no model header, only the arrays {_some(names)}")
            header = _check_header(name, archive["header"])
            trainer = header.get("trainer")
            state = trainer.get("state") if isinstance(trainer, dict) else []
            prefixes = ["", *(f"{n}_" for n in state)] if isinstance(state, list) else [""]
            layers = range(len(header["layer_sizes"]) - 1)
            wanted = {f"{prefix}{kind}{n}" for prefix in prefixes for n in layers for kind in "wb"}
            if names - {"header"} != wanted:
                raise _bad(name, f"arrays {_some(names - {'header'})}, expected {_some(wanted)}")
            return header, {key: archive[key] for key in wanted}
    except ModelFileError:
        raise
    except _READ_ERRORS as error:
        pickled = "pickle" in str(error) or "Object arrays" in str(error)
        why = (
            "it contains pickled objects, which are never loaded"
            if pickled
            else f"the file is damaged or was cut off ({error}); copy it again, or train again"
        )
        raise _bad(name, why) from error


def _check_header(name: str, raw: np.ndarray) -> dict[str, Any]:
    if raw.dtype != np.uint8 or raw.ndim != 1:
        raise _bad(name, f"the header is {raw.dtype} of shape {raw.shape}, expected JSON text as uint8")
    try:
        header = json.loads(raw.tobytes())
    except (ValueError, RecursionError) as error:
        raise _bad(name, f"the header is not JSON ({error})") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise _bad(name, f'the header does not say "format": "{FORMAT}"')
    version = header.get("format_version")
    if version != FORMAT_VERSION:
        raise _bad(
            name,
            f"it has format version {version!r} (written by {header.get('written_by', 'somebody')}), "
            f"and this is gpumlp {_version()}, which reads format version {FORMAT_VERSION}; "
            "use the gpumlp that wrote it, or a newer one",
        )
    for key, kind in _HEADER.items():
        if not isinstance(header.get(key), kind):
            raise _bad(name, f"the header's {key!r} is {header.get(key)!r}")
    sizes = header["layer_sizes"]
    if len(sizes) < 2 or not all(type(n) is int and n > 0 for n in sizes):
        raise _bad(name, f"layer_sizes is {sizes!r}, expected at least two positive integers")
    if header["output"] not in _OUTPUTS:
        raise _bad(name, f"output is {header['output']!r}, expected one of {', '.join(_OUTPUTS)}")
    if header["dtype"] not in ("float32", "float64"):
        raise _bad(name, f"dtype is {header['dtype']!r}, expected float32 or float64")
    return header


def _check_parameters(
    name: str, header: dict[str, Any], arrays: dict[str, np.ndarray]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Before the network is built: a header that lies about sizes must not make us allocate for them."""
    sizes, dtype = header["layer_sizes"], np.dtype(header["dtype"])
    parameters = []
    for number, shape in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
        for key, expected in ((f"w{number}", shape), (f"b{number}", shape[1:])):
            array = arrays[key]
            if array.shape != expected or array.dtype != dtype:
                raise _bad(
                    name,
                    f"array {key} is {array.dtype} of shape {array.shape}, expected {dtype} of {expected}",
                )
            if not np.isfinite(array).all():
                raise _bad(name, f"array {key} has values that are NaN or infinite")
        parameters.append((arrays[f"w{number}"], arrays[f"b{number}"]))
    return parameters


def _some(names: set[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:8]) + (", ..." if len(listed) > 8 else "") if listed else "(none)"
