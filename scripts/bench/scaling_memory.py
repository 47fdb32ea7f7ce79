"""Peak memory of a training in a fresh process, against what is allowed: a part of `bench_scaling.py`."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import gpumlp
from scripts.bench.training_task import EPS, LR, SEED
from scripts.shared.machine import ROOT
from scripts.shared.show import table

#: name, layer sizes, rows, batch, type of the rows, fraction held out for validation
CASES: tuple[tuple[str, tuple[int, ...], int, int, str, float | None], ...] = (
    ("small", (20, 64, 64, 2), 100_000, 256, "float32", None),
    ("MNIST", (784, 256, 128, 10), 60_000, 128, "float32", None),
    ("held out", (784, 256, 128, 10), 60_000, 128, "float32", 0.15),
    ("float64", (784, 256, 128, 10), 60_000, 128, "float64", None),
    ("bytes", (784, 256, 128, 10), 60_000, 128, "uint8", 0.15),
    ("narrow", (20, 64, 64, 2), 4_000_000, 256, "float32", None),
    ("wide", (784, 1024, 1024, 10), 100_000, 256, "float32", None),
    ("10^7 parameters", (784, 2792, 2792, 10), 4096, 256, "float32", None),
)
MB = 10**6
FREE_BYTES = 60 * MB
MEMORY_EPOCHS = 2
STATUS = Path("/proc/self/status")
#: the idle size is read before this file and what it imports are loaded
CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
import gpumlp, numpy
with open("/proc/self/status") as file:
    status = file.read()
from scripts.bench import scaling_memory
scaling_memory.child(status, sys.argv[2])
"""


def rows_and_classes(sizes: Sequence[int], n: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise (n, n_inputs) float32 and random classes (n,) int32, made without temporary arrays."""
    rng = np.random.default_rng(SEED)
    return rng.standard_normal((n, sizes[0]), np.float32), rng.integers(0, sizes[-1], n, np.int32)


def trainer_for(sizes: Sequence[int], batch: int, device: str, **settings: Any) -> gpumlp.Trainer:
    """A new network with its `Trainer`."""
    return gpumlp.Trainer(
        gpumlp.MLP(sizes, seed=SEED, device=device),
        loss="softmax_cross_entropy",
        optimizer=gpumlp.Adam(lr=LR, eps=EPS),
        batch_size=batch,
        seed=SEED,
        **settings,
    )


def status_bytes(status: str, name: str) -> int | None:
    """A size in the text of /proc/self/status."""
    found = [line.split()[1] for line in status.splitlines() if line.startswith(f"{name}:")]
    return 1024 * int(found[0]) if found else None


def forget_peak() -> None:
    """Reset VmHWM to the current size."""
    with contextlib.suppress(OSError):  # then the peak is that since the start; making data needs no more
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """Highest resident size of this process."""
    peak = status_bytes(STATUS.read_text(), "VmHWM")
    if peak is None:  # some sandboxes' /proc lacks it
        import resource

        peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak


def child(status: str, text: str) -> None:
    """What the fresh process does: trains a case and prints its figures in bytes.

    `status` is /proc/self/status after the import of gpumlp, `text` the case as JSON.
    """
    case = json.loads(text)
    X, y = rows_and_classes(case["sizes"], case["rows"])
    X = X if X.dtype == case["dtype"] else (10 * np.abs(X)).astype(case["dtype"])
    backend = gpumlp.get_backend(case["device"])
    forget_peak()
    trainer = trainer_for(case["sizes"], case["batch"], backend.name)
    trainer.fit(X, y, epochs=MEMORY_EPOCHS, validation=case["validation"], progress=False)
    on_cuda = backend.name == "cuda"
    pool = backend.xp.get_default_memory_pool() if on_cuda else None
    figures = {
        "idle": 0 if on_cuda else status_bytes(status, "VmRSS"),
        "data": X.nbytes + y.nbytes,
        "parameters": 4 * trainer.model.n_params,
        "activations": 4 * case["batch"] * sum(case["sizes"]),
        "peak": pool.total_bytes() if pool else peak_bytes(),
    }
    print(json.dumps(figures))


def allowance(figures: dict[str, int]) -> int:
    """Bytes that training may take at most."""
    fixed = figures["idle"] + figures["data"] + FREE_BYTES
    return fixed + 5 * figures["parameters"] + 3 * figures["activations"]


def peak_of(case: dict[str, Any]) -> dict[str, Any]:
    """The figures of `child` from a process of its own, with "allowed" and "ok"."""
    command = [sys.executable, "-c", CHILD, str(ROOT), json.dumps(case)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(f"error: the process that measures memory failed:\n{run.stderr}")
    figures = json.loads(run.stdout.splitlines()[-1])
    allowed = allowance(figures)
    return {**case, **figures, "allowed": allowed, "ok": figures["peak"] <= allowed}


def memory(device: str, quick: bool) -> list[dict[str, Any]]:
    """Measure and print all cases."""
    if not STATUS.exists():
        print(f"\npeak memory: not measured, because it is read from {STATUS}, which only Linux has")
        return []
    results = [
        peak_of(
            {
                "case": name,
                "sizes": list(sizes),
                "rows": max(1024, n // 10) if quick else n,
                "batch": batch,
                "dtype": dtype,
                "validation": validation,
                "device": device,
            }
        )
        for name, sizes, n, batch, dtype, validation in CASES
    ]
    columns = ("idle", "data", "parameters", "activations", "peak", "allowed")
    print("\npeak memory of training in MB; parameters and one batch's activations are counted once here")
    print(
        table(
            ["", "network", "rows", "type", "validation", "batch", *columns, ""],
            [
                [
                    r["case"],
                    "-".join(map(str, r["sizes"])),
                    f"{r['rows']:,}",
                    r["dtype"],
                    r["validation"] or "",
                    r["batch"],
                    *(f"{r[name] / MB:.1f}" for name in columns),
                    "pass" if r["ok"] else "FAIL",
                ]
                for r in results
            ],
        )
    )
    return results
