"""NumPy's .npz and .npy files, read strictly: whatever is in one, reading it gives its arrays or `BadFile`.

`numpy.load` stops reading before the end of a member, so its checksum is never compared; it evaluates the
text of an array's header; and it unpacks first and looks later.  Here sizes are compared with the archive's
directory and with the file before anything is allocated, headers are matched by a pattern, and the checksum
of every member that is read is compared.
"""

from __future__ import annotations

import io
import math
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np

__all__ = ["BadFile", "NpzReader", "memory", "open_file", "read_npy", "write_npz"]

_CHUNK = 1 << 20  # bytes read at a time
_HEADER_LIMIT = 10_000  # of an array, in bytes; NumPy's own limit
_FREE = 64 << 20  # bytes that a compressed member may unpack to whatever its size,
_RATIO = 200  # and how many times its size beyond that
_MAGIC = b"\x93NUMPY"
_FIELD = re.compile(
    r"""\s*['"](?P<key>descr|fortran_order|shape)['"]\s*:\s*
    (?:['"](?P<descr>[<>|=]?[a-zA-Z][0-9]{0,9}(?:\[\w+\])?)['"]
    | (?P<order>True|False) | \((?P<shape>[0-9L,\s]*)\))
    \s*(?:,|(?=\}))""",
    re.VERBOSE,
)


class BadFile(ValueError):
    """A file that cannot be used; the message says why, without the file's name."""


@contextmanager
def _strict() -> Iterator[None]:
    """Whatever the parsers of the standard library and of NumPy raise for damaged bytes becomes BadFile.

    There is no list of what they may raise; nothing but their calls on the file's bytes belongs in here."""
    try:
        yield
    except BadFile:
        raise
    except MemoryError:
        raise BadFile("there is not enough memory for what it holds") from None
    except Exception as error:
        raise BadFile(f"the file is damaged or was cut off ({type(error).__name__}: {error})") from error


def _damaged(why: str) -> BadFile:
    return BadFile(f"the file is damaged or was cut off ({why})")


def open_file(path: Any) -> BinaryIO:
    """The file, open for reading in any order: a pipe, which would be waited for, and a device are refused.

    Raises
    ------
    OSError
        It cannot be opened.
    BadFile
        It is no regular file.
    """
    # a pipe is opened whether or not somebody writes to it
    no_wait = getattr(os, "O_NONBLOCK", 0)
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | no_wait))  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise BadFile("it is a pipe or a device; copy what it gives into a file, and give that")
    return file


class NpzReader:
    """The arrays of an open .npz file, by name.

    Parameters
    ----------
    file : binary file
        Stays open as long as the reader is used.

    Raises
    ------
    BadFile
        It is not a zip archive, or its directory does not fit the file.
    """

    def __init__(self, file: BinaryIO) -> None:
        with _strict():
            size = file.seek(0, os.SEEK_END)
            self._zip = zipfile.ZipFile(file)
            infos = self._zip.infolist()
        self._members = {info.filename.removesuffix(".npy"): info for info in infos}
        if len(self._members) < len(infos):
            raise _damaged("two members have the same name")
        if sum(info.compress_size for info in infos) > size:
            raise _damaged("the members are larger than the file")

    @property
    def names(self) -> list[str]:
        """In the order of the file."""
        return list(self._members)

    def sizes(self, name: str) -> tuple[int, int]:
        """Bytes of a member, in the file and unpacked, according to the archive's directory."""
        info = self._members[name]
        return info.compress_size, info.file_size

    def describe(self, name: str) -> tuple[np.dtype, tuple[int, ...]]:
        """Dtype and shape of an array; its values are not read."""
        with self._open(name) as (stream, size):
            dtype, shape, _ = _array_header(stream, size)
        return dtype, shape

    def read(self, name: str) -> np.ndarray:
        """One array, its checksum compared."""
        with self._open(name) as (stream, size):
            return _array(stream, size)

    @contextmanager
    def _open(self, name: str) -> Iterator[tuple[Any, int]]:
        info = self._members[name]
        packed, size = info.compress_size, info.file_size
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise BadFile(f"array {name!r} is compressed by a method that NumPy does not use")
        if info.compress_type == zipfile.ZIP_STORED and packed != size:
            raise _damaged(f"array {name!r} has two different sizes")
        if size > max(_FREE, _RATIO * packed):
            raise BadFile(
                f"array {name!r} would unpack from {packed} to {size} bytes, which no data does; if it "
                "is yours, save it without compression"
            )
        with _strict(), self._zip.open(info) as stream:
            yield stream, size


def read_npy(file: BinaryIO) -> np.ndarray:
    """The array of an open .npy file, which must hold nothing else.

    Raises
    ------
    BadFile
    """
    with _strict():
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        return _array(file, size)


