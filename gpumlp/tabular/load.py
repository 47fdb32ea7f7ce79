"""`gpumlp.load`: reads files of networks, ensembles and estimators of tables, and runs no code of theirs."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

from gpumlp.errors import ModelFileError
from gpumlp.files.archive import shown
from gpumlp.files.atomic import PathLike
from gpumlp.model import MLP, Ensemble
from gpumlp.model.load import load as load_networks
from gpumlp.model.saved import bad_file
from gpumlp.tabular.columns import Category, Codes, Date, Flag, Number
from gpumlp.tabular.encoder import Encoder
from gpumlp.tabular.saved import PARAMETERS, REPORTS, VERSION

__all__ = ["load"]


def load(path: PathLike, device: Any = "auto") -> Any:
    """Read what `save` wrote: an `MLP`, that of a `Trainer`, an `Ensemble`, or an estimator of tables.

    Parameters
    ----------
    path : path
    device : str
        As for `MLP`.

    Returns
    -------
    MLP, Ensemble, TabularClassifier or TabularRegressor

    Raises
    ------
    FileNotFoundError, PermissionError
        The file is not there or cannot be read.
    ModelFileError
        The file is damaged, is not a model, or has a version that this gpumlp does not know.
    """
    found = load_networks(path, device)
    if not isinstance(found, Ensemble) or "tabular" not in found.extra:
        return found
    name = os.fspath(path)
    try:
        return _estimator(found, found.extra["tabular"], device)
    except ModelFileError as error:
        raise bad_file(name, error) from None
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise bad_file(name, f"its entries for tables do not fit together ({error!r})") from None


def _estimator(ensemble: Ensemble, extra: dict[str, Any], device: Any) -> Any:
    from gpumlp.tabular.estimators import TabularClassifier, TabularRegressor

    if extra["version"] != VERSION:
        raise ModelFileError(
            f"its tables have version {shown(extra['version'])}, this gpumlp reads {VERSION}"
        )
    kinds = {"TabularClassifier": TabularClassifier, "TabularRegressor": TabularRegressor}
    parameters = {name: extra["parameters"][name] for name in PARAMETERS}
    est: Any = kinds[extra["estimator"]](**parameters, device=device if isinstance(device, str) else "auto")
    est.encoder_ = _to_encoder(extra["encoder"])
    est.n_features_in_ = len(est.encoder_.names)
    if est.encoder_.named:
        est.feature_names_in_ = np.array(est.encoder_.names, object)
    for name in REPORTS:
        setattr(est, name, extra["reports"][name])
    est.validation_scores_ = {k: math.nan if v is None else v for k, v in est.validation_scores_.items()}
    est.ensemble_ = ensemble
    ensemble.extra = {name: value for name, value in ensemble.extra.items() if name != "tabular"}
    _to_target(est, extra["target"])
    model: MLP = ensemble.models[0]
    inputs, outputs = len(est.encoder_.inputs()), est._n_out
    if (model.layer_sizes[0], model.layer_sizes[-1]) != (inputs, outputs):
        raise ModelFileError(
            f"its networks have {model.layer_sizes[0]} inputs and {model.layer_sizes[-1]} outputs, its "
            f"columns make {inputs}, and its target {outputs}"
        )
    if ensemble.output != ("softmax" if hasattr(est, "classes_") else "identity"):
        raise ModelFileError(f"its networks have the output {ensemble.output!r}")
    return est


def _to_encoder(state: dict[str, Any]) -> Encoder:
    names = _texts(state["names"])
    columns = {name: _to_column(column) for name, column in state["columns"].items()}
    if len(set(names)) != len(names) or not set(columns) <= set(names):
        raise ModelFileError("its columns and their names do not fit together")
    return Encoder(names, bool(state["named"]), columns, {k: str(v) for k, v in state["dropped"].items()})


def _to_column(state: dict[str, Any]) -> Any:
    kind = state["kind"]
    if kind == "number":
        points, scores = (np.array(state[name], np.float64) for name in ("points", "scores"))
        good = points.ndim == 1 and points.shape == scores.shape and len(points)
        if not good or not np.isfinite([points, scores]).all() or (np.diff(points) <= 0).any():
            raise ModelFileError("a column's quantiles are not ascending numbers")
        return Number(points, scores, bool(state["indicator"]))
    if kind == "flag":
        return Flag(float(state["low"]), float(state["high"]))
    if kind == "category":
        return Category(_texts(state["known"]), bool(state["rare"]), bool(state["missing"]))
    if kind == "codes":
        return Codes(_texts(state["known"]), bool(state["missing"]))
    if kind == "date":
        return Date.of({name: _to_column(part) for name, part in state["parts"].items()})
    raise ModelFileError(f"it has a column of the kind {shown(kind)}, which this gpumlp does not know")


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ModelFileError(f"it has {shown(value)}, expected a list of texts")
    return value


def _to_target(est: Any, state: dict[str, Any]) -> None:
    if "labels" in state:
        dtype = np.dtype(state["dtype"])
        if dtype.kind not in "OUbiuf":
            raise ModelFileError(f"its labels have the type {dtype}")
        est.classes_ = np.array(state["labels"], dtype)
        return
    est._one = bool(state["one"])
    for name in ("mean", "scale", "range"):
        setattr(est, f"target_{name}_", np.array(state[name], np.float64))
    if (
        est.target_range_.shape != (2, len(est.target_mean_))
        or est.target_scale_.shape != est.target_mean_.shape
    ):
        raise ModelFileError("its target's mean, scale and range do not fit together")
