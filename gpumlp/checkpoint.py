"""Model files: one .npz of plain arrays and a JSON header.  Reading one can never run code.

A file holds `header` (UTF-8 JSON as uint8) and, for layer l, `w<l>` (n_in, n_out) and `b<l>` (n_out,) in the
model's dtype.  The header has the keys of `_HEADER`; `extra` is whatever the writer wants to keep with it
(the command line: feature names, class names, standardisation and a summary of the training).
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from typing import Any, BinaryIO

import numpy as np

from gpumlp.errors import ModelFileError
from gpumlp.files import PathLike, replacing
from gpumlp.network import MLP

__all__ = ["FORMAT_VERSION", "load_model", "save_model"]

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
        "extra": model.extra if extra is None else extra,
    }
    try:
        text = json.dumps(header, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"extra cannot be written as JSON: {error}") from None
    arrays: dict[str, Any] = {"header": np.frombuffer(text.encode(), np.uint8)}
    for number, (w, b) in enumerate(parameters):
        arrays[f"w{number}"], arrays[f"b{number}"] = w, b
    with replacing(path) as file:
        np.savez(file, **arrays)


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
    header, arrays = _read(name)
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
            wanted = {f"{kind}{n}" for n in range(len(header["layer_sizes"]) - 1) for kind in "wb"}
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
