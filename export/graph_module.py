"""An ONNX graph as a module of PyTorch, and as an ExportedProgram."""

import warnings
from typing import Any

import numpy as np
import torch
from onnx import ModelProto
from torch import Tensor, nn

from edgeseg.errors import EdgesegError, InputError, one_line
from edgeseg.export.rewrites.graph_index import GraphIndex
from edgeseg.export.torch_nodes import DTYPES, node_of
from edgeseg.export.torch_operators import OPERATORS


class GraphModule(nn.Module):
    """A fixed-shape ONNX graph as a module: its inputs in their order -> a tuple of its outputs.

    Constants are buffers; what depends on constants alone is computed once, here.

    Raises:
        InputError: an operator, or a use of one, without a form in PyTorch.
    """

    def __init__(self, model: ModelProto) -> None:
        super().__init__()
        index = GraphIndex(model)
        graph = index.model.graph
        self.inputs = [entry.name for entry in graph.input]
        self.outputs = [entry.name for entry in graph.output]
        self._examples = [torch.zeros(index.shapes[name], dtype=DTYPES[index.dtypes[name]]) for name in self.inputs]
        known = {name: torch.from_numpy(np.array(value)) for name, value in index.constants.items()}
        self._nodes = []
        for proto in graph.node:
            if proto.output[0] in known:
                continue
            node = node_of(proto, index.constants, index.shapes.get(proto.output[0], ()))
            if proto.domain not in ("", "ai.onnx") or proto.op_type not in OPERATORS:
                raise node.refused("the operator is not among those that are")
            if all(name in known for name in proto.input if name):
                made = _outputs(OPERATORS[proto.op_type](node, [known.get(name) for name in proto.input]))
                known.update(zip(proto.output, made, strict=True))
                index.constants.update((name, known[name].numpy()) for name in proto.output)
            else:
                self._nodes.append(node)
        self._names: dict[str, str] = {}
        for name in {name: None for node in self._nodes for name in node.proto.input if name in known}:
            self._names[name] = f"constant{len(self._names)}"
            self.register_buffer(self._names[name], known[name].contiguous())

    @property
    def examples(self) -> tuple[Tensor, ...]:
        """Inputs of the right shapes and dtypes, all zero."""
        return tuple(self._examples)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        values: dict[str, Any] = dict(zip(self.inputs, inputs, strict=True))
        values.update((name, getattr(self, buffer)) for name, buffer in self._names.items())
        for node in self._nodes:
            proto = node.proto
            made = OPERATORS[proto.op_type](node, [values[name] if name else None for name in proto.input])
            values.update(zip(proto.output, _outputs(made), strict=False))
        return tuple(values[name] for name in self.outputs)


def _outputs(made: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return made if isinstance(made, tuple) else (made,)


def export_program(model: ModelProto) -> tuple[torch.export.ExportedProgram, GraphModule]:
    """The graph as an ExportedProgram, and the module it was made from.

    Raises:
        InputError: see `GraphModule`.
    """
    try:
        module = GraphModule(model).eval()
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(module, module.examples, strict=False)
    except EdgesegError:
        raise
    except Exception as error:
        raise InputError(
            f"graph {model.graph.name} cannot be exported as a program of PyTorch "
            f"({type(error).__name__}: {one_line(error)}) | leave torch out of --format"
        ) from error
    return program, module
