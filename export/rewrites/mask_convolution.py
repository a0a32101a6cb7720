"""Conv(x; W, b)[:, a:b] -> Conv(x; W[a:b], b[a:b])

and over cut inputs, in the `split` form,

    Conv(Concat(x0, x1); W, b) -> Add(Conv(x0; W[:, :c], b), Conv(x1; W[:, c:]))

Weights are sliced here, never in the graph. Row slices are contiguous in the dense weight.
"""

from collections.abc import Sequence

import onnx

from edgeseg.export.rewrites.graph_index import GraphIndex
from edgeseg.export.rewrites.graph_writer import GraphWriter

Range = tuple[int, int]


def emit_convolution(
    writer: GraphWriter,
    index: GraphIndex,
    node: onnx.NodeProto,
    inputs: Sequence[tuple[Range, str]],
    rows: Range,
    output: str,
) -> None:
    """Write output channels `rows` of convolution `node` (group 1) as one convolution per input part, summed.

    Args:
        inputs: (input channels, tensor) of each part, in channel order; together they are all input channels.
        output: name of the result.
    """
    partial = ""
    for number, ((start, stop), name) in enumerate(inputs):
        names = [name, _weight(writer, index, node, rows, (start, stop))]
        if number == 0 and len(node.input) > 2 and node.input[2]:
            names.append(_bias(writer, index, node, rows))
        last = number == len(inputs) - 1
        target = output if last and not partial else f"{output}.in{start}"
        writer.add_copy(node, names, [target])
        writer.nodes[-1].name = f"Conv_{target}"
        if partial:
            target = writer.add("Add", [partial, target], output if last else f"{output}.sum{start}")
        partial = target


def _weight(writer: GraphWriter, index: GraphIndex, node: onnx.NodeProto, rows: Range, columns: Range) -> str:
    weight = index.constants[node.input[1]]
    name = node.input[1]
    if rows != (0, weight.shape[0]):
        name += f"[{rows[0]}:{rows[1]}]"
    if columns != (0, weight.shape[1]):
        name += f"[:,{columns[0]}:{columns[1]}]"
    return writer.constant(name, weight[slice(*rows), slice(*columns)])


def _bias(writer: GraphWriter, index: GraphIndex, node: onnx.NodeProto, rows: Range) -> str:
    bias = index.constants[node.input[2]]
    name = node.input[2] + (f"[{rows[0]}:{rows[1]}]" if rows != (0, len(bias)) else "")
    return writer.constant(name, bias[slice(*rows)])
