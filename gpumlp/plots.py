"""Pictures of trainings."""

from __future__ import annotations

import io
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from gpumlp.checks import printable
from gpumlp.files.archive import shown
from gpumlp.files.atomic import PathLike, replacing

__all__ = ["PLOT_ENDINGS", "plot_history", "plot_trials", "require_matplotlib"]

PLOT_ENDINGS = (".png", ".svg", ".pdf")
_MOST_LETTERS = 40  # of a name, on an axis
_TRAIN, _VALIDATION, _BEST = "#1f77b4", "#d95f02", "#555555"
_LEGEND: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "framealpha": 0.9}
#: kind of a trial -> color, marker, label; the last is drawn on top
_KINDS = {
    "early": ("#9ecae1", "o", "ended at a rung"),
    "other": ("#1f77b4", "o", "other trials"),
    "chosen": (_VALIDATION, "*", "chosen"),
}


def require_matplotlib() -> None:
    """Raise ModuleNotFoundError, saying what to install, if matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "drawing needs matplotlib, which is not installed: pip install 'gpumlp[plot]'"
        ) from None


def plot_history(
    history: Any,
    path: PathLike | None = None,
    *,
    target: str = "",
    target_scale: float = 1.0,
    restored: bool = False,
    dropout: bool = False,
) -> Any:
    """Draw the learning curves: loss on the left, accuracy or RMSE of the validation rows on the right.

    Parameters
    ----------
    history : History
        The `History` that a `Trainer.fit` returned.
    path : path, optional
        .png, .svg or .pdf; written atomically.
    target : str
        Name of a regression target, for the axis.
    target_scale : float
        Factor from the trained units to those of the target, for RMSE.
    restored : bool
        Early stopping put the weights of the best epoch back; the dashed line says so.
    dropout : bool
        The training loss was taken with dropout, the validation loss without; the legend says so.

    Returns
    -------
    matplotlib Figure, or None if there is a `path`
        A notebook shows it.

    Raises
    ------
    ModuleNotFoundError
        matplotlib is not installed.
    ValueError
        The history is empty, the ending is none of the three, or matplotlib cannot draw with its settings.
    """
    if not len(history):
        raise ValueError("the history has no epochs; nothing to draw")
    metrics = history.metrics
    second = next((name for name in ("val_accuracy", "val_rmse") if name in metrics), "")
    figure = _figure(path, 9.6 if second else 5.2, 3.8)
    axes = figure.subplots(1, 2 if second else 1, squeeze=False)[0]
    _loss_panel(axes[0], metrics, "training (with dropout)" if dropout else "training")
    if second:
        _metric_panel(axes[1], second, metrics[second], target, target_scale)
    for ax in axes:
        _dress(ax, len(history))
        if "val_loss" in metrics and history.best_epoch is not None:
            ax.axvline(
                history.best_epoch + 1, color=_BEST, lw=1, ls="--", label=_best_label(history, restored)
            )
    axes[0].legend(**_LEGEND)
    if path is None:
        figure._repr_png_ = lambda: _bytes(figure, "png")  # also where pyplot has not been imported
        return figure
    _write(figure, path)
    return None


def plot_trials(
    curves: Sequence[Sequence[float]],
    losses: Sequence[float],
    settings: Mapping[str, Sequence[float]],
    path: PathLike,
    *,
    logarithmic: Sequence[str] = (),
    early: Sequence[bool] = (),
    chosen: Sequence[bool] = (),
    rungs: Sequence[int] = (),
    what: str = "trials",
) -> None:
    """Draw many trials: the validation loss of all by epoch, and the lowest by each setting.

    Parameters
    ----------
    curves : sequence of sequence of float
        Validation loss of each trial, by epoch; at least one is finite.
    losses : sequence of float
        What each is judged by.
    settings : mapping of str to sequence of float
        Name of a setting -> its value in each trial.
    path : path
        .png, .svg or .pdf; written atomically.
    logarithmic : sequence of str
        Settings with a logarithmic axis.
    early, chosen : sequence of bool
        Whether a trial was ended at a rung; is part of the result.  By default none.
    rungs : sequence of int
        Epochs after which trials were ended.
    what : str
        What they are called.

    Raises
    ------
    ModuleNotFoundError, ValueError
        As for `plot_history`.
    """
    if not curves:
        raise ValueError("there are no trials; nothing to draw")
    early, chosen = list(early) or [False] * len(curves), list(chosen) or [False] * len(curves)
    kinds = ["chosen" if c else "early" if e else "other" for e, c in zip(early, chosen, strict=True)]
    columns = min(3, 1 + len(settings))
    lines = -(-(1 + len(settings)) // columns)
    figure = _figure(path, 4.6 * columns, 3.4 * lines)
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    _curves_panel(axes[0], curves, kinds, rungs, what)
    for ax, (name, values) in zip(axes[1:], settings.items(), strict=False):
        _setting_panel(ax, name, values, losses, kinds)
        if name in logarithmic and min(values) > 0:
            ax.set_xscale("log")
            _plain_ticks(ax.xaxis, values, (1.0,) if max(values) > 50 * min(values) else (1.0, 2.0, 5.0))
        elif all(float(value).is_integer() for value in values):
            ax.xaxis.set_major_locator(_whole())
    for ax in axes[1 + len(settings) :]:
        ax.set_visible(False)
    _write(figure, path)


def _curves_panel(
    ax: Any, curves: Sequence[Sequence[float]], kinds: Sequence[str], rungs: Sequence[int], what: str
) -> None:
    for kind, (color, _, label) in _KINDS.items():
        of_kind = [curve for curve, k in zip(curves, kinds, strict=True) if k == kind]
        for number, curve in enumerate(of_kind):
            ax.plot(
                range(1, len(curve) + 1),
                curve,
                color=color,
                lw=1.6 if kind == "chosen" else 0.8,
                alpha=1 if kind == "chosen" else 0.6,
                marker="o" if len(curve) <= 2 else "",
                ms=2,
                label="" if number else label.replace("trials", what),
            )
    for number, rung in enumerate(rungs):
        ax.axvline(rung, color=_BEST, lw=0.8, ls=":", label="" if number else "rung")
    every = [[value for value in curve if math.isfinite(value)] for curve in curves]
    # what is worse than at the beginning, or than most, says little
    values = sorted(value for curve in every for value in curve)
    top = max([*(curve[0] for curve in every if curve), values[int(0.8 * (len(values) - 1))]])
    low = values[0]
    _scale(ax, [value for value in values if value <= top])
    ax.set_ylim(low * (low / top) ** 0.05 if ax.get_yscale() == "log" else low - 0.05 * (top - low or 1), top)
    ax.set_ylabel("validation loss")
    ax.set_title(f"All {what}")
    _dress(ax, max([*map(len, curves), *rungs]))
    ax.legend(**_LEGEND)


def _setting_panel(
    ax: Any, name: str, values: Sequence[float], losses: Sequence[float], kinds: Sequence[str]
) -> None:
    for kind, (color, marker, _) in _KINDS.items():
        points = [(x, y) for x, y, k in zip(values, losses, kinds, strict=True) if k == kind]
        size = 60 if kind == "chosen" else 18
        ax.scatter(*zip(*points, strict=True), c=color, marker=marker, s=size, lw=0) if points else None
    _scale(ax, losses)
    ax.set_xlabel(name.replace("_", " "))
    ax.set_ylabel("lowest validation loss")
    _frame(ax)


def _figure(path: PathLike | None, width: float, height: float) -> Any:
    """An empty figure, if `path` can be one of its files."""
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    if path is not None and _ending(path) not in PLOT_ENDINGS:
        raise ValueError(
            f"cannot draw to {os.fspath(path)!r}: the name must end in {' or '.join(PLOT_ENDINGS)}"
        )
    layout = ConstrainedLayoutEngine(w_pad=0.08, wspace=0.04)
    figure = Figure(figsize=(width, height), dpi=150, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def _ending(path: PathLike) -> str:
    return os.path.splitext(os.fspath(path))[1].lower()


def _write(figure: Any, path: PathLike) -> None:
    data = _bytes(figure, _ending(path)[1:])
    with replacing(path) as file:
        file.write(data)


def _bytes(figure: Any, form: str) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():  # a box in the place of a letter says so itself
        warnings.filterwarnings("ignore", r"Glyph .* missing from", UserWarning)
        try:
            figure.savefig(buffer, format=form)
        except Exception as error:  # fonts, styles, LaTeX: what the user has told matplotlib to use
            raise ValueError(
                f"the learning curves could not be drawn: {type(error).__name__}: {error}"
            ) from error
    return buffer.getvalue()


def _curve(ax: Any, values: Sequence[float], color: str, label: str) -> None:
    # few epochs: dots show that values belong to epochs
    ax.plot(
        range(1, len(values) + 1),
        values,
        color=color,
        label=label,
        lw=1.8,
        marker="o" if len(values) <= 15 else "",
        ms=4,
    )


def _best_label(history: Any, restored: bool) -> str:
    best = history.best_epoch or 0
    if restored:
        return f"best epoch {best + 1}, restored"
    # early stopping may have watched another figure
    lowest = history.val_loss[best] <= min(history.val_loss)
    return f"lowest validation loss: epoch {best + 1}" if lowest else f"best epoch {best + 1}"


def _loss_panel(ax: Any, metrics: dict[str, list[float]], label: str) -> None:
    _curve(ax, metrics["loss"], _TRAIN, label)
    every = list(metrics["loss"])
    if "val_loss" in metrics:
        _curve(ax, metrics["val_loss"], _VALIDATION, "validation")
        every += metrics["val_loss"]
    _scale(ax, every)
    ax.set_ylabel("loss (mean per row)")
    ax.set_title("Loss")


def _metric_panel(ax: Any, name: str, values: Sequence[float], target: str, scale: float) -> None:
    if name == "val_accuracy":
        _curve(ax, [100 * v for v in values], _VALIDATION, "validation")
        ax.set_ylabel("accuracy (% of validation rows)")
        ax.set_title("Accuracy")
        return
    _curve(ax, [scale * v for v in values], _VALIDATION, "validation")
    _scale(ax, values)
    unit = shown(printable(target), str, _MOST_LETTERS) or "the target"
    ax.set_ylabel(f"RMSE (units of {unit})", parse_math=False)  # a name from a file may have dollar signs
    ax.set_title("Error on validation rows")


def _scale(ax: Any, values: Sequence[float]) -> None:
    """A logarithmic axis with plain numbers if the values span more than a decade."""
    if min(values) > 0 and max(values) > 10 * min(values):
        ax.set_yscale("log")
        _plain_ticks(ax.yaxis, values)


def _plain_ticks(axis: Any, values: Sequence[float], subs: Sequence[float] = (1.0, 2.0, 5.0)) -> None:
    """Plain numbers on a logarithmic axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if max(values) < 1e4 * min(values):  # else powers of ten are enough
        axis.set_major_locator(LogLocator(subs=subs))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _dress(ax: Any, epochs: int) -> None:
    ax.set_xlabel("epoch")
    ax.set_xlim(0.5 if epochs <= 15 else 1, epochs + (0.5 if epochs <= 15 else 0))
    ax.xaxis.set_major_locator(_whole())
    _frame(ax)


def _whole() -> Any:
    """Ticks at whole numbers."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10])


def _frame(ax: Any) -> None:
    ax.grid(True, which="major", color="#dddddd", lw=0.7)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
