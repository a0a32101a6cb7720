"""Conv(x, W) -> Conv(DequantizeLinear(QuantizeLinear(x)), DequantizeLinear(W as int8))

Symmetric: all zero points are 0. Activations have one scale per tensor, weights one per output channel. Weights are
stored as int8; the rest of the graph stays float32.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from edgeseg.export.graph_edit import remove_unused_weights

LARGEST = 127
"""Of int8: -128 is left out, so that the range is symmetric."""
_SLICE = re.compile(r"(?P<whole>.*?)(\[\d+:\d+\])?(\[:,(?P<columns>\d+:\d+)\])?$")
ZERO = "int8.zero"


def quantize_inputs(
    model: onnx.ModelProto,
    places: Collection[tuple[int, int]],
    ranges: Mapping[str, float],
    whole_weights: Mapping[str, np.ndarray],
) -> onnx.ModelProto:
    """A copy of `model` whose inputs at `places` are read as int8.

    Args:
        places: (position of a node, which of its inputs); weights are initialisers.
        ranges: largest magnitude of each activation that is read at `places`.
        whole_weights: weights of whole layers, for the scales of those that are named as slices `NAME[:,a:b]` of them.
            (Rows `NAME[a:b]` have scales of their own anyway: the same as in the whole.)
    """
    model = onnx.ModelProto.FromString(model.SerializeToString())
    weights = {entry.name: numpy_helper.to_array(entry) for entry in model.graph.initializer}
    writer = _QdqWriter(model, ranges)
    nodes: list[NodeProto] = []
    for position, node in enumerate(model.graph.node):
        for number, name in enumerate(node.input):
            if (position, number) not in places:
                continue
            if name in weights:
                axis = output_axis(node, number, weights[name].ndim)
                node.input[number] = writer.weight(name, weights[name], axis, _whole(name, weights, whole_weights))
            else:
                node.input[number] = writer.activation(name)
        nodes += [*writer.take_new_nodes(), node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    remove_unused_weights(model)
    return model


def output_axis(node: NodeProto, number: int, rank: int) -> int | None:
    """The axis of input `number` of a product that numbers output channels; None for one scale for the whole tensor."""
    if number != 1:
        return None
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        transposed = next((item.i for item in node.attribute if item.name == "transB"), 0)
        return 0 if transposed else 1
    if node.op_type == "MatMul" and rank >= 2:
        return rank - 1
    grouped = next((item.i for item in node.attribute if item.name == "group"), 1) != 1
    return 1 if node.op_type == "ConvTranspose" and not grouped else None


def weight_scales(weight: np.ndarray, axis: int | None) -> np.ndarray:
    """float32 scales, one per channel of `axis`, or one; 1 for channels of zeros."""
    others = None if axis is None else tuple(each for each in range(weight.ndim) if each != axis)
    largest = np.abs(weight).max(axis=others)
    return np.where(largest > 0, largest / LARGEST, 1).astype(np.float32)


def _whole(name: str, weights: Mapping[str, np.ndarray], whole_weights: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """The rows of the whole layer that `name` is a slice of the columns of; None where it has whole rows."""
    match = _SLICE.fullmatch(name)
    if match is None or match["columns"] is None or match["whole"] not in whole_weights:
        return None
    whole = whole_weights[match["whole"]]
    rows = re.search(r"\[(\d+):(\d+)\]", name.removeprefix(match["whole"]))
    return whole[int(rows[1]) : int(rows[2])] if rows else whole


class _QdqWriter:
    """Writes pairs of nodes, each once."""

    def __init__(self, model: onnx.ModelProto, ranges: Mapping[str, float]) -> None:
        self._initializers = model.graph.initializer
        self._ranges = ranges
        self._made: dict[tuple[str, int | None], str] = {}
        self._new: list[NodeProto] = []
        self._initializers.append(numpy_helper.from_array(np.array(0, np.int8), ZERO))

    def take_new_nodes(self) -> list[NodeProto]:
        new, self._new = self._new, []
        return new

    def activation(self, name: str) -> str:
        if (name, None) not in self._made:
            scale = np.array((self._ranges[name] or 1.0) / LARGEST, np.float32)
            self._initializers.append(numpy_helper.from_array(scale, f"{name}.scale"))
            inputs = [f"{name}.scale", ZERO]
            self._add("QuantizeLinear", [name, *inputs], f"{name}.int8")
            self._add("DequantizeLinear", [f"{name}.int8", *inputs], f"{name}.from_int8")
            self._made[name, None] = f"{name}.from_int8"
        return self._made[name, None]

    def weight(self, name: str, weight: np.ndarray, axis: int | None, whole: np.ndarray | None) -> str:
        if (name, axis) not in self._made:
            suffix = "" if (name not in {made for made, _ in self._made}) else f".axis{axis}"
            scales = weight_scales(weight if whole is None else whole, axis)
            shape = [1] * weight.ndim
            if axis is not None:
                shape[axis] = -1
            stored = np.clip(np.rint(weight / scales.reshape(shape)), -LARGEST, LARGEST).astype(np.int8)
            names = [f"{name}{suffix}.{part}" for part in ("int8", "scale", "zero")]
            for content, part in zip((stored, scales, np.zeros(scales.shape, np.int8)), names, strict=True):
                self._initializers.append(numpy_helper.from_array(content, part))
            self._made[name, axis] = f"{name}{suffix}.from_int8"
            attributes = {} if axis is None else {"axis": axis}
            self._add("DequantizeLinear", names, self._made[name, axis], **attributes)
        return self._made[name, axis]

    def _add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self._new.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
