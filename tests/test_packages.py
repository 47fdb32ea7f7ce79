"""The package is `gpumlp/` and `kernels/`, and nothing else beside them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

import gpumlp

HOME = Path(gpumlp.__file__).parent


@pytest.mark.parametrize("other", ["tests", "scripts", "docs", "gpumlp", "setup"])
def test_nothing_else_is_imported_with_it(other: str) -> None:
    assert importlib.util.find_spec(f"gpumlp.{other}") is None


def test_every_folder_of_modules_is_a_package() -> None:
    """Or it would not be installed."""
    spec = importlib.util.find_spec("gpumlp.kernels.losses")
    assert spec is not None and spec.origin is not None
    for home in (HOME, Path(spec.origin).parent):
        folders = {path.parent for path in home.rglob("*.py")}
        assert home in folders
        assert [str(f) for f in folders if not (f / "__init__.py").exists()] == []
