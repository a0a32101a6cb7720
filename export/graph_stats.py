"""How much a graph computes and holds: multiply-accumulates and parameters, for the manifest."""

import math

import onnx

from edgeseg.export.rewrites.graph_index import GraphIndex, attributes


def count_macs(model: onnx.ModelProto) -> int:
    """Multiply-accumulates of one run: convolutions (transposed too), Gemm and MatMul. Shapes have to be fixed.

    Element-wise work, pooling and resizing are not counted, as is the custom in this field.
    """
    index = GraphIndex(model)
    return sum(_macs(index, node) for node in index.model.graph.node)


def count_parameters(model: onnx.ModelProto) -> int:
    """Elements of all floating-point constants that the graph holds, and of those that it holds as INT8."""
    index = GraphIndex(model)
    quantisers = [node for node in index.model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    scales = {name for node in quantisers for name in node.input[1:]}
    quantised = {node.input[0] for node in quantisers if node.op_type == "DequantizeLinear"}
    return sum(
        value.size
        for name, value in index.constants.items()
        if name not in scales and (value.dtype.kind == "f" or name in quantised)
    )


def _macs(index: GraphIndex, node: onnx.NodeProto) -> int:
    output = index.shapes.get(node.output[0], ()) if node.output else ()
    if node.op_type == "Conv":
        # A weight [C_out, C_in / group, *kernel] is applied at every output element of its channel.
        return math.prod(output) * math.prod(index.shapes[node.input[1]][1:])
    if node.op_type == "ConvTranspose":
        return math.prod(index.shapes[node.input[0]]) * math.prod(index.shapes[node.input[1]][1:])
    if node.op_type == "Gemm":
        first = index.shapes[node.input[0]]
        return math.prod(output) * (first[0] if attributes(node).get("transA", 0) else first[1])
    if node.op_type == "MatMul":
        return math.prod(output) * index.shapes[node.input[0]][-1]
    return 0
