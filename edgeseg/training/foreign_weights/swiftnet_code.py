"""SwiftNet-R18 of `fast-cwm-segmentation` [C 2], dense or masked, and of the authors' own code whose names it keeps.

Both pool on three grids with a third of the channels each. The authors classify by a 1x1 convolution; the other code
by a 3x3 one without bias. The authors keep the normalisation (of 0-255) in the network: it goes into the metadata;
the other code's is that of its Cityscapes reader.
"""

from collections.abc import Mapping, Set

import torch
from torch import Tensor

from edgeseg.errors import InputError
from edgeseg.training.foreign_weights.conversion import Conversion, need_axes

CITYSCAPES_MEAN = (0.2869, 0.3252, 0.2839)
CITYSCAPES_STD = (0.1869, 0.1901, 0.1872)
_PARTS = {"norm": "bn", "conv": "conv"}
_RULES = {
    r"backbone\.((?:conv1|bn1|layer[1-4])\..+)": r"backbone.\1",
    **{
        rf"{theirs}\.{part}\.(.+)": rf"{ours}.{_PARTS[part]}.\{group}"
        for part in _PARTS
        for theirs, ours, group in (
            (r"backbone\.spp\.spp\.spp_bn", "spp.reduce", 1),
            (r"backbone\.spp\.spp\.spp_fuse", "spp.fuse", 1),
            (r"backbone\.spp\.spp\.spp(\d+)", r"spp.levels.\1", 2),
            (r"backbone\.upsample\.(\d+)\.bottleneck", r"upsample.\1.lateral", 2),
            (r"backbone\.upsample\.(\d+)\.blend_conv", r"upsample.\1.blend", 2),
            (r"logits", "head", 1),
        )
    },
}
_NORMALISATION = ("backbone.img_mean", "backbone.img_std", "backbone.img_scale")


def recognises(names: Set[str]) -> bool:
    """Whether a file with these names is of this format."""
    return {"backbone.conv1.weight", "backbone.spp.spp.spp_bn.conv.weight"} <= names


def convert(tensors: Mapping[str, Tensor]) -> Conversion:
    """See the module's text.

    Raises:
        InputError: the backbone is deeper than ResNet-18, or a tensor has another shape than its name implies.
    """
    if "backbone.layer1.0.conv3.weight" in tensors:
        raise InputError("a SwiftNet with a backbone of bottleneck blocks | no network here has one, only ResNet-18")
    conversion = Conversion(mean=CITYSCAPES_MEAN, std=CITYSCAPES_STD)
    conversion.rename(tensors, _RULES)
    levels = [name for name in conversion.tensors if name.startswith("spp.levels.") and name.endswith("conv.weight")]
    conversion.options["spp_levels"] = len(levels)
    kernel = conversion.tensors.get("head.conv.weight")
    if kernel is not None:
        conversion.options["head_kernel"] = int(need_axes("logits.conv.weight", kernel, 4).shape[-1])
        if "logits.conv.bias" not in tensors:
            conversion.take("head.conv.bias", torch.zeros(kernel.shape[0]))
            conversion.notes.append("its logits have no bias: ours is 0")
    _take_normalisation(conversion, tensors)
    return conversion


def _take_normalisation(conversion: Conversion, tensors: Mapping[str, Tensor]) -> None:
    conversion.drop(tensors, r"backbone\.img_(?:mean|std|scale)", "normalisation, kept in the metadata")
    mean, std, scale = (tensors.get(name) for name in _NORMALISATION)
    if mean is None or std is None:
        return
    unit = 1.0 if scale is None else float(scale.flatten()[0])
    if mean.numel() != 3 or std.numel() != 3 or float(std.min()) <= 0 or unit <= 0:
        raise InputError("backbone.img_mean and img_std are not three numbers each, deviations above 0")
    red, green, blue = (float(value) * unit / 255 for value in mean.flatten())
    conversion.mean = (red, green, blue)
    red, green, blue = (float(value) * unit / 255 for value in std.flatten())
    conversion.std = (red, green, blue)
