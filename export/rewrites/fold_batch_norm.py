"""BatchNormalization(Conv(x; W, b)) -> Conv(x; s W, s b + t)

and through what is linear on the way:

    BatchNormalization(Add(Resize(Conv(x; W, b)), Conv(y; V, c))) -> Add(Resize(Conv(x; s W, s b + t)), Conv(y; s V, s
    c))

with s = scale / sqrt(var + epsilon) and t = bias - s * mean per channel. Averages and interpolations have weights that
sum to 1, so they let a scale and a shift pass; of the operands of a sum all take the scale and one takes the shift.
"""

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import numpy_helper

from edgeseg.export.rewrites.graph_index import GraphIndex, attributes

AFFINE = ("Resize", "AveragePool", "GlobalAveragePool", "Identity")


def fold_batch_norm(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[tuple[str, str]]]:
    """Fold the batch norms of `model` (fixed shapes) into the convolutions before them, in a copy, where that is exact.

    Returns:
        The model, and (output name of the batch norm, reason) of each one that stays.
    """
    kept: list[tuple[str, str]] = []
    while True:
        index = GraphIndex(model)
        model = index.model
        norms = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
        reasons = [(node.output[0], _fold(model, index, node)) for node in norms]
        kept = [(name, reason) for name, reason in reasons if reason is not None]
        # A batch norm after another one can be folded only when that one is gone.
        if len(kept) == len(norms):
            break
    _drop_unused_initializers(model)
    return model, kept


def _fold(model: onnx.ModelProto, index: GraphIndex, norm: onnx.NodeProto) -> str | None:
    """Fold `norm` in place; the reason when it cannot be."""
    parameters = [index.constants.get(name) for name in norm.input[1:5]]
    if attributes(norm).get("training_mode", 0):
        return "it is in training mode"
    if any(value is None for value in parameters) or len([name for name in norm.output if name]) != 1:
        return "its parameters are not constant"
    convolutions: list[tuple[onnx.NodeProto, bool]] = []
    for conv, takes_shift in _convolutions_before(index, norm.input[0], shift=True):
        if conv is None:
            return f"{norm.input[0]} does not come from convolutions by linear operators alone"
        convolutions.append((conv, takes_shift))
    scale, bias, mean, variance = (np.asarray(value, np.float64) for value in parameters)
    scale = scale / np.sqrt(variance + attributes(norm).get("epsilon", 1e-5))
    shift = bias - scale * mean
    for number, (conv, takes_shift) in enumerate(convolutions):
        _scale_convolution(model, index, conv, scale, shift if takes_shift else 0 * shift, f"{norm.output[0]}_{number}")
    _bypass(model, norm)
    return None


def _convolutions_before(index: GraphIndex, name: str, shift: bool) -> Iterator[tuple[onnx.NodeProto | None, bool]]:
    """The convolutions that `name` is a sum of, each with whether it takes the shift; (None, _) for other summands."""
    node = index.producer.get(name)
    if node is None or not index.is_private(name):
        yield None, False
    elif node.op_type == "Conv" and index.weight(node) is not None and _constant_bias(index, node):
        yield node, shift
    elif node.op_type in AFFINE and _lets_shift_pass(node):
        yield from _convolutions_before(index, node.input[0], shift)
    elif node.op_type == "Add" and all(index.shapes.get(part) == index.shapes.get(name) for part in node.input):
        yield from _convolutions_before(index, node.input[0], shift)
        yield from _convolutions_before(index, node.input[1], False)
    else:
        yield None, False


def _lets_shift_pass(node: onnx.NodeProto) -> bool:
    values = attributes(node)
    if node.op_type == "AveragePool":
        return not any(values.get("pads", ())) and values.get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")
    return values.get("coordinate_transformation_mode") != b"tf_crop_and_resize"


def _constant_bias(index: GraphIndex, conv: onnx.NodeProto) -> bool:
    return len(conv.input) < 3 or not conv.input[2] or conv.input[2] in index.constants


def _scale_convolution(
    model: onnx.ModelProto, index: GraphIndex, conv: onnx.NodeProto, scale: np.ndarray, shift: np.ndarray, suffix: str
) -> None:
    """Scale the output channels of `conv`, then add `shift`; shared weights are left to their other readers."""
    weight = index.constants[conv.input[1]]
    has_bias = len(conv.input) > 2 and conv.input[2]
    bias = index.constants[conv.input[2]] if has_bias else np.zeros(len(weight), weight.dtype)
    scaled = (weight.astype(np.float64) * scale[:, None, None, None]).astype(weight.dtype)
    shifted = (bias.astype(np.float64) * scale + shift).astype(weight.dtype)
    weight_name = conv.input[1]
    if len(index.consumers[weight_name]) > 1:
        weight_name = f"{weight_name}.folded.{suffix}"
    bias_name = f"{weight_name}.bias.{suffix}"
    _set_initializer(model, weight_name, scaled)
    del conv.input[1:]
    conv.input.append(weight_name)
    if has_bias or np.any(shifted):
        _set_initializer(model, bias_name, shifted)
        conv.input.append(bias_name)


def _set_initializer(model: onnx.ModelProto, name: str, value: np.ndarray) -> None:
    for number, tensor in enumerate(model.graph.initializer):
        if tensor.name == name:
            del model.graph.initializer[number]
            break
    model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))


def _bypass(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
    """Remove a node with one input that matters; the tensor before it takes over its output's name."""
    source, target = node.input[0], node.output[0]
    for other in model.graph.node:
        for number, name in enumerate(other.output):
            if name == source:
                other.output[number] = target
    model.graph.node.remove(node)
    for value in list(model.graph.value_info):
        if value.name == source:
            model.graph.value_info.remove(value)


def _drop_unused_initializers(model: onnx.ModelProto) -> None:
    used = {name for node in model.graph.node for name in node.input} | {value.name for value in model.graph.output}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
