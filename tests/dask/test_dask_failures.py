"""What goes wrong on a cluster ends in one error that says where and why; nothing waits for ever."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import clusters
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest

import gpumlp
from gpumlp.dask import DaskMLPClassifier, DaskMLPRegressor
from gpumlp.dask.job import train
from gpumlp.distributed import RankError

X, Y, _ = clusters.rows(400)
LIMIT = 30  # seconds; on an idle machine it is one or two


def array(x: Any) -> Any:
    return da.from_array(x, chunks=(100, *x.shape[1:]))


def endless(client: Any, **more: Any) -> Any:
    more = {"max_iter": 10**6, "tol": 0, "n_iter_no_change": 10**6, **more}
    return DaskMLPClassifier(client, **clusters.settings(**more))


def with_nan() -> np.ndarray:
    changed = X.copy()
    changed[250, 3] = np.nan
    return changed


@pytest.mark.parametrize(
    ("rows", "labels", "message"),
    [
        (X, array(Y), "X is a ndarray; expected a Dask array"),
        (array(X), array(Y[:300]), "X has 400 rows but y has 300"),
        (array(X), dd.from_pandas(pd.Series(Y), npartitions=3), "X has 4 partitions and y has 3"),
        (array(X), dd.from_pandas(pd.Series(Y[:360]), npartitions=4), "a partition of X has 100 rows"),
        (array(with_nan()), array(Y), r"partition 2: X contains nan \(row 50, column 3"),
        (array(np.full((400, 2), "text")), array(Y), "partition 0: X holds text"),
        (array(X), array(np.where(Y > 0, np.nan, Y)), "partition 0: y contains NaN"),
        (array(X), array(np.zeros(400)), "one class only"),
        (array(X), array(np.array([1, "a"] * 200, object)), "partition 0: y has labels that are text and"),
        (array(X), array(np.array([1, "a"], object).repeat(200)), "^y has labels that are text and"),
        (array(X[:, 0]), array(Y), r"X has shape \(400,\)"),
    ],
)
def test_rows_that_cannot_be_trained_on(client: Any, rows: Any, labels: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        DaskMLPClassifier(client, **clusters.settings()).fit(rows, labels)


def test_settings_that_cannot_be(client: Any) -> None:
    with pytest.raises(ValueError, match=r"rank . of 2 .*tcp://.*activation"):
        endless(client, activation="rellu").fit(array(X), array(Y))
    with pytest.raises(TypeError, match=r"expected a distributed.Client"):
        endless("localhost:8786").fit(array(X), array(Y))
    with pytest.raises(gpumlp.DivergenceError, match=r"rank . of 2 .*diverged"):
        DaskMLPRegressor(client, (5,), solver=gpumlp.SGD(lr=1e30), device="cpu").fit(array(X), array(X))


def test_a_worker_that_is_busy(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one waits for some time, then says so; afterwards both work."""
    busy = []

    def train_later(*given: Any) -> Any:
        busy.append(client.submit(time.sleep, 6, workers=sorted(client.nthreads())[:1], pure=False))
        return train(*given)

    with monkeypatch.context() as patch:
        patch.setattr("gpumlp.dask.estimators.train", train_later)
        with pytest.raises(RankError, match=r"did not come within 0.5 s"):
            endless(client, timeout=0.5).fit(array(X), array(Y))
    assert not busy[0].done()
    busy[0].result()
    assert endless(client, max_iter=1).fit(array(X), array(Y)).n_iter_ == 1


@pytest.fixture(scope="module")
def mortal() -> Iterator[Any]:
    """A client of a cluster that may be damaged."""
    with clusters.workers(2) as made:
        yield made


def in_training(client: Any, do: Any) -> threading.Thread:
    """Call `do` half a second after both workers have begun to train."""

    def wait() -> None:
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            if sum("gpumlp-" in key for keys in client.processing().values() for key in map(str, keys)) == 2:
                time.sleep(0.5)
                break
            time.sleep(0.05)
        do()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_an_exception_in_one_worker(mortal: Any) -> None:
    """The other one does not wait, and both train again afterwards."""
    address = sorted(mortal.nthreads())[1]

    def put(device: str) -> None:  # inside, to be sent by its text
        os.environ["GPUMLP_DEVICE"] = device

    mortal.run(put, "abacus", workers=[address])
    start = time.monotonic()
    with pytest.raises(ValueError, match=rf"rank . of 2 \({address}\): .*abacus"):
        endless(mortal, device="auto").fit(array(X), array(Y))
    assert time.monotonic() - start < LIMIT
    mortal.run(put, "auto", workers=[address])
    assert endless(mortal, max_iter=1).fit(array(X), array(Y)).n_iter_ == 1


def test_ctrl_c(mortal: Any) -> None:
    thread = in_training(mortal, lambda: os.kill(os.getpid(), signal.SIGINT))
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        endless(mortal).fit(array(X), array(Y))
    thread.join()
    assert endless(mortal, max_iter=1).fit(array(X), array(Y)).n_iter_ == 1  # the workers are free
    assert time.monotonic() - start < LIMIT


def test_a_worker_that_dies(mortal: Any) -> None:
    address, process = next(iter(mortal.run(os.getpid).items()))
    thread = in_training(mortal, lambda: os.kill(process, signal.SIGKILL))
    start = time.monotonic()
    with pytest.raises(RankError, match=rf"rank . of 2 \({address}\) has died"):
        endless(mortal).fit(array(X), array(Y))
    thread.join()
    assert time.monotonic() - start < LIMIT
    assert endless(mortal, max_iter=1).fit(array(X), array(Y)).n_iter_ == 1  # on what is left
