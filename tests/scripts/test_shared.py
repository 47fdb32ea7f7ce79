"""What all scripts share: options, tables, timing; each of them runs from a checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

Script = Callable[[str], ModuleType]
ROOT = Path(__file__).parents[2]
PROGRAMS = sorted(
    str(path.relative_to(ROOT / "scripts"))
    for room in ("examples", "bench", "reports")
    for path in (ROOT / "scripts" / room).glob("*.py")
    if "__main__" in path.read_text(encoding="utf-8")
)


def test_tools(script: Script, tmp_path: Path) -> None:
    show, timing, command = (script(f"shared.{name}") for name in ("show", "timing", "command"))
    assert [show.duration(s) for s in (2.5, 0.0125, 3.21e-6, 4e-9)] == [
        "2.5 s",
        "12.5 ms",
        "3.21 us",
        "4 ns",
    ]
    assert show.table(["a", "b"], [["x", 1.5], ["long", 10]]).splitlines() == [
        "a       b",
        "----  ---",
        "x     1.5",
        "long   10",
    ]
    assert timing.summary([1.0, 2.0, 3.0, 4.0, 100.0]) == {"median": 3.0, "spread": 2 / 3}
    calls: list[str] = []
    made = {name: lambda name=name: calls.append(name) or float(len(calls)) for name in "abc"}
    times = timing.interleave(made, 3)
    assert "".join(calls) == "abcbcacab"
    assert times == {"a": [1.0, 6.0, 8.0], "b": [2.0, 4.0, 9.0], "c": [3.0, 5.0, 7.0]}
    assert timing.interleave({"a": lambda: 1.0}, 5, lambda: True) == {"a": [1.0]}
    command.write_json(tmp_path / "x.json", {"k": [1, 2]})
    assert json.loads((tmp_path / "x.json").read_text()) == {"k": [1, 2]}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_all_programs_are_found() -> None:
    assert (
        len(PROGRAMS) > 25 and "bench/bench_training.py" in PROGRAMS and "reports/gpu_report.py" in PROGRAMS
    )


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_from_a_checkout(program: str, tmp_path: Path) -> None:
    """In a process of its own, from another folder, with the checkout not on Python's path."""
    places = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    path = os.pathsep.join(place for place in places if place and Path(place).resolve() != ROOT)
    command = [sys.executable, str(ROOT / "scripts" / program), "--help"]
    run = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    source = (ROOT / "scripts" / program).read_text(encoding="utf-8")
    assert source.split('"""')[1].splitlines()[0] in run.stdout
    assert program.startswith("reports") or "--device" in run.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_baseline_that_is_none_is_refused(script: Script, tmp_path: Path) -> None:
    load, file = script("shared.command").load_baseline, tmp_path / "old.json"
    file.write_text(json.dumps({"machine": {"cpus": "2"}, "results": [{"a": 1.5}]}))
    found = load(str(file), lambda stored: {"a": stored["results"][0]["a"]})
    assert found == {"machine": {"cpus": "2"}, "cells": {"a": 1.5}}
    with pytest.raises(SystemExit, match="no --json file of this script"):
        load(str(file), lambda stored: stored["nothing"])
    with pytest.raises(SystemExit, match="cannot read the baseline"):
        load(str(tmp_path / "missing.json"), dict)
