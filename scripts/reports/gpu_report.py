"""Everything about a GPU in one command: step times, bandwidth, launches, streaming, start-up, tests.

The first part, "essentials", answers in two minutes what matters most: does the GPU compute what the CPU
computes, time per node of a graph, Adam's bandwidth against a copy, step times of five networks beside
PyTorch (captured graph, eager), JAX and the CPU.  The other parts:

training   five networks in float32, TF32, bfloat16 and float16, with graphs and without, beside PyTorch
           (graph, eager, compiled), JAX (scan) and the CPU; PyTorch and JAX use TF32 only where a row says so
many       1 to 256 networks at once, three shapes: time per step of one, beside JAX and PyTorch with vmap
auto       sizes at which the CPU is faster than the GPU that device="auto" takes
nodes      time per node of a graph and per launch; nodes, longest path and kernels of each step's graph
epochs     what an epoch costs beside its steps
bandwidth  every optimiser kernel against a copy of as many bytes, 10^3 to 10^8 parameters
streaming  GB/s of rows that stay on the host
start-up   import and first epoch, with an empty and a filled kernel cache
lists, graphs, memory, tests: updates of many arrays, counts per epoch, bytes held, the tests on the GPU

Each part runs in a process of its own, so that one that fails, hangs or breaks the device costs only itself.
Everything is written to PREFIX.md and PREFIX.json as soon as it is known.  The package need not be installed.
Exit status 1 if something failed or a figure is outside its limit.  On a simulated device it runs to the end
as well: its times say nothing about a GPU and are marked as simulated.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.reports.gpu import page
from scripts.shared.command import check_writable, whole, write_json

#: part -> title, and the seconds that it may take
PARTS = {
    "essentials": ("What matters most", 120),
    "training": ("Time per training step", 240),
    "many": ("Many networks in one plan", 120),
    "auto": ("Where the CPU is faster", 60),
    "nodes": ("Nodes and launches", 50),
    "epochs": ("Epochs", 40),
    "bandwidth": ("Optimiser kernels against a copy", 150),
    "streaming": ("Streaming", 50),
    "start-up": ("Start-up", 60),
    "lists": ("Updates of many arrays", 25),
    "graphs": ("Launches, copies, synchronisations", 30),
    "memory": ("Memory", 25),
    "tests": ("Tests", 540),
}
CHILD = Path(__file__).parent / "gpu" / "child.py"
POLL, SAMPLE = 0.5, 3.0  # seconds between looks at a part, and between looks at the device's clocks
LEAST, GRACE = 5, 10  # seconds: a part is not begun with fewer left; it is ended so long after its time
_QUERY = "clocks.sm,clocks.mem,power.draw,temperature.gpu,utilization.gpu"


class Report:
    """What is known so far, and its two files.

    Parameters
    ----------
    prefix : str
        The files are PREFIX.md and PREFIX.json.
    """

    def __init__(self, prefix: str) -> None:
        self.files = f"{prefix}.md", f"{prefix}.json"
        check_writable(*self.files)
        self.stored: dict[str, Any] = {"simulated": None, "parts": {}}

    def begin(self, name: str, title: str) -> dict[str, Any]:
        """A new part."""
        part: dict[str, Any] = {"title": title, "state": "running", "seconds": 0.0}
        part |= {"rows": [], "notes": [], "problems": [], "figures": [], "clocks": []}
        self.stored["parts"][name] = part
        return part

    def write(self) -> None:
        """Both files, by renaming, and to the disk."""
        write_json(self.files[1], self.stored)
        text = page.markdown(self.stored)
        new = Path(self.files[0] + ".new")
        with open(new, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, self.files[0])

    @property
    def problems(self) -> list[str]:
        """Of all parts."""
        return [line for part in self.stored["parts"].values() for line in part["problems"]]


def smi(*options: str) -> str:
    """What nvidia-smi prints; "" where there is none."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = ["nvidia-smi", *options]
        run = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        return "" if run.returncode else run.stdout.strip()
    return ""


