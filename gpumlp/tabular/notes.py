"""What is said about a fit: columns that are not used, rows that look numbered, overfitting."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpumlp.tables import Frame
from gpumlp.tabular.encoder import Encoder

__all__ = ["Note", "notes_of"]

_WIDER = 0.15  # between R2 or accuracy of training rows and of validation rows


@dataclass
class Note:
    """A sentence; `warn` where something may be wrong."""

    text: str
    warn: bool = False

    def __str__(self) -> str:
        return self.text


def notes_of(
    frame: Frame, encoder: Encoder, scores: dict[str, float], train: dict[str, float], late: bool
) -> list[Note]:
    """All that is worth saying about a fit.

    Parameters
    ----------
    frame : Frame
    encoder : Encoder
    scores, train : dict
        Figures of validation rows, with those of a constant prediction, and of training rows; may be empty.
    late : bool
        The time limit left no room for all that was planned.
    """
    notes = [
        Note(f"column {name!r} is not used: it {why}")
        for name, why in encoder.dropped.items()
        if why != "was not wanted"
    ]
    notes += [
        Note(
            f"column {name!r} looks like a row number; if that says nothing about new rows, drop it",
            warn=True,
        )
        for name in encoder.columns
        if _counts_rows(frame, name)
    ]
    notes += _fit_notes(scores, train)
    if late:
        notes.append(
            Note("the time limit left room for less than was planned: fewer networks, epochs or rows")
        )
    return notes


def _fit_notes(scores: dict[str, float], train: dict[str, float]) -> list[Note]:
    if not scores:
        return [Note("there are few rows: none were held back, so there are no validation figures")]
    notes = []
    name = "r2" if "r2" in scores else "accuracy"
    error = "rmse" if name == "r2" else "log_loss"
    if error == "rmse" and np.isnan(scores["r2"]):
        notes.append(Note("y is the same in all validation rows, so their figures say nothing", warn=True))
    elif scores[error] >= scores[f"constant_{error}"]:
        notes.append(
            Note(
                f"on the validation rows, {error} {scores[error]:.4g} is no better than that of a constant "
                f"prediction, {scores[f'constant_{error}']:.4g}: the columns seem to say nothing about y",
                warn=True,
            )
        )
    elif train[name] - scores[name] > _WIDER:
        notes.append(
            Note(
                f"the networks know the training rows better than others ({name} {train[name]:.3f} against "
                f"{scores[name]:.3f} on validation rows): more rows, or fewer columns, may help"
            )
        )
    return notes


def _counts_rows(frame: Frame, name: str) -> bool:
    """Whether the column's values are whole numbers, all different, of which at least every second from the
    smallest to the largest is there: in any order, as rows may have been drawn at random from more."""
    column = frame[name]
    if column.kind != "number" or column.missing is not None or len(column) < 20:
        return False
    values = column.values.astype(np.float64)
    low, high = values.min(), values.max()
    if not high - low < 2 * len(values) or (values != np.floor(values)).any():
        return False
    return bool(np.bincount((values - low).astype(np.int64)).max() == 1)
