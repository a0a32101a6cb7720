"""Which operators treat channels by themselves."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeseg.export.rewrites.channel_operators import ChannelOperator, channel_operator
from edgeseg.export.rewrites.graph_index import GraphIndex

CONSTANTS = {
    "scalar": np.float32(2),
    "per_channel": np.ones((4, 1, 1), np.float32),
    "plane": np.ones((8, 3), np.float32),
    "volume": np.ones((1, 4, 8, 3), np.float32),
    "kernel": np.ones((4, 1, 3, 3), np.float32),
    "pair_kernel": np.ones((4, 2, 3, 3), np.float32),
    "sizes": np.array([1, 4, 12, 16], np.int64),
    "pads_space": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64),
    "pads_channels": np.array([0, 1, 0, 0, 0, 1, 0, 0], np.int64),
}


def operator_of(kind: str, inputs: list[str], **attributes: object) -> ChannelOperator | None:
    node = helper.make_node(kind, inputs, ["y"], **attributes)
    shapes = {"x": [1, 4, 6, 8], "other": [1, 4, 6, 8], "gate": [1, 1, 6, 8], "squeezed": [1, 4, 1, 1]}
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [helper.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in CONSTANTS.items()],
    )
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    index = GraphIndex(model)
    return channel_operator(index, index.model.graph.node[0])


@pytest.mark.parametrize(
    ("kind", "inputs", "attributes", "expected"),
    [
        ("Relu", ["x"], {}, ((0,), ())),
        ("Add", ["x", "other"], {}, ((0, 1), ())),
        ("Mul", ["scalar", "x"], {}, ((1,), ())),
        ("Mul", ["x", "per_channel"], {}, ((0,), ())),
        ("Mul", ["x", "squeezed"], {}, ((0, 1), ())),
        ("Mul", ["x", "gate"], {}, ((0,), (1,))),
        ("MaxPool", ["x"], {"kernel_shape": [2, 2]}, ((0,), ())),
        ("Resize", ["x", "", "", "sizes"], {}, ((0,), ())),
        ("Conv", ["x", "kernel"], {"group": 4}, ((0,), ())),
        ("Pad", ["x", "pads_space"], {}, ((0,), ())),
        ("ReduceMean", ["x"], {"axes": [2, 3]}, ((0,), ())),
        ("MatMul", ["x", "plane"], {}, ((0,), ())),
    ],
)
def test_operator_is_per_channel(kind: str, inputs: list[str], attributes: dict, expected: tuple) -> None:
    assert operator_of(kind, inputs, **attributes) == ChannelOperator(*expected)


@pytest.mark.parametrize(
    ("kind", "inputs", "attributes"),
    [
        ("Conv", ["x", "pair_kernel"], {"group": 2}),
        ("Pad", ["x", "pads_channels"], {}),
        ("ReduceMean", ["x"], {"axes": [1]}),
        ("MatMul", ["x", "volume"], {}),
        ("Softmax", ["x"], {"axis": 1}),
        ("LRN", ["x"], {"size": 3}),
        ("DepthToSpace", ["x"], {"blocksize": 2}),
    ],
)
def test_operator_mixes_channels_or_is_not_known(kind: str, inputs: list[str], attributes: dict) -> None:
    assert operator_of(kind, inputs, **attributes) is None
