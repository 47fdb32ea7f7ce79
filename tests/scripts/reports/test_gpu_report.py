"""gpu_report.py: its machinery on made-up parts, and a rehearsal on the device from a bare copy."""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gpumlp.backends import cuda_problem

Script = Callable[[str], ModuleType]
ROOT = Path(__file__).parents[3]
DOT = """
digraph dot {
subgraph cluster_1 {
label="graph_1" graph[style="dashed"];
"graph_1_node_0"[style="bold" shape="octagon" label="0 gpumlp_gather"];
"graph_1_node_1"[label="1 ampere_sgemm_32x32"];
"graph_1_node_2"[label="2 gpumlp_adam"];
"graph_1_node_3"[label="3 gpumlp_gather"];
"graph_1_node_0" -> "graph_1_node_1";
"graph_1_node_0" -> "graph_1_node_3";
"graph_1_node_1" -> "graph_1_node_2";
"graph_1_node_3" -> "graph_1_node_2";
}
}
"""

FAKE = """
import json, os, sys, time
name, file, seconds = sys.argv[1:4]

def say(kind, value):
    with open(file, "a") as stream:
        stream.write(json.dumps([kind, value]) + "\\n")

say("start", {"simulated": False})
say("row", ["table", {"what": name, "step_s": 2e-6, "rate_GBs": 1234.5}])
print("said on the way", flush=True)
if name == "training":
    raise RuntimeError("broken part")
if name == "nodes":
    os.abort()
if name == "epochs":
    time.sleep(60)
"""


def test_nodes_and_longest_path_of_a_graph(script: Script) -> None:
    nodes, longest, kernels = script("shared.graphs").graph_of(DOT)
    assert (nodes, longest) == (4, 3)
    assert kernels == {"gpumlp_gather": 2, "gpumlp_adam": 1}
    assert script("shared.graphs").graph_of("") == (0, 0, {})


def test_a_line_through_points(script: Script) -> None:
    fit_line = script("reports.gpu.launches").fit_line
    assert fit_line([(1.0, 5.0), (2.0, 7.0), (4.0, 11.0)]) == pytest.approx((2.0, 3.0))


def test_candidates_that_fail_cost_only_themselves(script: Script) -> None:
    file = io.StringIO()
    part = script("reports.gpu.part").Part(file, 60.0, quick=False)
    calls = []

    def cannot_be_made() -> Callable[[], float]:
        raise ImportError("no such library")

    def fails_later() -> Callable[[], float]:
        def run() -> float:
            calls.append(1)
            if len(calls) > 2:
                raise RuntimeError("device lost")
            return 1.0

        return run

    found = part.turns("net", {"a": cannot_be_made, "b": fails_later, "c": lambda: lambda: 0.5}, 4)
    assert found == {"c": {"median": 0.5, "spread": 0.0}}
    lines = [json.loads(line) for line in file.getvalue().splitlines()]
    problems = [value for kind, value in lines if kind == "problem"]
    assert len(problems) == 2  # one for each, not one for each turn
    assert problems[0].startswith("net, a: ImportError: no such library")
    assert problems[1].startswith("net, b: RuntimeError: device lost")


def test_nothing_is_begun_when_the_time_is_up(script: Script) -> None:
    file = io.StringIO()
    part = script("reports.gpu.part").Part(file, 0.0, quick=False)
    assert part.turns("net", {"a": lambda: pytest.fail("begun")}, 4) == {}
    assert "out of time: net, a" in file.getvalue()


