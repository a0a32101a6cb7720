"""INT8 as a network was trained for it (`edgeseg train --qat`): Q/DQ before its quantised layers, with its ranges.

Nothing is chosen or calibrated here. Scales of weights follow from the weights, as in training: there it does not
matter that batch norms are folded into them before.
"""

import re
from collections.abc import Collection, Mapping

import numpy as np
import onnx

from edgeseg.errors import ParityError
from edgeseg.export.graph_edit import check_graph
from edgeseg.export.kept_layers import ASKED, PRODUCTS, kept_nodes, layer_name
from edgeseg.export.quantize import NodePrecision, Quantized, fold_weights
from edgeseg.export.rewrites.quantize_linear import quantize_inputs

TRAINED_FLOAT = "trained in float"
_OPERATOR = re.compile(r"\.(MatMul|Gemm)(_\d+)?$")


def quantize_as_trained(
    model: onnx.ModelProto,
    ranges: Mapping[str, float],
    *,
    keep_high: Collection[str] = (),
    whole_weights: Mapping[str, np.ndarray] | None = None,
) -> Quantized:
    """Quantise one fixed-shape graph of a network that was trained with INT8's rounding.

    Args:
        model: opset 17 to 20, weights inside, as `export_module` names nodes.
        ranges: module path of each quantised layer -> largest magnitude that its input is rounded to.
        keep_high: layers or nodes that stay float although they were trained for INT8.
        whole_weights: as `quantize_graph` takes them.

    Raises:
        InputError: no node has a name in `keep_high`.
        ParityError: the graph lacks a layer that was trained for INT8.
    """
    model = fold_weights(model)
    kept = kept_nodes(model, keep_high)
    places: set[tuple[int, int]] = set()
    tensors: dict[str, float] = {}
    nodes, found = [], set()
    for position, node in enumerate(model.graph.node):
        if node.op_type not in PRODUCTS:
            continue
        layer = _OPERATOR.sub("", layer_name(node))
        found.add(layer)
        reduced = layer in ranges and kept.get(position) != ASKED
        if reduced:
            places |= {(position, 0), (position, 1)}
            # Layers that read the same tensor were calibrated on the same values.
            tensors[node.input[0]] = max(ranges[layer], tensors.get(node.input[0], 0.0))
        reason = None if reduced else kept.get(position, TRAINED_FLOAT)
        nodes.append(NodePrecision(node.name, layer_name(node), node.op_type, reduced, reason))
    if missing := sorted(ranges.keys() - found):
        raise ParityError(
            f"the graph lacks layers that were trained for INT8 | got none called {', '.join(missing[:3])} | nothing "
            "was written"
        )
    result = quantize_inputs(model, places, tensors, whole_weights or {})
    return Quantized(check_graph(result), tuple(nodes), tensors)
