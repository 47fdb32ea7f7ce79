"""Converters for skl2onnx, so that pipelines which end in an estimator of this package can be exported."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpumlp.export.graph import OPSET, Graph
from gpumlp.export.models import write

__all__ = ["convert_pipeline", "register_converters"]


def register_converters() -> None:
    """Make `MLPClassifier` and `MLPRegressor` known to skl2onnx: its `convert_sklearn` and `to_onnx` then
    take them, also inside of pipelines.

    Raises
    ------
    ImportError
        skl2onnx or scikit-learn is not installed.
    """
    try:
        from skl2onnx import update_registered_converter
    except ImportError as error:
        raise ImportError(
            f"converting pipelines needs skl2onnx ({error}); install it with: pip install skl2onnx"
        ) from None
    from gpumlp.estimators import MLPClassifier, MLPRegressor

    options = {
        "zipmap": [True, False, "columns"],
        "output_class_labels": [False, True],
        "nocl": [True, False],
    }
    update_registered_converter(
        MLPClassifier, "GpumlpMLPClassifier", _classifier_shape, _convert, options=options
    )
    update_registered_converter(MLPRegressor, "GpumlpMLPRegressor", _regressor_shape, _convert)


def convert_pipeline(pipeline: Any, dtype: str) -> Any:
    """The ONNX model of a fitted pipeline whose input is one matrix of numbers, by skl2onnx."""
    register_converters()
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    n = getattr(pipeline, "n_features_in_", None)
    kind = {"float32": FloatTensorType, "float64": DoubleTensorType}[dtype]
    last = pipeline.steps[-1][1]
    options = {id(last): {"zipmap": False}} if hasattr(last, "classes_") else None
    return convert_sklearn(
        pipeline,
        initial_types=[("X", kind([None, n]))],
        options=options,
        target_opset={"": OPSET, "ai.onnx.ml": 3},
    )


def _number(operator: Any) -> Any:
    """The type of tensors of the input's numbers, float or double."""
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    return DoubleTensorType if isinstance(operator.inputs[0].type, DoubleTensorType) else FloatTensorType


def _classifier_shape(operator: Any) -> None:
    from skl2onnx.common.data_types import Int64TensorType, StringTensorType

    est, rows = operator.raw_operator, operator.inputs[0].get_first_dimension()
    multilabel = est._label_binarizer.y_type_.startswith("multilabel")
    text = np.asarray(est.classes_).dtype.kind in "OU"
    columns = [len(est.classes_)] if multilabel else []
    label = (StringTensorType if text and not multilabel else Int64TensorType)([rows, *columns])
    operator.outputs[0].type = label
    operator.outputs[1].type = _number(operator)([rows, len(est.classes_)])


def _regressor_shape(operator: Any) -> None:
    est, rows = operator.raw_operator, operator.inputs[0].get_first_dimension()
    operator.outputs[0].type = _number(operator)([rows, est.n_outputs_])


def _convert(scope: Any, operator: Any, container: Any) -> None:
    """The nodes of this package's graph, with names of skl2onnx's."""
    import onnx

    double = _number(operator).__name__.startswith("Double")
    graph = Graph("float64" if double else "float32")
    write(graph, operator.raw_operator)
    made = graph.model("").graph
    names: dict[str, str] = {}

    def name(own: str) -> str:
        if own not in names:
            names[own] = scope.get_unique_variable_name(f"gpumlp_{own}")
        return names[own]

    kind = onnx.TensorProto.DOUBLE if double else onnx.TensorProto.FLOAT
    source = operator.inputs[0].full_name
    container.add_node("Cast", source, name("X"), to=kind, name=scope.get_unique_operator_name("Cast"))
    for constant in made.initializer:
        values = onnx.numpy_helper.to_array(constant).ravel()
        container.add_initializer(
            name(constant.name), constant.data_type, list(constant.dims), values.tolist()
        )
    for node in made.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        container.add_node(
            node.op_type,
            [name(own) for own in node.input],
            [name(own) for own in node.output],
            op_domain=node.domain,
            name=scope.get_unique_operator_name(node.op_type),
            **attributes,
        )
    for own, out in zip(made.output, operator.outputs, strict=True):
        shape = _shape(operator, own)
        target = scope.get_unique_variable_name("shape")
        container.add_initializer(target, onnx.TensorProto.INT64, [len(shape)], shape)
        container.add_node(
            "Reshape",
            [name(own.name), target],
            out.full_name,
            name=scope.get_unique_operator_name("Reshape"),
        )


def _shape(operator: Any, output: Any) -> list[int]:
    """What skl2onnx expects: values are (rows, n_outputs), labels as they are."""
    if output.name == "value":
        return [-1, operator.raw_operator.n_outputs_]
    columns = [d.dim_value for d in output.type.tensor_type.shape.dim[1:]]
    return [-1, *columns]
