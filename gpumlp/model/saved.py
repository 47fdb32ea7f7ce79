"""The file of a model: what `save_model` writes and `gpumlp.load` reads.  Reading one can never run code.

It is an archive (`gpumlp.files.archive`) with, for layer l, `w<l>` (n_in, n_out) and `b<l>` (n_out,) in the
model's dtype.  Its header has the keys of `_HEADER`; `extra` is whatever the writer wants to keep with it
(the command line: feature names, classes, standardisation and a summary of the training).  With an embedding
it has "embedding" too, and the arrays `embedding_<name>` are its parameters.

The file of a training is a model's file that holds more, see `gpumlp.training.saved`: the header's "trainer",
whose "state" names arrays that are there once more for each parameter, as `<name>_w<l>` and `<name>_b<l>`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpumlp.errors import ModelFileError
from gpumlp.files.archive import Archive, BadFile, shown, some, write_archive
from gpumlp.files.atomic import PathLike
from gpumlp.files.npz import open_file
from gpumlp.network import Embedding
from gpumlp.plans import OUTPUTS
from gpumlp.version import __version__

__all__ = [
    "ENSEMBLE",
    "FORMAT_VERSION",
    "Saved",
    "arrays_of",
    "bad_file",
    "embedding_of",
    "read",
    "read_members",
    "save_ensemble",
    "save_model",
    "write",
]

FORMAT, ENSEMBLE = "gpumlp-model", "gpumlp-ensemble"
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
_EMBEDDING = "embedding_"  # begins the names of its arrays
_STATES = 16  # state arrays that an optimiser may have; none has more than three


@dataclass
class Saved:
    """What a file holds, checked.

    Attributes
    ----------
    header : dict
    arrays : dict of str to array
        All of them, in the model's dtype and all finite.
    """

    header: dict[str, Any]
    arrays: dict[str, np.ndarray]

    def parameters(self, prefix: str = "") -> list[Any]:
        """What `Network.get_parameters` gives: of the model, or of the state array `<prefix>`."""
        layers = range(len(self.header["layer_sizes"]) - 1)
        found: list[Any] = [(self.arrays[f"{prefix}w{n}"], self.arrays[f"{prefix}b{n}"]) for n in layers]
        if embedding := embedding_of(self.header):
            names = embedding.shapes(self.header["layer_sizes"][0])
            found.append({name: self.arrays[f"{prefix}{_EMBEDDING}{name}"] for name in names})
        return found


def save_model(model: Any, path: PathLike, extra: dict[str, Any] | None = None) -> None:
    """Write a model to one file, atomically: a failing write leaves an old file at `path` as it was.

    Parameters
    ----------
    model : MLP
    path : path
        Written under exactly this name (no ending is added); the usual ending is .npz.
    extra : dict, optional
        Kept with the model; anything that JSON can hold.  None: `model.extra`, what `gpumlp.load` found.

    Raises
    ------
    ValueError
        A parameter is NaN or infinite, or `extra` is not JSON.
    OSError
        The file cannot be written.
    """
    write(model, path, model.extra if extra is None else extra, {}, {})


def write(
    model: Any, path: PathLike, extra: dict[str, Any], more: Mapping[str, Any], arrays: dict[str, np.ndarray]
) -> None:
    """Write a model, with more entries in the header and more arrays."""
    own = _finite(model, "the model")
    header = {**_first(FORMAT), **_entries(model), "extra": _json(extra), **more}
    write_archive(path, header, {**own, **arrays})


def save_ensemble(ensemble: Any, path: PathLike) -> None:
    """See `Ensemble.save`: of member k the entries in the header's "members", the arrays `m<k>_w<l>` and
    `m<k>_b<l>`, and its places in "order"."""
    models = [model for model, _ in ensemble.members()]
    arrays: dict[str, np.ndarray] = {}
    for number, model in enumerate(models):
        own = _finite(model, f"the ensemble's model {number}")
        arrays.update({f"m{number}_{name}": array for name, array in own.items()})
    place = {id(model): number for number, model in enumerate(models)}
    header = {
        **_first(ENSEMBLE),
        "members": [{**_entries(model), "extra": _json(model.extra)} for model in models],
        "order": [place[id(model)] for model in ensemble.models],
        "extra": _json(ensemble.extra),
    }
    write_archive(path, header, arrays)


def _json(extra: dict[str, Any]) -> dict[str, Any]:
    """`extra`; ValueError if it cannot be written."""
    try:
        json.dumps(extra, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"extra cannot be written as JSON: {error}") from None
    return extra


def _first(kind: str) -> dict[str, Any]:
    return {"format": kind, "format_version": FORMAT_VERSION, "written_by": f"gpumlp {__version__}"}


def _entries(model: Any) -> dict[str, Any]:
    """The header's entries of a model, but for `extra`."""
    embedding = {"embedding": model.embedding.header()} if model.embedding else {}
    return {
        **embedding,
        "layer_sizes": [int(n) for n in model.layer_sizes],
        "activations": list(model.activations),
        "dropout": model.dropout,
        "dtype": np.dtype(model.dtype).name,
        "output": model.output,
    }


