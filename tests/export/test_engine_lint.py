"""Each rule of the contract that engines need, broken once; what edgeseg exports breaks none."""

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgeseg.export.engine_lint import Finding, lint_graph
from support.quantised_graphs import half_graph, int8_graph

FLOAT, UINT8, INT8 = TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT8


def model(
    nodes: list[NodeProto],
    inputs: dict[str, tuple],
    outputs: dict[str, tuple],
    **constants: np.ndarray,
) -> ModelProto:
    """A graph; `inputs` and `outputs` map names to (type, shape)."""

    def entries(values: dict[str, tuple]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in values.items()]

    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "graph", entries(inputs), entries(outputs), weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def node(operator: str, inputs: str, outputs: str, name: str = "the.node", **attributes: object) -> NodeProto:
    return helper.make_node(operator, inputs.split(), outputs.split(), name=name, **attributes)


def one(
    operator: str, inputs: str, shape: list, out: tuple, *, name: str = "the.node", **constants: object
) -> ModelProto:
    """A graph of one node that reads the float input `x` of `shape`; arrays are constants, the rest attributes."""
    arrays = {key: value for key, value in constants.items() if isinstance(value, np.ndarray)}
    attributes = {key: value for key, value in constants.items() if key not in arrays}
    return model([node(operator, inputs, "y", name, **attributes)], {"x": (FLOAT, shape)}, {"y": out}, **arrays)


def only(found: list[Finding]) -> Finding:
    assert len(found) == 1, [str(each) for each in found]
    return found[0]


@pytest.mark.parametrize("graph", [int8_graph(), half_graph()], ids=["int8", "fp16"])
def test_graph_that_engines_take_has_no_finding(graph: ModelProto) -> None:
    assert lint_graph(graph) == []


@pytest.mark.parametrize(
    ("graph", "way_out"),
    [
        (one("NonZero", "x", [2, 3], (TensorProto.INT64, [2, None])), "TopK"),
        (one("Compress", "x keep", [4], (FLOAT, [None]), keep=np.array([True, False, True, True])), "Gather"),
    ],
    ids=["NonZero", "Compress"],
)
def test_shape_that_depends_on_values_is_found_with_the_way_out(graph: ModelProto, way_out: str) -> None:
    finding = only(lint_graph(graph))
    assert (finding.rule, finding.problem) == ("operators", "its output's shape depends on values")
    assert finding.node.startswith("the.node (")
    assert way_out in finding.way_out


def test_quantised_operator_is_found() -> None:
    inputs = {"x": (UINT8, [1, 2]), "w": (UINT8, [2, 2])}
    graph = model([node("MatMulInteger", "x w", "y")], inputs, {"y": (TensorProto.INT32, [1, 2])})
    assert "QuantizeLinear and DequantizeLinear around a MatMul" in only(lint_graph(graph)).way_out


def test_operator_of_another_domain_and_opset_are_both_found() -> None:
    graph = one("Gelu", "x", [2], (FLOAT, [2]))
    graph.graph.node[0].domain, graph.opset_import[0].version = "com.microsoft", 13
    assert [each.problem.split(" is ")[1] for each in lint_graph(graph)] == [
        "13",
        "of com.microsoft, not of the ONNX standard",
    ]


def test_lost_shape_is_found_once_at_the_input() -> None:
    nodes = [node("Relu", "x", "a", "first"), node("Relu", "a", "y", "second")]
    graph = model(nodes, {"x": (FLOAT, [1, None])}, {"y": (FLOAT, [1, None])})
    finding = only(lint_graph(graph))
    assert (finding.rule, finding.node) == ("fixed shapes", "x")


def test_lost_shape_is_found_at_the_node_that_loses_it() -> None:
    nodes = [node("Reshape", "x shape", "a", "loses"), node("Relu", "a", "y", "follows")]
    inputs = {"x": (FLOAT, [2, 3]), "shape": (TensorProto.INT64, [2])}
    finding = only(lint_graph(model(nodes, inputs, {"y": (FLOAT, [None, None])})))
    assert (finding.rule, finding.node) == ("fixed shapes", "loses (Reshape)")


def test_type_that_engines_do_not_have_is_found_where_it_is_made() -> None:
    nodes = [node("Cast", "x", "a", "widens", to=TensorProto.DOUBLE), node("Cast", "a", "y", "narrows", to=FLOAT)]
    finding = only(lint_graph(model(nodes, {"x": (FLOAT, [2])}, {"y": (FLOAT, [2])})))
    assert (finding.rule, finding.node) == ("strong types", "widens (Cast)")
    assert "double" in finding.problem


def test_bytes_that_are_computed_with_are_found() -> None:
    nodes = [node("Transpose", "x", "a", "turns", perm=[1, 0]), node("Cast", "a", "y", "casts", to=FLOAT)]
    finding = only(lint_graph(model(nodes, {"x": (UINT8, [2, 3])}, {"y": (FLOAT, [3, 2])})))
    assert (finding.rule, finding.node) == ("bytes are cast", "turns (Transpose)")


