"""One .npz file of plain arrays and a JSON header; reading one runs no code.

The header is the array `header`: JSON text in UTF-8, as uint8.  Its "digest" is the SHA-256 of all other
arrays; older files have none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from gpumlp import checks
from gpumlp.files.atomic import PathLike, replacing
from gpumlp.files.npz import BadFile, NpzReader, memory, write_npz

__all__ = ["Archive", "BadFile", "shown", "some", "write_archive"]

_HEADER_FREE = 1 << 20  # bytes that a header may have in any case,
_HEADER_RATIO = 20  # how many times its packed size it may have beyond that,
_HEADER_LIMIT = 256 << 20  # and what it may have at most

Spec = Mapping[str, tuple[Any, tuple[int, ...]]]


class Archive:
    """An archive, read from an open file.

    Attributes
    ----------
    header : dict
    names : set of str
        Names of the arrays, without the header.

    Raises
    ------
    BadFile
        The file is damaged, or not an archive; the message does not name it.
    """

    def __init__(self, file: BinaryIO) -> None:
        start = file.read(4)
        if not start:
            raise BadFile("the file is empty")
        if start[:2] != b"PK":
            raise BadFile("it is not an .npz file (models are written by 'gpumlp train' and MLP.save)")
        self._npz = NpzReader(file)
        self.names = set(self._npz.names)
        if "header" not in self.names:
            raise BadFile(f"this .npz file has no model header, only the arrays {some(self.names)}")
        self.names.remove("header")
        self.header = self._header()

    def _header(self) -> dict[str, Any]:
        packed, size = self._npz.sizes("header")
        if size > min(_HEADER_LIMIT, max(_HEADER_FREE, _HEADER_RATIO * packed)):
            raise BadFile(f"its header has {size} bytes, which no header has")
        raw = self._npz.read("header")
        if raw.dtype != np.uint8 or raw.ndim != 1:
            raise BadFile(f"the header is {raw.dtype} of shape {raw.shape}, expected JSON text as uint8")
        try:
            header = json.loads(raw.tobytes().decode(), parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            raise BadFile(f"the header is not JSON ({error})") from None
        if not isinstance(header, dict):
            raise BadFile(f"the header is {shown(header)}, expected a JSON object")
        return header

    def arrays(self, spec: Spec) -> dict[str, np.ndarray]:
        """All arrays, which must be those of `spec`: name -> (dtype, shape).

        Names, dtypes, shapes and sizes are compared before any values are read; checksums and digest before
        any are returned.
        """
        if self.names != set(spec):
            raise BadFile(f"arrays {some(self.names)}, expected {some(set(spec))}")
        for name, (dtype, shape) in spec.items():
            found = self._npz.describe(name)
            if found != (np.dtype(dtype), shape):
                raise BadFile(
                    f"array {name} is {found[0]} of shape {shown(found[1])}, expected {np.dtype(dtype)} of "
                    f"{shown(shape)}"
                )
        arrays = {name: self._npz.read(name) for name in spec}
        given = self.header.get("digest")
        if "digest" in self.header and given != _digest(arrays):
            raise BadFile(
                "the arrays are not those that were written (their digest differs from the header's); copy "
                "the file again, or train again"
            )
        return arrays


def write_archive(path: PathLike, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write an archive, atomically: a failing write leaves an old file at `path` as it was.

    Raises
    ------
    ValueError
        The header is not JSON, or an array holds Python objects.
    OSError
        The file cannot be written.
    """
    text = json.dumps({**header, "digest": _digest(arrays)}, allow_nan=False)
    with replacing(path) as file:
        write_npz(file, {"header": np.frombuffer(text.encode(), np.uint8), **arrays})


def some(names: set[str]) -> str:
    """The first of these names, for a message."""
    return checks.some([shown(name, str) for name in sorted(names)], 8)


def shown(value: object, text: Any = repr, limit: int = 100) -> str:
    """A file's value for a message, shortened: it may hold anything."""
    full = text(value)
    return full if len(full) <= limit else f"{full[:limit]}..."


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is not a JSON number")


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    total = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")
        total.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        total.update(memory(array))
    return f"sha256:{total.hexdigest()}"
