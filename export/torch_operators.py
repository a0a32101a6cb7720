"""ONNX operators in PyTorch: what `edgeseg.export.graph_module` runs a graph with.

Each function gets the node (attributes, and those inputs that are constants) and its inputs as tensors, None for one
that is left out. Only fixed shapes: sizes, axes and counts are read from constants. Operators and attribute values that
are not here are refused by name, never approximated.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from onnx import TensorProto
from torch import Tensor

from edgeseg.export.torch_map_operators import average_pool, batch_norm, conv, conv_transpose, max_pool, pad, resize
from edgeseg.export.torch_nodes import DTYPES, Inputs, Node


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
    "AveragePool": average_pool,
    "BatchNormalization": batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": lambda node, inputs: torch.cat(list(inputs), dim=node.get("axis")),
    "Conv": conv,
    "ConvTranspose": conv_transpose,
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
    "MaxPool": max_pool,
    "Min": _folded(torch.minimum),
    "Mul": _plain(torch.mul),
    "Neg": _plain(torch.neg),
    "Not": _plain(torch.logical_not),
    "Or": _plain(torch.logical_or),
    "Pad": pad,
    "Pow": _plain(torch.pow),
    "QuantizeLinear": _quantize,
    "ReduceMax": _reduced(torch.amax),
    "ReduceMean": _reduced(torch.mean),
    "ReduceMin": _reduced(torch.amin),
    "ReduceSum": _reduced(torch.sum),
    "Relu": _plain(torch.relu),
    "Reshape": _reshape,
    "Resize": resize,
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