def _array_header(stream: Any, size: int) -> tuple[np.dtype, tuple[int, ...], bool]:
    """(dtype, shape, whether in Fortran order) from the start of an array of `size` bytes with its header."""
    start = stream.read(8)
    if start[:6] != _MAGIC or start[6:] not in (b"\1\0", b"\2\0", b"\3\0"):
        raise _damaged("an array does not begin like one")
    width = 2 if start[6] == 1 else 4
    length = int.from_bytes(stream.read(width), "little")
    text = stream.read(length) if length <= _HEADER_LIMIT else b""
    if len(text) < length or not text.endswith(b"\n"):
        raise _damaged("the header of an array has another length than it says")
    descr, shape, fortran = _fields(text.decode("latin-1"))
    dtype = np.dtype(descr)
    if dtype.hasobject:
        raise BadFile("it contains pickled objects, which are never loaded")
    values = size - 8 - width - length
    if dtype.itemsize == 0 or len(shape) > 32 or math.prod(shape) * dtype.itemsize != values:
        raise _damaged(f"an array of {dtype.str} and shape {_shown(shape)} does not have {values} bytes")
    return dtype, shape, fortran


def _fields(text: str) -> tuple[str, tuple[int, ...], bool]:
    """The three entries of an array's header, {'descr': '<f4', 'fortran_order': False, 'shape': (3, 5), }."""
    found: dict[str, str] = {}
    at = 1
    while match := _FIELD.match(text, at):
        key = match["key"]
        value = {"descr": match["descr"], "fortran_order": match["order"], "shape": match["shape"]}[key]
        if key in found or value is None:
            break
        found[key], at = value, match.end()
    if text[:1] != "{" or text[at:].strip() != "}" or len(found) < 3:
        if re.search(r"""['"]descr['"]\s*:\s*\[""", text):
            raise BadFile("it holds a structured array; save its fields as arrays of their own")
        raise _damaged("the header of an array cannot be read")
    parts = [part.strip().removesuffix("L") for part in found["shape"].split(",")]
    if parts[-1] == "" and (len(parts) > 1 or found["shape"].strip() == ""):
        parts.pop()
    elif len(parts) == 1:
        raise _damaged("the shape of an array is not a tuple")
    if not all(part.isdigit() and len(part) < 20 for part in parts):
        raise _damaged("the shape of an array cannot be read")
    return found["descr"], tuple(map(int, parts)), found["fortran_order"] == "True"


def _array(stream: Any, size: int) -> np.ndarray:
    dtype, shape, fortran = _array_header(stream, size)
    array = np.empty(shape[::-1] if fortran else shape, dtype)
    view, at = memory(array), 0
    while at < len(view):
        chunk = stream.read(min(_CHUNK, len(view) - at))
        if not chunk:
            raise _damaged("an array ends too early")
        view[at : at + len(chunk)] = chunk
        at += len(chunk)
    if stream.read(1):  # at its end a member's checksum has been compared
        raise _damaged("an array is too long")
    return array.T if fortran else array


def memory(array: np.ndarray) -> memoryview:
    """The bytes of a C-contiguous array."""
    return array.reshape(-1).view(np.uint8).data


def _shown(shape: tuple[int, ...]) -> str:
    text = str(shape)
    return text if len(text) <= 80 else f"{text[:80]}..."


# ---- writing -------------------------------------------------------------------------------------
# Not by zipfile: an interrupt in the middle of it comes out as a ValueError of its clean-up.  All members are
# stored, and all sizes are written as 64 bits, so there is one layout and no limit.
_VERSION = 45  # of the format: the first with 64-bit sizes
_DATE = 0x21  # 1 January 1980: the same content gives the same file
_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_END = struct.Struct("<4s4H2LH")
_ALL = 0xFFFFFFFF  # "see the 64-bit field"


def write_npz(file: BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as `numpy.savez` does, for `numpy.load` and `NpzReader`.

    Parameters
    ----------
    file : binary file, open for writing, at its start
    arrays : mapping of str to array
        Numbers or text; ValueError for Python objects.
    """
    directory: list[bytes] = []
    offset = 0
    for name, given in arrays.items():
        array = np.asarray(given, order="C")
        if array.dtype.hasobject:
            raise ValueError(f"array {name!r} holds Python objects, which are not written")
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(array))
        start, values = head.getvalue(), memory(array)
        crc, size = zlib.crc32(values, zlib.crc32(start)), len(start) + len(values)
        member = f"{name}.npy".encode()
        flags = 0 if member.isascii() else 0x800  # the name is UTF-8
        sizes = struct.pack("<2H2Q", 1, 16, size, size)
        place = struct.pack("<2H3Q", 1, 24, size, size, offset)
        common = (flags, 0, 0, _DATE, crc, _ALL, _ALL, len(member))
        local = _LOCAL.pack(b"PK\3\4", _VERSION, *common, len(sizes)) + member + sizes
        directory.append(
            _CENTRAL.pack(b"PK\1\2", _VERSION, _VERSION, *common, len(place), 0, 0, 0, 0, _ALL)
            + member
            + place
        )
        for part in (local, start, values):
            file.write(part)
        offset += len(local) + size
    length, count = sum(map(len, directory)), len(directory)
    end64 = _END64.pack(b"PK\6\6", 44, _VERSION, _VERSION, 0, 0, count, count, length, offset)
    locator = _LOCATOR.pack(b"PK\6\7", 0, offset + length, 1)
    end = _END.pack(b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, _ALL, _ALL, 0)
    for part in (*directory, end64, locator, end):
        file.write(part)
