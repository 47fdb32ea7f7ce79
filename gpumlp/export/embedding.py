"""Embeddings as ONNX nodes; the formulas are those of `gpumlp.kernels.embeddings`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpumlp.export.graph import Graph
from gpumlp.network import Embedded

__all__ = ["embedded"]


def embedded(graph: Graph, own: Embedded, parameters: dict[str, np.ndarray], x: str) -> str:
    """What the first layer reads, (rows, width), for the inputs `x` (rows, n_inputs)."""
    parts = []
    if own.numbers:
        numbers = graph.node("Unsqueeze", _columns(graph, x, own.numbers), graph.constant([2], np.int64))
        each = _cosine if own.embedding.kind == "cosine" else _linear
        parts.append(_flat(graph, each(graph, own, parameters, numbers), own.number_rows))
    for at, column in enumerate(own.codes):
        vectors = graph.constant(parameters["vectors"][own.begin[at] : own.begin[at + 1]])
        code = graph.node("Cast", _columns(graph, x, [column]), to=7)
        parts.append(_flat(graph, graph.node("Gather", vectors, code, axis=0), own.embedding.category_size))
    if own.rest:
        parts.append(_columns(graph, x, own.rest))
    return parts[0] if len(parts) == 1 else graph.node("Concat", *parts, axis=1)


def _columns(graph: Graph, x: str, columns: list[int]) -> str:
    return graph.node("Gather", x, graph.constant(columns, np.int64), axis=1)


def _flat(graph: Graph, value: str, width: int) -> str:
    return graph.node("Reshape", value, graph.constant([-1, width], np.int64))


def _angle(graph: Graph, turns: str) -> str:
    """2 pi times `turns`, without the whole ones: sines and cosines of small numbers are exact."""
    part = graph.node("Sub", turns, graph.node("Round", turns))
    return graph.node("Mul", part, graph.constant(2 * math.pi))


def _cosine(graph: Graph, own: Embedded, p: dict[str, Any], x: str) -> str:
    """(rows, numbers, outputs) of `x` (rows, numbers, 1)."""
    turns = graph.node("Mul", x, graph.constant(p["frequency"]))
    turns = graph.node("Add", turns, graph.constant(p["phase"]))
    both = graph.node("Concat", x, graph.node("Cos", _angle(graph, turns)), axis=2)
    scaled = graph.node("Mul", both, graph.constant(p["amplitude"]))
    return graph.node("Add", scaled, graph.constant(p["shift"]))


def _linear(graph: Graph, own: Embedded, p: dict[str, Any], x: str) -> str:
    """The same of numbers with a linear layer of their own."""
    if own.embedding.kind == "periodic":
        angle = _angle(graph, graph.node("Mul", x, graph.constant(p["frequency"])))
        inner = graph.node("Concat", graph.node("Cos", angle), graph.node("Sin", angle), axis=2)
    else:
        start, slope, low, high = (row[:, : own.inner] for row in own.bins())
        place = graph.node("Sub", x, graph.constant(start))
        place = graph.node("Mul", place, graph.constant(slope))
        inner = graph.node("Min", graph.node("Max", place, graph.constant(low)), graph.constant(high))
    by_number = graph.node("Transpose", inner, perm=[1, 0, 2])
    product = graph.node("MatMul", by_number, graph.constant(p["weight"]))
    value = graph.node("Add", product, graph.constant(p["bias"][:, None, :]))
    if own.embedding.kind == "periodic":
        value = graph.node("Relu", value)
    return graph.node("Transpose", value, perm=[1, 0, 2])
