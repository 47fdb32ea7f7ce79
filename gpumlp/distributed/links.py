"""`LinkCommunicator`: arrays of the CPU over TCP, a connection between any two ranks.

For ranks that live in processes of others, such as Dask's workers: they are told where the others are, and
nothing that happens to a rank ends its process.  If one leaves, the calls of the others raise a `RankError`.
"""

from __future__ import annotations

import hmac
import json
import select
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from gpumlp.distributed.communicator import Communicator, add_into
from gpumlp.distributed.failure import RankError
from gpumlp.distributed.nccl import NCCLCommunicator
from gpumlp.distributed.wire import decode, encode, ready, receive, send

__all__ = ["LinkCommunicator"]

_HELLO = b"L"
_LENGTH = struct.Struct("<q")
_LOOK = 1.0  # seconds between two looks at whether it has been ended


class LinkCommunicator(Communicator):
    """Ranks with a connection between any two; arrays on CUDA devices go over NCCL, see `on`.

    Parameters
    ----------
    rank : int
    names : sequence of str
        What the ranks are called in messages; one for each.
    local_rank : int
    server : socket.socket
        Of this rank, listening; it is closed.
    addresses : sequence of (str, int)
        Where the ranks listen.
    token : str
        Known to the ranks of this job only.
    """

    ends_processes = False

    def __init__(
        self,
        rank: int,
        names: Sequence[str],
        local_rank: int,
        server: socket.socket,
        addresses: Sequence[tuple[str, int]],
        token: str,
    ) -> None:
        self.rank, self.size, self.local_rank = rank, len(names), local_rank
        self._names, self._addresses, self._token = names, addresses, token
        self._server = server
        self._links: dict[int, socket.socket] = {}
        self._on_devices: dict[str, NCCLCommunicator] = {}
        self._reason: str | None = None

    def meet(self, timeout: float = 60.0) -> None:
        """Connect to the others, before anything else.

        Raises
        ------
        RankError
            Not all of them came within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        try:
            for other in range(self.rank):
                self._connect(other, self._addresses[other], deadline)
            with self._server as server:
                self._accept(server, deadline)
        except OSError as error:
            self.check()
            missing = [self._names[other] for other in self._others() if other not in self._links]
            raise RankError(
                f"{', '.join(missing)} did not come within {timeout:g} s ({error}); busy with something "
                "else, or behind a firewall?"
            ) from error
        for link in self._links.values():
            ready(link).setblocking(False)
            link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def _hello(self) -> bytes:
        return json.dumps([self._token, self.rank]).encode()

    def _check(self, link: socket.socket, deadline: float) -> int:
        """The rank at the other end; ValueError if it is none of this job."""
        link.settimeout(max(0.01, deadline - time.monotonic()))
        kind, data = receive(link)
        token, other = json.loads(data)
        if kind != _HELLO or not hmac.compare_digest(str(token), self._token):
            raise ValueError("not a rank of this job")
        return int(other)

    def _connect(self, other: int, address: tuple[str, int], deadline: float) -> None:
        link = socket.create_connection(address, timeout=max(0.01, deadline - time.monotonic()))
        self._links[other] = link
        try:
            send(link, _HELLO, self._hello())
            if self._check(link, deadline) != other:
                raise ValueError("another rank")
        except (OSError, ValueError) as error:
            self._links.pop(other).close()
            raise OSError(f"{address[0]}:{address[1]}: {error}") from error

    def _accept(self, server: socket.socket, deadline: float) -> None:
        while len(self._links) < self.size - 1:
            server.settimeout(max(0.01, deadline - time.monotonic()))
            link, _ = server.accept()
            try:
                other = self._check(link, min(deadline, time.monotonic() + 2))
                if not self.rank < other < self.size or other in self._links:
                    raise ValueError
                send(link, _HELLO, self._hello())
            except (OSError, ValueError):  # somebody else
                link.close()
                continue
            self._links[other] = link

    # ---- the end -----------------------------------------------
    def end(self, reason: str) -> None:
        """Calls of this rank, those that wait now included, raise a `RankError` with this reason; from any
        thread."""
        if self._reason is None:
            self._reason = reason
        for link in (self._server, *self._links.values()):
            with suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
        for communicator in list(self._on_devices.values()):
            communicator.break_off()

    def check(self) -> None:
        """RankError if this has been ended."""
        if self._reason is not None:
            raise RankError(self._reason)

    def abort(self, reason: str) -> None:
        """See `Communicator`: the others' calls raise, and no process ends."""
        self.end(reason)

    def close(self) -> None:
        """Close all connections."""
        for link in (self._server, *self._links.values()):
            link.close()

    # ---- what is exchanged -----------------------------------------------
    def on(self, backend: Any) -> Communicator:
        """This one for the CPU; for a CUDA device one over NCCL, made by all ranks at the first call."""
        if backend.name != "cuda":
            return self
        if backend.device not in self._on_devices:
            self._on_devices[backend.device] = NCCLCommunicator(self, backend)
        return self._on_devices[backend.device]

    def _exchange(self, out: Mapping[int, Any], into: Mapping[int, Any]) -> None:
        """Send the buffers `out` to ranks, and fill those of `into` from ranks, all at the same time."""
        out = {rank: memoryview(view) for rank, view in out.items() if len(view)}
        into = {rank: memoryview(view) for rank, view in into.items() if len(view)}
        while out or into:
            moved = False
            for views, move in ((out, socket.socket.send), (into, socket.socket.recv_into)):
                for rank in list(views):
                    try:
                        n = move(self._links[rank], views[rank])
                    except BlockingIOError:
                        continue
                    except OSError as error:
                        raise self._gone(rank) from error
                    if n == 0:
                        raise self._gone(rank)
                    moved = True
                    views[rank] = views[rank][n:]
                    if not views[rank]:
                        del views[rank]
            if not moved:
                self._wait(out, into)

    def _wait(self, out: Mapping[int, Any], into: Mapping[int, Any]) -> None:
        """Until something can be sent or received."""
        self.check()
        poll = select.poll()
        for rank in {*out, *into}:
            events = (select.POLLOUT if rank in out else 0) | (select.POLLIN if rank in into else 0)
            poll.register(self._links[rank], events)
        poll.poll(_LOOK * 1000)

    def _gone(self, rank: int) -> RankError:
        self.check()
        return RankError(f"{self._names[rank]} has left the training")

    def _others(self) -> list[int]:
        return [rank for rank in range(self.size) if rank != self.rank]

    def gather(self, value: Any) -> list[Any]:
        """See `Communicator`."""
        self.check()
        own = encode(value)
        lengths = {rank: bytearray(_LENGTH.size) for rank in self._others()}
        self._exchange(dict.fromkeys(lengths, _LENGTH.pack(len(own))), lengths)
        answers = {rank: bytearray(_LENGTH.unpack(length)[0]) for rank, length in lengths.items()}
        self._exchange(dict.fromkeys(answers, own), answers)
        return [decode(own if rank == self.rank else bytes(answers[rank])) for rank in range(self.size)]

    def all_reduce(self, buffer: np.ndarray, into: Any = None) -> None:
        """See `Communicator`: added in the order of the ranks."""
        parts = np.empty((self.size, *buffer.shape), buffer.dtype)
        self.all_gather(buffer, parts)
        total = buffer if into is None else into
        total[...] = parts[0]
        for part in parts[1:]:
            add_into(total, part)

    def all_gather(self, part: np.ndarray, out: np.ndarray) -> None:
        """See `Communicator`."""
        out[self.rank] = part
        view = _bytes(out[self.rank])
        self._exchange(
            dict.fromkeys(self._others(), view), {rank: _bytes(out[rank]) for rank in self._others()}
        )

    def all_to_all(self, send: Sequence[np.ndarray], receive: Sequence[np.ndarray]) -> None:
        """See `Communicator`."""
        receive[self.rank][...] = send[self.rank]
        others = self._others()
        out = {rank: _bytes(np.ascontiguousarray(send[rank])) for rank in others}
        self._exchange(out, {rank: _bytes(receive[rank]) for rank in others})

    def broadcast(self, buffer: np.ndarray, root: int = 0) -> None:
        """See `Communicator`."""
        view = _bytes(buffer)
        if self.rank == root:
            self._exchange(dict.fromkeys(self._others(), view), {})
        else:
            self._exchange({}, {root: view})

    @property
    def doubles(self) -> bool:
        """See `Communicator`: for 2, 4, 8, ... ranks."""
        return self.size & (self.size - 1) == 0

    def add_doubling(self, buffer: np.ndarray, scratch: np.ndarray) -> None:
        """See `Communicator`: ranks exchange with neighbours 1, 2, 4, ... away, and add."""
        bit = 1
        while bit < self.size:
            partner = self.rank ^ bit
            self._exchange({partner: _bytes(buffer)}, {partner: _bytes(scratch)})
            add_into(buffer, scratch)
            bit *= 2


def _bytes(array: np.ndarray) -> np.ndarray:
    """Its memory, which is contiguous."""
    return array.reshape(-1).view(np.uint8)
