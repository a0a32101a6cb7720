"""Writes a new ONNX graph node by node, with constants that are stored once."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper


class GraphWriter:
    """Nodes, constants and their names of a graph under construction.

    Nodes have to be added in execution order. A constant's name stands for its value: adding it again changes nothing.
    """

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}

    def add(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a node of operator `kind` with one output; its name is made from the output's."""
        node = helper.make_node(kind, list(inputs), [output], name=f"{kind}_{output}", **attributes)
        self.nodes.append(node)
        return output

    def add_copy(self, node: onnx.NodeProto, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        """Add `node`'s operator and attributes, with other tensors."""
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        if list(outputs) != list(node.output):
            copy.name = f"{node.op_type}_{outputs[0]}"
        del copy.input[:], copy.output[:]
        copy.input.extend(inputs)
        copy.output.extend(outputs)
        self.nodes.append(copy)

    def constant(self, name: str, value: np.ndarray) -> str:
        """The name of a constant, stored in row-major order under `name`."""
        self.constants.setdefault(name, np.ascontiguousarray(value))
        return name

    def model(
        self,
        like: onnx.ModelProto,
        name: str,
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
    ) -> onnx.ModelProto:
        """The finished model, with the operator set of `like`; constants that no node reads are left out."""
        used = {item for node in self.nodes for item in node.input}
        initializers = [numpy_helper.from_array(value, key) for key, value in self.constants.items() if key in used]
        graph = helper.make_graph(self.nodes, name, list(inputs), list(outputs), initializers)
        model = helper.make_model(graph, opset_imports=like.opset_import, ir_version=like.ir_version)
        model.producer_name = "edgeseg"
        return model
