"""bench_search.py on few and short fits."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest


@pytest.mark.parametrize("peers", [True, False])
def test_prints_a_table(
    script: Callable[[str], ModuleType], device: str, peers: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn")
    options = ["--device", device, "--settings", "2", "--epochs", "2", "--repeats", "1"]
    options += [] if peers else ["--without-sklearn"]
    assert script("bench.bench_search").main(options) == 0
    lines = capsys.readouterr().out.splitlines()
    found = [line for line in lines if "64-64-10" in line or "30-16-1" in line]
    assert len(found) == 2
    assert all("equal" in line for line in found)
