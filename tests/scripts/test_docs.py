"""Every Python example of the README, of docs/ and of the docstrings runs."""

from __future__ import annotations

import doctest
import importlib
import os
import pkgutil
import re
from pathlib import Path
from typing import Any

import pytest

import gpumlp

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    "README.md",
    *(f"docs/{page}.md" for page in ("python", "sklearn", "many", "tables", "recipe")),
    "docs/large-data.md",
    "docs/own-training.md",
]
NEEDS_GPU = ("gpumlp.training.warmup",)


@pytest.mark.parametrize("page", PAGES)
def test_examples_of_a_page(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the page, as one program."""
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    if "large-data" in page:
        pytest.importorskip("pyarrow")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)


def _modules() -> list[str]:
    found = []
    for info in pkgutil.walk_packages(gpumlp.__path__[:1], "gpumlp."):
        if not info.name.endswith("__main__") and ".cuda" not in info.name:
            found.append(info.name)
    rules = pkgutil.iter_modules(gpumlp.kernels.optimizers.__path__, "gpumlp.kernels.optimizers.")
    return [*found, *(info.name for info in rules)]


@pytest.mark.parametrize("module", sorted(set(_modules()) - set(NEEDS_GPU)))
def test_examples_of_docstrings(module: str) -> None:
    if module.startswith(("gpumlp.estimators", "gpumlp.tabular")):
        pytest.importorskip("sklearn")
    if module.startswith(("gpumlp.tables.arrow", "gpumlp.rows.parquet")):
        pytest.importorskip("pyarrow")
    if module.startswith("gpumlp.dask."):
        pytest.importorskip("dask.dataframe")
        pytest.importorskip("distributed.client")  # tests/distributed is importable as well
    before = os.getcwd()
    assert doctest.testmod(importlib.import_module(module)).failed == 0
    assert os.getcwd() == before
