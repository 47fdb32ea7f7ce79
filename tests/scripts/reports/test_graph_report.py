"""graph_report.py: counts of a device, and its limits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from gpumlp.backends import cuda_problem

Script = Callable[[str], ModuleType]


@pytest.mark.skipif(bool(cuda_problem()), reason="no CUDA device")
def test_graph_report_within_its_limits(script: Script, tmp_path: Path) -> None:
    file = tmp_path / "graphs.json"
    assert script("reports.graph_report").main(["--only", "32-16-2", "--json", str(file)]) == 0
    (row,) = json.loads(file.read_text())["rows"]
    assert row["operations"] == 10 and row["pool_growth"] == 0


def test_graph_report_names_what_exceeds(script: Script) -> None:
    report = script("reports.graph_report")
    setup = report.setups()[0]
    good = dict.fromkeys(report.Counts.__dataclass_fields__, 0)
    good |= {"label": setup.label, "graph_launches": setup.steps, "optimizer_kernels": 1}
    assert report.problems(setup, report.Counts(**good)) == []
    for name, value in (("syncs", 2), ("mallocs", 1), ("nodes", 16), ("graph_launches", 7), ("h2d", 2)):
        (line,) = report.problems(setup, report.Counts(**{**good, name: value}))
        assert name in line