class Watched:
    """A part that runs in its own process: what it has written so far goes into `part`."""

    def __init__(self, name: str, part: dict[str, Any], folder: str, seconds: float, quick: bool) -> None:
        self.part, self.found, self.log = part, Path(folder, "found"), Path(folder, "log")
        self.found.touch()
        self.place = 0
        command = [sys.executable, str(CHILD), name, str(self.found), f"{seconds:.0f}"]
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [*command, *(["quick"] if quick else [])],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # what it starts can be ended with it
            )

    def read(self) -> bool:
        """Take over what is new; returns whether there was anything."""
        with open(self.found, encoding="utf-8") as file:
            file.seek(self.place)
            text = file.read()
        whole_lines = text[: text.rfind("\n") + 1]
        self.place += len(whole_lines.encode())
        page.take(self.part, whole_lines.splitlines())
        return bool(whole_lines)

    def end(self) -> None:
        """End what is still running, and keep its last output."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        status = self.process.wait()
        self.read()
        if status and self.part["state"] == "running":
            self.part["problems"].append(f"{self.part['title']}: the process ended with status {status}")
        words = self.log.read_text(errors="replace").strip()
        self.part["notes"] += [f"What the process printed:\n\n```\n{words[-2000:]}\n```"] if words else []


def run_part(report: Report, name: str, title: str, seconds: float, quick: bool) -> dict[str, Any]:
    """Run one part for at most `seconds`, writing the files while it goes on."""
    part = report.begin(name, title)
    print(f"{title} ...", file=sys.stderr, flush=True)
    start = time.monotonic()
    sampled = start
    with tempfile.TemporaryDirectory() as folder:
        child = Watched(name, part, folder, seconds, quick)
        try:
            while child.process.poll() is None:
                time.sleep(POLL)
                now = time.monotonic()
                part["seconds"] = round(now - start, 1)
                if now - sampled > SAMPLE and not report.stored["simulated"]:
                    sampled = now
                    part["clocks"] += smi(f"--query-gpu={_QUERY}", "--format=csv,noheader").splitlines()[:1]
                if child.read():
                    report.stored["simulated"] = part.get("simulated", report.stored["simulated"])
                    report.write()
                if now - start > seconds + GRACE:  # it should have ended by itself
                    part["state"] = "ended"
                    part["problems"].append(f"{title}: ended, it took more than its {seconds:.0f} s")
                    break
        finally:
            child.end()
    report.stored["simulated"] = part.get("simulated", report.stored["simulated"])
    part["state"] = "done" if part["state"] == "running" else part["state"]
    part["seconds"] = round(time.monotonic() - start, 1)
    report.write()
    return part


def run(report: Report, names: Sequence[str], minutes: float, quick: bool) -> None:
    """The facts about the machine, then the parts, as far as time allows."""
    end = time.monotonic() + 60 * minutes
    facts = run_part(report, "machine", "Machine", 60, quick)
    if not facts["rows"]:
        return
    if not report.stored["simulated"]:
        facts["notes"] += [f"```\n{text}\n```" for text in [smi()] if text]
    skipped = []
    for name in names:
        title, most = PARTS[name]
        left = end - time.monotonic() - GRACE
        if left < LEAST:
            skipped.append(name)
            report.begin(name, title)["state"] = "not run: no time left"
            continue
        # a check of this script may run on a slow, simulated device
        run_part(report, name, title, min(most * (10 if quick else 1), left), quick)
    if skipped:
        rest = f"python scripts/reports/gpu_report.py --output gpu_report_2 --parts {' '.join(skipped)}"
        facts["notes"].append(f"Not run, because the time was up; the rest: `{rest}`")
    report.write()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the report; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", default="gpu_report", metavar="PREFIX", help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="small sizes, few tests: a check of this script")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS)
    )
    parser.add_argument(
        "--minutes",
        type=whole,
        default=9,
        help="end after that, naming what is left (default: %(default)s)",
    )
    args = parser.parse_args(argv)
    report = Report(args.output)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))  # and so is the part that runs
    run(report, [name for name in PARTS if name in args.parts], args.minutes, args.quick)
    print(page.markdown(report.stored))
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