def quantised(zero: np.ndarray, scale: np.ndarray, **attributes: object) -> ModelProto:
    nodes = [
        node("QuantizeLinear", "x scale zero", "q", "quantises", **attributes),
        node("DequantizeLinear", "q scale zero", "y", "dequantises", **attributes),
    ]
    return model(nodes, {"x": (FLOAT, [1, 2])}, {"y": (FLOAT, [1, 2])}, zero=zero, scale=scale)


@pytest.mark.parametrize(
    ("zero", "scale", "problem"),
    [
        (np.int8(3), 0.1, "its zero point is not 0"),
        (np.uint8(0), 0.1, "it quantises to uint8"),
        (np.int8(0), -0.1, "its scale is not positive"),
        (np.int8(0), np.inf, "its scale is not positive"),
    ],
)
def test_quantisation_that_is_not_symmetric_is_found_at_both_ends(zero: np.generic, scale: float, problem: str) -> None:
    found = lint_graph(quantised(np.array(zero), np.array(scale, np.float32)))
    assert [(each.rule, each.problem) for each in found] == [("symmetric quantisation", problem)] * 2


def test_symmetric_quantisation_is_taken() -> None:
    assert lint_graph(quantised(np.array(0, np.int8), np.array(0.1, np.float32))) == []


def test_scale_per_channel_of_a_computed_tensor_is_found() -> None:
    found = lint_graph(quantised(np.zeros(2, np.int8), np.array([0.1, 0.2], np.float32), axis=1))
    assert found[0].problem == "a tensor that is computed has a scale per channel"


def test_quantised_tensor_that_is_computed_with_is_found() -> None:
    nodes = [
        node("QuantizeLinear", "x scale zero", "q", "quantises"),
        node("Transpose", "q", "y", "turns", perm=[1, 0]),
    ]
    constants = {"scale": np.array(0.1, np.float32), "zero": np.array(0, np.int8)}
    found = lint_graph(model(nodes, {"x": (FLOAT, [1, 2])}, {"y": (INT8, [2, 1])}, **constants))
    assert only(found).problem == "Transpose reads the quantised tensor"


def topk(count: int) -> ModelProto:
    nodes = [node("TopK", "x k", "y places", axis=1)]
    outputs = {"y": (FLOAT, [1, count]), "places": (TensorProto.INT64, [1, count])}
    return model(nodes, {"x": (FLOAT, [1, 8000])}, outputs, k=np.array([count], np.int64))


def test_topk_beyond_the_limit_is_found() -> None:
    assert "K is 3841" in only(lint_graph(topk(3841))).problem
    assert lint_graph(topk(3840)) == []


def test_topk_of_a_computed_k_is_found() -> None:
    nodes = [node("TopK", "x k", "y places", axis=1)]
    outputs = {"y": (FLOAT, [1, None]), "places": (TensorProto.INT64, [1, None])}
    found = lint_graph(model(nodes, {"x": (FLOAT, [1, 9]), "k": (TensorProto.INT64, [1])}, outputs))
    assert "its K is no constant" in [each.problem for each in found]


def convolution(make_weight: list[NodeProto], *, of_input: bool) -> ModelProto:
    nodes = [*make_weight, node("Conv", "x weight", "y", "convolves")]
    inputs = {"x": (FLOAT, [1, 1, 4, 4]), **({"given": (FLOAT, [1, 1, 1, 1])} if of_input else {})}
    constants = {} if of_input else {"given": np.ones((1, 1, 1, 1), np.float16)}
    return model(nodes, inputs, {"y": (FLOAT, [1, 1, 4, 4])}, **constants)


def test_weight_that_is_computed_is_found() -> None:
    finding = only(lint_graph(convolution([node("Relu", "given", "weight")], of_input=True)))
    assert (finding.rule, finding.node) == ("constant weights", "convolves (Conv)")


def test_weight_that_is_stored_in_half_precision_is_constant() -> None:
    assert lint_graph(convolution([node("Cast", "given", "weight", to=FLOAT)], of_input=False)) == []


def test_all_findings_are_told_at_once() -> None:
    nodes = [
        node("Cast", "x", "a", "widens", to=TensorProto.DOUBLE),
        node("Cast", "a", "b", to=FLOAT),
        node("TopK", "b k", "y places", "ranks", axis=1),
    ]
    outputs = {"y": (FLOAT, [1, 3900]), "places": (TensorProto.INT64, [1, 3900])}
    found = lint_graph(model(nodes, {"x": (FLOAT, [1, 8000])}, outputs, k=np.array([3900], np.int64)))
    assert [each.rule for each in found] == ["strong types", "TopK"]
    assert str(found[1]).startswith("ranks (TopK): K is 3900")