@pytest.fixture
def report(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The report, with a child that measures nothing."""
    module = script("reports.gpu_report")
    child = tmp_path / "child.py"
    child.write_text(FAKE)
    monkeypatch.setattr(module, "CHILD", child)
    monkeypatch.setattr(module, "smi", lambda *_: "1980 MHz, 2619 MHz, 300 W")
    monkeypatch.setattr(module.signal, "signal", lambda *_: None)
    return module


def test_parts_that_fail_crash_or_hang_cost_only_themselves(
    report: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(report.PARTS, "epochs", ("Epochs", 0))
    monkeypatch.setattr(report, "GRACE", 1)
    prefix = str(tmp_path / "gpu")
    names = ["memory", "training", "nodes", "epochs", "essentials"]
    written: list[set[str]] = []
    write = report.Report.write

    def and_look(self: Any) -> None:
        write(self)
        written.append(set(json.loads(Path(prefix + ".json").read_text())["parts"]))

    monkeypatch.setattr(report.Report, "write", and_look)
    assert report.main(["--output", prefix, "--parts", *names]) == 1
    stored = json.loads(Path(prefix + ".json").read_text())
    parts = stored["parts"]
    assert list(parts) == ["machine", "essentials", "training", "nodes", "epochs", "memory"]  # in this order
    assert [len(part["problems"]) for part in parts.values()] == [0, 0, 1, 1, 1, 0]
    assert "status 1" in parts["training"]["problems"][0]
    assert "more than its 0 s" in parts["epochs"]["problems"][0]
    for name, part in parts.items():  # what was known before is kept
        assert part["rows"] == [["table", {"what": name, "step_s": 2e-6, "rate_GBs": 1234.5}]]
        assert "said on the way" in part["notes"][-1] or name == "machine"
    assert {"machine"} in written and {"machine", "essentials"} in written  # not only at the end
    text = Path(prefix + ".md").read_text()
    assert "broken part" in text and "2 us" in text and "1234.5" in text and "imulated" not in text
    assert text in capsys.readouterr().out


def test_parts_for_which_no_time_is_left_are_named(
    report: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "LEAST", 10**6)
    prefix = str(tmp_path / "gpu")
    assert report.main(["--output", prefix, "--parts", "memory", "tests"]) == 0
    text = Path(prefix + ".md").read_text()
    assert "--parts memory tests" in text and "not run: no time left" in text


def test_times_of_a_simulated_device_are_marked(script: Script) -> None:
    page = script("reports.gpu.page")
    part: dict[str, Any] = {"title": "Steps", "state": "done", "seconds": 1.0, "simulated": True}
    part |= {"rows": [["t", {"step_s": 1e-3, "rate_GBs": 2.0, "n": 3, "x": math.nan}]], "notes": []}
    part |= {"problems": ["slow"], "figures": [], "clocks": ["a", "b"]}
    text = page.markdown({"simulated": True, "parts": {"steps": part}})
    assert "say nothing about a GPU" in text and "## Steps (simulated)" in text
    assert "step time (simulated)" in text and "GB/s (simulated)" in text and "- slow" in text
    part["simulated"] = False
    assert "imulated" not in page.markdown({"simulated": False, "parts": {"steps": part}})


@pytest.mark.skipif(bool(cuda_problem()), reason="no CUDA device")
def test_rows_without_graphs_launch_none(script: Script) -> None:
    counter = script("shared.machine").simulator()
    if counter is None:
        pytest.skip("only a simulator counts launches")
    steps, task = script("reports.gpu.steps"), script("bench.training_task").Task([6, 8, 3], 16, 5)
    launches, losses = {}, set()
    for name, make in steps.ours(task, ["float32"], eager=True).items():
        epoch = make()
        counter.reset()
        losses.add(round(epoch()[1], 5))
        launches[name] = counter.counters()["graph_launches"]
    assert launches == {"gpumlp float32": 12, "gpumlp float32, no graph": 0, "gpumlp native (CPU)": 0}
    assert len(losses) == 1


@pytest.mark.skipif(bool(cuda_problem()), reason="no CUDA device")
def test_rehearsal_from_a_bare_copy(script: Script, tmp_path: Path) -> None:
    """No git folder, nothing installed: every part runs and delivers."""
    tree, prefix = tmp_path / "tree", tmp_path / "out" / "gpu"
    prefix.parent.mkdir()
    unwanted = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
    for name in ("gpumlp", "kernels", "scripts", "tests"):
        shutil.copytree(ROOT / name, tree / name, ignore=unwanted)
    shutil.copy(ROOT / "pyproject.toml", tree)
    places = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    path = os.pathsep.join(place for place in places if place and Path(place).resolve() != ROOT)
    options = ["--quick", "--minutes", "60", "--output", str(prefix)]
    run = subprocess.run(
        [sys.executable, "scripts/reports/gpu_report.py", *options],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    stored = json.loads(prefix.with_suffix(".json").read_text())
    parts = stored["parts"]
    wrong = [line for part in parts.values() for line in part["problems"]]
    assert run.returncode == 0, (wrong, run.stderr)
    assert list(parts) == ["machine", *script("reports.gpu_report").PARTS]
    facts = {cells["what"]: cells["value"] for _, cells in parts["machine"]["rows"]}
    assert facts["package"] == str(tree / "gpumlp")
    assert all(part["state"] == "done" and (part["rows"] or part["notes"]) for part in parts.values())
    steps = {cells["candidate"] for name, cells in parts["training"]["rows"] if name == "time per step"}
    for precision in ("float32", "tf32", "bfloat16", "float16"):
        assert {f"gpumlp {precision}", f"gpumlp {precision}, no graph"} <= steps
    tables = {name for part in parts.values() for name, _ in part["rows"]}
    for wanted in ("per launch", "per epoch", "updates", "start-up", "copies to the device", "training step"):
        assert wanted in tables
    text = prefix.with_suffix(".md").read_text()
    marked = script("shared.machine").simulated()
    assert stored["simulated"] is marked
    for part in parts.values():
        assert part["simulated"] is marked
        assert all(cells.get("simulated", False) is marked for _, cells in part["rows"])
    assert ("times say nothing about a GPU" in text) is marked
    assert {entry.name for entry in prefix.parent.iterdir()} == {"gpu.json", "gpu.md"}
