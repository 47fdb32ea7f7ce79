"""scikit-learn's own tests of its perceptrons, on our classes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import sklearn

SCRIPT = Path(__file__).parents[2] / "scripts" / "reports" / "run_sklearn_mlp_tests.py"


@pytest.mark.skipif(
    tuple(map(int, sklearn.__version__.split(".")[:2])) < (1, 7), reason="their tests before 1.7 test less"
)
def test_their_tests() -> None:
    run = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-3000:]
    left_out = [line for line in run.stdout.splitlines() if line.startswith("left out:")]
    assert len(left_out) <= 5
    assert " passed" in run.stdout and " deselected" in run.stdout
