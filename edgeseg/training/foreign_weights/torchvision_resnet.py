"""ResNet-18 of torchvision, which our convolutional networks have as backbone; its classification layer is left out."""

from collections.abc import Mapping, Set

from torch import Tensor

from edgeseg.errors import InputError
from edgeseg.training.checkpoint import IMAGENET_MEAN, IMAGENET_STD
from edgeseg.training.foreign_weights.conversion import Conversion
from edgeseg.training.foreign_weights.timm_vit import CLASSIFIER

_DEPTHS = {(2, 2): 18, (3, 6): 34, (3, 6, "b"): 50, (3, 23, "b"): 101, (3, 36, "b"): 152}
"""Blocks in `layer1` and `layer3`, and `b` for bottleneck blocks."""


def recognises(names: Set[str]) -> bool:
    """Whether a file with these names is of this format."""
    return {"conv1.weight", "layer1.0.conv1.weight", "layer4.0.conv1.weight"} <= names


def convert(tensors: Mapping[str, Tensor]) -> Conversion:
    """See the module's text.

    Raises:
        InputError: a deeper ResNet.
    """
    depth = _depth_of(tensors)
    if depth != 18:
        which = f"ResNet-{depth}" if depth else "a ResNet of unknown depth"
        raise InputError(
            f"weights of {which} | no network here has that backbone yet, only ResNet-18 | use its weights"
        )
    conversion = Conversion(mean=IMAGENET_MEAN, std=IMAGENET_STD)
    conversion.rename(tensors, {r"((?:conv1|bn1|layer[1-4])\..+)": r"backbone.\1"})
    conversion.drop(tensors, r"fc\..+", CLASSIFIER)
    return conversion


def _depth_of(tensors: Mapping[str, Tensor]) -> int | None:
    counts = [
        len({name.split(".")[1] for name in tensors if name.startswith(f"{layer}.")}) for layer in ("layer1", "layer3")
    ]
    bottleneck = ("b",) if "layer1.0.conv3.weight" in tensors else ()
    return _DEPTHS.get((*counts, *bottleneck))
