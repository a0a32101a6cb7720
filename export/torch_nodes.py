"""ONNX nodes for the functions that compute them in PyTorch: attributes, constant inputs, and the refusal by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from onnx import NodeProto, TensorProto

from edgeseg.errors import InputError
from edgeseg.export.rewrites.graph_index import attributes

Inputs = Sequence[Any]
"""Tensors, or None where an optional input is left out."""

DTYPES: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.UINT8: torch.uint8,
    TensorProto.INT8: torch.int8,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.BOOL: torch.bool,
}


@dataclass(frozen=True)
class Node:
    """An ONNX node with what is known about it ahead of time."""

    proto: NodeProto
    attributes: Mapping[str, Any]
    constants: Mapping[str, np.ndarray]
    output_shape: tuple[int, ...]
    """Of its first output."""

    def get(self, name: str, default: Any = None) -> Any:
        """Attribute `name`; texts as str."""
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def constant(self, position: int) -> np.ndarray | None:
        """The constant at input `position`; None when it is left out.

        Raises:
            InputError: it is computed while the graph runs.
        """
        names = self.proto.input
        if position >= len(names) or not names[position]:
            return None
        if names[position] not in self.constants:
            raise self.refused(f"input {position} is not a constant")
        return self.constants[names[position]]

    def ints(self, position: int, attribute: str | None = None) -> list[int] | None:
        """Integers given as the attribute of older opsets, or as a constant input."""
        if attribute is not None and attribute in self.attributes:
            return [int(value) for value in self.attributes[attribute]]
        constant = self.constant(position)
        return None if constant is None else [int(value) for value in constant.flatten()]

    def refused(self, why: str) -> InputError:
        """The error of a node that has no form in PyTorch here."""
        return InputError(
            f"node {self.proto.name or self.proto.output[0]} ({self.proto.op_type}) has no form in PyTorch here | {why}"
            " | leave torch out of --format"
        )


def node_of(proto: NodeProto, constants: Mapping[str, np.ndarray], output_shape: tuple[int, ...]) -> Node:
    """`proto` with its attributes read."""
    return Node(proto, attributes(proto), constants, output_shape)
