"""ONNX operators in PyTorch: what `edgeseg.export.torch_program` runs a graph with.

Each function gets the node (attributes, and those inputs that are constants) and its inputs as tensors, None for one
that is left out. Only fixed shapes: sizes, axes and counts are read from constants. Operators and attribute values that
are not here are refused by name, never approximated.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from onnx import NodeProto, TensorProto
from torch import Tensor

from edgeseg.errors import InputError
from edgeseg.export.rewrites.graph_index import attributes

Inputs = Sequence[Any]
"""Tensors, or None where an optional input is left out."""

DTYPES = {
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


def _pads(node: Node, x: Tensor, fill: float) -> tuple[Tensor, list[int]]:
    """`x` padded where the padding is not the same on both sides, and the padding that is left to the operator."""
    if node.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise node.refused(f"auto_pad {node.get('auto_pad')}")
    if x.dim() != 4:
        raise node.refused(f"it works on {x.dim() - 2} spatial dimensions")
    top, left, bottom, right = node.get("pads", [0, 0, 0, 0])
    if (top, left) == (bottom, right):
        return x, [top, left]
    return F.pad(x, (left, right, top, bottom), value=fill), [0, 0]


def _conv(node: Node, inputs: Inputs) -> Tensor:
    x, weight, *bias = inputs
    x, padding = _pads(node, x, 0.0)
    return F.conv2d(
        x,
        weight,
        bias[0] if bias else None,
        stride=list(node.get("strides", [1, 1])),
        padding=padding,
        dilation=list(node.get("dilations", [1, 1])),
        groups=node.get("group", 1),
    )


def _conv_transpose(node: Node, inputs: Inputs) -> Tensor:
    x, weight, *bias = inputs
    top, left, bottom, right = node.get("pads", [0, 0, 0, 0])
    if (
        (top, left) != (bottom, right)
        or node.get("auto_pad", "NOTSET") != "NOTSET"
        or "output_shape" in node.attributes
    ):
        raise node.refused("its padding is not the same on both sides")
    return F.conv_transpose2d(
        x,
        weight,
        bias[0] if bias else None,
        stride=list(node.get("strides", [1, 1])),
        padding=[top, left],
        output_padding=list(node.get("output_padding", [0, 0])),
        groups=node.get("group", 1),
        dilation=list(node.get("dilations", [1, 1])),
    )


def _max_pool(node: Node, inputs: Inputs) -> Tensor:
    if len(node.proto.output) > 1:
        raise node.refused("it gives indices too")
    x, padding = _pads(node, inputs[0], float("-inf"))
    kernel, dilations = list(node.get("kernel_shape")), list(node.get("dilations", [1, 1]))
    return F.max_pool2d(
        x, kernel, list(node.get("strides", [1, 1])), padding, dilations, ceil_mode=bool(node.get("ceil_mode", 0))
    )


def _average_pool(node: Node, inputs: Inputs) -> Tensor:
    counts_padding = bool(node.get("count_include_pad", 0))
    if any(value != 1 for value in node.get("dilations", [1, 1])):
        raise node.refused("it is dilated")
    x, padding = _pads(node, inputs[0], 0.0)
    if x is not inputs[0] and not counts_padding:
        raise node.refused("its padding is not the same on both sides and not counted")
    return F.avg_pool2d(
        x,
        list(node.get("kernel_shape")),
        list(node.get("strides", [1, 1])),
        padding,
        ceil_mode=bool(node.get("ceil_mode", 0)),
        count_include_pad=counts_padding,
    )


def _batch_norm(node: Node, inputs: Inputs) -> Tensor:
    x, scale, shift, mean, variance = inputs
    return F.batch_norm(x, mean, variance, scale, shift, training=False, eps=node.get("epsilon", 1e-5))


def _resize(node: Node, inputs: Inputs) -> Tensor:
    x = inputs[0]
    mode, where = node.get("mode", "nearest"), node.get("coordinate_transformation_mode", "half_pixel")
    size_hw = list(node.output_shape[2:])
    if x.dim() != 4 or list(node.output_shape[:2]) != list(x.shape[:2]):
        raise node.refused("it resizes more than height and width")
    scales = node.constant(2)
    if (
        scales is not None
        and scales.size
        and any(
            abs(float(scale) * side - new) > 1e-4
            for scale, side, new in zip(scales[2:], x.shape[2:], size_hw, strict=True)
        )
    ):
        raise node.refused("its scale is not that of the sizes")
    if mode == "linear" and where in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        return F.interpolate(x, size=size_hw, mode="bilinear", align_corners=where == "align_corners")
    if mode == "nearest" and where == "asymmetric" and node.get("nearest_mode", "round_prefer_floor") == "floor":
        return F.interpolate(x, size=size_hw, mode="nearest")
    raise node.refused(f"mode {mode}, {where}")


def _slice(node: Node, inputs: Inputs) -> Tensor:
    x = inputs[0]
    starts, ends = node.ints(1, "starts"), node.ints(2, "ends")
    assert starts is not None
    assert ends is not None
    axes = node.ints(3, "axes") or list(range(len(starts)))
    steps = node.ints(4) or [1] * len(starts)
    ranges = [slice(None)] * x.dim()
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step < 1:
            raise node.refused("it goes backwards")
        ranges[axis] = slice(*slice(start, end, step).indices(x.shape[axis]))
    return x[tuple(ranges)]


def _gather(node: Node, inputs: Inputs) -> Tensor:
    x, indices = inputs
    axis = node.get("axis", 0) % x.dim()
    known = node.constants.get(node.proto.input[1])
    if known is not None and known.ndim == 0:
        return x.select(axis, int(known))
    taken = x.index_select(axis, indices.reshape(-1))
    return taken.reshape([*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]])


def _scatter_elements(node: Node, inputs: Inputs) -> Tensor:
    if node.get("reduction", "none") != "none":
        raise node.refused(f"reduction {node.get('reduction')}")
    x, indices, updates = inputs
    return x.scatter(node.get("axis", 0), indices, updates)


def _top_k(node: Node, inputs: Inputs) -> tuple[Tensor, ...]:
    count = node.ints(1)
    assert count is not None
    return tuple(
        torch.topk(
            inputs[0],
            count[0],
            dim=node.get("axis", -1),
            largest=bool(node.get("largest", 1)),
            sorted=bool(node.get("sorted", 1)),
        )
    )


def _arg_max(node: Node, inputs: Inputs) -> Tensor:
    if node.get("select_last_index", 0):
        raise node.refused("it takes the last of equals")
    return inputs[0].argmax(dim=node.get("axis", 0), keepdim=bool(node.get("keepdims", 1)))


def _reduced(function: Callable[..., Tensor]) -> Callable[[Node, Inputs], Tensor]:
    def run(node: Node, inputs: Inputs) -> Tensor:
        x = inputs[0]
        axes = node.ints(1, "axes")
        if not axes and node.get("noop_with_empty_axes", 0):
            return x
        return function(x, dim=axes or list(range(x.dim())), keepdim=bool(node.get("keepdims", 1)))

    return run


def _layer_norm(node: Node, inputs: Inputs) -> Tensor:
    x, scale, *shift = inputs
    shape = list(x.shape[node.get("axis", -1) :])
    return F.layer_norm(x, shape, scale, shift[0] if shift else None, node.get("epsilon", 1e-5))


def _gemm(node: Node, inputs: Inputs) -> Tensor:
    a, b, *c = inputs
    product = torch.matmul(a.t() if node.get("transA", 0) else a, b.t() if node.get("transB", 0) else b)
    if node.get("alpha", 1.0) != 1.0:
        product = product * node.get("alpha")
    if not c or c[0] is None:
        return product
    return product + (c[0] if node.get("beta", 1.0) == 1.0 else c[0] * node.get("beta"))


def _reshape(node: Node, inputs: Inputs) -> Tensor:
    return inputs[0].reshape(list(node.output_shape))


def _cast(node: Node, inputs: Inputs) -> Tensor:
    if node.get("to") not in DTYPES:
        raise node.refused(f"it casts to {TensorProto.DataType.Name(node.get('to'))}")
    return inputs[0].to(DTYPES[node.get("to")])


def _clip(node: Node, inputs: Inputs) -> Tensor:
    low, high = node.constant(1), node.constant(2)
    return inputs[0].clamp(None if low is None else low.item(), None if high is None else high.item())


def _divide(node: Node, inputs: Inputs) -> Tensor:
    x, y = inputs
    return x / y if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


def _split(node: Node, inputs: Inputs) -> tuple[Tensor, ...]:
    x, axis = inputs[0], node.get("axis", 0)
    sizes = node.ints(1, "split")
    if sizes is None:
        size = -(-x.shape[axis] // len(node.proto.output))
        return tuple(x.split(size, axis))
    return tuple(x.split(sizes, axis))


def _squeeze(node: Node, inputs: Inputs) -> Tensor:
    return inputs[0].reshape(list(node.output_shape))


def _pad(node: Node, inputs: Inputs) -> Tensor:
    pads = node.ints(1, "pads")
    if node.get("mode", "constant") != "constant" or pads is None or len(node.proto.input) > 3:
        raise node.refused("it pads by something else than a constant, or chosen axes")
    fill = node.constant(2)
    count = len(pads) // 2
    order = [side for axis in reversed(range(count)) for side in (pads[axis], pads[axis + count])]
    return F.pad(inputs[0], order, value=0.0 if fill is None else fill.item())


def _per_axis(node: Node, scale: Tensor, x: Tensor) -> list[int]:
    """Shape in which a scale or zero point goes with `x`."""
    if scale.dim() == 0 or scale.numel() == 1:
        return [1] * x.dim()
    axis = node.get("axis", 1) % x.dim()
    return [-1 if index == axis else 1 for index in range(x.dim())]


def _quantize(node: Node, inputs: Inputs) -> Tensor:
    x, scale, *zero = inputs
    dtype = zero[0].dtype if zero and zero[0] is not None else torch.uint8
    if dtype not in (torch.int8, torch.uint8):
        raise node.refused(f"it quantises to {dtype}")
    low, high = (-128, 127) if dtype == torch.int8 else (0, 255)
    shape = _per_axis(node, scale, x)
    steps = torch.round(x / scale.reshape(shape))
    if zero and zero[0] is not None:
        steps = steps + zero[0].reshape(shape).to(steps.dtype)
    return steps.clamp(low, high).to(dtype)


def _dequantize(node: Node, inputs: Inputs) -> Tensor:
    x, scale, *zero = inputs
    shape = _per_axis(node, scale, x)
    steps = x.to(scale.dtype)
    if zero and zero[0] is not None:
        steps = steps - zero[0].reshape(shape).to(scale.dtype)
    return steps * scale.reshape(shape)


def _plain(function: Callable[..., Tensor]) -> Callable[[Node, Inputs], Tensor]:
    return lambda node, inputs: function(*inputs)


def _folded(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Node, Inputs], Tensor]:
    """An operator of any number of inputs, by one of two."""

    def run(node: Node, inputs: Inputs) -> Tensor:
        result = inputs[0]
        for other in inputs[1:]:
            result = function(result, other)
        return result

    return run


OPERATORS: dict[str, Callable[[Node, Inputs], Tensor | tuple[Tensor, ...]]] = {
    "Add": _plain(torch.add),
    "And": _plain(torch.logical_and),
    "ArgMax": _arg_max,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": lambda node, inputs: torch.cat(list(inputs), dim=node.get("axis")),
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "DequantizeLinear": _dequantize,
    "Div": _divide,
    "Equal": _plain(torch.eq),
    "Erf": _plain(torch.erf),
    "Exp": _plain(torch.exp),
    "Expand": lambda node, inputs: inputs[0].expand(list(node.output_shape)),
    "Flatten": _reshape,
    "Gather": _gather,
    "GatherElements": lambda node, inputs: torch.gather(inputs[0], node.get("axis", 0), inputs[1]),
    "Gelu": lambda node, inputs: F.gelu(inputs[0], approximate=node.get("approximate", "none")),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda node, inputs: inputs[0].mean(dim=[2, 3], keepdim=True),
    "Greater": _plain(torch.gt),
    "GreaterOrEqual": _plain(torch.ge),
    "HardSigmoid": lambda node, inputs: (inputs[0] * node.get("alpha", 0.2) + node.get("beta", 0.5)).clamp(0, 1),
    "HardSwish": lambda node, inputs: F.hardswish(inputs[0]),
    "Identity": lambda node, inputs: inputs[0],
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda node, inputs: F.leaky_relu(inputs[0], node.get("alpha", 0.01)),
    "Less": _plain(torch.lt),
    "LessOrEqual": _plain(torch.le),
    "Log": _plain(torch.log),
    "LogSoftmax": lambda node, inputs: F.log_softmax(inputs[0], dim=node.get("axis", -1)),
    "MatMul": _plain(torch.matmul),
    "Max": _folded(torch.maximum),
    "MaxPool": _max_pool,
    "Min": _folded(torch.minimum),
    "Mul": _plain(torch.mul),
    "Neg": _plain(torch.neg),
    "Not": _plain(torch.logical_not),
    "Or": _plain(torch.logical_or),
    "Pad": _pad,
    "Pow": _plain(torch.pow),
    "QuantizeLinear": _quantize,
    "ReduceMax": _reduced(torch.amax),
    "ReduceMean": _reduced(torch.mean),
    "ReduceMin": _reduced(torch.amin),
    "ReduceSum": _reduced(torch.sum),
    "Relu": _plain(torch.relu),
    "Reshape": _reshape,
    "Resize": _resize,
    "ScatterElements": _scatter_elements,
    "Sigmoid": _plain(torch.sigmoid),
    "Slice": _slice,
    "Softmax": lambda node, inputs: F.softmax(inputs[0], dim=node.get("axis", -1)),
    "Split": _split,
    "Sqrt": _plain(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _plain(torch.sub),
    "Sum": _folded(torch.add),
    "Tanh": _plain(torch.tanh),
    "TopK": _top_k,
    "Transpose": lambda node, inputs: inputs[0].permute(list(node.get("perm", range(inputs[0].dim())[::-1]))),
    "Unsqueeze": _squeeze,
    "Where": _plain(torch.where),
}
"""ONNX operator -> what computes it."""
