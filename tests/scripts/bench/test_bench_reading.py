"""bench_reading.py on short files."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest


def test_prints_a_table(script: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--rows", "30", "50", "--columns", "3", "--repeats", "1"]
    assert script("bench.bench_reading").main(options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(".csv 30 x 3" in line or ".csv 50 x 3" in line for line in lines) == 2
