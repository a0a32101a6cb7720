"""Batch norms disappear into convolutions, and the numbers stay."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeseg.export.rewrites.fold_batch_norm import fold_batch_norm

RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(4, 3, 3, 3)).astype(np.float32)
NORM = {
    "scale": RNG.uniform(0.5, 2, 4),
    "shift": RNG.normal(size=4),
    "mean": RNG.normal(size=4),
    "variance": RNG.uniform(0.5, 2, 4),
}


def graph(*nodes: onnx.NodeProto, output_hw: tuple[int, int] = (6, 8)) -> onnx.ModelProto:
    constants = {name: value.astype(np.float32) for name, value in NORM.items()}
    constants |= {
        "w": WEIGHT,
        "one_channel": WEIGHT[:1, :, :1, :1],
        "v": WEIGHT[:, :, 1:2, 1:2],
        "b": np.arange(4, dtype=np.float32),
    }
    constants["scales"] = np.array([1, 1, 2, 2], np.float32)
    made = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 6, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, *output_hw])],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def norm(source: str, target: str) -> onnx.NodeProto:
    return helper.make_node("BatchNormalization", [source, *NORM], [target])


def run(model: onnx.ModelProto) -> np.ndarray:
    x = np.random.default_rng(1).normal(size=(1, 3, 6, 8)).astype(np.float32)
    return ort.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


CONV = helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1])
COARSE = helper.make_node("Conv", ["x", "w", "b"], ["coarse"], pads=[1, 1, 1, 1], strides=[2, 2])
FINE = helper.make_node("Conv", ["x", "v"], ["fine"])
UP = helper.make_node("Resize", ["coarse", "", "scales"], ["up"], mode="linear")
SUM = helper.make_node("Add", ["up", "fine"], ["s"])
CHAINS = {
    "convolution": [CONV, norm("c", "y")],
    "two norms": [CONV, norm("c", "n"), norm("n", "y")],
    "sum of an up-sampled and a lateral map": [
        COARSE,
        UP,
        FINE,
        helper.make_node("Add", ["up", "fine"], ["s"]),
        norm("s", "y"),
    ],
    "weights used twice": [
        CONV,
        norm("c", "n"),
        helper.make_node("Relu", ["x"], ["positive"]),
        helper.make_node("Conv", ["positive", "w"], ["d"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["n", "d"], ["y"]),
    ],
}


@pytest.mark.parametrize("chain", CHAINS)
def test_norm_is_folded_after(chain: str) -> None:
    model = graph(*CHAINS[chain])
    folded, kept = fold_batch_norm(model)
    assert kept == []
    assert operators(folded)["BatchNormalization"] == 0
    np.testing.assert_allclose(run(folded), run(model), atol=1e-4)


@pytest.mark.parametrize(
    "nodes",
    [
        [CONV, helper.make_node("Relu", ["c"], ["r"]), norm("r", "y")],
        [CONV, norm("c", "n"), helper.make_node("Sub", ["n", "c"], ["y"])],
        [
            helper.make_node("Conv", ["x", "w"], ["d"], pads=[1, 1, 1, 1]),
            helper.make_node("AveragePool", ["d"], ["p"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
            norm("p", "y"),
        ],
        [
            CONV,
            helper.make_node("Conv", ["x", "one_channel"], ["d"]),
            helper.make_node("Add", ["c", "d"], ["s"]),
            norm("s", "y"),
        ],
    ],
    ids=["activation between", "convolution read elsewhere", "padded average", "sum with a map of one channel"],
)
def test_norm_stays_when_folding_is_not_exact(nodes: list[onnx.NodeProto]) -> None:
    model = graph(*nodes)
    folded, kept = fold_batch_norm(model)
    assert len(kept) == 1
    assert operators(folded)["BatchNormalization"] == 1
    np.testing.assert_allclose(run(folded), run(model), atol=1e-5)


def test_input_model_is_left_alone() -> None:
    model = graph(*CHAINS["convolution"])
    before = model.SerializeToString()
    fold_batch_norm(model)
    assert model.SerializeToString() == before
