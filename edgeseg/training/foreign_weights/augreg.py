"""ViTs as the JAX code of Google saves them, AugReg among them: .npz with names `Transformer/encoderblock_0/...`.

Layouts differ from PyTorch's: kernels of dense layers are `(in, out)`, of the patch embedding `(rows, columns, in,
out)`; query, key and value are apart, each `(in, heads, in / heads)`, and the output `(heads, in / heads, out)`.
The newer code (big_vision) counts the parts of a layer otherwise and prefixes `params/`.
"""

import re
from collections.abc import Mapping, Set

from torch import Tensor

from edgeseg.errors import InputError
from edgeseg.training.foreign_weights.conversion import Conversion, join, need_axes
from edgeseg.training.foreign_weights.timm_vit import CLASSIFIER

_PREFIX = r"(?:opt/target/|params/(?:img/)?)?"
_ATTENTION = re.compile(rf"({_PREFIX}Transformer/encoderblock_(\d+)/MultiHeadDotProductAttention_\d/)query/kernel")
_DENSE = {
    rf"{_PREFIX}Transformer/encoderblock_(\d+)/MlpBlock_\d/Dense_0/kernel": r"encoder.blocks.\1.mlp.fc1.weight",
    rf"{_PREFIX}Transformer/encoderblock_(\d+)/MlpBlock_\d/Dense_1/kernel": r"encoder.blocks.\1.mlp.fc2.weight",
}
_AS_IT_IS = {
    rf"{_PREFIX}cls": "encoder.cls_token",
    rf"{_PREFIX}Transformer/posembed_input/pos_embedding": "encoder.pos_embed",
    rf"{_PREFIX}pos_embedding": "encoder.pos_embed",
    rf"{_PREFIX}embedding/bias": "encoder.patch_embed.proj.bias",
    rf"{_PREFIX}Transformer/encoder_norm/scale": "encoder.norm.weight",
    rf"{_PREFIX}Transformer/encoder_norm/bias": "encoder.norm.bias",
    rf"{_PREFIX}Transformer/encoderblock_(\d+)/LayerNorm_0/scale": r"encoder.blocks.\1.norm1.weight",
    rf"{_PREFIX}Transformer/encoderblock_(\d+)/LayerNorm_0/bias": r"encoder.blocks.\1.norm1.bias",
    rf"{_PREFIX}Transformer/encoderblock_(\d+)/LayerNorm_[12]/scale": r"encoder.blocks.\1.norm2.weight",
    rf"{_PREFIX}Transformer/encoderblock_(\d+)/LayerNorm_[12]/bias": r"encoder.blocks.\1.norm2.bias",
    rf"{_PREFIX}Transformer/encoderblock_(\d+)/MlpBlock_\d/Dense_0/bias": r"encoder.blocks.\1.mlp.fc1.bias",
    rf"{_PREFIX}Transformer/encoderblock_(\d+)/MlpBlock_\d/Dense_1/bias": r"encoder.blocks.\1.mlp.fc2.bias",
}


def recognises(names: Set[str]) -> bool:
    """Whether a file with these names is of this format."""
    return any(_ATTENTION.fullmatch(name) for name in names)


def convert(tensors: Mapping[str, Tensor]) -> Conversion:
    """See the module's text.

    Raises:
        InputError: a hybrid with a ResNet in front, or a tensor has another number of axes than its name implies.
    """
    if any(re.fullmatch(rf"{_PREFIX}conv_root/kernel", name) for name in tensors):
        raise InputError("a hybrid of ResNet and ViT (conv_root) | expected a plain ViT, such as Ti_16, S_16, B_16")
    conversion = Conversion()
    conversion.rename(tensors, _AS_IT_IS)
    dense = {
        name: need_axes(name, tensor, 2).transpose(0, 1)
        for name, tensor in tensors.items()
        if any(re.fullmatch(pattern, name) for pattern in _DENSE)
    }
    conversion.rename(dense, _DENSE)
    for name, tensor in tensors.items():
        if re.fullmatch(rf"{_PREFIX}embedding/kernel", name):
            kernel = need_axes(name, tensor, 4).permute(3, 2, 0, 1)
            conversion.take("encoder.patch_embed.proj.weight", kernel, name)
        match = _ATTENTION.fullmatch(name)
        if match:
            _take_attention(conversion, tensors, match[1], f"encoder.blocks.{int(match[2])}.attn")
    conversion.drop(tensors, rf"{_PREFIX}(?:head|pre_logits)/.+", CLASSIFIER)
    return conversion


def _take_attention(conversion: Conversion, tensors: Mapping[str, Tensor], theirs: str, ours: str) -> None:
    kernels = [f"{theirs}{part}/kernel" for part in ("query", "key", "value")]
    biases = [f"{theirs}{part}/bias" for part in ("query", "key", "value")]
    if all(name in tensors for name in kernels):
        parts = {name: need_axes(name, tensors[name], 3).flatten(1).transpose(0, 1) for name in kernels}
        conversion.take(f"{ours}.qkv.weight", join(parts), *kernels)
    if all(name in tensors for name in biases):
        parts = {name: need_axes(name, tensors[name], 2).flatten() for name in biases}
        conversion.take(f"{ours}.qkv.bias", join(parts), *biases)
    output, bias = f"{theirs}out/kernel", f"{theirs}out/bias"
    if output in tensors:
        kernel = need_axes(output, tensors[output], 3).permute(2, 0, 1).flatten(1)
        conversion.take(f"{ours}.proj.weight", kernel, output)
    if bias in tensors:
        conversion.take(f"{ours}.proj.bias", tensors[bias], bias)
