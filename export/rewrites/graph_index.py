"""Look-ups over an ONNX graph: who makes a tensor, who reads it, its shape, its constant value."""

from collections import defaultdict
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from edgeseg.errors import InputError


class GraphIndex:
    """Read-only index of a model's top graph, with inferred shapes.

    Attributes:
        producer: tensor name -> the node that makes it; graph inputs and initialisers have none.
        consumers: tensor name -> nodes that read it, once per use.
        constants: tensor name -> value, of initialisers and Constant nodes.
        shapes: tensor name -> static shape; tensors of unknown or dynamic shape are left out.
        dtypes: tensor name -> `onnx.TensorProto.DataType`.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        graph = inferred.graph
        self.model = inferred
        self.producer: dict[str, onnx.NodeProto] = {}
        self.consumers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        self.constants: dict[str, np.ndarray] = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer
        }
        self.shapes: dict[str, tuple[int, ...]] = {name: value.shape for name, value in self.constants.items()}
        self.dtypes: dict[str, int] = {tensor.name: tensor.data_type for tensor in graph.initializer}
        for value in (*graph.input, *graph.value_info, *graph.output):
            self._add_value(value)
        for node in graph.node:
            for name in node.input:
                self.consumers[name].append(node)
            for name in node.output:
                self.producer[name] = node
            if node.op_type == "Constant":
                self._add_constant(node)
        self.output_names = {value.name for value in graph.output}

    def _add_value(self, value: onnx.ValueInfoProto) -> None:
        tensor = value.type.tensor_type
        if not tensor.HasField("shape"):
            return
        self.dtypes[value.name] = tensor.elem_type
        if all(dim.HasField("dim_value") for dim in tensor.shape.dim):
            self.shapes[value.name] = tuple(dim.dim_value for dim in tensor.shape.dim)

    def _add_constant(self, node: onnx.NodeProto) -> None:
        value = attributes(node).get("value")
        if isinstance(value, onnx.TensorProto):
            self.constants[node.output[0]] = numpy_helper.to_array(value)
            self.shapes[node.output[0]] = self.constants[node.output[0]].shape

    def is_private(self, name: str) -> bool:
        """Whether tensor `name` is read exactly once and is no graph output."""
        return len(self.consumers[name]) == 1 and name not in self.output_names

    def feature_channels(self, name: str) -> int | None:
        """C of a feature map `[1, C, H, W]` that is computed at run time; None for anything else."""
        shape = self.shapes.get(name, ())
        return shape[1] if len(shape) == 4 and shape[0] == 1 and name not in self.constants else None

    def weight(self, node: onnx.NodeProto) -> np.ndarray | None:
        """The constant weight of a convolution, or None when it is computed in the graph."""
        return self.constants.get(node.input[1])


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """The attributes of `node` as Python values."""
    return {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}


def opset_version(model: onnx.ModelProto) -> int:
    """Version of the standard operator set.

    Raises:
        InputError: the model does not import it.
    """
    for item in model.opset_import:
        if item.domain in ("", "ai.onnx"):
            return int(item.version)
    raise InputError("ONNX model cannot be read | it imports no standard operator set | export it with opset 17 to 20")
