"""What the textbook examples share: each computes, checks what it says, and gives a figure."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scripts.shared.command import check_writable, command_line, one_line_errors
from scripts.shared.show import pyplot

Main = Callable[[str], Any]


def save(figure: Any, path: str | Path) -> None:
    """Write `figure` as a small PNG of 128 colours."""
    from PIL import Image  # matplotlib needs it as well

    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    colors = Image.open(file).convert("RGB")
    colors.quantize(128, Image.Quantize.MAXCOVERAGE).save(path, optimize=True)


def run(main: Main, file: str, text: str | None) -> None:
    """The command line of the example `file`: draw the figure of ``main(device)`` into a folder."""
    parser = command_line(text)
    parser.add_argument("folder", nargs="?", default=".", help="where the picture goes (default: here)")
    args = parser.parse_args()
    path = str(Path(args.folder) / f"{Path(file).stem}.png")
    check_writable(path)
    save(one_line_errors(main)(args.device), path)
    print(f"drawn to {path}")


def curves_and_images() -> tuple[Any, Any, Any]:
    """A figure, its left half as axes for curves, and its right half as a subfigure for `images`."""
    figure = pyplot().figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.15))
    return figure, left.subplots(), right


def images(figure: Any, pixels: Any, titles: Sequence[object], **look: Any) -> None:
    """Ten images (10, 64) of 8 x 8 pixels in two lines of a figure or subfigure; `look`: for `imshow`."""
    for ax, image, title in zip(figure.subplots(2, 5).flat, pixels, titles, strict=True):
        ax.imshow(image.reshape(8, 8), **look)
        ax.set_title(str(title), fontsize=9)
        ax.axis("off")
