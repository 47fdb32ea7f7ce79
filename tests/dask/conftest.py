"""A cluster of two workers, for all tests of this folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("sklearn")
distributed = pytest.importorskip("distributed")
pytest.importorskip("dask.dataframe")

TIMEOUT = 120  # seconds; the machine may be busy


def workers(n: int) -> Any:
    """A client of a cluster on this machine, with `n` processes of one thread, and without a dashboard."""
    return distributed.Client(n_workers=n, threads_per_worker=1, dashboard_address=None)


@pytest.fixture(scope="session")
def client() -> Iterator[Any]:
    """Of a cluster that no test may damage; its workers compute on the CPU, whatever there is."""
    before = os.environ.get("GPUMLP_DEVICE")
    with workers(2) as made:
        yield made
    assert os.environ.get("GPUMLP_DEVICE") == before
