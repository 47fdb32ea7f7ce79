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
    assert row["operations"] == row["nodes"] == 10 and row["path"] == 9 and row["pool_growth"] == 0
    one_branch = ["--only", "32-16-2", "--one-branch", "--json", str(file)]
    assert script("reports.graph_report").main(one_branch) == 0
    assert json.loads(file.read_text())["rows"][0]["path"] == 10


def test_graph_report_names_what_exceeds(script: Script) -> None:
    report = script("reports.graph_report")
    setup = report.setups()[0]
    good = dict.fromkeys(report.Counts.__dataclass_fields__, 0)
    good |= {"label": setup.label, "graph_launches": setup.steps + 1, "optimizer_kernels": 1}
    assert report.problems(setup, report.Counts(**good)) == []
    for name, value in (("syncs", 2), ("mallocs", 1), ("nodes", 16), ("graph_launches", 8), ("h2d", 2)):
        (line,) = report.problems(setup, report.Counts(**{**good, name: value}))
        assert name in line
