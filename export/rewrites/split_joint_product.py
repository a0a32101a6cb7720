"""Slice(Add(MatMul(x, W), b)) per part -> Add(MatMul(x, W of the part), b of the part)

A product whose columns are only ever read part by part, as those of queries, keys and values are, becomes one product
per part. Exact, and needed for INT8: TensorRT for RTX moves such slices into the weight, dequantises it for that, and
multiplies in FP32. Of products side by side it makes one INT8 product again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from edgeseg.export.graph_edit import remove_unused_weights
from edgeseg.export.rewrites.graph_index import GraphIndex


@dataclass(frozen=True)
class _Joint:
    """A product and what is read of it."""

    product: NodeProto
    weight: NodeProto
    """Dequantises the int8 weight `[K, N]`."""
    bias: NodeProto | None
    parts: tuple[tuple[NodeProto, int, int], ...]
    """Each slice with its first column and the one after its last."""


def split_joint_products(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a quantised graph in which products with a dequantised weight are split as their readers slice them."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    index = GraphIndex(model)
    found = [_joint(index, node) for node in index.model.graph.node if node.op_type == "MatMul"]
    replaced: dict[str, list[NodeProto]] = {}
    for joint in filter(None, found):
        gone = [joint.weight, *filter(None, [joint.bias]), *(part for part, _, _ in joint.parts)]
        replaced |= {node.output[0]: [] for node in gone}
        replaced[joint.product.output[0]] = _split(index, joint, model)
    nodes = [new for node in model.graph.node for new in replaced.get(node.output[0], [node])]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    remove_unused_weights(model)
    return model


def _joint(index: GraphIndex, product: NodeProto) -> _Joint | None:
    weight = index.producer.get(product.input[1])
    if weight is None or weight.op_type != "DequantizeLinear" or not index.is_private(product.input[1]):
        return None
    stored = index.constants.get(weight.input[0])
    if stored is None or stored.ndim != 2:
        return None
    name, bias = product.output[0], None
    readers = index.consumers[name]
    if len(readers) == 1 and readers[0].op_type == "Add" and name not in index.output_names:
        bias = readers[0]
        if all(index.constants.get(each, np.empty(0)).shape != stored.shape[1:] for each in bias.input):
            return None
        name = bias.output[0]
    if name in index.output_names:
        return None
    parts = [_columns(index, node, stored.shape[1]) for node in index.consumers[name]]
    known = sorted((part for part in parts if part is not None), key=lambda part: part[1])
    starts, stops = [part[1] for part in known], [part[2] for part in known]
    if len(known) < max(2, len(parts)) or [0, *stops] != [*starts, stored.shape[1]]:
        return None
    return _Joint(product, weight, bias, tuple(known))


def _columns(index: GraphIndex, node: NodeProto, width: int) -> tuple[NodeProto, int, int] | None:
    """A slice of the last axis alone, in steps of 1; None for any other reader."""
    values = [index.constants.get(name) for name in node.input[1:]]
    if node.op_type != "Slice" or len(values) < 3 or any(value is None or value.size != 1 for value in values):
        return None
    start, stop, axis, *step = (int(value.reshape(-1)[0]) for value in values if value is not None)
    rank = len(index.shapes.get(node.input[0], ()))
    if axis not in (-1, rank - 1) or step not in ([], [1]) or start < 0 or stop < 0:
        return None
    return node, start, min(stop, width)


def _split(index: GraphIndex, joint: _Joint, model: onnx.ModelProto) -> list[NodeProto]:
    nodes: list[NodeProto] = []

    def constant(name: str, value: np.ndarray) -> str:
        # Layers may share a bias, of zeros say.
        if name not in {entry.name for entry in model.graph.initializer}:
            model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    for part, start, stop in joint.parts:
        suffix = f"[{start}:{stop}]"
        quantised = [
            constant(f"{name}{suffix}", value[..., start:stop]) if (value := index.constants[name]).ndim else name
            for name in joint.weight.input
        ]
        weight = f"{joint.weight.output[0]}{suffix}"
        product = f"{joint.product.output[0]}{suffix}" if joint.bias is not None else part.output[0]
        dequantise = helper.make_node("DequantizeLinear", quantised, [weight], name=f"{joint.weight.name}{suffix}")
        dequantise.attribute.extend(joint.weight.attribute)
        nodes += [dequantise, _named("MatMul", [joint.product.input[0], weight], product, joint.product, suffix)]
        if joint.bias is not None:
            bias = next(name for name in joint.bias.input if name in index.constants)
            sliced = constant(f"{bias}{suffix}", index.constants[bias][start:stop])
            nodes.append(_named("Add", [product, sliced], part.output[0], joint.bias, suffix))
    return nodes


def _named(operator: str, inputs: Sequence[str], output: str, like: NodeProto, suffix: str) -> NodeProto:
    return helper.make_node(operator, list(inputs), [output], name=f"{like.name or like.output[0]}{suffix}")
