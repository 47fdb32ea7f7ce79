"""The file of an estimator of tables.

It is that of its ensemble, and the header's "extra" has an entry "tabular": what was learnt of the columns
and of the target, as plain JSON, in which floats keep every bit.  `gpumlp.tabular.load` reads it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpumlp.files.atomic import PathLike
from gpumlp.model import Ensemble
from gpumlp.tabular.columns import Date
from gpumlp.tabular.encoder import Encoder

__all__ = ["PARAMETERS", "REPORTS", "VERSION", "save_estimator"]

VERSION = 1
#: parameters of the constructor that are kept; `device` is given when a file is read
PARAMETERS = (
    *("quality", "n_networks", "time_limit", "categorical", "numeric", "drop", "random_state", "verbose"),
)
REPORTS = ("columns_", "networks_", "notes_", "validation_scores_")


def save_estimator(est: Any, path: PathLike, **more: Any) -> None:
    """See `BaseTabular.save`; `more` are entries of the header beside "tabular", which come back as those of
    `ensemble_.extra`."""
    extra = {
        "version": VERSION,
        "estimator": type(est).__name__,
        "parameters": {name: _plain(getattr(est, name)) for name in PARAMETERS},
        "encoder": _of_encoder(est.encoder_),
        "target": _of_target(est),
        "reports": {name: _plain(getattr(est, name)) for name in REPORTS},
    }
    ensemble = Ensemble(est.ensemble_.models)
    ensemble.extra = {**more, "tabular": extra}
    ensemble.save(path)


def _plain(value: Any) -> Any:
    """JSON's version of a parameter or a report; None for what has none."""
    if isinstance(value, (bool, str)) or value is None:
        return value
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)) or hasattr(value, "tolist"):
        return [_plain(v) for v in value]
    return None


def _of_encoder(encoder: Encoder) -> dict[str, Any]:
    return {
        "names": encoder.names,
        "named": encoder.named,
        "columns": {name: _of_column(column) for name, column in encoder.columns.items()},
        "dropped": encoder.dropped,
    }


def _of_column(column: Any) -> dict[str, Any]:
    if isinstance(column, Date):
        return {"kind": "date", "parts": {name: _of_column(part) for name, part in column.parts.items()}}
    return {"kind": type(column).__name__.lower(), **{k: _plain(v) for k, v in vars(column).items()}}


def _of_target(est: Any) -> dict[str, Any]:
    if not hasattr(est, "classes_"):
        return {
            "one": est._one,
            **{k: getattr(est, f"target_{k}_").tolist() for k in ("mean", "scale", "range")},
        }
    labels = est.classes_
    values = labels.tolist()
    if not all(isinstance(v, (str, bool, int, float)) for v in values):
        raise ValueError(f"labels of type {type(values[0]).__name__} cannot be saved; use texts or numbers")
    return {"dtype": "object" if labels.dtype.kind == "O" else labels.dtype.str, "labels": values}
