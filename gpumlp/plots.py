"""Pictures of a training run."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Sequence
from typing import Any

from gpumlp.files.archive import shown
from gpumlp.files.atomic import PathLike, replacing
from gpumlp.tables.base import printable
from gpumlp.training.history import History

__all__ = ["PLOT_ENDINGS", "plot_history", "require_matplotlib"]

PLOT_ENDINGS = (".png", ".svg", ".pdf")
_MOST_LETTERS = 40  # of a name, on an axis
_TRAIN, _VALIDATION, _BEST = "#1f77b4", "#d95f02", "#555555"


def require_matplotlib() -> None:
    """Raise ModuleNotFoundError, saying what to install, if matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "drawing needs matplotlib, which is not installed: pip install 'gpumlp[plot]'"
        ) from None


def plot_history(
    history: History,
    path: PathLike,
    *,
    target: str = "",
    target_scale: float = 1.0,
    restored: bool = False,
    dropout: bool = False,
) -> None:
    """Draw the learning curves: loss on the left, accuracy or RMSE of the validation rows on the right.

    Parameters
    ----------
    history : History
        What one `Trainer.fit` returned.
    path : path
        .png, .svg or .pdf; written atomically.
    target : str
        Name of a regression target, for the axis.
    target_scale : float
        Factor from the trained units to those of the target, for RMSE.
    restored : bool
        Early stopping put the weights of the best epoch back; the dashed line says so.
    dropout : bool
        The training loss was taken with dropout, the validation loss without; the legend says so.

    Raises
    ------
    ModuleNotFoundError
        matplotlib is not installed.
    ValueError
        The history is empty, the ending is none of the three, or matplotlib cannot draw with its settings.
    """
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    if not len(history):
        raise ValueError("the history has no epochs; nothing to draw")
    ending = os.path.splitext(os.fspath(path))[1].lower()
    if ending not in PLOT_ENDINGS:
        raise ValueError(
            f"cannot draw to {os.fspath(path)!r}: the name must end in {' or '.join(PLOT_ENDINGS)}"
        )
    metrics = history.metrics
    second = next((name for name in ("val_accuracy", "val_rmse") if name in metrics), "")
    layout = ConstrainedLayoutEngine(w_pad=0.08, wspace=0.04)
    figure = Figure(figsize=(9.6 if second else 5.2, 3.8), dpi=150, layout=layout)
    FigureCanvasAgg(figure)
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
    axes[0].legend(facecolor="white", edgecolor="none", framealpha=0.9)
    buffer = io.BytesIO()
    with warnings.catch_warnings():  # a box in the place of a letter says so itself
        warnings.filterwarnings("ignore", r"Glyph .* missing from", UserWarning)
        try:
            figure.savefig(buffer, format=ending[1:])
        except Exception as error:  # fonts, styles, LaTeX: what the user has told matplotlib to use
            raise ValueError(
                f"the learning curves could not be drawn: {type(error).__name__}: {error}"
            ) from error
    with replacing(path) as file:
        file.write(buffer.getvalue())


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


def _best_label(history: History, restored: bool) -> str:
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
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if min(values) <= 0 or max(values) <= 10 * min(values):
        return
    ax.set_yscale("log")
    if max(values) < 1e4 * min(values):  # else powers of ten are enough
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())


def _dress(ax: Any, epochs: int) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.set_xlabel("epoch")
    ax.set_xlim(0.5 if epochs <= 15 else 1, epochs + (0.5 if epochs <= 15 else 0))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    ax.grid(True, which="major", color="#dddddd", lw=0.7)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
