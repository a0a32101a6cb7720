"""Multiply-accumulates and parameters, counted by hand."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeseg.export.graph_stats import count_macs, count_parameters


def model_of(node: onnx.NodeProto, weight_shape: tuple[int, ...], x_shape: tuple[int, ...]) -> onnx.ModelProto:
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x_shape)],
        [helper.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(np.ones(weight_shape, np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    ("node", "weight_shape", "x_shape", "macs"),
    [
        (helper.make_node("Conv", ["x", "w"], ["y"], strides=[2, 2]), (4, 3, 1, 1), (1, 3, 6, 8), 4 * 3 * 3 * 4),
        (helper.make_node("Conv", ["x", "w"], ["y"], group=3), (3, 1, 3, 3), (1, 3, 5, 5), 3 * 9 * 3 * 3),
        (helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2]), (3, 4, 2, 2), (1, 3, 5, 5), 75 * 16),
        (helper.make_node("MatMul", ["x", "w"], ["y"]), (8, 5), (2, 6, 8), 2 * 6 * 8 * 5),
        (helper.make_node("Gemm", ["x", "w"], ["y"], transA=1), (8, 5), (8, 6), 6 * 8 * 5),
        (helper.make_node("Add", ["x", "w"], ["y"]), (3, 1, 1), (1, 3, 5, 5), 0),
    ],
    ids=lambda value: value.op_type if isinstance(value, onnx.NodeProto) else None,
)
def test_macs(node: onnx.NodeProto, weight_shape: tuple[int, ...], x_shape: tuple[int, ...], macs: int) -> None:
    assert count_macs(model_of(node, weight_shape, x_shape)) == macs


def test_parameters_are_the_constants() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    assert count_parameters(model_of(node, (4, 3, 3, 3), (1, 3, 6, 8))) == 108
