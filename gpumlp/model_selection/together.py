"""What scikit-learn hands to joblib is done here: all fits of networks side by side, anything else as usual.

scikit-learn's searches give joblib one call of `_fit_and_score` for each candidate and fold.  Which executor
of joblib's does them is up to the one who calls the search; this one waits until it has all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from joblib import Parallel, parallel_config
from joblib.parallel import ParallelBackendBase, get_active_backend
from sklearn.base import clone

from gpumlp.backends.arrays import device_of, is_cuda
from gpumlp.estimators.members import FitMember, InOrder, draws_from_numpy
from gpumlp.estimators.stacked import StackedFits
from gpumlp.model_selection.cluster import check_client, on_cluster
from gpumlp.model_selection.race import Race
from gpumlp.model_selection.tasks import Fold, Head, Task, network_of
from gpumlp.training.members import train
from gpumlp.training.progress import Progress

__all__ = ["side_by_side"]


@contextmanager
def side_by_side(
    estimator: Any, n_jobs: int | None, race: Race | None = None, client: Any = None
) -> Iterator[None]:
    """Inside, what scikit-learn gives to joblib is done by this module, if `estimator` is or ends in one of
    this package's, or if there is a `client` of a cluster.  With a `race`, all candidates must be of this
    kind."""
    if client is not None:
        check_client(client)
        if race is not None:
            raise ValueError("halving compares candidates in one process: leave out client=, or halving=")
    elif race is None and network_of(estimator) is None:
        yield
        return
    with parallel_config(backend=Together(n_jobs, race, client)):
        yield


class _Job:
    """What joblib asks for the results of a batch."""

    def __init__(self, together: Together, calls: list[tuple], callback: Callable | None) -> None:
        self.calls, self._together, self._callback = calls, together, callback
        self.results: list[Any] | None = None

    def get(self, timeout: float | None = None) -> list[Any]:
        """The results, when all batches have been done."""
        if self.results is None:
            self._together.run()
        if self._callback is not None:
            self._callback(None)
        assert self.results is not None
        return self.results


class Together(ParallelBackendBase):
    """An executor for joblib that does all calls when the first result is asked for.

    Parameters
    ----------
    n_jobs : int or None
        For the calls that are not fits of networks: they go to the executor that was active before.
    race : Race or None
        Lets fits end early.
    client : distributed.Client or None
        Of a cluster that does the calls.
    """

    supports_sharedmem = uses_threads = True

    def __init__(self, n_jobs: int | None = None, race: Race | None = None, client: Any = None) -> None:
        super().__init__()
        self._race, self._client = race, client
        self._outer, jobs = get_active_backend()
        self._n_jobs = jobs if n_jobs is None else n_jobs
        self._jobs: list[_Job] = []

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """As if two: joblib would do the calls of one itself."""
        return 2

    def configure(self, n_jobs: int | None = 1, parallel: Any = None, **_: Any) -> int:
        """Called by joblib before it hands over calls."""
        self.parallel, parallel.pre_dispatch = parallel, "all"
        return self.effective_n_jobs(n_jobs)

    def submit(self, func: Any, callback: Callable | None = None) -> _Job:
        """Take a batch of calls."""
        self._jobs.append(_Job(self, list(func.items), callback))
        return self._jobs[-1]

    apply_async = submit  # the name that older versions of joblib call

    def run(self) -> None:
        """Do all calls that have been taken."""
        jobs, self._jobs = self._jobs, []
        calls = [call for job in jobs for call in job.calls]
        with parallel_config(backend=self._outer):
            if self._client is not None:
                results = iter(on_cluster(self._client, calls, _run, self._n_jobs))
            else:
                results = iter(_run(calls, self._n_jobs, self._race))
        for job in jobs:
            job.results = [next(results) for _ in job.calls]


def _run(calls: list[tuple], n_jobs: int | None, race: Race | None = None) -> list[Any]:
    """The results of calls (function, args, kwargs)."""
    tasks = list(_tasks(calls))
    others = [call for call, task in zip(calls, tasks, strict=True) if task is None]
    if race is not None and others:
        raise ValueError(
            "halving needs candidates that are, or end in, MLPClassifier or MLPRegressor of gpumlp, and rows"
            f" on the host; got {others[0][1][0]} and X on {device_of(others[0][1][1])}"
        )
    _fit([task for task in tasks if task is not None], race)
    answers = iter(Parallel(n_jobs=n_jobs)(others))
    return [next(answers) if task is None else task.result for task in tasks]


def _tasks(calls: list[tuple]) -> Iterator[Task | None]:
    """For each call the task that it is; None if it is not a fit of a network on the host's rows."""
    folds: dict[Any, Fold] = {}
    heads: dict[Any, Head] = {}
    for function, args, kwargs in calls:
        est, X, y = args
        if parameters := kwargs.get("parameters"):
            est.set_params(**clone(parameters, safe=False))
        if network_of(est) is None or is_cuda(X) or is_cuda(y):
            yield None
            continue
        fold, head = folds.setdefault(id(kwargs["train"]), Fold()), None
        if network_of(est) is not est:
            last = f"{est.steps[-1][0]}__"
            settings = [
                (name, _identity(value))
                for name, value in (parameters or {}).items()
                if not name.startswith(last)
            ]
            head = heads.setdefault((fold, *sorted(settings)), Head())
        yield Task(function, args, kwargs, fold, head)


def _identity(value: Any) -> Any:
    """Equal for values that are the same setting."""
    if isinstance(value, (str, bytes, int, float, np.generic, type(None))):
        return type(value).__name__, repr(value)
    return "object", str(id(value))


def _fit(tasks: list[Task], race: Race | None) -> None:
    """All fits, and their results."""
    members: list[Any] = [_member(task) for task in tasks]
    ordered = [member for member in members if draws_from_numpy(member.est)]
    jobs: list[Any] = [member for member in members if member not in ordered]
    if on_cuda := [member for member in jobs if member.on_cuda]:
        jobs = [StackedFits(on_cuda), *(member for member in jobs if member not in on_cuda)]
    if ordered:
        jobs.append(InOrder(ordered))
    with Progress(0, False) as bar:
        if race is None:
            train(members, bar, jobs=jobs)
        else:
            train(members, bar, race.start(tasks, members), race.cut, jobs)
            race.end()


def _member(task: Task) -> FitMember:
    return FitMember(
        network_of(task.estimator),
        task.arguments,
        lambda member: task.end(member.failure, member.seconds),
        task.n_rows,
        task.n_features,
    )
