"""Checkpoints of Segmenter's authors (Strudel et al., ICCV 2021): `{"model": {"encoder. ...", "decoder. ..."}}`.

Our networks keep these names; only the encoder's classification head, which they never use, is left out. The authors
normalise frames to -1..1 for the ViTs of Google and as ImageNet for DeiT.
"""

from collections.abc import Mapping, Set

from torch import Tensor

from edgeseg.training.foreign_weights.conversion import Conversion
from edgeseg.training.foreign_weights.timm_vit import CLASSIFIER, ENCODER_NAMES, HEAD_NAMES, refuse_distilled


def recognises(names: Set[str]) -> bool:
    """Whether a file with these names is of this format."""
    return {"encoder.patch_embed.proj.weight", "encoder.blocks.0.attn.qkv.weight"} <= names


def convert(tensors: Mapping[str, Tensor]) -> Conversion:
    """See the module's text.

    Raises:
        InputError: the encoder is a distilled ViT.
    """
    refuse_distilled(tensors, "encoder.dist_token")
    conversion = Conversion()
    conversion.rename(tensors, {rf"(encoder\.(?:{ENCODER_NAMES})|decoder\..+)": r"\1"})
    conversion.drop(tensors, rf"encoder\.{HEAD_NAMES}", CLASSIFIER)
    if "decoder.head.weight" in tensors:
        conversion.options["decoder"] = "linear"
    elif "decoder.cls_emb" in tensors:
        conversion.options["decoder"] = "mask"
    return conversion
