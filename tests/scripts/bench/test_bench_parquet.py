"""bench_parquet.py on a short file."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest


def test_prints_a_table(script: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyarrow")
    options = ["--gb", "0.00001", "--features", "3", "--group-rows", "300", "--epochs", "1"]
    assert script("bench.bench_parquet").main(options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[-3:]] == [
        "training from the file",
        "training in memory",
        "reading the file alone",
    ]
