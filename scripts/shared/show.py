"""Tables and figures of the scripts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

COLORS = ("#0b6fb8", "#d1495b", "#2e8b57", "#8a5cc2", "#c77d0a", "#3f7f93", "#7a7a7a", "#b0479a")


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Aligned text: the first column to the left, all others to the right."""
    cells = [[str(c) for c in row] for row in (header, *rows)]
    widths = [max(len(row[j]) for row in cells) for j in range(len(header))]
    lines = [
        "  ".join(
            c.ljust(w) if j == 0 else c.rjust(w) for j, (c, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    lines.insert(1, "  ".join("-" * w for w in widths))
    return "\n".join(line.rstrip() for line in lines)


def duration(seconds: float) -> str:
    """A time with a unit, three significant digits."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def whole_ticks(ax: Any) -> None:
    """Epochs are counted: no ticks between them."""
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))


def pyplot() -> Any:
    """matplotlib.pyplot for files (no display), with the scripts' common look."""
    try:
        import matplotlib
    except ImportError:
        raise SystemExit("error: drawing needs matplotlib; install it, or leave the figure out") from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {
            "figure.dpi": 120,
            "savefig.bbox": "tight",
            "font.size": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.25,
            "axes.titlesize": 11,
            "legend.frameon": False,
        }
    )
    return plt
