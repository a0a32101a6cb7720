"""ONNX operators on feature maps `(1, C, H, W)` in PyTorch: convolutions, pooling, resizing, padding."""

import torch.nn.functional as F
from torch import Tensor

from edgeseg.export.torch_nodes import Inputs, Node


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


def conv(node: Node, inputs: Inputs) -> Tensor:
    """Conv on maps."""
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


def conv_transpose(node: Node, inputs: Inputs) -> Tensor:
    """ConvTranspose on maps."""
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


def max_pool(node: Node, inputs: Inputs) -> Tensor:
    """MaxPool without indices."""
    if len(node.proto.output) > 1:
        raise node.refused("it gives indices too")
    x, padding = _pads(node, inputs[0], float("-inf"))
    kernel, dilations = list(node.get("kernel_shape")), list(node.get("dilations", [1, 1]))
    return F.max_pool2d(
        x, kernel, list(node.get("strides", [1, 1])), padding, dilations, ceil_mode=bool(node.get("ceil_mode", 0))
    )


def average_pool(node: Node, inputs: Inputs) -> Tensor:
    """AveragePool."""
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


def batch_norm(node: Node, inputs: Inputs) -> Tensor:
    """BatchNormalization as at inference."""
    x, scale, shift, mean, variance = inputs
    return F.batch_norm(x, mean, variance, scale, shift, training=False, eps=node.get("epsilon", 1e-5))


def resize(node: Node, inputs: Inputs) -> Tensor:
    """Resize of height and width, bilinear, or nearest by rounding down."""
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


def pad(node: Node, inputs: Inputs) -> Tensor:
    """Pad with a constant."""
    pads = node.ints(1, "pads")
    if node.get("mode", "constant") != "constant" or pads is None or len(node.proto.input) > 3:
        raise node.refused("it pads by something else than a constant, or chosen axes")
    fill = node.constant(2)
    count = len(pads) // 2
    order = [side for axis in reversed(range(count)) for side in (pads[axis], pads[axis + count])]
    return F.pad(inputs[0], order, value=0.0 if fill is None else fill.item())
