"""ViTs in timm's naming (AugReg, DeiT, DINO, MAE): `patch_embed.proj.weight`, `blocks.0.attn.qkv.weight`, `norm.bias`.

Our encoder has these names too; only the prefix is added. The classification head is left out.
"""

from collections.abc import Mapping, Set

from torch import Tensor

from edgeseg.errors import InputError
from edgeseg.training.foreign_weights.conversion import Conversion

ENCODER_NAMES = r"patch_embed\.proj\.(?:weight|bias)|cls_token|pos_embed|norm\.(?:weight|bias)|blocks\.\d+\..+"
HEAD_NAMES = r"(?:head|head_dist|pre_logits|fc_norm)\..+"
CLASSIFIER = "classifies whole images"


def recognises(names: Set[str]) -> bool:
    """Whether a file with these names is of this format."""
    return {"patch_embed.proj.weight", "blocks.0.attn.qkv.weight"} <= names


def convert(tensors: Mapping[str, Tensor]) -> Conversion:
    """See the module's text.

    Raises:
        InputError: a distilled ViT, which has a second class token.
    """
    refuse_distilled(tensors, "dist_token")
    conversion = Conversion()
    conversion.rename(tensors, {f"({ENCODER_NAMES})": r"encoder.\1"})
    conversion.drop(tensors, HEAD_NAMES, CLASSIFIER)
    return conversion


def refuse_distilled(tensors: Mapping[str, Tensor], name: str) -> None:
    """
    Raises:
        InputError: `name`, the distillation token, is among the tensors.
    """
    if name in tensors:
        raise InputError(
            f"a distilled ViT, with a second class token ({name}) | our encoder has one | use the weights of "
            "the same ViT without distillation"
        )
