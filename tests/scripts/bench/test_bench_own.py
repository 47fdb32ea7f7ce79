"""bench_own.py on the smallest task."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest


def test_both_learn_the_same(
    script: Callable[[str], ModuleType], device: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = script("bench.bench_own").main(["--quick", "--repeats", "1", "--device", device])
    assert [each["alike"] for each in found] == [True]
    assert "own loop" in capsys.readouterr().out
