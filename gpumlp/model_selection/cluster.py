"""The fits of a search on the workers of a Dask cluster: each takes a share of them, side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sklearn.base import clone

from gpumlp.estimators.members import draws_from_numpy
from gpumlp.model_selection.tasks import network_of

__all__ = ["check_client", "clone_with_client", "on_cluster"]

#: does calls (function, args, kwargs), with a number of jobs
_Run = Callable[[list[tuple], int | None], list[Any]]


def check_client(client: Any) -> None:
    """TypeError unless `client` is one that can be waited for."""
    if not callable(getattr(client, "submit", None)) or not callable(getattr(client, "scatter", None)):
        raise TypeError(f"client={client!r}; expected a distributed.Client")
    if getattr(client, "asynchronous", False):
        raise TypeError("client is asynchronous; expected distributed.Client(..., asynchronous=False)")


def clone_with_client(search: Any) -> Any:
    """As `sklearn.base.clone`, but a client is shared."""
    params = search.get_params(deep=False)
    client = params.pop("client")
    return type(search)(**{name: clone(value, safe=False) for name, value in params.items()}, client=client)


def on_cluster(client: Any, calls: list[tuple], run: _Run, n_jobs: int | None) -> list[Any]:
    """What `run` returns for `calls` of `_fit_and_score`, each done on a worker.

    Fits that draw from the global generator of NumPy need that of this process, and stay here.
    """
    here = [n for n, call in enumerate(calls) if _stays(call)]
    away = [n for n in range(len(calls)) if n not in set(here)]
    results: dict[int, Any] = {}
    tasks = []
    try:
        if away:
            X, y = client.scatter([calls[away[0]][1][1], calls[away[0]][1][2]], broadcast=True, hash=False)
            workers = list(client.nthreads())
            if not workers:
                raise RuntimeError("the cluster has no workers; start some, or leave out client=")
            for k, worker in enumerate(workers):
                share = [_without_rows(calls[n]) for n in away[k :: len(workers)]]
                if share:
                    options = {"workers": [worker], "allow_other_workers": True, "pure": False}
                    tasks.append(client.submit(_share, run, share, n_jobs, X, y, **options))
        if here:
            results.update(zip(here, run([calls[n] for n in here], n_jobs), strict=True))
        for k, found in enumerate(client.gather(tasks)):
            results.update(zip(away[k :: len(workers)], found, strict=True))
    finally:
        for task in tasks:
            task.cancel()
    return [results[n] for n in range(len(calls))]


def _stays(call: tuple) -> bool:
    _, (est, *_), kwargs = call
    candidate = est
    if parameters := kwargs.get("parameters"):
        candidate = clone(est).set_params(**clone(parameters, safe=False))
    network = network_of(candidate)
    return network is not None and draws_from_numpy(network)


def _without_rows(call: tuple) -> tuple:
    function, (est, _, _), kwargs = call
    return function, est, kwargs


def _share(run: _Run, share: list[tuple], n_jobs: int | None, X: Any, y: Any) -> list[Any]:
    """In a worker."""
    return run([(function, (est, X, y), kwargs) for function, est, kwargs in share], n_jobs)
