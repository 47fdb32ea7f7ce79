"""The programs of the textbook's sections: what they assert holds on every executor, and docs/ shows them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from gpumlp.kernels.activations import backward_kernel, forward_kernel
from gpumlp.kernels.losses import training_kernel

import gpumlp

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


@pytest.mark.parametrize("page", ["textbook", "gallery"])
def test_files_and_tests_that_a_page_names_exist(page: str) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if not link.startswith("http")]
    assert len(links) > 10
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
    for file, named in re.findall(r"\(\.\./(tests/[\w/]+\.py)\), (`.*?)(?=;| \|)", text):
        source = (ROOT / file).read_text(encoding="utf-8")
        assert [test for test in re.findall(r"`(\w+)`", named) if f"def {test}(" not in source] == []


def test_kernel_texts_of_the_textbook_page_are_those_that_run() -> None:
    rules = [gpumlp.SGD(l1=1.0, l2=1.0, weight_decay=1.0, proximal=True), gpumlp.SGD(momentum=0.9)]
    rules += [rule() for rule in gpumlp.optimizers.OPTIMIZERS.values()]
    texts = [rule.kernel(clip=clip).body for rule in rules if rule.name != "muon" for clip in (False, True)]
    texts += [training_kernel(name, False).body for name in ("softmax_cross_entropy", "squared_error")]
    for name in ("relu", "sigmoid", "tanh"):
        texts += [forward_kernel(name, True).body, backward_kernel(name).body]
    lines = {line.strip() for text in texts for line in text.splitlines()}
    page = (ROOT / "docs" / "textbook.md").read_text(encoding="utf-8")
    shown = [
        line for block in re.findall(r"```cpp\n(.*?)```", page, re.DOTALL) for line in block.splitlines()
    ]
    assert len(shown) > 25
    assert [line for line in shown if line not in lines] == []


def test_every_public_name_has_its_place_in_the_reference() -> None:
    pages = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "api").glob("*.md"))
    shown = {name.split(".")[-1] for name in re.findall(r"^::: (gpumlp\S+)$", pages, re.MULTILINE)}
    assert set(gpumlp.__all__) - shown == {"__version__"}


def test_tables_of_the_reference_have_a_row_for_each_description(script: Script) -> None:
    head = "<table><tr><th>Name</th><th>Type</th><th>Description</th><th>Default</th></tr>"
    row = '<tr class="doc-section-item"><td>{}</td><td id="x">{}</td><td>{}</td><td>{}</td></tr>'
    quoted = "<blockquote>\n<p>0: shorter</p>\n</blockquote>"
    cells = [("l1", "float", "Size.", 0), ("l2", "int", "Size.", 0), ("clip", ">Any<", quoted, 1)]
    page = head + "".join(row.format(*each) for each in cells) + "</table><p>As follows::</p>"
    assert script("shared.site_pages").on_page_content(page) == (
        "<table><thead><tr><th>Name</th><th>Type</th><th>Description</th></tr></thead><tbody>"
        "<tr><td>l1, l2</td><td>float, int</td><td>Size.</td></tr>"
        "<tr><td>clip</td><td></td><td><p>&gt; 0: shorter</p></td></tr></tbody></table><p>As follows:</p>"
    )
