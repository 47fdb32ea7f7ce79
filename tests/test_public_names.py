"""Tests know the package from outside: they reach for no private name of it, nor of the scripts."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FILES = sorted(HERE.rglob("*.py"))
#: public in spite of their names: documented by Python and IPython
DOCUMENTED = {"_exit", "_replace", "_repr_html_", "_repr_png_"}
_PRIVATE = re.compile(r"_[a-zA-Z]\w*")
_OURS = ("gpumlp", "kernels", "scripts")


def _is_private(name: str) -> bool:
    return bool(_PRIVATE.fullmatch(name)) and name not in DOCUMENTED


def private_names(text: str) -> list[str]:
    """Private names of others that a module uses: `x._y`, `import _y` from ours, setattr(x, "_y", z)."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute):
            found += [node.attr]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in _OURS:
            found += [*str(node.module).split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in ("getattr", "setattr", "delattr", "hasattr"):
                words = [str(a.value) for a in node.args[:2] if isinstance(a, ast.Constant)]
                found += [part for word in words for part in word.split(".")]
    return [name for name in found if _is_private(name)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(HERE)))
def test_no_private_name(file: Path) -> None:
    assert private_names(file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "text",
    [
        "model._buffer",
        "model.engine._plans['full'].run()",
        "from gpumlp.errors import _names",
        "from gpumlp._inner import names",
        "monkeypatch.setattr(backends, '_made', {})",
        "monkeypatch.setattr('gpumlp.backends._made', {})",
        "getattr(model, '_buffer')",
    ],
)
def test_private_names_are_seen(text: str) -> None:
    assert len(private_names(text)) == 1


def test_the_names_of_a_test_are_its_own() -> None:
    assert private_names("import os\ndef _helper(): ...\n_helper()\nos._exit(0)\nx.__dict__\n") == []


def test_names_of_files_are_unique() -> None:
    """pytest imports them by their last name."""
    names = [file.name for file in FILES if file.name != "conftest.py"]
    assert sorted({name for name in names if names.count(name) > 1}) == []
