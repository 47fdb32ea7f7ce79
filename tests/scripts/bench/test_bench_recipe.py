"""bench_recipe.py on a small set."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest


def test_prints_a_table(script: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    options = ["--device", "cpu", "--sets", "iris", "--networks", "2"]
    assert script("bench.bench_recipe").main(options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[:3] == ["the", "recipe", "1.000"] for line in lines)
    for part in (
        "without averages of the weights",
        "mean of all instead of the choice",
        "one setting for all",
    ):
        assert any(line.startswith(part) for line in lines)
