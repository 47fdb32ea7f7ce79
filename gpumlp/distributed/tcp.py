"""`TCPCommunicator`: small objects between the ranks over TCP, for a launcher without MPI such as torchrun.

Rank 0 listens; all others have one connection, to it.  A thread of each rank reads: answers go to whoever
waits for them, and if another rank ends before it has said goodbye, this process ends as well, whatever it
waits for.
What is sent is JSON, so whoever reaches the port cannot make anything run here.
"""

from __future__ import annotations

import atexit
import json
import os
import queue
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any

from gpumlp.distributed.communicator import Communicator
from gpumlp.distributed.nccl import NCCLCommunicator
from gpumlp.distributed.wire import plain, ready, receive, send, value_of
from gpumlp.errors import DeviceError

__all__ = ["TCPCommunicator"]

_HELLO, _VALUE, _BYE, _ABORT = b"H", b"V", b"B", b"A"
_MAGIC = "gpumlp 1"
_PORTS = 16  # the launcher itself may listen on the port that it names
_GRACE = 0.5  # seconds in which the reason of an end may still arrive


class TCPCommunicator(Communicator):
    """Ranks that find each other at an address; their arrays move over NCCL only, see `on`.

    Parameters
    ----------
    rank, size, local_rank : int
    address : str
        Of the machine of rank 0.
    port : int
        There; the next ones are tried if it is taken.
    timeout : float
        Seconds to wait for the others to come.

    Raises
    ------
    gpumlp.DeviceError
        Not all ranks came in time.
    """

    def __init__(
        self, rank: int, size: int, local_rank: int, address: str, port: int, *, timeout: float = 60.0
    ) -> None:
        self.rank, self.size, self.local_rank = rank, size, local_rank
        self._links: dict[int, socket.socket] = {}
        self._inbox: dict[int, queue.Queue[bytes]] = {}
        self._gone: set[int] = set()
        self._on_devices: dict[str, NCCLCommunicator] = {}
        self._sending = threading.Lock()
        deadline = time.monotonic() + timeout
        try:
            self._listen(address, port, deadline) if rank == 0 else self._connect(address, port, deadline)
        except OSError as error:
            raise DeviceError(
                f"rank {rank} of {size}: the ranks did not find each other at {address}:{port} ({error})"
            ) from error
        for other in self._links:
            self._inbox[other] = queue.Queue()
            threading.Thread(target=self._read, args=(other,), daemon=True, name="gpumlp ranks").start()
        atexit.register(self._bye)

    def _listen(self, address: str, port: int, deadline: float) -> None:
        for each in range(port, port + _PORTS):
            try:
                server = socket.create_server((address, each), backlog=self.size)
                break
            except OSError:
                if each == port + _PORTS - 1:
                    raise
        with server:
            while len(self._links) < self.size - 1:
                server.settimeout(max(0.01, deadline - time.monotonic()))
                try:
                    link, _ = server.accept()
                except TimeoutError:
                    missing = sorted(set(range(1, self.size)) - set(self._links))
                    raise TimeoutError(f"ranks {missing} did not come") from None
                link.settimeout(2)
                try:
                    kind, data = receive(link)
                    magic, other, size = json.loads(data)
                    if (kind, magic, size) != (_HELLO, _MAGIC, self.size) or other in self._links:
                        raise ValueError
                    send(link, _HELLO, json.dumps([_MAGIC, 0, self.size]).encode())
                except (OSError, ValueError):  # somebody else
                    link.close()
                    continue
                self._links[int(other)] = ready(link)

    def _connect(self, address: str, port: int, deadline: float) -> None:
        while True:
            for each in range(port, port + _PORTS):
                try:
                    link = socket.create_connection((address, each), timeout=2)
                except OSError:
                    continue
                try:
                    send(link, _HELLO, json.dumps([_MAGIC, self.rank, self.size]).encode())
                    kind, data = receive(link)
                    if (kind, json.loads(data)) == (_HELLO, [_MAGIC, 0, self.size]):
                        self._links[0] = ready(link)
                        return
                except (OSError, ValueError):
                    pass
                link.close()
            if time.monotonic() > deadline:
                raise TimeoutError("rank 0 does not answer")
            time.sleep(0.05)

    def _read(self, other: int) -> None:
        try:
            while True:
                kind, data = receive(self._links[other])
                if kind == _VALUE:
                    self._inbox[other].put(data)
                elif kind == _BYE:
                    self._gone.add(other)
                    self._inbox[other].put(b"")
                    return
                else:
                    self._end(data.decode(errors="replace"), others=self.rank == 0)
        except (OSError, ValueError):
            if self.rank == 0:
                self._say(f"rank {other} has died")
                self._end(f"rank {other} has died", others=True)
            time.sleep(_GRACE)
            self._end("")

    def _end(self, reason: str, others: bool = False) -> None:
        if others:
            for link in self._links.values():
                try:
                    send(link, _ABORT, reason.encode())
                except OSError:
                    continue
        os._exit(1)

    def _bye(self) -> None:
        for link in self._links.values():
            try:
                with self._sending:
                    send(link, _BYE, b"")
            except OSError:
                continue

    def on(self, backend: Any) -> Communicator:
        """Over NCCL for a CUDA device, made by all ranks at the first call; DeviceError for the CPU."""
        if backend.name != "cuda":
            raise DeviceError(
                "ranks that were started without MPI move arrays of CUDA devices only, over NCCL; for "
                "the CPU start the program with MPI: mpiexec -n 4 python script.py"
            )
        if backend.device not in self._on_devices:
            self._on_devices[backend.device] = NCCLCommunicator(self, backend)
        return self._on_devices[backend.device]

    def gather(self, value: Any) -> list[Any]:
        """See `Communicator`."""
        data = json.dumps(plain(value)).encode()
        if self.rank == 0:
            values = [data, *(self._take(other) for other in range(1, self.size))]
            data = b"[" + b",".join(values) + b"]"
        with self._sending:
            for link in self._links.values():
                send(link, _VALUE, data)
        return [value_of(each) for each in json.loads(data if self.rank == 0 else self._take(0))]

    def _take(self, other: int) -> bytes:
        data = self._inbox[other].get()
        if not data:
            raise RuntimeError(f"rank {other} has ended, and rank {self.rank} waits for it")
        return data

    def all_reduce(self, buffer: Any, into: Any = None) -> None:
        """Only `on` a device, as what follows."""
        raise self._no_arrays()

    def all_gather(self, part: Any, out: Any) -> None:
        """See `all_reduce`."""
        raise self._no_arrays()

    def all_to_all(self, send: Sequence[Any], receive: Sequence[Any]) -> None:
        """See `all_reduce`."""
        raise self._no_arrays()

    def broadcast(self, buffer: Any, root: int = 0) -> None:
        """See `all_reduce`."""
        raise self._no_arrays()

    @staticmethod
    def _no_arrays() -> TypeError:
        return TypeError("this communicator carries objects; its `on(backend)` moves arrays")

    def abort(self, reason: str) -> None:
        """See `Communicator`."""
        self._say(reason)
        self._end(reason, others=True)
