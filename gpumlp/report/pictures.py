"""The pictures of a report, as SVG texts."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpumlp.plots import require_matplotlib
from gpumlp.report.judge import Answers, Importance
from gpumlp.tables.base import printable

__all__ = [
    "calibration_picture",
    "confusion_picture",
    "curves_picture",
    "importance_picture",
    "values_picture",
]

_BLUE, _ORANGE, _GREY = "#1f77b4", "#d95f02", "#888888"
_MOST_CLASSES, _MOST_POINTS, _MOST_COLUMNS = 25, 3000, 25


def _svg(draw: Callable[[Any], None], width: float, height: float) -> str:
    """What `draw` draws on a matplotlib Axes; the same drawing gives the same text."""
    require_matplotlib()
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "gpumlp", "font.size": 9, "text.usetex": False}):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        draw(axes)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def _short(text: object, most: int = 24) -> str:
    name = printable(str(text)).replace("$", r"\$")
    return name if len(name) <= most else name[: most - 1] + "…"


def curves_picture(curves: Sequence[Sequence[float]], chosen: Sequence[bool], figure: str) -> str:
    """Validation curves of networks, those of the ensemble in colour."""

    def draw(axes: Any) -> None:
        for curve, used in sorted(zip(curves, chosen, strict=True), key=lambda pair: pair[1]):
            epochs = np.arange(1, len(curve) + 1)
            axes.plot(epochs, curve, color=_BLUE if used else _GREY, alpha=0.8 if used else 0.35, lw=1.1)
        best = [curve[int(np.nanargmin(curve))] for curve in curves if len(curve)]
        ends = [max(curve[0], float(np.nanquantile(curve, 0.8))) for curve in curves if len(curve)]
        if best:
            low, high = min(best), float(np.median(ends))
            margin = 0.05 * max(high - low, 1e-12)
            axes.set_ylim(low - margin, max(high, *best) + margin)
        axes.set(xlabel="epoch", ylabel=f"{figure} of the validation rows")

    return _svg(draw, 6.2, 3.4)


def confusion_picture(answers: Answers) -> str:
    """True classes (rows) against predicted ones; the classes with most rows if there are many."""
    assert answers.classes is not None
    classes = answers.classes
    counts = np.array([(answers.y == name).sum() for name in classes])
    if len(classes) > _MOST_CLASSES:
        classes = classes[np.sort(np.argsort(-counts, kind="stable")[:_MOST_CLASSES])]
    table = np.array(
        [[((answers.y == a) & (answers.predicted == b)).sum() for b in classes] for a in classes]
    )
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    size = min(9.0, 2.6 + 0.42 * len(classes))

    def draw(axes: Any) -> None:
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        names = [_short(name, 14) for name in classes]
        axes.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names)) > 3 else 0)
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel="predicted", ylabel="true")
        for (i, j), number in np.ndenumerate(table):
            if number:
                color = "white" if share[i, j] > 0.5 else "black"
                axes.text(j, i, str(number), ha="center", va="center", color=color, fontsize=7.5)

    return _svg(draw, size, size)


def values_picture(answers: Answers) -> str:
    """Predicted against true values."""
    y, found = answers.y.ravel(), answers.predicted.ravel()
    if len(y) > _MOST_POINTS:
        some = np.random.default_rng(0).permutation(len(y))[:_MOST_POINTS]
        y, found = y[some], found[some]

    def draw(axes: Any) -> None:
        low, high = min(y.min(), found.min()), max(y.max(), found.max())
        axes.plot([low, high], [low, high], color=_GREY, lw=1)
        axes.scatter(y, found, s=7, alpha=0.35, color=_BLUE, linewidths=0)
        axes.set(xlabel="true", ylabel="predicted", aspect="equal")

    return _svg(draw, 4.6, 4.4)


def calibration_picture(bins: Sequence[tuple[float, float, int]], classifier: bool) -> str:
    """Mean prediction of each bin against what was true."""
    said, true, _ = (np.array(part, float) for part in zip(*bins, strict=True))

    def draw(axes: Any) -> None:
        low, high = min(said.min(), true.min()), max(said.max(), true.max())
        axes.plot([low, high], [low, high], color=_GREY, lw=1)
        axes.plot(said, true, "o-", color=_ORANGE, ms=4, lw=1.2)
        x = "probability of the predicted class" if classifier else "predicted value"
        axes.set(
            xlabel=f"{x}, mean of a tenth of the rows",
            ylabel="share of right ones" if classifier else "mean true value",
        )

    return _svg(draw, 4.6, 3.6)


def importance_picture(found: Sequence[Importance], what: str) -> str:
    """Bars, the largest on top."""
    found = found[:_MOST_COLUMNS][::-1]

    def draw(axes: Any) -> None:
        axes.barh(
            range(len(found)),
            [one.mean for one in found],
            xerr=[one.deviation for one in found],
            color=_BLUE,
            ecolor=_GREY,
            height=0.7,
        )
        axes.set_yticks(range(len(found)), [_short(one.column) for one in found])
        said = "accuracy lost" if what == "accuracy" else "RMSE added"
        axes.set_xlabel(f"{said} when the column is shuffled")

    return _svg(draw, 6.2, 1.0 + 0.26 * len(found))
