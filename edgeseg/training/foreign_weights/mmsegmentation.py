"""ViT networks of MMSegmentation: `backbone.layers.0.attn.attn.in_proj_weight`, `decode_head. ...`.

The decoders: Segmenter's mask transformer (its projections are linear layers there, so transposed matrices), a
`FCNHead` without convolutions (Segmenter's linear decoder), SETR's naive `SETRUPHead` (whose norm is our encoder's
last one), and `ATMHead` of SegViT. Auxiliary heads are left out. A file of the backbone alone, without the prefix, is
read too.
"""

from collections.abc import Mapping, Set

from torch import Tensor

from edgeseg.training.checkpoint import IMAGENET_MEAN, IMAGENET_STD
from edgeseg.training.foreign_weights.conversion import Conversion, need_axes
from edgeseg.training.foreign_weights.timm_vit import CLASSIFIER

_END = r"(weight|bias)"
_LAYER = {
    rf"ln([12])\.{_END}": r"norm\2.\3",
    r"attn\.attn\.in_proj_(weight|bias)": r"attn.qkv.\2",
    rf"attn\.attn\.out_proj\.{_END}": r"attn.proj.\2",
    rf"ffn\.layers\.0\.0\.{_END}": r"mlp.fc1.\2",
    rf"ffn\.layers\.1\.{_END}": r"mlp.fc2.\2",
}
_BACKBONE = {
    r"(?:backbone\.)?(cls_token|pos_embed)": r"encoder.\1",
    rf"(?:backbone\.)?patch_embed\.projection\.{_END}": r"encoder.patch_embed.proj.\1",
    rf"(?:backbone\.)?ln1\.{_END}": r"encoder.norm.\1",
    **{rf"(?:backbone\.)?layers\.(\d+)\.{theirs}": rf"encoder.blocks.\1.{ours}" for theirs, ours in _LAYER.items()},
}
_MASK = {
    r"decode_head\.cls_emb": "decoder.cls_emb",
    rf"decode_head\.dec_proj\.{_END}": r"decoder.proj_dec.\1",
    rf"decode_head\.(decoder_norm|mask_norm)\.{_END}": r"decoder.\1.\2",
    **{rf"decode_head\.layers\.(\d+)\.{theirs}": rf"decoder.blocks.\1.{ours}" for theirs, ours in _LAYER.items()},
}
_SETR = {
    rf"decode_head\.norm\.{_END}": r"encoder.norm.\1",
    r"decode_head\.up_convs\.0\.0\.(conv|bn)\.(.+)": r"decoder.\1.\2",
    rf"decode_head\.conv_seg\.{_END}": r"decoder.conv_seg.\1",
}
_ATM = {r"decode_head\.((?:input_proj|proj_norm|decoder)_\d+\..+|q\.weight|class_embed\..+)": r"decoder.\1"}


def recognises(names: Set[str]) -> bool:
    """Whether a file with these names is of this format."""
    return any(f"{prefix}layers.0.attn.attn.in_proj_weight" in names for prefix in ("backbone.", ""))


def convert(tensors: Mapping[str, Tensor]) -> Conversion:
    """See the module's text.

    Raises:
        InputError: a tensor has another number of axes than its name implies.
    """
    conversion = Conversion()
    conversion.rename(tensors, _BACKBONE)
    conversion.drop(tensors, r"auxiliary_head\..+", "an auxiliary head, used in training only")
    conversion.drop(tensors, r"head\..+", CLASSIFIER)
    if "decode_head.cls_emb" in tensors:
        _take_mask_transformer(conversion, tensors)
    elif "decode_head.q.weight" in tensors:
        _take_atm(conversion, tensors)
    elif "decode_head.norm.weight" in tensors:
        conversion.rename(tensors, _SETR)
        conversion.mean, conversion.std = IMAGENET_MEAN, IMAGENET_STD
    elif "decode_head.conv_seg.weight" in tensors:
        _take_linear(conversion, tensors)
    return conversion


def _take_mask_transformer(conversion: Conversion, tensors: Mapping[str, Tensor]) -> None:
    conversion.rename(tensors, _MASK)
    for theirs, ours in (("patch_proj", "proj_patch"), ("classes_proj", "proj_classes")):
        name = f"decode_head.{theirs}.weight"
        if name in tensors:
            conversion.take(f"decoder.{ours}", need_axes(name, tensors[name], 2).transpose(0, 1), name)
    conversion.drop(tensors, r"decode_head\.conv_seg\..+", "made by the base class and never used there")
    conversion.options["decoder"] = "mask"


def _take_linear(conversion: Conversion, tensors: Mapping[str, Tensor]) -> None:
    name = "decode_head.conv_seg.weight"
    conversion.take("decoder.head.weight", need_axes(name, tensors[name], 4).flatten(1), name)
    conversion.rename(tensors, {r"decode_head\.conv_seg\.bias": "decoder.head.bias"})
    conversion.options["decoder"] = "linear"


def _take_atm(conversion: Conversion, tensors: Mapping[str, Tensor]) -> None:
    conversion.rename(tensors, _ATM)
    conversion.mean, conversion.std = IMAGENET_MEAN, IMAGENET_STD
    outputs = tensors.get("decode_head.class_embed.weight")
    if outputs is not None and outputs.shape[0] != 2:
        conversion.options["presence"] = "classes"
    if any(".self_attn." in name for name in tensors):
        conversion.options["self_attention"] = True
    conversion.notes.append(
        "SegViT's authors run their encoder without its class token, ours runs with it: fine-tune before use"
    )
