"""`import gpumlp` brings in NumPy and nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

import gpumlp

HEAVY = ("cupy", "cupyx", "sklearn", "scipy", "torch", "matplotlib", "tqdm", "pandas", "rich")


@pytest.mark.parametrize("module", ["gpumlp", "gpumlp.cli"])
def test_imports_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sorted(n for n in sys.modules if n.split('.')[0] in {HEAVY!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_public_names_exist() -> None:
    pytest.importorskip("sklearn")  # two of the names are estimators
    for name in gpumlp.__all__:
        assert getattr(gpumlp, name) is not None
    assert gpumlp.__version__.count(".") >= 2
