"""Small graphs from bytes to labels in INT8 and FP16, written by hand: which layers must compute in what is known."""

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

SIZE_HW = (16, 24)
CHANNELS = (32, 32, 32)


def int8_graph() -> ModelProto:
    """Convolutions `conv0` (float), `conv1` and `conv2` (INT8, a scale per channel of the weights)."""
    random = np.random.default_rng(0)
    constants: dict[str, np.ndarray] = {"scale": np.array(0.05, np.float32), "zero": np.array(0, np.int8)}
    nodes, value = _image(TensorProto.FLOAT), "x"
    for index, (before, channels) in enumerate(zip((3, *CHANNELS), CHANNELS, strict=False)):
        weight = random.standard_normal((channels, before, 3, 3)).astype(np.float32)
        if index == 0:
            constants["w0"] = weight
        else:
            scale = np.abs(weight).max((1, 2, 3)) / 127
            constants[f"w{index}.int8"] = np.round(weight / scale[:, None, None, None]).astype(np.int8)
            constants[f"w{index}.scale"] = scale
            constants[f"w{index}.zero"] = np.zeros(channels, np.int8)
            stored = [f"w{index}.int8", f"w{index}.scale", f"w{index}.zero"]
            nodes += [
                helper.make_node("DequantizeLinear", stored, [f"w{index}"], name=f"weight{index}", axis=0),
                helper.make_node("QuantizeLinear", [value, "scale", "zero"], [f"q{index}"], name=f"q{index}"),
                helper.make_node("DequantizeLinear", [f"q{index}", "scale", "zero"], [f"d{index}"], name=f"d{index}"),
            ]
            value = f"d{index}"
        nodes += _convolution(index, value)
        value = f"y{index}"
    return _labels(nodes, value, constants)


def half_graph() -> ModelProto:
    """The same convolutions, all in FP16."""
    random = np.random.default_rng(0)
    constants, nodes, value = {}, _image(TensorProto.FLOAT16), "x"
    for index, (before, channels) in enumerate(zip((3, *CHANNELS), CHANNELS, strict=False)):
        constants[f"w{index}"] = random.standard_normal((channels, before, 3, 3)).astype(np.float16)
        nodes += _convolution(index, value)
        value = f"y{index}"
    return _labels(nodes, value, constants)


def _image(kind: int) -> list[NodeProto]:
    return [
        helper.make_node("Cast", ["image"], ["numbers"], name="cast", to=kind),
        helper.make_node("Transpose", ["numbers"], ["x"], name="turn", perm=[0, 3, 1, 2]),
    ]


def _convolution(index: int, value: str) -> list[NodeProto]:
    return [
        helper.make_node("Conv", [value, f"w{index}"], [f"c{index}"], name=f"conv{index}", pads=[1] * 4),
        helper.make_node("Relu", [f"c{index}"], [f"y{index}"], name=f"relu{index}"),
    ]


def _labels(nodes: list[NodeProto], value: str, constants: dict[str, np.ndarray]) -> ModelProto:
    nodes = [
        *nodes,
        helper.make_node("ArgMax", [value], ["index"], name="argmax", axis=1, keepdims=0),
        helper.make_node("Cast", ["index"], ["labels"], name="bytes", to=TensorProto.UINT8),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, *SIZE_HW, 3])],
        [helper.make_tensor_value_info("labels", TensorProto.UINT8, [1, *SIZE_HW])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
