"""The programs of the textbook's sections: what they assert holds on every executor, and docs/ shows them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

Script = Callable[[str], ModuleType]
ROOT = Path(__file__).parents[3]
PROGRAMS = sorted(
    path.stem
    for path in (ROOT / "scripts" / "examples").glob("*.py")
    if "textbook.run(" in path.read_text(encoding="utf-8")
)


def test_all_are_found() -> None:
    assert len(PROGRAMS) == 9 and "optimizer_paths" in PROGRAMS


@pytest.mark.parametrize("name", PROGRAMS)
def test_it_shows_what_it_says(script: Script, device: str, name: str, tmp_path: Path) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    figure = script(f"examples.{name}").main(device)  # asserts the numbers
    script("shared.textbook").save(figure, tmp_path / "figure.png")
    pyplot.close(figure)
    png = (tmp_path / "figure.png").read_bytes()
    assert png.startswith(b"\x89PNG") and len(png) < 40_000


@pytest.mark.parametrize("name", PROGRAMS)
def test_it_is_short_and_shown(name: str) -> None:
    text = (ROOT / "scripts" / "examples" / f"{name}.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 60
    assert (ROOT / "docs" / "images" / "examples" / f"{name}.png").stat().st_size < 40_000
    for page in ("textbook", "gallery"):
        assert f"{name}.py" in (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")


def test_the_command_draws(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = script("examples.optimizer_paths")
    run = script("shared.textbook").run
    monkeypatch.setattr("sys.argv", ["program", str(tmp_path), "--device", "numpy"])
    run(module.main, module.__file__, module.__doc__)
    assert capsys.readouterr().out == f"drawn to {tmp_path / 'optimizer_paths.png'}\n"
    assert (tmp_path / "optimizer_paths.png").exists()
    monkeypatch.setattr("sys.argv", ["program", str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit, match="cannot write"):
        run(module.main, module.__file__, module.__doc__)


def test_files_of_the_textbook_page_exist() -> None:
    """Links, and files that are named in code."""
    text = (ROOT / "docs" / "textbook.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if not link.startswith("http")]
    files = re.findall(r"`((?:gpumlp|kernels|scripts|tests|docs)/[\w./]+)`", text)
    assert len(links) > 10 and len(files) > 10
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
    assert [file for file in files if not (ROOT / file).exists()] == []