def _finite(model: Any, what: str) -> dict[str, np.ndarray]:
    """`arrays_of` its parameters; ValueError if one is not finite."""
    model.check()
    arrays = arrays_of(model, model.flat)
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            where = "the embedding" if name.startswith(_EMBEDDING) else f"layer {name[1:]}"
            raise ValueError(f"{what} was not saved: {where} has parameters that are NaN or infinite")
    return arrays


def arrays_of(model: Any, flat: Any, prefix: str = "") -> dict[str, np.ndarray]:
    """The arrays of a flat buffer of the model's layout, by name: views, if it is on the host."""
    host = flat if isinstance(flat, np.ndarray) else model.backend.to_numpy(flat)
    found: dict[str, np.ndarray] = {}
    for n, layer in enumerate(model.layers):
        matrix = layer.matrix(host)
        found[f"{prefix}w{n}"], found[f"{prefix}b{n}"] = matrix[:-1], matrix[-1]
    views = model.embedded.views(host) if model.embedded else {}
    return {**found, **{f"{prefix}{_EMBEDDING}{name}": view for name, view in views.items()}}


def embedding_of(header: dict[str, Any]) -> Embedding | None:
    """That of a network's header; BadFile if it is none."""
    if header.get("embedding") is None:
        return None
    try:
        embedding = Embedding.from_header(header["embedding"])
        embedding.shapes(header["layer_sizes"][0])
    except (ValueError, TypeError) as error:
        raise BadFile(f"the header's 'embedding': {error}") from None
    return embedding


def read(name: str) -> Saved:
    """Read the file of a model or of a training.

    Raises
    ------
    OSError
        The file cannot be opened.
    ModelFileError
        It is damaged, or holds something else.
    """
    header, members = read_members(name)
    if header["format"] == ENSEMBLE:
        raise bad_file(name, f"it holds an ensemble of {len(members)} networks; read it with gpumlp.load")
    return members[0]


def read_members(name: str) -> tuple[dict[str, Any], list[Saved]]:
    """Read the file of a model, of a training or of an ensemble: header and networks.

    Raises as `read` does.
    """
    with _named_errors(name), open_file(name) as file:  # errors about the path itself are the caller's
        archive = Archive(file)
        header = archive.header
        _check_first(header)
        parts = {"": header}
        if header["format"] == ENSEMBLE:
            _check_ensemble(header)
            parts = {f"m{number}_": part for number, part in enumerate(header["members"])}
        spec: dict[str, tuple[np.dtype, tuple[int, ...]]] = {}
        expected = 0
        for part in parts.values():
            _check_header(part)
            embedding = embedding_of(part)
            count = 2 * (len(part["layer_sizes"]) - 1)
            count += len(embedding.shapes(part["layer_sizes"][0])) if embedding else 0
            expected += count * (1 + len(_states(part)))
        if expected > 2 * len(archive.names) + 1000:  # a short header may name millions
            raise BadFile(f"arrays {some(archive.names)}, expected {expected} for these layers")
        for prefix, part in parts.items():
            spec.update(_spec(part, prefix))
        arrays = archive.arrays(spec)
        for key, array in arrays.items():
            if not np.isfinite(array).all():
                raise BadFile(f"array {key} has values that are NaN or infinite")
        return header, [
            Saved(part, {key: arrays[prefix + key] for key in _spec(part)}) for prefix, part in parts.items()
        ]


