"""Which nodes of a graph stay in high precision by rule: first layer, last layer, and what decides which tokens pause.

A *product* is a convolution or a matrix product: the nodes that a lower precision is for. What lies between the image
and the first products, between the last products and the labels, and between a selection of tokens and the products
that it follows from, stays in high precision together with them.
"""

import re
from collections.abc import Collection, Iterable, Sequence

import onnx

from edgeseg.errors import InputError
from edgeseg.export.onnx_export import FRAME_IN, IMAGE, LABELS

PRODUCTS = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))
FIRST, LAST, PAUSING, ASKED = "first layer", "last layer", "decides which tokens pause", "kept: sensitive"
_WEIGHT = re.compile(r"(.+)\.weight(\[[\d:,]+\])*")
_PART = re.compile(r"(\[\d+:\d+\]|\.in\d+|\.sum\d+)+$")


def layer_name(node: onnx.NodeProto) -> str:
    """What a node is called in all graphs of a network: `decoder.conv` for each part of it that a phase computes."""
    weight = _WEIGHT.fullmatch(node.input[1]) if len(node.input) > 1 else None
    if weight and node.op_type in PRODUCTS:
        return weight[1]
    # Graphs that are cut into phases name a node by its operator and its output.
    own = node.output[0] if node.name == f"{node.op_type}_{node.output[0]}" else node.name
    return _PART.sub("", own)


def kept_nodes(model: onnx.ModelProto, asked: Collection[str] = ()) -> dict[int, str]:
    """Positions of the nodes that stay in high precision -> the reason.

    Args:
        asked: names of nodes, or of layers as `layer_name` gives them, to keep besides.

    Raises:
        InputError: no node has one of the names.
    """
    nodes = model.graph.node
    makers = {name: position for position, node in enumerate(nodes) for name in node.output if name}
    kept = dict.fromkeys(_after(nodes, (IMAGE, FRAME_IN)), FIRST)
    kept |= dict.fromkeys(_before(nodes, makers, [LABELS]), LAST)
    ranked = [node.output[0] for node in nodes if node.op_type == "TopK"]
    kept |= dict.fromkeys(_before(nodes, makers, ranked), PAUSING)
    for name in asked:
        found = [position for position, node in enumerate(nodes) if name in (node.name, layer_name(node))]
        if not found:
            raise InputError(f"the graph has no layer {name!r} to keep in high precision | see the names in the report")
        kept |= {position: kept.get(position, ASKED) for position in found}
    return kept


def _after(nodes: Sequence[onnx.NodeProto], names: Iterable[str]) -> set[int]:
    """Nodes that follow from the tensors `names`, up to and with the first products."""
    reached, found = set(names), set[int]()
    for position, node in enumerate(nodes):
        if reached.intersection(node.input):
            found.add(position)
            if node.op_type not in PRODUCTS:
                reached.update(node.output)
    return found


def _before(nodes: Sequence[onnx.NodeProto], makers: dict[str, int], names: Sequence[str]) -> set[int]:
    """Nodes that the tensors `names` follow from, back to and with the nearest products."""
    found, waiting = set[int](), list(names)
    while waiting:
        position = makers.get(waiting.pop())
        if position is None or position in found:
            continue
        found.add(position)
        if nodes[position].op_type not in PRODUCTS:
            waiting.extend(nodes[position].input)
    return found
