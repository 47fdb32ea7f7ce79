"""A cluster of two workers, for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("distributed.client")  # tests/distributed is importable as well
pytest.importorskip("dask.dataframe")


@pytest.fixture(scope="session")
def client() -> Iterator[Any]:
    """Of a cluster that no test may damage."""
    from clusters import workers

    with workers(2) as made:
        yield made
