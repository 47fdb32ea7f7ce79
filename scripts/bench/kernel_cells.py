"""The cells of `bench_kernels.py`: rules, the bytes that they move, and a measured time."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import gpumlp
from scripts.bench.update_peers import COPY, REWRITE
from scripts.shared.inside import state_count

LR = 1e-4
NOISY, BUSY = 0.3, 0.1  # spread, and CPUs used by other programs, from which a comparison says little
#: what the summary counts: text, figure of a row of `compare`, limit, range of sizes
LIMITS = (
    ("at most the time of PyTorch fused", "ratio", 1.0, 0, 10**12),
    ("at most 1/3 of PyTorch fused up to 1e5", "ratio", 1 / 3, 0, 10**5),
    ("at least 85 % of the copy's bandwidth from 1e7", "share", 0.85, 10**7, 10**12),
)


@dataclass
class Result:
    """One cell of the tables; times in seconds, `share` is the time of the fastest copy over this one's."""

    rule: str
    size: int
    candidate: str
    seconds: float
    spread: float
    gb_per_s: float
    share: float
    others: float = 0.0  # CPUs that other programs kept busy meanwhile
    times: tuple[float, ...] = ()  # of each round

    def over(self, other: Result) -> float:
        """Time over another one's: the median over the rounds, in which both ran one after the other."""
        if not self.times or not other.times:
            return self.seconds / other.seconds
        return statistics.median(a / b for a, b in zip(self.times, other.times, strict=True))

    @property
    def key(self) -> tuple[str, int, str]:
        """What identifies the cell in another run."""
        return self.rule, self.size, self.candidate

    @property
    def kind(self) -> str:
        """ "update" or "plan" for this package's kernels, "copy", "rewrite", or "peer"."""
        words = self.candidate.split()
        return next((k for k in ("update", "plan", COPY, REWRITE) if k in words), "peer")

    @property
    def on_cuda(self) -> bool:
        """Whether it ran on the GPU."""
        return "cuda" in self.candidate.split()


def rules() -> dict[str, Callable[[], gpumlp.optimizers.Optimizer]]:
    """Every registered rule with its defaults, and the forms of SGD with memory."""
    found: dict[str, Callable[[], gpumlp.optimizers.Optimizer]] = {
        name: functools.partial(cls, lr=LR) for name, cls in gpumlp.optimizers.OPTIMIZERS.items()
    }
    found["momentum"] = functools.partial(gpumlp.SGD, lr=LR, momentum=0.9)
    found["nesterov"] = functools.partial(gpumlp.SGD, lr=LR, momentum=0.9, nesterov=True)
    return found


def states(rule: str) -> int:
    """Number of state arrays."""
    return state_count(rules()[rule]())


def bytes_moved(rule: str, size: int) -> int:
    """Bytes that one update must read and write: p and each state array both ways, g once."""
    return size * (12 + 8 * states(rule))
