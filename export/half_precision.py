"""FP16: one graph and calibration data -> the graph with float16 weights and arithmetic, float32 where it has to be.

    half = half_graph(model, feeds)
    half.model, half.share, half.left                     # what stayed float32, each with the reason
    stored = half_states(half.model, feeds)               # also the states that are handed from step to step

NVIDIA ModelOpt's AutoCast converts; which nodes stay float32 is decided here, by rule and by the values that occur.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, ValueInfoProto, helper

from edgeseg.errors import InputError
from edgeseg.export.activation_ranges import check_feeds, run_inner
from edgeseg.export.graph_edit import check_graph
from edgeseg.export.kept_layers import FIRST, PAUSING, PRODUCTS, kept_nodes, layer_name
from edgeseg.export.node_precision import NodePrecision, Quantized, refuse_unexplained
from edgeseg.export.nvidia_modelopt import half_conversion
from edgeseg.export.quantize import fold_weights
from edgeseg.export.rewrites.graph_index import GraphIndex

LARGEST_HALF = float(np.finfo(np.float16).max)
LIMIT = LARGEST_HALF / 4
"""Nodes stay float32 that read, make or hold larger magnitudes: other images than those calibrated with go further."""
FLOAT32_OPERATORS = frozenset(
    (
        # Sums of many squares or exponentials, and logarithms of small numbers.
        *("LayerNormalization", "InstanceNormalization", "GroupNormalization", "LogSoftmax", "Exp", "Log", "Pow"),
        *("ReduceSum", "ReduceMean", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp", "CumSum", "Sqrt"),
        # Places in an image: float16 has 11 bits, images have more pixels in a row.
        "GridSample",
    )
)
TOO_LARGE = "values beyond float16"


def half_graph(
    model: onnx.ModelProto, feeds: Sequence[Mapping[str, np.ndarray]], *, keep_high: Collection[str] = ()
) -> Quantized:
    """Convert one fixed-shape graph to float16 with all inputs and outputs, states too, as they are.

    The normalisation of the image, what decides which tokens pause and the operators `FLOAT32_OPERATORS` stay float32,
    as does whatever comes near the largest float16 on the feeds.

    Args:
        model: opset 17 to 20, weights inside.
        feeds: calibration data: values of all inputs, image and states, one mapping per run.
        keep_high: layers or nodes that stay float32 besides.

    Raises:
        InputError: feeds that do not fit the graph or give values that are not finite, an unknown layer.
        MissingPackageError: a library of the extra `quant` is not installed.
        ParityError: of more than 5 % of the convolutions and matrix products nobody can say why they are not FP16.
    """
    check_feeds(model, feeds)
    model = fold_weights(model)
    kept = _float32_nodes(model, feeds, keep_high)
    converted = half_conversion(model, kept)
    halves = _half_outputs(converted)
    nodes = []
    for position, node in enumerate(model.graph.node):
        if node.op_type in PRODUCTS:
            reduced = node.name in halves
            reason = None if reduced else kept.get(position)
            nodes.append(NodePrecision(node.name, layer_name(node), node.op_type, reduced, reason))
    refuse_unexplained(nodes, "FP16")
    return Quantized(check_graph(converted), tuple(nodes))


def half_states(model: onnx.ModelProto, feeds: Sequence[Mapping[str, np.ndarray]] = ()) -> onnx.ModelProto:
    """A copy of a graph of any precision whose float32 states are stored as float16; bytes stay bytes.

    Args:
        feeds: values of all inputs of `model`, which show whether float16 can hold its states.

    Raises:
        InputError: a state is larger than float16 can hold.
    """
    model = onnx.ModelProto.FromString(model.SerializeToString())
    inputs = [entry for entry in model.graph.input if _is_float_state(entry)]
    outputs = [entry for entry in model.graph.output if _is_float_state(entry)]
    names = [entry.name for entry in (*inputs, *outputs)]
    for values in run_inner(model, names, feeds) if feeds else ():
        for name in names:
            if not np.abs(values[name]).max(initial=0) <= LARGEST_HALF:
                raise InputError(
                    f"state {name} cannot be stored as float16 | it reaches {np.abs(values[name]).max():.3g}, "
                    f"expected at most {LARGEST_HALF:g} | use --state-dtype fp32"
                )
    first = [_widened(model, entry) for entry in inputs]
    last = [_narrowed(model, entry) for entry in outputs]
    nodes = [*first, *model.graph.node, *last]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    _skip_casts_there_and_back(model)
    return check_graph(model)


def _float32_nodes(
    model: onnx.ModelProto, feeds: Sequence[Mapping[str, np.ndarray]], asked: Collection[str]
) -> dict[int, str]:
    """Positions of the nodes that stay float32 -> the reason."""
    large = _large_tensors(model, feeds)
    by_rule = kept_nodes(model, asked)
    kept = {}
    for position, node in enumerate(model.graph.node):
        reason = by_rule.get(position)
        if reason == FIRST and node.op_type not in PRODUCTS:
            kept[position] = FIRST
        elif reason is not None and (reason == PAUSING or node.name in asked or layer_name(node) in asked):
            kept[position] = reason
        elif node.op_type in FLOAT32_OPERATORS:
            kept[position] = f"{node.op_type} is computed in float32"
        elif large.intersection((*node.input, *node.output)):
            kept[position] = TOO_LARGE
    return kept


def _large_tensors(model: onnx.ModelProto, feeds: Sequence[Mapping[str, np.ndarray]]) -> set[str]:
    """Float tensors whose magnitudes come near the largest float16."""
    index = GraphIndex(model)
    large = {name for name, value in index.constants.items() if value.dtype.kind == "f" and _peak(value) > LIMIT}
    names = [name for name, dtype in index.dtypes.items() if dtype == TensorProto.FLOAT and name not in index.constants]
    for values in run_inner(model, names, feeds):
        for name in names:
            peak = _peak(values[name])
            if not np.isfinite(peak):
                raise InputError(
                    f"calibration gives NaN or infinite values in {name} | check the calibration data and the network"
                )
            if peak > LIMIT:
                large.add(name)
    return large


def _peak(values: np.ndarray) -> float:
    return float(np.abs(values).max(initial=0))


def _half_outputs(model: onnx.ModelProto) -> set[str]:
    """Names of the nodes that make float16."""
    dtypes = GraphIndex(model).dtypes
    return {node.name for node in model.graph.node if dtypes.get(node.output[0]) == TensorProto.FLOAT16}


def _is_float_state(entry: ValueInfoProto) -> bool:
    return entry.name.startswith("state_") and entry.type.tensor_type.elem_type == TensorProto.FLOAT


def _widened(model: onnx.ModelProto, entry: ValueInfoProto) -> NodeProto:
    """Make a graph input float16; the Cast from which its readers have it as before."""
    wide = f"{entry.name}.fp32"
    for node in model.graph.node:
        node.input[:] = [wide if name == entry.name else name for name in node.input]
    entry.type.tensor_type.elem_type = TensorProto.FLOAT16
    return helper.make_node("Cast", [entry.name], [wide], name=wide, to=TensorProto.FLOAT)


def _narrowed(model: onnx.ModelProto, entry: ValueInfoProto) -> NodeProto:
    """Make a graph output float16; the Cast that makes it."""
    wide = f"{entry.name}.fp32"
    for node in model.graph.node:
        node.input[:] = [wide if name == entry.name else name for name in node.input]
        node.output[:] = [wide if name == entry.name else name for name in node.output]
    entry.type.tensor_type.elem_type = TensorProto.FLOAT16
    return helper.make_node("Cast", [wide], [entry.name], name=f"{entry.name}.fp16", to=TensorProto.FLOAT16)


def _skip_casts_there_and_back(model: onnx.ModelProto) -> None:
    """Cast(Cast(x: float16, float32), float16) -> x: what is float16 on both sides is handed on as it is."""
    halves = {name for name, dtype in GraphIndex(model).dtypes.items() if dtype == TensorProto.FLOAT16}
    widened = {
        node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Cast" and node.input[0] in halves
    }
    results = {entry.name for entry in model.graph.output}
    made = {name for node in model.graph.node for name in node.output} - results
    renamed: dict[str, str] = {}
    nodes = []
    for node in model.graph.node:
        if node.op_type == "Cast" and node.input[0] in widened and _cast_to(node) == TensorProto.FLOAT16:
            source = widened[node.input[0]]
            if node.output[0] not in results:
                renamed[node.output[0]] = source
                continue
            if source in made and source not in renamed:
                renamed[source] = node.output[0]
                continue
            node.CopyFrom(helper.make_node("Identity", [source], list(node.output), name=node.name))
        nodes.append(node)
    for node in nodes:
        for names in (node.input, node.output):
            # Twice: what a Cast gave is its source, which may be called after an output by now.
            names[:] = [renamed.get(renamed.get(name, name), renamed.get(name, name)) for name in names]
    read = results.union(*(node.input for node in nodes))
    kept = [node for node in nodes if node.op_type != "Cast" or node.output[0] in read]
    del model.graph.node[:]
    model.graph.node.extend(kept)


def _cast_to(node: NodeProto) -> int:
    return next(item.i for item in node.attribute if item.name == "to")
