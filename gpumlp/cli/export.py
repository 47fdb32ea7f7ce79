"""``gpumlp export``: a model file as ONNX."""

from __future__ import annotations

import argparse
import os

from gpumlp.errors import UsageError
from gpumlp.export import to_onnx
from gpumlp.files.atomic import check_apart, check_writable, replaces
from gpumlp.preparation import PreparedModel
from gpumlp.tables.preparation import Preparation
from gpumlp.tabular.load import load

__all__ = ["export"]


def export(arguments: argparse.Namespace) -> None:
    """Write the model, with its scaling and names, as an ONNX file."""
    path = arguments.output or os.path.splitext(arguments.model)[0] + ".onnx"
    if not path.lower().endswith(".onnx"):
        raise UsageError(f"cannot write ONNX to {path!r}: the name must end in .onnx")
    check_apart([("--output", path)], [("MODEL", arguments.model)])
    check_writable(path, "the ONNX file")
    if os.path.isdir(arguments.model):
        raise UsageError(f"{arguments.model!r} is a directory; MODEL is a file of 'gpumlp train' or of save")
    model = load(arguments.model, "cpu")
    if "preparation" in getattr(model, "extra", {}):
        model = PreparedModel(model, Preparation.of_model(model, arguments.model))
    old = replaces(path)
    made = to_onnx(model, path, dtype="float64" if arguments.float64 else "float32")
    inputs, outputs = (
        ", ".join(part.name for part in parts) for parts in (made.graph.input, made.graph.output)
    )
    print(f"{path} written{old}\ntakes     {inputs}\ngives     {outputs}")
