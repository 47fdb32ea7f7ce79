"""What mkdocs builds the site from beside `docs/` (a hook, see mkdocs.yml): README.md as the first page,
files of the repository that pages link to, as pages, and the package as it is installed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"\]\(\.\./([\w./-]+\.\w+)\)")  # in docs/*.md, to a file outside of docs/
PARAMETERS = re.compile(r"<table>(?:(?!</table>).)*?<th>Default</th>.*?</table>", re.DOTALL)
ROW = re.compile(r'<tr class="doc-section-item.*?</tr>', re.DOTALL)
QUOTED = re.compile(r"<blockquote>\s*<p>(.*?)</p>\s*</blockquote>", re.DOTALL)
KINDS = {".py": "python", ".cpp": "cpp", ".h": "cpp"}


def _source_page(path: str) -> str:
    text = (ROOT / path).read_text(encoding="utf-8")
    kind = KINDS.get(Path(path).suffix, "")
    return f"---\nsearch:\n  exclude: true\n---\n# {path}\n\n``````{kind}\n{text}``````\n"


def on_startup(**_: Any) -> None:
    """Put the package together, with `kernels/` in it, where mkdocstrings looks."""
    package = ROOT / "build" / "site" / "gpumlp"
    shutil.rmtree(package, ignore_errors=True)
    skipped = shutil.ignore_patterns("__pycache__", "__main__.py")  # looking at a program would run it
    for source, target in ((ROOT / "gpumlp", package), (ROOT / "kernels", package / "kernels")):
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=skipped)


def on_files(files: Any, config: Any) -> Any:
    """Add the pages."""
    from mkdocs.structure.files import File

    readme = (ROOT / "README.md").read_text(encoding="utf-8").replace("](docs/", "](")
    files.append(File.generated(config, "index.md", content=readme))
    pages = Path(config.docs_dir).glob("*.md")
    for path in sorted({path for page in pages for path in LINK.findall(page.read_text(encoding="utf-8"))}):
        files.append(File.generated(config, f"source/{path}.md", content=_source_page(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links to files outside of docs/ lead to their pages."""
    if "/" in page.file.src_uri:
        return markdown
    return LINK.sub(r"](source/\1.md)", markdown)


def _merged(table: re.Match[str]) -> str:
    """A table of parameters with one row for names that share a description, as the docstring has them, and
    without the defaults, which the signature shows."""
    rows: list[list[str]] = []
    for cells in (re.findall(r"<td.*?</td>", row, re.DOTALL)[:3] for row in ROW.findall(table[0])):
        name, kind, text = (re.sub(r"^<td[^>]*>\s*|\s*</td>$", "", cell) for cell in cells)
        kind = "" if ">Any<" in kind else kind
        if rows and rows[-1][2] == text:
            rows[-1][0] += f", {name}"
            rows[-1][1] += f", {kind}" if kind not in rows[-1][1] else ""
        else:
            rows.append([name, kind, text])
    head = "<thead><tr><th>Name</th><th>Type</th><th>Description</th></tr></thead>"
    body = "".join(f"<tr><td>{name}</td><td>{kind}</td><td>{text}</td></tr>" for name, kind, text in rows)
    return f"<table>{head}<tbody>{body}</tbody></table>"


def on_page_content(html: str, **_: Any) -> str:
    """Tidy what mkdocstrings makes: tables of parameters, `> 0` that was taken for a quotation, and `::`
    before an indented block, which is a colon."""
    html = QUOTED.sub(r"<p>&gt; \1</p>", PARAMETERS.sub(_merged, html))
    return html.replace("::</p>", ":</p>")
