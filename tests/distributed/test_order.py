"""What reproducible training leaves to nobody: the order of sums, and the shapes of products."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from job import CASES, digest, train

import gpumlp
from gpumlp.distributed import Alone, Communicator
from gpumlp.distributed.mpi import MPICommunicator
from gpumlp.plans import Ranks
from gpumlp.rows import check_rows
from gpumlp.training.evaluation import ResidentEvaluation, own_places


def together(n: int, work: Callable[[int], Any]) -> list[Any]:
    """What `work` returns on each of `n` ranks, which are threads."""
    found: dict[int, Any] = {}
    threads = [threading.Thread(target=lambda r=r: found.update({r: work(r)}), daemon=True) for r in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == n, "a rank has failed or hangs"
    return [found[rank] for rank in range(n)]


class Ring(Communicator):
    """Ranks in threads, whose own sum adds from the last rank to the first."""

    def __init__(self, rank: int, shared: list[Any], barrier: threading.Barrier) -> None:
        self.rank, self.size, self.local_rank = rank, len(shared), 0
        self.shared, self.waiting = shared, barrier

    def gather(self, value: Any) -> list[Any]:
        self.shared[self.rank] = value
        self.waiting.wait(60)
        found = list(self.shared)
        self.waiting.wait(60)
        return found

    def all_reduce(self, buffer: Any, into: Any = None) -> None:
        parts = self.gather(buffer.copy())
        total = parts[-1]
        for part in parts[-2::-1]:
            total = total + part
        (buffer if into is None else into)[...] = total

    def all_gather(self, part: Any, out: Any) -> None:
        out[...] = np.stack(self.gather(part.copy()))

    def all_to_all(self, send: Any, receive: Any) -> None:
        for rank, parts in enumerate(self.gather([part.copy() for part in send])):
            receive[rank][...] = parts[self.rank]

    def broadcast(self, buffer: Any, root: int = 0) -> None:
        buffer[...] = self.gather(buffer.copy())[root]

    def abort(self, reason: str) -> None:
        self.waiting.abort()


def rings(n: int) -> list[Ring]:
    shared, barrier = [None] * n, threading.Barrier(n)
    return [Ring(rank, shared, barrier) for rank in range(n)]


@pytest.mark.parametrize("n", [3, 4])
def test_training_does_not_use_the_sum_of_the_library(n: int) -> None:
    ranks, case = rings(n), CASES["dropout, clipping, weights"]
    alone = digest(train("numpy", Alone(), **case))
    assert together(n, lambda r: digest(train("numpy", ranks[r], **case))) == [alone] * n
    plain = together(n, lambda r: digest(train("numpy", ranks[r], reproducible=False, **case)))
    assert len(set(plain)) == 1 and plain[0] != alone  # that sum would be noticed


class Comm:
    """Of MPI, with the sum of `Ring`."""

    def __init__(self, ring: Ring, mail: list[queue.Queue[Any]]) -> None:
        self.ring, self.mail = ring, mail

    def Sendrecv(self, send: Any, to: int, tag: int, receive: Any, source: int, again: int) -> None:
        self.mail[to].put(send.copy())
        receive[...] = self.mail[self.ring.rank].get(timeout=60)
        self.ring.barrier()

    def Allreduce(self, place: Any, buffer: Any) -> None:
        self.ring.all_reduce(buffer)


class Doubling(MPICommunicator):
    def __init__(self, comm: Comm) -> None:
        self.rank, self.size, self.comm = comm.ring.rank, comm.ring.size, comm

    def begin(self) -> None:
        pass


def test_doubling_adds_in_a_tree() -> None:
    """Not as the MPI library adds, whatever that has in common with the tree here."""
    pytest.importorskip("mpi4py")
    ranks, mail = rings(4), [queue.Queue[Any]() for _ in range(4)]
    parts = [np.random.default_rng(rank).normal(size=1001).astype(np.float32) for rank in range(4)]

    def work(rank: int) -> bytes:
        buffer = parts[rank].copy()
        Doubling(Comm(ranks[rank], mail)).add_doubling(buffer, np.empty_like(buffer))
        return buffer.tobytes()

    expected = (parts[0] + parts[1]) + (parts[2] + parts[3])
    assert together(4, work) == [expected.tobytes()] * 4
    other = parts[3] + parts[2] + parts[1] + parts[0]
    assert (other != expected).any()


@pytest.mark.parametrize("n", [1001, 13, 3])
def test_an_evaluation_has_the_same_products_on_any_number_of_ranks(n: int) -> None:
    model = gpumlp.MLP([2, 3], device="cpu")
    trainer = gpumlp.Trainer(model, loss="softmax_cross_entropy", optimizer="sgd")
    rows = check_rows(model, trainer.loss, np.zeros((n, 2)), np.zeros(n, int))
    chunk = -(-n // 8)
    for size in (1, 2, 3, 4, 8):
        end = 0
        for rank in range(size):
            alone = Alone()
            alone.rank, alone.size = rank, size
            network, sums = trainer.engine.network, np.zeros(2, np.float32)
            ranks = Ranks(alone, True, network)
            made = ResidentEvaluation(network, trainer.objective, rows, sums, ranks=ranks)
            start, stop = own_places(network, n, ranks, rank)
            if made.chunks:
                assert start == end and start % chunk == 0 and made.chunks == -(-(stop - start) // chunk)
                end = stop
        assert end == n
