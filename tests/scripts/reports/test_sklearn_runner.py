"""The runner of scikit-learn's own tests."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest

Script = Callable[[str], ModuleType]


def test_the_runner_of_scikit_learns_tests_has_help_of_its_own(
    script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script("reports.run_sklearn_mlp_tests").main(["--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Run scikit-learn's own tests") and out.count("\n") < 20
