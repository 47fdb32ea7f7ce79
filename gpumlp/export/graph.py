"""`Graph`: an ONNX graph that is written node by node."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["OPSET", "Graph"]

OPSET = 17  # of ONNX 1.12 (2022); nothing newer is used, so older runtimes read the files as well


class Graph:
    """Names are made here, so parts of a model cannot take each other's.

    Parameters
    ----------
    dtype : str
        "float32" or "float64": in what the graph computes.
    """

    def __init__(self, dtype: str = "float32") -> None:
        try:
            import onnx
        except ImportError as error:
            raise ImportError(
                f"exporting to ONNX needs the package onnx ({error}); install it with: pip install onnx"
            ) from None
        self._onnx, self.dtype = onnx, np.dtype(dtype)
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._numbers = itertools.count(1)

    def doubles(self) -> Graph:
        """The same graph, but constants are float64."""
        same = copy.copy(self)
        same.dtype = np.dtype(np.float64)
        return same

    def _name(self, kind: str) -> str:
        return f"{kind.lower()}_{next(self._numbers)}"

    def _kind(self, dtype: Any) -> int:
        if dtype is str:
            return int(self._onnx.TensorProto.STRING)
        return int(self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def input(self, name: str, columns: int, dtype: Any = None) -> str:
        """An input (rows, columns), of the graph's type or another one."""
        kind = self._kind(dtype or self.dtype)
        self._inputs.append(self._onnx.helper.make_tensor_value_info(name, kind, ["rows", columns]))
        return name

    def output(self, name: str, value: str, dtype: Any, columns: int | None = None) -> None:
        """Give `value` out as (rows,) or (rows, columns)."""
        self._nodes.append(self._onnx.helper.make_node("Identity", [value], [name]))
        shape = ["rows"] if columns is None else ["rows", columns]
        self._outputs.append(self._onnx.helper.make_tensor_value_info(name, self._kind(dtype), shape))

    def constant(self, values: Any, dtype: Any = None) -> str:
        """An array, by default of the graph's type."""
        array = np.asarray(values, dtype or self.dtype)
        name = self._name("constant")
        if array.dtype.kind in "OU":
            texts = [str(text).encode() for text in array.ravel()]
            make = self._onnx.helper.make_tensor
            self._constants[name] = make(name, self._onnx.TensorProto.STRING, array.shape, texts)
        else:
            self._constants[name] = self._onnx.numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def node(self, kind: str, *inputs: str, domain: str = "", unused: int = 0, **attributes: Any) -> str:
        """A node, whose first output is returned; `unused` more are needed by nobody."""
        name = self._name(kind)
        outputs = [name, *(self._name(kind) for _ in range(unused))]
        self._nodes.append(
            self._onnx.helper.make_node(kind, list(inputs), outputs, name, domain=domain, **attributes)
        )
        return name

    def model(self, document: str) -> Any:
        """The finished `onnx.ModelProto`, checked."""
        from gpumlp.version import __version__

        helper = self._onnx.helper
        graph = helper.make_graph(
            self._nodes, "gpumlp", self._inputs, self._outputs, list(self._constants.values())
        )
        domains = {node.domain for node in self._nodes}
        opsets = [helper.make_opsetid("", OPSET)]
        opsets += [helper.make_opsetid("ai.onnx.ml", 3)] if "ai.onnx.ml" in domains else []
        model = helper.make_model(
            graph,
            opset_imports=opsets,
            producer_name="gpumlp",
            producer_version=__version__,
            doc_string=document,
        )
        model.ir_version = 8  # that of ONNX 1.12
        self._onnx.checker.check_model(model)
        return model

    def columns(self, value: str, starts: Sequence[int], stops: Sequence[int]) -> str:
        """Columns start..stop of `value`, one range."""
        return self.node(
            "Slice",
            value,
            self.constant(starts, np.int64),
            self.constant(stops, np.int64),
            self.constant([1], np.int64),
        )
