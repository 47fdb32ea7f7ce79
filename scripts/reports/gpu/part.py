"""One part of the report while it is measured: rows, notes and problems, each written down at once."""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import math
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TextIO

import gpumlp
from scripts.shared.machine import simulated
from scripts.shared.timing import SETTLE, interleave, summary

#: the call that makes a candidate ready gives the call that is timed and returns seconds
Make = Callable[[], Callable[[], float]]


class Part:
    """Where a part's figures go.

    Parameters
    ----------
    file : text file
        Gets a line of JSON for everything that is found, and is flushed.
    seconds : float
        What the part may take.
    quick : bool
        Small sizes and few repeats: a check that the part runs.
    """

    def __init__(self, file: TextIO, seconds: float, quick: bool) -> None:
        self.quick, self.simulated = quick, simulated()
        self._file, self._end = file, time.monotonic() + seconds
        self._write("start", {"simulated": self.simulated})

    def _write(self, kind: str, value: Any) -> None:
        self._file.write(json.dumps([kind, value], default=str) + "\n")
        self._file.flush()

    def row(self, table: str, **cells: Any) -> None:
        """A line of a table; names that end in _s are seconds, in _GBs gigabytes per second."""
        self._write("row", [table, {**cells, **({"simulated": True} if self.simulated else {})}])

    def note(self, text: str) -> None:
        """A line or block of text."""
        self._write("note", text)

    def problem(self, text: str) -> None:
        """Something that failed, or a figure outside its limit."""
        self._write("problem", text)

    def figures(self, value: Any) -> None:
        """More than the tables show, for programs."""
        self._write("figures", value)

    def left(self) -> float:
        """Seconds that remain."""
        return self._end - time.monotonic()

    def out_of_time(self, what: str) -> bool:
        """Whether no time is left, which is noted with what is not measured for that."""
        if self.left() > 0:
            return False
        self.note(f"out of time: {what} and what would follow are not measured")
        return True

    @contextlib.contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """What fails inside is reported; the part goes on."""
        try:
            yield
        except (Exception, SystemExit) as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            text = " ".join(str(error).split())[:400]
            self.problem(
                f"{what}: {type(error).__name__}: {text} ({where.filename.rsplit('/', 1)[-1]}:{where.lineno})"
            )

    def turns(self, what: str, makes: Mapping[str, Make], repeats: int) -> dict[str, dict[str, float]]:
        """{candidate: {"median", "spread"}} in turns, of those that can be made and do not fail."""
        ready: dict[str, Callable[[], float]] = {}
        for name, make in makes.items():
            if self.out_of_time(f"{what}, {name}"):
                break
            with self.attempt(f"{what}, {name}"):
                run = make()
                run()  # compiles and warms up
                ready[name] = functools.partial(self._guarded, f"{what}, {name}", run, [])
        if not ready:
            return {}
        times = interleave(ready, 2 if self.quick else repeats, lambda: self.left() <= 0)
        return {name: summary(t) for name, t in times.items() if all(map(math.isfinite, t))}

    def _guarded(self, what: str, run: Callable[[], float], failed: list[bool]) -> float:
        if not failed:
            with self.attempt(what):
                time.sleep(SETTLE)
                return run()
            failed.append(True)
        return math.nan


def release() -> None:
    """Give back the device memory that is kept for later."""
    gc.collect()
    gpumlp.free_memory()
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_available():
        torch.cuda.empty_cache()
