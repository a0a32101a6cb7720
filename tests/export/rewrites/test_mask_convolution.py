"""Convolutions on a range of output channels, and on parts of their input channels."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeseg.export.rewrites.graph_index import GraphIndex
from edgeseg.export.rewrites.graph_writer import GraphWriter
from edgeseg.export.rewrites.mask_convolution import emit_convolution


def dense() -> onnx.ModelProto:
    """y[o] = (o + 1) * x[0] + 10 * (o + 1) * x[1] + o."""
    weight = np.array([[1, 10], [2, 20], [3, 30]], np.float32).reshape(3, 2, 1, 1)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w", "b"], ["y"])],
        "dense",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 1, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 1, 1])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.arange(3, dtype=np.float32), "b")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(parts: list[tuple[tuple[int, int], str]], rows: tuple[int, int]) -> tuple[list[str], list[float]]:
    index, writer = GraphIndex(dense()), GraphWriter()
    emit_convolution(writer, index, index.model.graph.node[0], parts, rows, "out")
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, b - a, 1, 1]) for (a, b), name in parts]
    output = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, rows[1] - rows[0], 1, 1])
    session = ort.InferenceSession(writer.model(dense(), "part", inputs, [output]).SerializeToString())
    x = np.array([1, 2], np.float32).reshape(1, 2, 1, 1)
    result = session.run(None, {name: x[:, a:b] for (a, b), name in parts})[0]
    return [node.op_type for node in writer.nodes], result.ravel().tolist()


@pytest.mark.parametrize(("rows", "expected"), [((0, 3), [21, 43, 65]), ((1, 3), [43, 65]), ((0, 1), [21])])
def test_rows_are_output_channels(rows: tuple[int, int], expected: list[float]) -> None:
    assert run([((0, 2), "x")], rows) == (["Conv"], expected)


def test_split_input_is_summed_with_the_bias_once() -> None:
    operators, result = run([((0, 1), "fresh"), ((1, 2), "stale")], (1, 3))
    assert operators == ["Conv", "Conv", "Add"]
    assert result == [43, 65]
