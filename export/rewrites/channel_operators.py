"""f(x)[:, a:b] -> f(x[:, a:b]) for the operators that treat every channel by itself.

Such an operator commutes with channel masking: run on the channels just computed, it gives the channels of the whole
result that are new; the others are what they were at the step before.
"""

from dataclasses import dataclass

import numpy as np
import onnx

from edgeseg.export.rewrites.graph_index import GraphIndex, attributes
from edgeseg.export.rewrites.graph_writer import GraphWriter

Range = tuple[int, int]

UNARY = frozenset(
    (
        "Abs",
        "Cast",
        "Ceil",
        "Celu",
        "Clip",
        "Dropout",
        "Elu",
        "Erf",
        "Exp",
        "Floor",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "LeakyRelu",
        "Log",
        "Mish",
        "Neg",
        "Reciprocal",
        "Relu",
        "Round",
        "Selu",
        "Sigmoid",
        "Sign",
        "Softplus",
        "Softsign",
        "Sqrt",
        "Tanh",
        "ThresholdedRelu",
    )
)
BROADCAST = frozenset(["Add", "Sub", "Mul", "Div", "Max", "Min", "Mean", "Sum", "Pow", "PRelu"])
POOLING = frozenset(["MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"])
CHANNEL_PARAMETERS = frozenset(("BatchNormalization", "InstanceNormalization"))


@dataclass(frozen=True)
class ChannelOperator:
    """How a per-channel node reads its inputs."""

    features: tuple[int, ...]
    """Positions of the inputs whose channel c alone decides output channel c."""
    shared: tuple[int, ...]
    """Positions of run-time inputs without a channel axis of that size: every channel reads all of them."""


def channel_operator(index: GraphIndex, node: onnx.NodeProto) -> ChannelOperator | None:
    """How `node` reads its inputs, or None when it mixes channels or is unknown."""
    channels = index.feature_channels(node.output[0])
    if channels is None or len([name for name in node.output if name]) != 1:
        return None
    if node.op_type in BROADCAST:
        return _broadcast_operator(index, node, channels)
    if index.feature_channels(node.input[0]) == channels and _is_per_channel(index, node, channels):
        return ChannelOperator((0,), ())
    if (
        node.op_type == "MatMul"
        and _is_plane(index, node.input[0])
        and index.feature_channels(node.input[1]) == channels
    ):
        return ChannelOperator((1,), ())
    return None


def _broadcast_operator(index: GraphIndex, node: onnx.NodeProto, channels: int) -> ChannelOperator | None:
    features, shared = [], []
    for position, name in enumerate(node.input):
        if name in index.constants:
            continue
        if index.feature_channels(name) == channels:
            features.append(position)
        elif name in index.shapes:
            shared.append(position)
        else:
            return None
    return ChannelOperator(tuple(features), tuple(shared)) if features else None


def _is_per_channel(index: GraphIndex, node: onnx.NodeProto, channels: int) -> bool:
    kind, values = node.op_type, attributes(node)
    parameters = [name for name in node.input[1:] if name]
    if any(name not in index.constants for name in parameters):
        return False
    if kind in UNARY or kind in POOLING or kind in CHANNEL_PARAMETERS:
        return True
    if kind == "Conv":
        return values.get("group", 1) == channels == len(index.constants[node.input[1]])
    if kind == "Resize":
        return _keeps_channels(index, node, channels)
    if kind == "Pad":
        return _pads_space_only(index, node)
    if kind in ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum"):
        axes = index.constants[node.input[1]] if parameters else values.get("axes", ())
        return values.get("keepdims", 1) == 1 and {int(axis) % 4 for axis in axes} in ({2, 3}, {2}, {3})
    return kind == "MatMul" and _is_plane(index, node.input[1])


def _keeps_channels(index: GraphIndex, node: onnx.NodeProto, channels: int) -> bool:
    values = attributes(node)
    if "axes" in values:
        return all(axis % 4 in (2, 3) for axis in values["axes"])
    if values.get("coordinate_transformation_mode") == b"tf_crop_and_resize":
        return False
    scales = index.constants[node.input[2]] if len(node.input) > 2 and node.input[2] else None
    return scales is None or scales.size == 0 or scales[1] == 1


def _pads_space_only(index: GraphIndex, node: onnx.NodeProto) -> bool:
    pads = index.constants[node.input[1]]
    if len(node.input) > 3 and node.input[3]:
        return all(int(axis) % 4 in (2, 3) for axis in index.constants[node.input[3]])
    return pads.size == 8 and not pads[[0, 1, 4, 5]].any()


def _is_plane(index: GraphIndex, name: str) -> bool:
    """Whether `name` is a constant matrix, the same for all channels."""
    value = index.constants.get(name)
    return value is not None and value.ndim >= 2 and value.size == value.shape[-1] * value.shape[-2]


def emit_channels(
    writer: GraphWriter,
    index: GraphIndex,
    node: onnx.NodeProto,
    inputs: dict[int, str],
    part: tuple[int, int],
    output: str,
) -> None:
    """Write per-channel `node` for the channels `part` = [start, stop) of its output.

    Args:
        inputs: position -> tensor that replaces the input there (the features, already restricted to `part`, and the
        shared). output: name of the new tensor.
    """
    channels = index.feature_channels(node.output[0])
    whole = part == (0, channels)
    names = []
    for position, name in enumerate(node.input):
        if position in inputs or not name:
            names.append(inputs.get(position, name))
        elif whole:
            names.append(writer.constant(name, index.constants[name]))
        else:
            names.append(_restrict(writer, index, node, position, part, channels or 0))
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    if node.op_type == "Conv" and not whole:
        for item in copy.attribute:
            if item.name == "group":
                item.i = part[1] - part[0]
    writer.add_copy(copy, names, [output])


def _restrict(
    writer: GraphWriter, index: GraphIndex, node: onnx.NodeProto, position: int, part: Range, channels: int
) -> str:
    """Name of constant input `position` of `node`, restricted to the channels `part`."""
    name = node.input[position]
    value = index.constants[name]
    start, stop = part
    if node.op_type in BROADCAST and value.ndim >= 3 and value.shape[-3] == channels:
        return writer.constant(f"{name}[{start}:{stop}]", value[..., start:stop, :, :])
    if node.op_type in CHANNEL_PARAMETERS or node.op_type == "Conv":
        return writer.constant(f"{name}[{start}:{stop}]", value[start:stop])
    if node.op_type == "Resize" and position == 3 and value.size == 4:
        sizes = np.array([value[0], stop - start, *value[2:]], value.dtype)
        return writer.constant(f"{name}[{start}:{stop}]", sizes)
    return writer.constant(name, value)
