"""INT8: one graph and calibration data -> the graph with explicit Q/DQ nodes, and which of its layers are INT8.

    quantised = quantize_graph(model, feeds)
    quantised.model, quantised.share, quantised.left      # what stayed float, each with the reason
    again = quantize_graph(model, feeds, ranges=quantised.ranges, keep_high=["decoder.blend.conv"])

NVIDIA ModelOpt says which tensors are worth quantising (it knows what engines fuse); ranges come from the data, and the
Q/DQ nodes are written into the graph as it is, opset and names included.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from edgeseg.export.activation_ranges import CALIBRATION_METHODS, activation_ranges, check_feeds
from edgeseg.export.graph_edit import check_graph, fold_constants
from edgeseg.export.kept_layers import PRODUCTS, kept_nodes, layer_name
from edgeseg.export.node_precision import NodePrecision, Quantized, refuse_unexplained
from edgeseg.export.nvidia_modelopt import Place, int8_places
from edgeseg.export.rewrites.graph_index import GraphIndex
from edgeseg.export.rewrites.quantize_linear import quantize_inputs
from edgeseg.export.rewrites.split_joint_product import split_joint_products

__all__ = ["CALIBRATION_METHODS", "NodePrecision", "Quantized", "layer_weights", "quantize_graph", "quantize_layer"]

SMALLEST_SIDE = 16
"""ModelOpt leaves products alone that have fewer channels, rows or columns: INT8 kernels need that many."""
LONGEST_ATTENTION = 512
"""ModelOpt leaves the products of attention over more tokens alone: engines have a fused kernel for these in FP16."""


def quantize_graph(
    model: onnx.ModelProto,
    feeds: Sequence[Mapping[str, np.ndarray]],
    *,
    method: str = "entropy",
    keep_high: Collection[str] = (),
    ranges: Mapping[str, float] | None = None,
    whole_weights: Mapping[str, np.ndarray] | None = None,
) -> Quantized:
    """Quantise one fixed-shape graph to symmetric INT8, with all inputs and outputs as they are.

    Args:
        model: opset 17 to 20, weights inside.
        feeds: calibration data: values of all inputs, image and states, one mapping per run.
        method: how ranges follow from the data, one of `CALIBRATION_METHODS`.
        keep_high: layers or nodes that stay float besides the first and the last ones and those that decide which
            tokens pause.
        ranges: those of an earlier call with the same graph, data and method: only what they lack is calibrated.
        whole_weights: of a masked network, `layer_weights` of its `init` graph: the scales of the slices of its other
            graphs are those of the whole layers, so that all graphs share their int8 weights.

    Raises:
        InputError: feeds that do not fit the graph or give values that are not finite, an unknown method or layer.
        MissingPackageError: a library of the extra `quant` is not installed.
        ParityError: of more than 5 % of the convolutions and matrix products nobody can say why they are not INT8.
    """
    # All of them are checked where they are run: feeds may be costly to make, and known ranges need none.
    check_feeds(model, feeds[:1])
    model = fold_weights(model)
    kept = kept_nodes(model, keep_high)
    places = _worth_it(model, int8_places(model, feeds[0], kept))
    weights = {entry.name for entry in model.graph.initializer}
    read = [model.graph.node[position].input[number] for position, number in sorted(places)]
    activations = dict.fromkeys(name for name in read if name not in weights)
    known = dict(ranges or {})
    missing = [name for name in activations if name not in known]
    if missing:
        known |= activation_ranges(model, missing, feeds, method)
    nodes = _precisions(model, places, kept)
    refuse_unexplained(nodes, "INT8")
    result = quantize_inputs(model, places, _joined_alike(model, places, known), whole_weights or {})
    result = split_joint_products(result)
    return Quantized(check_graph(result), nodes, known, frozenset(places))


def quantize_layer(
    model: onnx.ModelProto,
    quantised: Quantized,
    layer: str,
    *,
    whole_weights: Mapping[str, np.ndarray] | None = None,
) -> onnx.ModelProto | None:
    """`model` with one layer in INT8, as it is in `quantised`, and all others float; None when it has no such layer.

    Args:
        quantised: what `quantize_graph` made of `model`.
        layer: as `layer_name` gives it, a product or another node that reads INT8 there.
        whole_weights: as `quantize_graph` takes them.
    """
    model = fold_weights(model)
    own = {place for place in quantised.places if layer_name(model.graph.node[place[0]]) == layer}
    if not own:
        return None
    ranges = _joined_alike(model, quantised.places, quantised.ranges)
    return quantize_inputs(model, own, ranges, whole_weights or {})


def layer_weights(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """The weights of a graph by name, as `quantize_graph` takes those of whole layers."""
    return {entry.name: numpy_helper.to_array(entry) for entry in model.graph.initializer}


def fold_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every weight of a product that can be computed ahead is an initialiser.

    The graphs that edgeseg cuts are left alone: further folding would give the phases of a masked network weights that
    are no slices of each other.
    """
    computed = {entry.name for entry in model.graph.input}
    for node in model.graph.node:
        if computed.intersection(node.input):
            computed.update(node.output)
    weights = {entry.name for entry in model.graph.initializer} | {""}
    for node in model.graph.node:
        if node.op_type in PRODUCTS and not computed.union(weights).issuperset(node.input):
            return fold_constants(model)
    return onnx.ModelProto.FromString(model.SerializeToString())


