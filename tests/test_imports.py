"""`import gpumlp` brings in NumPy and nothing heavy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gpumlp

HEAVY = (
    "cupy",
    "cupyx",
    "sklearn",
    "scipy",
    "torch",
    "matplotlib",
    "tqdm",
    "pandas",
    "rich",
    "dask",
    "distributed",
)


@pytest.mark.parametrize("module", ["gpumlp", "gpumlp.cli"])
def test_imports_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sorted(n for n in sys.modules if n.split('.')[0] in {HEAVY!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_checkout_is_importable_from_its_root() -> None:
    """Python finds the folder gpumlp/ there before an installed package, and kernels/ beside it."""
    root, packages = Path(__file__).resolve().parents[1], Path(np.__file__).resolve().parents[1]
    code = "import gpumlp.kernels.kernel as k; print(k.__file__)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],  # -S: without what an editable install arranges
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(packages)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(done.stdout.strip()).resolve() == root / "kernels" / "kernel.py"


def test_public_names_exist() -> None:
    pytest.importorskip("sklearn")  # two of the names are estimators
    for name in gpumlp.__all__:
        assert getattr(gpumlp, name) is not None
    assert gpumlp.__version__.count(".") >= 2
