"""Ranks that are linked over TCP and end no process: what they exchange, who leaves; rows with numbers."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import gpumlp
from gpumlp.distributed import Alone, RankError
from gpumlp.distributed.links import LinkCommunicator
from gpumlp.distributed.wire import send

TOKEN = "0123456789abcdef"


def ranks(n: int) -> list[LinkCommunicator]:
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    addresses = [server.getsockname() for server in servers]
    names = [f"rank {rank}" for rank in range(n)]
    return [LinkCommunicator(r, names, r, server, addresses, TOKEN) for r, server in enumerate(servers)]


def on_all(n: int, do: Callable[[LinkCommunicator], Any]) -> list[Any]:
    """What each of `n` ranks, threads of this process, returns or raises."""

    def run(communicator: LinkCommunicator) -> Any:
        try:
            communicator.meet(20)
            return do(communicator)
        except Exception as error:
            return error
        finally:
            communicator.close()

    with ThreadPoolExecutor(n) as threads:
        return list(threads.map(run, ranks(n)))


@pytest.mark.parametrize("n", [2, 3, 4])
def test_what_is_exchanged(n: int) -> None:
    size = 700_001  # more than the system buffers

    def do(communicator: LinkCommunicator) -> Any:
        rank = communicator.rank
        own = np.random.default_rng(rank).normal(size=size)
        gathered = communicator.gather({"rank": rank, "text": "x" * 10**6, "array": own[:3]})
        everything = np.empty((n, size))
        communicator.all_gather(own, everything)
        total, doubled = own.copy(), own.copy()
        communicator.all_reduce(total)
        if communicator.doubles:
            communicator.add_doubling(doubled, np.empty(size))
        parts = [np.full(rank + other, rank, np.int32) for other in range(n)]  # rank 0 has none for itself
        received = [np.empty(rank + other, np.int32) for other in range(n)]
        communicator.all_to_all(parts, received)
        word = np.array([rank == n - 1])
        communicator.broadcast(word, n - 1)
        return gathered, everything, total, doubled, received, word, communicator.doubles

    rows = [np.random.default_rng(rank).normal(size=size) for rank in range(n)]
    for rank, answer in enumerate(on_all(n, do)):
        gathered, everything, total, doubled, received, word, doubles = answer
        assert [each["rank"] for each in gathered] == list(range(n))
        assert all(np.array_equal(each["array"], row[:3]) for each, row in zip(gathered, rows, strict=True))
        assert np.array_equal(everything, rows)
        assert np.array_equal(total, sum(rows[1:], rows[0]))
        assert doubles == (n != 3)
        if doubles:
            tree = rows[0] + rows[1] if n == 2 else (rows[0] + rows[1]) + (rows[2] + rows[3])
            assert np.array_equal(doubled, tree)
        assert [each.tolist() for each in received] == [[other] * (rank + other) for other in range(n)]
        assert word.all()


def test_who_leaves_is_named() -> None:
    def do(communicator: LinkCommunicator) -> Any:
        if communicator.rank == 1:
            raise ValueError("mine")
        return communicator.gather(0)

    first, mine, other = on_all(3, do)
    assert isinstance(mine, ValueError)
    assert isinstance(first, RankError) and isinstance(other, RankError)
    assert "has left" in str(first)


def test_a_rank_can_be_ended_while_it_waits() -> None:
    def do(communicator: LinkCommunicator) -> Any:
        if communicator.rank == 1:
            threading.Timer(0.2, communicator.end, ["enough"]).start()
            return communicator.gather(0)  # rank 0 does not come
        time.sleep(1)
        return None

    start = time.monotonic()
    assert str(on_all(2, do)[1]) == "enough"
    assert time.monotonic() - start < 15


def test_who_does_not_come_is_named() -> None:
    first, second = ranks(2)
    with pytest.raises(RankError, match=r"rank 1 did not come within 0.3 s"):
        first.meet(0.3)
    first.close()
    with pytest.raises(RankError, match=r"rank 0 did not come"):
        second.meet(0.3)
    second.close()


@pytest.mark.parametrize("hello", [b"GET / HTTP/1.0\r\n\r\n", json.dumps(["another", 1]).encode()])
def test_strangers_are_turned_away(hello: bytes) -> None:
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    addresses = [server.getsockname() for server in servers]
    made = [LinkCommunicator(r, ["a", "b"], r, server, addresses, TOKEN) for r, server in enumerate(servers)]
    with socket.create_connection(addresses[0]) as stranger, ThreadPoolExecutor(2) as threads:
        send(stranger, b"L", hello)
        meetings = [threads.submit(each.meet, 20) for each in made]
        for meeting in meetings:
            meeting.result()
        assert [task.result() for task in [threads.submit(each.gather, 5) for each in made]] == [[5, 5]] * 2
    for each in made:
        each.close()


@pytest.mark.parametrize("n", [2, 3])
def test_rows_with_numbers(n: int) -> None:
    """The bits are those of one process that has the rows in the order of their numbers."""
    rng = np.random.default_rng(0)
    X, w = rng.normal(size=(203, 5)).astype(np.float32), rng.uniform(0.5, 2, 203)
    y = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)
    holders = rng.integers(0, n, 203)

    def fit(communicator: Any, numbers: np.ndarray, rows: Any) -> Any:
        model = gpumlp.MLP([5, 9, 3], dropout=0.2, seed=1, device="cpu")
        options = {"loss": "softmax_cross_entropy", "optimizer": "adam", "batch_size": 50, "seed": 2}
        trainer = gpumlp.Trainer(model, **options, communicator=communicator)
        options = {"epochs": 3, "validation": 0.2, "rows": rows, "progress": False}
        history = trainer.fit(X[numbers], y[numbers], sample_weight=w[numbers], **options)
        return model.flat.tobytes(), history.loss, history.val_loss, history.val_accuracy

    def do(communicator: LinkCommunicator) -> Any:
        own = np.flatnonzero(holders == communicator.rank)
        numbers = np.random.default_rng(communicator.rank).permutation(own)
        return fit(communicator, numbers, numbers)

    alone = fit(Alone(), np.arange(203), "replicated")
    assert on_all(n, do) == [alone] * n


@pytest.mark.parametrize(
    ("numbers", "message"),
    [(np.arange(1, 11), "0 is missing"), (np.arange(9), "shape"), (np.arange(10.0), "whole numbers")],
)
def test_wrong_numbers_of_rows(numbers: np.ndarray, message: str) -> None:
    trainer = gpumlp.Trainer(
        gpumlp.MLP([2, 1], device="cpu"), loss="squared_error", optimizer="adam", communicator=Alone()
    )
    with pytest.raises((ValueError, TypeError), match=message):
        trainer.fit(np.zeros((10, 2)), np.zeros(10), epochs=1, rows=numbers)
