"""Both readers of text files: pyarrow's, and the plain one of those who have NumPy only."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture(params=["plain", "pyarrow"])
def reader(request, monkeypatch):
    """Reads text files by the plain reader, or by pyarrow where it is installed."""
    if request.param == "pyarrow":
        pytest.importorskip("pyarrow")
    else:
        without_pyarrow(monkeypatch)
    return request.param


def without_pyarrow(monkeypatch) -> None:
    for name in ("pyarrow", "gpumlp.tables.arrow", "gpumlp.tables.arrow_csv", "gpumlp.tables.arrow_files"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture
def no_pyarrow(monkeypatch):
    """As if pyarrow were not installed."""
    without_pyarrow(monkeypatch)
