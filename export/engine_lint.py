"""What TensorRT asks of a graph, checked before a build: each finding names the node and the way out.

The library's own checks come late (some after minutes, some only on the device) and in its own words. Every graph that
edgeseg exports keeps these rules; a graph of somebody else's may not.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto, TensorProto

from edgeseg.errors import first_line
from edgeseg.export.rewrites.graph_index import GraphIndex
from edgeseg.token_plan import TOPK_LIMIT

OPSETS = range(17, 21)
_ELSEWHERE = "or run this configuration on device cpu or cuda:0"
WAYS_OUT = {
    "NonZero": "choose a fixed number of places by TopK",
    "Unique": "count each known value with Equal and ReduceSum",
    "Compress": "choose a fixed number of rows by TopK and Gather",
    "NonMaxSuppression": "leave it to the program that reads the outputs",
    "Loop": "unroll it when the graph is exported",
    "Scan": "unroll it when the graph is exported",
    "If": "decide when the graph is exported, or compute both and choose with Where",
    "QLinearConv": "quantise with QuantizeLinear and DequantizeLinear around a Conv",
    "QLinearMatMul": "quantise with QuantizeLinear and DequantizeLinear around a MatMul",
    "ConvInteger": "quantise with QuantizeLinear and DequantizeLinear around a Conv",
    "MatMulInteger": "quantise with QuantizeLinear and DequantizeLinear around a MatMul",
    "DynamicQuantizeLinear": "calibrate, and quantise with a constant scale",
}
"""Operator that no engine has -> what to do instead."""
_VALUE_SHAPED = ("NonZero", "Unique", "Compress", "NonMaxSuppression", "Loop", "Scan", "If")
_TYPES = {
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.BFLOAT16,
    TensorProto.INT8,
    TensorProto.UINT8,
    TensorProto.INT32,
    TensorProto.INT64,
    TensorProto.BOOL,
}
_PASSES_CONSTANTS = ("Cast", "Identity", "QuantizeLinear", "DequantizeLinear", "Reshape", "Transpose")
_WEIGHTED = ("Conv", "ConvTranspose")


@dataclass(frozen=True)
class Finding:
    """One breach of the contract."""

    rule: str
    """One of `RULES`."""
    node: str
    """Where: a node's name and operator, or a tensor."""
    problem: str
    way_out: str

    def __str__(self) -> str:
        return f"{self.node}: {self.problem} | {self.way_out}"


def lint_graph(model: onnx.ModelProto) -> list[Finding]:
    """All breaches of the contract in a graph with its weights; none for a graph that an engine can be built of."""
    operators = list(_operators(model))
    if operators:
        # Shapes of foreign or value-dependent operators cannot be inferred, which would be found again at each reader.
        return operators
    try:
        index = GraphIndex(model)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as error:
        problem = f"its shapes cannot be inferred ({first_line(error)})"
        return [Finding("fixed shapes", "the graph", problem, "export it again")]
    return [finding for rule in RULES.values() for finding in rule(index)]


def _operators(model: onnx.ModelProto) -> Iterator[Finding]:
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset not in OPSETS:
        wanted = f"export it with opset {OPSETS[0]} to {OPSETS[-1]}"
        yield Finding("operators", "the graph", f"its opset is {opset}", wanted)
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            problem = f"the operator is of {node.domain}, not of the ONNX standard"
            yield Finding("operators", _place(node), problem, f"export the portable graph, {_ELSEWHERE}")
        elif node.op_type in _VALUE_SHAPED:
            problem = "its output's shape depends on values"
            yield Finding("operators", _place(node), problem, f"{WAYS_OUT[node.op_type]}, {_ELSEWHERE}")
        elif node.op_type in WAYS_OUT:
            problem = "quantised operators are not taken"
            yield Finding("operators", _place(node), problem, f"{WAYS_OUT[node.op_type]}, {_ELSEWHERE}")


def _fixed_shapes(index: GraphIndex) -> Iterator[Finding]:
    for entry in index.model.graph.input:
        if entry.name not in index.shapes:
            yield Finding("fixed shapes", entry.name, "the input has no fixed shape", "export it at one --size")
    for node in index.model.graph.node:
        # One finding where the shape is lost, not one at every reader behind it.
        known = all(name in index.shapes for name in node.input if name)
        lost = [name for name in node.output if name and name not in index.shapes]
        if known and lost:
            problem = f"the shape of {lost[0]} is not fixed"
            way_out = f"make what it is computed from a constant, {_ELSEWHERE}"
            yield Finding("fixed shapes", _place(node), problem, way_out)


def _strong_types(index: GraphIndex) -> Iterator[Finding]:
    for entry in index.model.graph.input:
        if index.dtypes.get(entry.name) not in _TYPES:
            yield _wrong_type(entry.name, index.dtypes.get(entry.name))
    seen: set[str] = set()
    for node in index.model.graph.node:
        for name in (*node.input, *node.output):
            kind = index.dtypes.get(name)
            if kind is not None and kind not in _TYPES and name not in seen:
                yield _wrong_type(_place(node), kind)
            seen.add(name)


