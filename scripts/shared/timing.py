"""The timing harness: clocks, turns, medians."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[[int], None]
#: seconds; the threads of the candidate before spin that long, on CPUs that the next one needs
SETTLE = 0.002


def interleave(
    candidates: Mapping[str, Callable[[], float]], repeats: int, enough: Callable[[], bool] = lambda: False
) -> dict[str, list[float]]:
    """Call every candidate once per round, in an order that rotates: {name: [returned times]}.

    So a slow phase of the machine falls on all of them alike, and none runs always after the same neighbour.
    There are fewer rounds than `repeats` if it is `enough` after one.
    """
    names = list(candidates)
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(repeats):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            times[name].append(candidates[name]())
        if enough():
            break
    return times


def summary(times: Sequence[float]) -> dict[str, float]:
    """{"median", "spread"}: the spread is the distance of the quartiles over the median."""
    median = statistics.median(times)
    if len(times) < 2:
        return {"median": median, "spread": 0.0}
    low, high = np.quantile(times, [0.25, 0.75])
    return {"median": median, "spread": float(high - low) / median}


# ---- clocks ------------------------------------------------------------------------------------------------
@dataclass
class Candidate:
    """Something that can be repeated: `run(k)` does it k times, `clock(run, k)` gives the seconds."""

    name: str
    run: Run
    clock: Callable[[Run, int], float]


def repeated(call: Callable[[], Any]) -> Run:
    """A function that calls `call` k times."""

    def run(k: int) -> None:
        for _ in range(k):
            call()

    return run


def host_clock(run: Run, k: int) -> float:
    """Wall time."""
    start = time.perf_counter()
    run(k)
    return time.perf_counter() - start


def clock_of(backend: Any) -> Callable[[Run, int], float]:
    """How to time what runs on `backend`: wall time, or the time between two events on its stream."""
    if backend.xp is np:
        return host_clock
    cuda = backend.xp.cuda
    stream = getattr(backend, "stream", None) or cuda.get_current_stream()

    def clock(run: Run, k: int) -> float:
        start, stop = cuda.Event(), cuda.Event()
        backend.synchronize()
        start.record(stream)
        run(k)
        stop.record(stream)
        stop.synchronize()
        return cuda.get_elapsed_time(start, stop) / 1e3

    return clock


def torch_clock(torch: Any, device: str) -> Callable[[Run, int], float]:
    """Wall time, or the time between two CUDA events on PyTorch's stream."""
    if device == "cpu":
        return host_clock

    def clock(run: Run, k: int) -> float:
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        run(k)
        stop.record()
        stop.synchronize()
        return start.elapsed_time(stop) / 1e3

    return clock


# ---- samples -----------------------------------------------------------------------------------------------
def calls_for(candidate: Candidate, seconds: float) -> int:
    """How many calls last about `seconds`; also warms the candidate up."""
    candidate.run(2)  # the second step of a library may compile again, for the first one's results
    k = 1
    while True:  # the lesser of two: one slow call must not pass for the usual
        used = max(min(candidate.clock(candidate.run, k) for _ in range(2)), 1e-9)
        if used >= seconds / 4 or k >= 1_000_000:
            return max(1, int(k * seconds / used))
        k = max(k + 1, min(10 * k, int(k * seconds / used)))


def one_call(candidate: Candidate, k: int) -> float:
    """Seconds of a call, as the mean of k."""
    time.sleep(SETTLE)
    if k > 1:  # else the call is so long that nothing could be warm
        candidate.run(1)
    return candidate.clock(candidate.run, k) / k


def after_warm_up(epoch: Callable[[int], float]) -> Callable[[], tuple[float, float]]:
    """Two epochs, of which the second is timed: (seconds, what the epoch returns)."""
    done = [0]

    def pair() -> tuple[float, float]:
        epoch(done[0])
        start = time.perf_counter()
        loss = epoch(done[0] + 1)
        seconds = time.perf_counter() - start
        done[0] += 2
        return seconds, loss

    return pair


def others_work() -> float:
    """CPU seconds that other programs have used until now; 0 where the system does not tell."""
    try:
        ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return 0.0
    busy = sum(ticks) - ticks[3] - ticks[4]  # without idle and waiting for disks
    return busy / os.sysconf("SC_CLK_TCK") - time.process_time()
