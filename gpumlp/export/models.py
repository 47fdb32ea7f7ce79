"""Models as ONNX graphs: inputs, nodes and outputs of each kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpumlp.estimators.names import name_of_activation
from gpumlp.export.graph import Graph
from gpumlp.export.network import Layers, layers_of, linked, mean_of, network
from gpumlp.model import MLP, Ensemble
from gpumlp.preparation import PreparedModel

__all__ = ["answers", "write"]

#: what an estimator's output is called, and what is applied
_LINKS = {
    "softmax": "softmax",
    "logistic": "sigmoid",
    "exp": "exp",
    "identity": "identity",
    "sorted": "sorted",
}


def write(graph: Graph, model: Any) -> None:
    """Inputs, nodes and outputs of a model."""
    if isinstance(model, PreparedModel):
        _prepared(graph, model)
    elif isinstance(model, (MLP, Ensemble)):
        members = [(model, 1)] if isinstance(model, MLP) else model.members()
        answers(graph, members, model.output, graph.input("X", model.n_inputs))
    elif hasattr(model, "coefs_") and hasattr(model, "out_activation_"):
        layers, link = _estimator(model)
        _answer(graph, [(layers, 1)], link, graph.input("X", layers.n_in), getattr(model, "classes_", None))
    else:
        raise TypeError(
            f"{type(model).__name__} cannot be exported to ONNX; expected an MLP, an Ensemble, a fitted "
            "estimator of this package, a model of load_prepared, or a Pipeline that ends in an estimator"
        )


def _estimator(est: Any) -> tuple[Layers, str]:
    hidden = len(est.coefs_) - 1
    parameters = list(zip(est.coefs_, est.intercepts_, strict=True))
    return Layers(parameters, [name_of_activation(est.activation)] * hidden), _LINKS[est.out_activation_]


def answers(
    graph: Graph,
    members: Any,
    link: str,
    x: str,
    classes: Any = None,
    units: Callable[[str], str] = lambda value: value,
) -> None:
    """The outputs of models [(MLP, how often it counts), ...] for the input `x`; `units` turns values into
    those of the target."""
    _answer(graph, [(layers_of(model), count) for model, count in members], link, x, classes, units)


def _prepared(graph: Graph, prepared: PreparedModel) -> None:
    prep, model = prepared.preparation, prepared.model
    members = [(model, 1)] if isinstance(model, MLP) else model.members()
    x = graph.input("X", model.n_inputs)
    if prep.mean:
        x = graph.node("Div", graph.node("Sub", x, graph.constant(prep.mean)), graph.constant(prep.scale))

    def units(value: str) -> str:
        scaled = graph.node("Mul", value, graph.constant(prep.target_scale))
        return graph.node("Add", scaled, graph.constant(prep.target_mean))

    classes = np.array(prep.classes) if prep.classes else None
    answers(graph, members, model.output, x, classes, units)


def _answer(
    graph: Graph,
    members: list[tuple[Layers, int]],
    link: str,
    x: str,
    classes: Any = None,
    units: Callable[[str], str] = lambda value: value,
) -> None:
    n_out = members[0][0].n_out
    outputs = [linked(graph, network(graph, layers, x), link, n_out) for layers, _ in members]
    p = outputs[0] if len(outputs) == 1 else mean_of(graph, outputs, [count for _, count in members])
    if link not in ("softmax", "sigmoid"):
        value = units(p)
        if n_out == 1:
            value = graph.node("Squeeze", value, graph.constant([1], np.int64))
        graph.output("value", value, graph.dtype, None if n_out == 1 else n_out)
        return
    if link == "sigmoid" and n_out > 1:  # yes or no, several times
        yes = graph.node("Greater", p, graph.constant(0.5))
        graph.output("label", graph.node("Cast", yes, to=7), np.int64, n_out)
        graph.output("probabilities", p, graph.dtype, n_out)
        return
    if link == "sigmoid":
        no = graph.node("Sub", graph.constant(1.0), p)
        yes = graph.node("Squeeze", p, graph.constant([1], np.int64))
        number = graph.node("Cast", graph.node("Greater", yes, graph.constant(0.5)), to=7)
        p, n_out = graph.node("Concat", no, p, axis=1), 2
    else:
        number = graph.node("ArgMax", p, axis=1, keepdims=0)
    label, kind = _labels(graph, number, classes)
    graph.output("label", label, kind)
    graph.output("probabilities", p, graph.dtype, n_out)


def _labels(graph: Graph, number: str, classes: Any) -> tuple[str, Any]:
    """Class names for class numbers, and their type."""
    if classes is None:
        return number, np.int64
    classes = np.asarray(classes)
    if classes.dtype.kind in "biu":
        kind: Any = np.int64
    elif classes.dtype.kind == "f":
        kind = classes.dtype
    else:
        kind, classes = str, np.array([str(name) for name in classes], object)
    names = graph.constant(classes, object if kind is str else kind)
    return graph.node("Gather", names, number, axis=0), kind
