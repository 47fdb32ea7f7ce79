"""The rooms of the package: imports go one way, those inside functions and for type checking included."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

#: from the ground up; a room may import the rooms on the lines before its own
FLOORS = [
    ["kernels"],
    ["version", "locks", "checks"],
    ["errors"],
    ["schedules", "datasets", "files"],
    ["plots"],
    ["distributed"],
    ["backends"],
    ["verify"],
    ["activations", "losses"],
    ["network", "optimizers"],
    ["rows"],
    ["plans"],
    ["model"],
    ["checkpoint"],
    ["training"],
    ["own", "callbacks"],
    ["estimators", "tables"],
    ["dask", "model_selection", "tabular"],
    ["report"],
    ["preparation"],
    ["export"],
    ["cli"],
    [""],  # the package's own face
    ["__main__"],
]


def _modules() -> dict[str, Path]:
    """Full name -> file; `gpumlp.kernels` is the top-level folder."""
    found = {}
    for folder, package in ((ROOT / "kernels", "gpumlp.kernels"), (ROOT / "gpumlp", "gpumlp")):
        for file in sorted(folder.rglob("*.py")):
            parts = file.relative_to(folder).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            found.setdefault(".".join((package, *parts)), file)
    return found


MODULES = _modules()


def _room(module: str) -> str:
    return (module.split(".") + [""])[1]


def _imported(module: str, node: ast.AST) -> set[str]:
    """Modules of the package that an import statement names."""
    if isinstance(node, ast.Import):
        names = {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"{module}: a relative import; the package imports by full names"
        base = node.module or ""
        submodules = {f"{base}.{alias.name}" for alias in node.names if f"{base}.{alias.name}" in MODULES}
        names = submodules if len(submodules) == len(node.names) else {base, *submodules}
    else:
        return set()
    return {name for name in names if name in MODULES and name != module}


IMPORTS = {
    module: {
        name
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        for name in _imported(module, node)
    }
    for module, file in MODULES.items()
}


def test_no_circle_of_modules() -> None:
    try:
        list(TopologicalSorter(IMPORTS).static_order())
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}")


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_down(module: str) -> None:
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    for name in IMPORTS[module]:
        if _room(name) != _room(module):
            assert floor[_room(name)] < floor[_room(module)], f"{module} imports {name}"


def test_every_room_has_a_floor() -> None:
    assert {_room(module) for module in MODULES} == {room for rooms in FLOORS for room in rooms}


def test_imports_are_seen() -> None:
    """This test sees what it should: an import in a function, of a submodule, of the top-level folder."""
    assert "gpumlp.training.saved" in IMPORTS["gpumlp.training.filed"]
    assert "gpumlp.kernels.rows" in IMPORTS["gpumlp.plans.operations"]
    assert "gpumlp.checks" in IMPORTS["gpumlp.network.network"]
