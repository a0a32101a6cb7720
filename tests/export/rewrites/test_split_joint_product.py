"""A product that is read part by part becomes one product per part, and nothing else does."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeseg.export.rewrites.split_joint_product import split_joint_products


def attention_like(
    cuts: list[tuple[int, int]], *, bias: bool = True, per_channel: bool = True, axis: int = -1
) -> onnx.ModelProto:
    """x [1, 4, 8] times an int8 weight [8, 12], sliced at `cuts`."""
    random = np.random.default_rng(0)
    constants = {
        "w.int8": random.integers(-127, 128, (8, 12), dtype=np.int8),
        "w.scale": random.random(12).astype(np.float32) + 0.1 if per_channel else np.array(0.1, np.float32),
        "w.zero": np.zeros(12, np.int8) if per_channel else np.array(0, np.int8),
        "bias": random.random(12).astype(np.float32),
        "axis": np.array([axis]),
    }
    attributes = {"axis": 1} if per_channel else {}
    nodes = [
        helper.make_node("DequantizeLinear", ["w.int8", "w.scale", "w.zero"], ["w"], name="w", **attributes),
        helper.make_node("MatMul", ["x", "w"], ["product"], name="qkv"),
    ]
    if bias:
        nodes.append(helper.make_node("Add", ["bias", "product"], ["sum"], name="qkv.Add"))
    for number, (start, stop) in enumerate(cuts):
        constants |= {f"start{number}": np.array([start]), f"stop{number}": np.array([stop])}
        inputs = ["sum" if bias else "product", f"start{number}", f"stop{number}", "axis"]
        nodes.append(helper.make_node("Slice", inputs, [f"part{number}"], name=f"slice{number}"))
    shapes = [[1, 4, stop - start] if axis == -1 else [1, stop - start, 12] for start, stop in cuts]
    outputs = [
        helper.make_tensor_value_info(f"part{number}", TensorProto.FLOAT, shape) for number, shape in enumerate(shapes)
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 8])],
        outputs,
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def run(model: onnx.ModelProto) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    # Optimised, products with int8 weights also round what they multiply.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.random.default_rng(1).random((1, 4, 8), dtype=np.float32)})


THIRDS = [(0, 4), (4, 8), (8, 12)]


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("per_channel", [True, False], ids=["per channel", "per tensor"])
def test_product_is_split_where_its_readers_slice_it(bias: bool, per_channel: bool) -> None:
    model = attention_like(THIRDS, bias=bias, per_channel=per_channel)
    split = split_joint_products(model)
    onnx.checker.check_model(split, full_check=True)
    assert operators(split) == {"DequantizeLinear": 3, "MatMul": 3, **({"Add": 3} if bias else {})}
    assert [node.name for node in split.graph.node if node.op_type == "MatMul"] == ["qkv[0:4]", "qkv[4:8]", "qkv[8:12]"]
    for before, after in zip(run(model), run(split), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-6)


@pytest.mark.parametrize(
    "model",
    [
        attention_like([(0, 4), (4, 8)]),
        attention_like([(0, 8), (4, 12)]),
        attention_like([(0, 12)]),
        attention_like([(0, 2), (2, 4)], axis=1),
    ],
    ids=["a rest is not read", "parts overlap", "one part", "another axis"],
)
def test_product_stays_when_the_parts_are_not_all_of_its_columns_once(model: onnx.ModelProto) -> None:
    assert operators(split_joint_products(model)) == operators(model)


def test_product_stays_when_somebody_reads_the_whole() -> None:
    model = attention_like(THIRDS)
    model.graph.node.append(helper.make_node("Relu", ["sum"], ["whole"], name="relu"))
    model.graph.output.append(helper.make_tensor_value_info("whole", TensorProto.FLOAT, [1, 4, 12]))
    assert operators(split_joint_products(model)) == operators(model)
