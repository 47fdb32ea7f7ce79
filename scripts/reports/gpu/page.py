"""The report as Markdown, from what the parts have written."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from scripts.shared.show import duration, table

KINDS = {"row": "rows", "note": "notes", "problem": "problems", "figures": "figures"}


def take(part: dict[str, Any], lines: Sequence[str]) -> None:
    """Add lines that a `Part` has written."""
    for line in lines:
        kind, value = json.loads(line)
        if kind == "start":
            part["simulated"] = value["simulated"]
        else:
            part[KINDS[kind]].append(value)


def cell(name: str, value: Any) -> str:
    """A value as text, with its unit."""
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    if not math.isfinite(value):
        return "-"
    if name.endswith("_s"):
        return duration(value) if value > 0 else f"{value:.3g} s"
    return f"{value:.1f}" if name.endswith("_GBs") else f"{value:.5g}"


def head(name: str, simulated: bool) -> str:
    """Title of a column."""
    if name.endswith("_s"):
        return f"{name[:-2].replace('_', ' ')} time" + (" (simulated)" if simulated else "")
    if name.endswith("_GBs"):
        return "GB/s" + (" (simulated)" if simulated else "")
    return name.replace("_", " ")


def tables(part: dict[str, Any]) -> list[str]:
    """The rows of a part, table by table."""
    found = []
    for title in dict.fromkeys(title for title, _ in part["rows"]):
        rows = [cells for name, cells in part["rows"] if name == title]
        names = list(dict.fromkeys(name for cells in rows for name in cells if name != "simulated"))
        header = [head(name, bool(part.get("simulated"))) for name in names]
        lines = [[cell(name, cells[name]) if name in cells else "" for name in names] for cells in rows]
        found.append(f"{title}:\n\n```\n{table(header, lines)}\n```")
    return found


def clocks(part: dict[str, Any]) -> list[str]:
    """First, middle and last look at the device's clocks, power, temperature and load."""
    seen = part["clocks"]
    if not seen:
        return []
    places = sorted({0, len(seen) // 2, len(seen) - 1})
    return ["Clocks (SM, memory), power, temperature, load: " + "; ".join(seen[n] for n in places)]


def markdown(stored: dict[str, Any]) -> str:
    """The whole report."""
    lines = ["# GPU report", ""]
    if stored["simulated"]:
        lines += ["**Simulated device: counts are exact, times say nothing about a GPU.**", ""]
    wrong = [line for part in stored["parts"].values() for line in part["problems"]]
    lines += ["Problems:" if wrong else "Problems: none so far", *(f"- {line}" for line in wrong), ""]
    for part in stored["parts"].values():
        mark = " (simulated)" if part.get("simulated") else ""
        state = "" if part["state"] == "done" else f", {part['state']}"
        lines += [f"## {part['title']}{mark} ({part['seconds']:.0f} s{state})", ""]
        for text in (*tables(part), *clocks(part), *part["notes"]):
            lines += [text, ""]
    return "\n".join(lines)
