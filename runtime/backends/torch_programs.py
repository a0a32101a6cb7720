"""Programs loaded into torch: operators called one after another, or what Torch-TensorRT compiled.

A program is read as data (`exported_program`), and its operators are called by name; only those in `OPERATORS` are.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from edgeseg.errors import ArtifactError
from edgeseg.runtime.backends.exported_program import Call, Dtype, ExportedProgram, Place, Ref
from edgeseg.runtime.backends.graph_contract import GraphTensors, Tensor

_ARITHMETIC = """
add amax amin argmax avg_pool2d batch_norm cat clamp conv2d conv_transpose2d div eq erf exp expand gather ge gelu gt
hardswish index_select layer_norm le leaky_relu log log_softmax logical_and logical_not logical_or lt matmul max_pool2d
maximum mean minimum mul neg pad permute pow relu reshape round scatter select sigmoid slice softmax split
split_with_sizes sqrt sub sum t tanh to topk upsample_bilinear2d upsample_nearest2d where
"""
OPERATORS = frozenset(_ARITHMETIC.split())
"""Operators of `torch.ops.aten` that programs may name: arithmetic on tensors, nothing that reaches files."""
_CHECKS = "aten._assert_tensor_metadata.default"
"""Left out when a program is loaded: what it checks at every step, among it the device, the contract checks once."""


class Program(ABC):
    """A graph of the configuration, loaded into torch."""

    tensors: GraphTensors

    @abstractmethod
    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Tensors by the names of the graph's inputs -> by those of its outputs."""


class _Bound(NamedTuple):
    """An operator of torch, ready to be called."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    results: tuple[str, ...]
    finished: tuple[str, ...]
    """Tensors that nobody reads after this call."""


class OperatorProgram(Program):
    """A program's operators, called one after another on one device.

    Args:
        program: what was read.
        place: the `torch.device`.

    Raises:
        ArtifactError: it names an operator that is not among `OPERATORS`.
    """

    def __init__(self, torch: Any, program: ExportedProgram, place: Any) -> None:
        self._torch, self._place = torch, place
        self._inputs = dict(zip(program.input_names, program.inputs, strict=True))
        self._outputs = dict(zip(program.output_names, program.outputs, strict=True))
        self.tensors = GraphTensors(
            {name: _tensor(program, inner) for name, inner in self._inputs.items()},
            {name: _tensor(program, inner) for name, inner in self._outputs.items()},
        )
        calls = [call for call in program.calls if call.operator != _CHECKS]
        kernels = {_kernel_of(call) for call in calls}
        self._weights = {
            name: self._weight(value, channels_last=name in kernels) for name, value in program.weights.items()
        }
        last = {name: index for index, call in enumerate(calls) for name in (*_read_by(call), *call.results)}
        kept = {*self._outputs.values(), *self._inputs.values(), *self._weights}
        finished: dict[int, list[str]] = {}
        for name, index in last.items():
            if name not in kept:
                finished.setdefault(index, []).append(name)
        self._calls = [self._bind(call, tuple(finished.get(index, ()))) for index, call in enumerate(calls)]

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        values = dict(self._weights)
        for name, inner in self._inputs.items():
            values[inner] = inputs[name]
        for call in self._calls:
            made = call.function(*[_value(each, values) for each in call.args], **call.kwargs)
            if isinstance(made, tuple | list):
                values.update(zip(call.results, made, strict=True))
            else:
                values[call.results[0]] = made
            for name in call.finished:
                del values[name]
        return {name: values[inner] for name, inner in self._outputs.items()}

    def _weight(self, value: np.ndarray, *, channels_last: bool) -> Any:
        tensor = self._torch.tensor(value, device=self._place)
        return tensor.to(memory_format=self._torch.channels_last) if channels_last else tensor

    def _bind(self, call: Call, finished: tuple[str, ...]) -> _Bound:
        namespace, _, rest = call.operator.partition(".")
        name, _, overload = rest.partition(".")
        if namespace != "aten" or name not in OPERATORS or not overload.isidentifier():
            raise ArtifactError(f"a program names the operator {call.operator!r:.80}, which programs may not")
        function = getattr(getattr(self._torch.ops.aten, name), overload, None)
        if function is None or any(isinstance(value, Ref | list) for value in call.kwargs.values()):
            raise ArtifactError(f"a program calls {call.operator} in a way that this torch does not know")
        kwargs = {name: self._resolved(value) for name, value in call.kwargs.items()}
        return _Bound(function, tuple(map(self._resolved, call.args)), kwargs, call.results, finished)

    def _resolved(self, value: Any) -> Any:
        """An argument with dtypes and the device as torch has them; tensors stay references."""
        if isinstance(value, Dtype):
            return getattr(self._torch, value.name)
        return self._place if isinstance(value, Place) else value


class CompiledProgram(Program):
    """A program compiled by Torch-TensorRT, run by it."""

    def __init__(self, program: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        """
        Args:
            program: a `torch.export.ExportedProgram` with engines in it.
            inputs: names of its arguments in their order; outputs alike.
        """
        signature = program.graph_signature
        made = {node.name: node.meta["val"] for node in program.graph.nodes if "val" in node.meta}
        self.tensors = GraphTensors(
            {name: _of(made[inner]) for name, inner in zip(inputs, signature.user_inputs, strict=True)},
            {name: _of(made[inner]) for name, inner in zip(outputs, signature.user_outputs, strict=True)},
        )
        self._module = program.module()

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        made = self._module(*(inputs[name] for name in self.tensors.inputs))
        return dict(zip(self.tensors.outputs, made, strict=True))


def _value(argument: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(argument, Ref):
        return values[argument.name]
    if isinstance(argument, list):
        return [_value(each, values) for each in argument]
    return argument


def _read_by(call: Call) -> Iterator[str]:
    """Names of the tensors that a call reads."""
    for argument in call.args:
        for each in argument if isinstance(argument, list) else [argument]:
            if isinstance(each, Ref):
                yield each.name


def _kernel_of(call: Call) -> str | None:
    """Name of the weight of a convolution; None for another operator."""
    is_convolution = call.operator.startswith("aten.conv2d.") and isinstance(call.args[1], Ref)
    return call.args[1].name if is_convolution else None


def _tensor(program: ExportedProgram, name: str) -> Tensor:
    spec = program.specs[name]
    return Tensor(spec.shape, spec.dtype, np.dtype(spec.dtype))


def _of(value: Any) -> Tensor:
    """What torch says of a tensor, in the contract's words."""
    name = str(value.dtype).removeprefix("torch.")
    return Tensor(tuple(value.shape), name, np.dtype(name))
