"""What an engine is made of: its layers, the graph's nodes that went into each, and the type each computes in.

Where there is a GPU the library's inspector tells, as JSON. Without one nothing can be loaded, and the list is read
from the log that a build with detailed verbosity ends with:

    Layers:
    Name: conv1_0, LayerType: correlation, Inputs: [ { Name: x, Dimensions: [1,8,4,4], Datatype: Int8, ... }], ...
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

TYPES = {
    "Float": "fp32",
    "FP32": "fp32",
    "Half": "fp16",
    "FP16": "fp16",
    "BFloat16": "bf16",
    "BF16": "bf16",
    "Int8": "int8",
    "INT8": "int8",
    "FP8": "fp8",
    "UInt8": "uint8",
    "UINT8": "uint8",
    "Int32": "int32",
    "INT32": "int32",
    "Int64": "int64",
    "INT64": "int64",
    "Bool": "bool",
    "BOOL": "bool",
}
"""The libraries' names -> ours."""
_FLOATS = ("fp32", "bf16", "fp16", "fp8")
"""Widest first."""
_PRODUCTS = ("conv", "correlation", "gemm", "matrixmultiply", "matrix_multiply", "mha", "fullyconnected")
"""Parts of the names of kinds that multiply matrices or convolve."""
_FUSED_PRODUCT = re.compile(r"^_.*(Fc|Corr|gemm|mha)")
"""Names that the library makes up for kernels that multiply and do more: `__myl_FcAdd`, `_gemm_mha_v2`."""
_ORDER = ("signal", "wait", "NoOp")
"""Kinds that only hold the order of streams."""
_FIELD = re.compile(r"(?:^|, )(LayerType|Inputs|Constants|Outputs|TacticName|StreamId|EventId|Metadata): ")
_DATATYPE = re.compile(r"Datatype: (\w+)")
_ONNX_NODE = "[ONNX Layer: "
_SEPARATORS = "".join(map(chr, range(33)))
"""Between the nodes of a layer the library writes control characters."""


@dataclass(frozen=True)
class Layer:
    """One layer of an engine."""

    name: str
    kind: str
    """The library's word, such as `correlation` for a convolution."""
    arithmetic: str
    """What it computes in: `fp32`, `fp16`, `int8`, ... For a product the type of its operands."""
    inputs: tuple[str, ...]
    """Types of the tensors that it reads."""
    outputs: tuple[str, ...]
    nodes: tuple[str, ...]
    """Names of the graph's nodes that went into it."""

    @property
    def is_product(self) -> bool:
        """Whether it is a convolution or a matrix product, where nearly all the arithmetic is."""
        return _is_product(self.kind) or _is_fused_product(self.name)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form, read back by `from_dict`."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Layer":
        """Inverse of `as_dict`."""
        names = {key: str(values[key]) for key in ("name", "kind", "arithmetic")}
        inputs, outputs, nodes = (tuple(map(str, values[key])) for key in ("inputs", "outputs", "nodes"))
        return cls(**names, inputs=inputs, outputs=outputs, nodes=nodes)


def layers_of_log(text: str) -> list[Layer]:
    """Layers in the message that a detailed build ends with; none where the text holds no list."""
    layers = []
    for line in text.splitlines():
        if not line.startswith("Name: "):
            continue
        fields = _FIELD.split(line[len("Name: ") :])
        values = dict(zip(fields[1::2], fields[2::2], strict=True))
        if "LayerType" in values:
            inputs, outputs = (_DATATYPE.findall(values.get(side, "")) for side in ("Inputs", "Outputs"))
            layers.append(_layer(fields[0], values["LayerType"], inputs, outputs, values.get("Metadata", "")))
    return [layer for layer in layers if layer.kind not in _ORDER]


def layers_of_inspector(text: str) -> list[Layer]:
    """Layers in the JSON of `EngineInspector.get_engine_information`, as TensorRT 10 and 11 write it; none where it is
    no JSON. It comes after minutes of building, which no report is worth."""
    try:
        # Not strict: names have the control characters in them that the library puts between nodes.
        listed = json.loads(text, strict=False).get("Layers", [])
    except (ValueError, AttributeError):
        return []
    layers = []
    for entry in listed:
        # Without detailed verbosity there are names alone.
        if isinstance(entry, dict):
            inputs, outputs = ([_datatype(each) for each in entry.get(side, [])] for side in ("Inputs", "Outputs"))
            kind, metadata = entry.get("LayerType", "unknown"), entry.get("Metadata", "")
            layers.append(_layer(entry.get("Name", ""), kind, inputs, outputs, metadata))
    return [layer for layer in layers if layer.kind not in _ORDER]


def count_by_arithmetic(layers: Iterable[Layer]) -> dict[str, int]:
    """Type of arithmetic -> convolutions and matrix products in it, the most frequent first."""
    return dict(Counter(layer.arithmetic for layer in layers if layer.is_product).most_common())


def report_text(layers: Sequence[Layer]) -> str:
    """The layers as a table of plain text, one a line."""
    rows = [("layer", "kind", "computes in", "reads", "writes", "nodes of the graph")]
    rows += [
        (
            layer.name,
            layer.kind,
            layer.arithmetic,
            " ".join(layer.inputs) or "-",
            " ".join(layer.outputs) or "-",
            " ".join(layer.nodes) or "-",
        )
        for layer in layers
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines) + "\n"


def _layer(name: str, kind: str, inputs: Iterable[str], outputs: Iterable[str], metadata: str) -> Layer:
    reads, writes = (tuple(TYPES.get(each, each.lower()) for each in side) for side in (inputs, outputs))
    nodes = tuple(part.strip(_SEPARATORS).removesuffix("]") for part in metadata.split(_ONNX_NODE)[1:])
    return Layer(name, kind, _arithmetic(name, kind, reads, writes), reads, writes, nodes)


def _arithmetic(name: str, kind: str, reads: Sequence[str], writes: Sequence[str]) -> str:
    if _is_product(kind) and reads:
        # What follows may be added in float.
        return reads[0]
    # Of INT8 and float operands the INT8 ones are made float first.
    present = {*reads} if _is_fused_product(name) else {*reads, *writes}
    floats = [each for each in _FLOATS if each in present]
    if floats:
        return floats[0]
    return "int8" if "int8" in present else next(iter((*writes, *reads)), "none")


def _is_product(kind: str) -> bool:
    return any(part in kind.lower() for part in _PRODUCTS)


def _is_fused_product(name: str) -> bool:
    return _FUSED_PRODUCT.match(name) is not None


def _datatype(tensor: Mapping[str, Any]) -> str:
    # TensorRT 11 has a key of its own; 10 says it within the format, as in "Row major linear FP32 format".
    if "Datatype" in tensor:
        return str(tensor["Datatype"])
    words = re.findall(r"\w+", str(tensor.get("Format/Datatype", "")))
    return next((word for word in words if word in TYPES), "unknown")
