"""Networks as ONNX nodes: layers, activations, and what is applied to the output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpumlp.activations import get_activation
from gpumlp.export.embedding import embedded
from gpumlp.export.graph import Graph
from gpumlp.model import MLP
from gpumlp.network import Embedded

__all__ = ["Layers", "layers_of", "linked", "mean_of", "network"]


@dataclass
class Layers:
    """A network as it is written: parameters on the host.

    Attributes
    ----------
    parameters : list of (W (n_in, n_out), b (n_out,))
    activations : list of str
        One for each hidden layer.
    embedding : (Embedded, dict of its parameters), optional
    """

    parameters: Sequence[tuple[np.ndarray, np.ndarray]]
    activations: Sequence[str]
    embedding: tuple[Embedded, dict[str, np.ndarray]] | None = None

    @property
    def n_in(self) -> int:
        """Number of inputs."""
        return int(self.parameters[0][0].shape[0])

    @property
    def n_out(self) -> int:
        """Number of outputs."""
        return int(self.parameters[-1][0].shape[1])


def layers_of(model: MLP) -> Layers:
    """Those of a model."""
    parameters = model.get_parameters()
    embedding = (model.embedded, parameters.pop()) if model.embedded else None
    return Layers(parameters, list(model.activations), embedding)


def network(graph: Graph, layers: Layers, x: str) -> str:
    """The network's output (rows, n_out), nothing applied to it."""
    if layers.embedding:
        x = embedded(graph, *layers.embedding, x)
    for number, (w, b) in enumerate(layers.parameters):
        x = graph.node("Gemm", x, graph.constant(w), graph.constant(b))
        if number < len(layers.activations):
            x = _activation(graph, layers.activations[number], x)
    return x


def _activation(graph: Graph, name: str, z: str) -> str:
    form = get_activation({"logistic": "sigmoid"}.get(name, name)).onnx  # the estimators' name
    if form is None:
        raise ValueError(
            f"activation {name!r} has no ONNX form, so the network cannot be exported; give it one: "
            "gpumlp.Activation(..., onnx=lambda graph, z: graph.node(...)), see docs/extending.md"
        )
    return form(graph, z)


def linked(graph: Graph, z: str, link: str, n_out: int) -> str:
    """`z` (rows, n_out) with "identity", "softmax", "sigmoid", "exp" or "sorted" applied."""
    if link == "identity":
        return z
    if link == "sorted":
        return graph.node("TopK", z, graph.constant([n_out], np.int64), unused=1, axis=1, largest=0)
    if link == "softmax":
        return graph.node("Softmax", z, axis=1)
    return graph.node({"sigmoid": "Sigmoid", "exp": "Exp"}[link], z)


def mean_of(graph: Graph, parts: Sequence[str], counts: Sequence[int]) -> str:
    """The weighted mean of values of one shape."""
    total: Any = None
    for part, count in zip(parts, counts, strict=True):
        term = graph.node("Mul", part, graph.constant(count / sum(counts)))
        total = term if total is None else graph.node("Add", total, term)
    return str(total)
