"""Workers with a CUDA device each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import clusters
import dask.array as da
import pytest

from gpumlp.backends import cuda_problem
from gpumlp.dask import DaskMLPClassifier

if "cuda" not in os.environ.get("GPUMLP_TEST_DEVICE", "cuda") or cuda_problem(1):
    pytest.skip("there are no two CUDA devices", allow_module_level=True)

X, Y, W = clusters.rows()
ROWS = [da.from_array(x, chunks=(100, *x.shape[1:])) for x in (X, Y, W)]


@pytest.fixture(scope="module")
def cuda() -> Iterator[Any]:
    with clusters.workers(2) as made:
        yield made


@pytest.mark.memory
def test_each_worker_takes_a_device_of_its_own(cuda: Any) -> None:
    """The bits are those of one device."""
    expected = clusters.alone(X, Y, W, 3, "softmax_cross_entropy", "cuda", epochs=3)
    clf = DaskMLPClassifier(cuda, **clusters.settings(device="auto")).fit(*ROWS)
    assert clusters.result(clf) == expected
    assert (clf.predict(ROWS[0]).compute() == clf.predict(X)).all()
