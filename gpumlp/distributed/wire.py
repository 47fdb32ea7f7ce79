"""Messages over a socket: bytes with a kind and a length; objects as JSON, which makes nothing run."""

from __future__ import annotations

import base64
import json
import socket
import struct
from typing import Any

import numpy as np

__all__ = ["decode", "encode", "exactly", "plain", "ready", "receive", "send", "value_of"]

_MOST_BYTES = 1 << 33


def encode(value: Any) -> bytes:
    """`value` as text: None, numbers, strings, bytes, NumPy arrays, and lists and dicts of them."""
    return json.dumps(plain(value)).encode()


def decode(data: bytes) -> Any:
    """What `encode` was given; tuples come back as lists."""
    return value_of(json.loads(data))


def ready(link: socket.socket) -> socket.socket:
    """`link`, without a time-out, for small messages that must not wait."""
    link.settimeout(None)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return link


def send(link: socket.socket, kind: bytes, data: bytes) -> None:
    """One message; `kind` is one byte."""
    link.sendall(kind + struct.pack("<q", len(data)) + data)


def receive(link: socket.socket) -> tuple[bytes, bytes]:
    """The next message: (kind, data)."""
    kind, size = struct.unpack("<cq", exactly(link, 9))
    if not 0 <= size <= _MOST_BYTES:
        raise ValueError(f"a message of {size} bytes")
    return kind, exactly(link, size)


def exactly(link: socket.socket, size: int) -> bytes:
    """The next `size` bytes."""
    parts = bytearray()
    while len(parts) < size:
        part = link.recv(min(1 << 20, size - len(parts)))
        if not part:
            raise ConnectionError("closed")
        parts += part
    return bytes(parts)


def plain(value: Any) -> Any:
    """`value` in what JSON has; see `value_of`."""
    if isinstance(value, np.ndarray):
        return {"array": [value.dtype.str, list(value.shape), base64.b64encode(value.tobytes()).decode()]}
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {"dict": [[plain(k), plain(v)] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value


def value_of(plain: Any) -> Any:
    """What `plain` was given; tuples are lists now."""
    if isinstance(plain, list):
        return [value_of(each) for each in plain]
    if not isinstance(plain, dict):
        return plain
    ((kind, held),) = plain.items()
    if kind == "array":
        return np.frombuffer(base64.b64decode(held[2]), np.dtype(held[0])).reshape(held[1]).copy()
    return base64.b64decode(held) if kind == "bytes" else {value_of(k): value_of(v) for k, v in held}