def _wrong_type(place: str, kind: int | None) -> Finding:
    got = "unknown" if kind is None else TensorProto.DataType.Name(kind).lower()
    way_out = "use float32, float16, int8, uint8, int32, int64 or bool: cast where the type is made"
    return Finding("strong types", place, f"a tensor of type {got} is not taken", way_out)


def _bytes_are_cast(index: GraphIndex) -> Iterator[Finding]:
    """uint8 is for inputs and outputs: nothing computes in it."""
    allowed = ("Cast", "Identity")
    for node in index.model.graph.node:
        reads = [name for name in node.input if index.dtypes.get(name) == TensorProto.UINT8]
        makes = [name for name in node.output if index.dtypes.get(name) == TensorProto.UINT8]
        if (reads or makes) and node.op_type not in (*allowed, "QuantizeLinear", "DequantizeLinear"):
            problem = f"it {'reads' if reads else 'makes'} uint8 ({(reads or makes)[0]})"
            yield Finding("bytes are cast", _place(node), problem, "cast inputs of bytes first, outputs last")


def _symmetric_quantisation(index: GraphIndex) -> Iterator[Finding]:
    rule = "symmetric quantisation"
    for node in index.model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        place = _place(node)
        scale = index.constants.get(node.input[1])
        if scale is None:
            yield Finding(rule, place, "its scale is no constant", "calibrate, and quantise with a constant scale")
        elif not (np.isfinite(scale).all() and (scale > 0).all()):
            yield Finding(rule, place, "its scale is not positive", "calibrate on images like those of the task")
        elif scale.size > 1 and node.input[0] not in index.constants and not _is_constant(index, node.input[0]):
            way_out = "give a tensor that is computed one scale; weights may have one per channel"
            yield Finding(rule, place, "a tensor that is computed has a scale per channel", way_out)
        yield from _zero_point(index, node, place)
        if node.op_type == "QuantizeLinear":
            readers = {reader.op_type for reader in index.consumers[node.output[0]]} - {"DequantizeLinear"}
            if readers:
                problem = f"{', '.join(sorted(readers))} reads the quantised tensor"
                yield Finding(rule, place, problem, "let DequantizeLinear read it first")


def _zero_point(index: GraphIndex, node: NodeProto, place: str) -> Iterator[Finding]:
    rule, name = "symmetric quantisation", node.input[2] if len(node.input) > 2 else ""
    # Without a zero point a quantised tensor is uint8 by the standard; what is dequantised says its own type.
    quantised = node.output[0] if node.op_type == "QuantizeLinear" else node.input[0]
    kind = index.dtypes.get(name or quantised)
    if kind is not None and kind != TensorProto.INT8:
        got = TensorProto.DataType.Name(kind).lower()
        yield Finding(rule, place, f"it quantises to {got}", "quantise to int8, with zero points 0")
    elif name and (name not in index.constants or index.constants[name].any()):
        yield Finding(rule, place, "its zero point is not 0", "quantise symmetrically, with zero points 0")


def _topk(index: GraphIndex) -> Iterator[Finding]:
    for node in index.model.graph.node:
        if node.op_type != "TopK":
            continue
        count = index.constants.get(node.input[1])
        if count is None:
            yield Finding("TopK", _place(node), "its K is no constant", "export it with a fixed number")
        elif int(count.reshape(-1)[0]) > TOPK_LIMIT:
            problem = f"K is {int(count.reshape(-1)[0])}, and {TOPK_LIMIT} is the largest that engines take"
            yield Finding("TopK", _place(node), problem, "rank the others, which are fewer, or several times over")


def _constant_weights(index: GraphIndex) -> Iterator[Finding]:
    for node in index.model.graph.node:
        if node.op_type in _WEIGHTED:
            computed = [name for name in node.input[1:] if name and not _is_constant(index, name)]
            if computed:
                problem = f"its weight {computed[0]} is computed in the graph"
                yield Finding("constant weights", _place(node), problem, "fold constants before the export")


RULES: dict[str, Callable[[GraphIndex], Iterator[Finding]]] = {
    "fixed shapes": _fixed_shapes,
    "strong types": _strong_types,
    "bytes are cast": _bytes_are_cast,
    "symmetric quantisation": _symmetric_quantisation,
    "TopK": _topk,
    "constant weights": _constant_weights,
}
"""Rule -> what finds its breaches. The rule `operators` goes before them all."""


def _is_constant(index: GraphIndex, name: str) -> bool:
    """Whether a tensor follows from constants alone, as a weight that is dequantised or cast does."""
    while name not in index.constants:
        node = index.producer.get(name)
        if node is None or node.op_type not in _PASSES_CONSTANTS:
            return False
        name = node.input[0]
    return True


def _place(node: NodeProto) -> str:
    return f"{node.name or node.output[0]} ({node.op_type})"
