"""`to_onnx`: a model as an ONNX file."""

from __future__ import annotations

from typing import Any

from gpumlp.export.graph import Graph
from gpumlp.export.models import write
from gpumlp.export.pipelines import convert_pipeline
from gpumlp.export.tabular import write_tabular
from gpumlp.files.atomic import PathLike, replacing

__all__ = ["to_onnx"]


def to_onnx(model: Any, path: PathLike | None = None, *, dtype: str = "float32") -> Any:
    """A model as ONNX, for onnxruntime and other programs.

    Parameters
    ----------
    model : MLP, Ensemble, MLPClassifier, MLPRegressor, TabularClassifier, TabularRegressor, PreparedModel, \
    or a Pipeline that ends in an estimator
        Scaling, class names and the mean over an ensemble are inside of the graph.  A Pipeline needs
        skl2onnx.
    path : path, optional
        Written atomically if given.
    dtype : str
        In what the graph computes, and the type of its input: "float32" or "float64" (which some runtimes
        lack for some operations).

    Returns
    -------
    onnx.ModelProto
        Its input is "X" (rows, n_inputs); of a tabular estimator there is one for each column, see
        `gpumlp.export.tabular`.  Classifiers have the outputs "label" (rows,), or for several
        yes-or-no outputs (rows, n_outputs), and "probabilities" (rows, n_classes); others "value", (rows,) or
        (rows, n_outputs): the shapes of `predict` and `predict_proba`.

    Raises
    ------
    ImportError
        The package onnx is not installed.
    TypeError
        This kind of model cannot be exported.
    ValueError
        It has an activation of your own.

    Examples
    --------
    >>> import gpumlp
    >>> model = gpumlp.MLP([4, 8, 3], device="cpu")
    >>> gpumlp.export.to_onnx(model, "model.onnx")  # doctest: +SKIP
    """
    if dtype not in ("float32", "float64"):
        raise ValueError(f"dtype={dtype!r}; expected 'float32' or 'float64'")
    if _is_pipeline(model):
        made = convert_pipeline(model, dtype)
    else:
        graph = Graph(dtype)
        (write_tabular if hasattr(model, "encoder_") else write)(graph, model)
        made = graph.model(repr(model))
    if path is not None:
        with replacing(path) as file:
            file.write(made.SerializeToString())
    return made


def _is_pipeline(model: Any) -> bool:
    return hasattr(model, "steps") and hasattr(model, "named_steps")
