"""A training on a cluster, from the client: where the rows are, the ranks, and their end."""

from __future__ import annotations

import time
import uuid
import warnings
from contextlib import suppress
from typing import Any

from distributed import Client, Future, default_client, wait

from gpumlp.dask.worker import Plan, Summary, end_seat, open_seat, summary, train_rank
from gpumlp.distributed import RankError
from gpumlp.errors import DeviceError, DivergenceError

__all__ = ["Placed", "get_client", "place", "train"]

_LOOK = 0.5  # seconds between two looks at whether the workers are there
_TELL = 3.0  # seconds in which the others' reasons may still arrive
_SAME = (ValueError, TypeError, DeviceError, DivergenceError)


def get_client(client: Any) -> Client:
    """`client`, or that of this process."""
    if client is None:
        try:
            client = default_client()
        except ValueError:
            raise ValueError(
                "there is no Dask client: make one first, client = distributed.Client(), or give client="
            ) from None
    if not isinstance(client, Client):
        raise TypeError(f"client={client!r}; expected a distributed.Client")
    if client.asynchronous:
        raise TypeError("client is asynchronous; expected distributed.Client(..., asynchronous=False)")
    return client


class Placed:
    """Partitions in the memory of workers.

    Parameters
    ----------
    futures : list of Future
        Of partitions with rows, in order.
    summaries : list of Summary
    """

    def __init__(self, client: Client, futures: list[Future], summaries: list[Summary]) -> None:
        kept = [n for n, found in enumerate(summaries) if found.rows]
        self.futures = [futures[n] for n in kept]
        self.summaries = [summaries[n] for n in kept]
        self.starts, total = [], 0
        for found in self.summaries:
            self.starts.append(total)
            total += found.rows
        self.n_rows = total
        who = client.who_has(self.futures)
        #: worker -> numbers of its partitions, in the order of their first ones
        self.holders: dict[str, list[int]] = {}
        for number, future in enumerate(self.futures):
            holder = sorted(who.get(future.key, ()))
            if not holder:
                raise RankError(
                    f"partition {number} of the rows has been lost: its worker has gone; try again"
                )
            self.holders.setdefault(holder[0], []).append(number)


def place(client: Client, parts: list[Any], labels: bool) -> Placed:
    """Compute the partitions, where Dask does it, and look at them."""
    futures = client.compute(parts)
    tasks = [client.submit(summary, n, f, labels, pure=False) for n, f in enumerate(futures)]
    wait(tasks)
    for task in tasks:  # the first partition that has something wrong
        if task.status == "error":
            task.result()
    return Placed(client, futures, client.gather(tasks))


def train(client: Client, placed: Placed, plan: Plan) -> Any:
    """What rank 0 returns: (network, history).

    Raises
    ------
    RankError
        A worker has died, or did not come.
    ValueError, TypeError, gpumlp.DeviceError, gpumlp.DivergenceError
        A rank's error, with the name of its worker.
    """
    token, workers = uuid.uuid4().hex, list(placed.holders)
    names = [f"rank {rank} of {len(workers)} ({worker})" for rank, worker in enumerate(workers)]
    if len(workers) > 1 and any(worker.startswith("tls") for worker in workers):
        warnings.warn(
            "the cluster uses TLS, but gradients and rows move between its workers unencrypted",
            stacklevel=3,
        )
    tasks: list[Future] = []
    reason = "the client has ended the training"
    try:
        seats = client.run(open_seat, token, workers=workers)
        addresses = [seats[worker] for worker in workers]
        for rank, (worker, numbers) in enumerate(placed.holders.items()):
            parts, starts = [placed.futures[n] for n in numbers], [placed.starts[n] for n in numbers]
            given = (token, rank, names, addresses, plan, parts, starts)
            options = {"workers": [worker], "allow_other_workers": False, "pure": False, "retries": 0}
            tasks.append(client.submit(train_rank, *given, **options, key=f"gpumlp-{token}-{rank}"))
        _watch(client, tasks, workers, names)
        return tasks[0].result()
    except BaseException as error:
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise
    finally:
        _leave(client, token, reason, tasks, workers)


def _leave(client: Client, token: str, reason: str, tasks: list[Future], workers: list[str]) -> None:
    """No rank waits for another any more."""
    if client.status != "running":
        return
    unfinished = [task for task in tasks if not task.done()]
    if unfinished:
        client.cancel(unfinished, force=True)
    there = [worker for worker in workers if worker in client.nthreads()]
    if there:
        with suppress(OSError):
            client.run(end_seat, token, reason, workers=there, on_error="ignore")


def _watch(client: Client, tasks: list[Future], workers: list[str], names: list[str]) -> None:
    """Wait for all tasks; raises what went wrong first."""
    gone: float | None = None  # since when something is wrong
    while True:
        waiting = [task for task in tasks if not task.done()]
        failed = [n for n, task in enumerate(tasks) if task.done() and task.status != "finished"]
        if not waiting and not failed:
            return
        there = client.nthreads() if client.status == "running" else dict.fromkeys(workers)
        lost = [n for n, task in enumerate(tasks) if workers[n] not in there and task in waiting]
        errors = {n: _error(tasks[n]) for n in failed}
        own = [n for n, error in errors.items() if not isinstance(error, RankError)]
        if failed or lost:
            gone = gone or time.monotonic()
            if own or lost or not waiting or time.monotonic() - gone > _TELL:
                _raise(names, errors, own, lost)
        with suppress(TimeoutError):
            wait(waiting, timeout=_LOOK if not gone else _LOOK / 5, return_when="FIRST_COMPLETED")


def _error(task: Future) -> BaseException:
    if task.status != "error":
        return RankError(f"its task was {task.status}")
    error = task.exception()
    return error if isinstance(error, BaseException) else RuntimeError(str(error))


def _raise(names: list[str], errors: dict[int, BaseException], own: list[int], lost: list[int]) -> None:
    """One error for all: the first that is not about another rank."""
    if own:
        error = errors[own[0]]
        if type(error) in _SAME:
            raise type(error)(f"{names[own[0]]}: {error}") from error
        raise RankError(f"{names[own[0]]}: {type(error).__name__}: {error}") from error
    if lost:
        raise RankError(
            f"{names[lost[0]]} has died while it trained (was it out of memory?), and its rows are lost; "
            "call fit again, on what is left of the cluster"
        )
    rank, error = next(iter(errors.items()))
    raise RankError(f"{names[rank]}: {error}") from error
