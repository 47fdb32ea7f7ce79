"""Ways to damage a file, drawn from a seeded generator."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from gpumlp.files.npz import write_npz

#: what may stand where another value belongs
VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    1,
    2.5,
    1e308,
    -1e-300,
    10**30,
    10**400,
    float("nan"),
    float("inf"),
    "",
    "text",
    "x" * 5000,
    "\x1b[2J\r\n",
    "\ud800",
    "adam",
    "float64",
    "cosine",
    [],
    [1, 2],
    [[]],
    ["a"] * 3,
    {},
    {"name": "cosine", "options": {"steps": 10**30}},
    {"name": "warmup", "options": {"steps": 3, "after": {"name": "warmup", "options": {}}}},
]
_HEADS = [
    "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4, }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 99999999999), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (3,), }",
    "{'descr': '<U0', 'fortran_order': False, 'shape': (999999999999,), }",
    "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3,), }",
    "{'descr': '<f4', 'descr': '<f8', 'fortran_order': False, 'shape': (3,), }",
    "{'descr': '<f3', 'fortran_order': False, 'shape': (3,), }",
    "{'descr': '<f4', 'fortran_order': True, 'shape': 12, }",
    "{'shape': (-1,), 'fortran_order': False, 'descr': '<f4'}",
    "{'shape': (), 'fortran_order': None, 'descr': '<f4'}",
    "__import__('os').mkdir('exploded')",
    "{" * 5000,
    "",
]


def flip(data: bytes, bit: int) -> bytes:
    """One bit changed."""
    changed = bytearray(data)
    changed[bit >> 3] ^= 1 << (bit & 7)
    return bytes(changed)


def torn(data: bytes, draw: random.Random) -> bytes:
    """Cut off, with a hole of zeros, with a part twice or left out, or with garbage behind or inside."""
    i, j = sorted(draw.randrange(len(data) + 1) for _ in range(2))
    garbage = draw.randbytes(draw.randrange(1, 40))
    return draw.choice(
        [
            data[:i],
            data[i:],
            data[:i] + bytes(j - i) + data[j:],
            data[:j] + data[i:],
            data[:i] + data[j:],
            data + garbage,
            data[:i] + garbage + data[i + len(garbage) :],
        ]
    )


def mistyped(text: bytes, draw: random.Random) -> bytes:
    """A text file with a few characters changed, or lines lost, doubled or out of order."""
    pieces = [
        b",",
        b'"',
        b"\n",
        b"\r",
        b"\0",
        b"nan",
        b"1e999",
        b";",
        b"\xff",
        b"\xef\xbb\xbf",
        b"",
        b"\x1b[2J",
    ]
    for _ in range(draw.randrange(1, 4)):
        if draw.random() < 0.5:
            i = draw.randrange(len(text) + 1)
            text = text[:i] + draw.choice(pieces) + text[i + draw.randrange(2) :]
        else:
            lines = text.splitlines(True) or [b""]
            i, j = draw.randrange(len(lines)), draw.randrange(len(lines))
            lines[i], lines[j] = lines[j], draw.choice([b"", lines[i], lines[j]])
            text = b"".join(lines)
    return text


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """The way to every value in a JSON document."""
    if path:
        yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield from places(inner, (*path, key))


def with_value(data: bytes, draw: random.Random) -> bytes:
    """A model's file whose header has another value in one place, or lacks it; all checksums are right."""
    with np.load(io.BytesIO(data)) as archive:
        arrays = dict(archive)
    header = json.loads(arrays["header"].tobytes())
    *way, last = draw.choice(list(places(header)))
    inner = header
    for key in way:
        inner = inner[key]
    if draw.random() < 0.1:
        del inner[last]
    else:
        inner[last] = draw.choice(VALUES)
    text = json.dumps(header).encode()
    buffer = io.BytesIO()
    write_npz(buffer, {**arrays, "header": np.frombuffer(text, np.uint8)})
    return buffer.getvalue()


def with_head(data: bytes, draw: random.Random) -> bytes:
    """An archive with another header on one of its arrays, or another compression; checksums are right."""
    buffer = io.BytesIO()
    method = draw.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w", method) as new:
        chosen = draw.choice(old.namelist())
        for name in old.namelist():
            content = old.read(name)
            if name == chosen:
                text = draw.choice(_HEADS).encode() + b"\n"
                length = draw.choice([len(text), len(text), 0, 0xFFFF]).to_bytes(2, "little")
                content = (
                    draw.choice([b"\x93NUMPY\1\0", b"\x93NUMPY\3\0", b"PK"]) + length + text + content[128:]
                )
            new.writestr(name, content)
    return buffer.getvalue()
