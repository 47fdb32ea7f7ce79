"""Models for other programs: ONNX, with everything that belongs to a model inside the graph.

The package onnx is needed (the extra onnx), and imported where it is used.
"""

from gpumlp.export.onnx import to_onnx
from gpumlp.export.pipelines import register_converters

__all__ = ["register_converters", "to_onnx"]