def _spec(header: dict[str, Any], first: str = "") -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """dtype and shape of the arrays of a network, by name; all names begin with `first`."""
    (n_inputs, *others), dtype = header["layer_sizes"], np.dtype(header["dtype"])
    spec: dict[str, tuple[np.dtype, tuple[int, ...]]] = {}
    embedding = embedding_of(header)
    sizes = [embedding.width(n_inputs) if embedding else n_inputs, *others]
    shapes = embedding.shapes(n_inputs) if embedding else {}
    for prefix in ("", *(f"{n}_" for n in _states(header))):
        for number, shape in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
            spec[f"{first}{prefix}w{number}"] = dtype, shape
            spec[f"{first}{prefix}b{number}"] = dtype, shape[1:]
        spec.update((f"{first}{prefix}{_EMBEDDING}{name}", (dtype, shape)) for name, shape in shapes.items())
    return spec


@contextmanager
def _named_errors(name: str) -> Iterator[None]:
    try:
        yield
    except BadFile as error:
        raise bad_file(name, error) from error


def bad_file(name: str, why: object) -> ModelFileError:
    """The error for a file that cannot be used."""
    return ModelFileError(f"{name!r} is not a usable gpumlp model: {shown(why, str, 1000)}")


def _states(header: dict[str, Any]) -> list[str]:
    """Names of the optimiser's state arrays."""
    trainer = header.get("trainer")
    names = trainer.get("state") if isinstance(trainer, dict) else []
    if not isinstance(names, list) or len(names) > _STATES or not all(isinstance(n, str) for n in names):
        raise BadFile(f"the header's trainer 'state' is {shown(names)}")
    return names


def _check_first(header: dict[str, Any]) -> None:
    """What it is a file of, and in which version."""
    if header.get("format") not in (FORMAT, ENSEMBLE):
        raise BadFile(f'the header does not say "format": "{FORMAT}"')
    version = header.get("format_version")
    if type(version) is not int or version != FORMAT_VERSION:
        raise BadFile(
            f"it has format version {shown(version)} (written by "
            f"{shown(header.get('written_by', 'somebody'), str)}), and this is gpumlp {__version__}, which "
            f"reads format version {FORMAT_VERSION}; use the gpumlp that wrote it, or a newer one"
        )


def _check_ensemble(header: dict[str, Any]) -> None:
    """Everything but the members themselves."""
    members: Any = header.get("members")
    order: Any = header.get("order")
    if not isinstance(members, list) or not members or not all(isinstance(m, dict) for m in members):
        raise BadFile(f"the header's 'members' is {shown(members)}")
    good = isinstance(order, list) and all(type(n) is int for n in order)
    if not good or set(order) != set(range(len(members))):
        raise BadFile(f"the header's 'order' is {shown(order)}, expected each of {len(members)} members")
    if not isinstance(header.get("extra"), dict):
        raise BadFile(f"the header's 'extra' is {shown(header.get('extra'))}")


def _check_header(header: dict[str, Any]) -> None:
    """The entries of a network."""
    for key, kind in _HEADER.items():
        if not isinstance(header.get(key), kind):
            raise BadFile(f"the header's {key!r} is {shown(header.get(key))}")
    sizes = header["layer_sizes"]
    if len(sizes) < 2 or not all(type(n) is int and n > 0 for n in sizes):
        raise BadFile(f"layer_sizes is {shown(sizes)}, expected at least two positive integers")
    if header["output"] not in OUTPUTS:
        raise BadFile(f"output is {shown(header['output'])}, expected one of {', '.join(OUTPUTS)}")
    if header["dtype"] not in ("float32", "float64"):
        raise BadFile(f"dtype is {shown(header['dtype'])}, expected float32 or float64")