def _worth_it(model: onnx.ModelProto, places: Iterable[Place]) -> set[Place]:
    """`places` without those at layer norms, which engines compute in float whatever they read, and at convolutions
    whose weight is computed in the graph, which engines do not take as INT8."""
    weights = {entry.name for entry in model.graph.initializer}
    left = {
        position
        for position, node in enumerate(model.graph.node)
        if node.op_type == "LayerNormalization"
        or (node.op_type in ("Conv", "ConvTranspose") and node.input[1] not in weights)
    }
    return {place for place in places if place[0] not in left}


def _joined_alike(model: onnx.ModelProto, places: Iterable[Place], ranges: Mapping[str, float]) -> dict[str, float]:
    """`ranges`, those of maps that are joined into one being the same, so that engines join int8 without rescaling."""
    shared = dict(ranges)
    read = {model.graph.node[position].input[number] for position, number in places}
    for node in model.graph.node:
        names = {*node.input, *node.output} & read
        if node.op_type == "Concat" and len(names) > 1:
            largest = max(shared[name] for name in names)
            shared |= dict.fromkeys(names, largest)
    return shared


def _precisions(model: onnx.ModelProto, places: set[Place], kept: Mapping[int, str]) -> tuple[NodePrecision, ...]:
    index = GraphIndex(model)
    result = []
    for position, node in enumerate(model.graph.node):
        if node.op_type not in PRODUCTS:
            continue
        reduced = {(position, 0), (position, 1)} <= places
        reason = None if reduced else kept.get(position) or _why_not(index, node)
        result.append(NodePrecision(node.name, layer_name(node), node.op_type, reduced, reason))
    return tuple(result)


def _why_not(index: GraphIndex, node: onnx.NodeProto) -> str | None:
    """Why ModelOpt leaves a product alone; None where no reason is known."""
    first, second = (index.shapes.get(name, ()) for name in node.input[:2])
    if node.op_type in ("Conv", "ConvTranspose"):
        if node.input[1] not in index.constants:
            return "its weight is computed in the graph"
        return f"fewer than {SMALLEST_SIDE} channels" if min(second[:2], default=0) < SMALLEST_SIDE else None
    sides = (*first[-2:], *second[-2:])
    if min(sides, default=0) < SMALLEST_SIDE:
        return f"fewer than {SMALLEST_SIDE} rows or columns"
    if not {node.input[0], node.input[1]} & index.constants.keys() and max(sides) > LONGEST_ATTENTION:
        return f"attention over more than {LONGEST_ATTENTION} tokens"
    return None
