"""Segmenter's and SETR's decoders against their published formulas, written out token by token."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.models.segmenter import LinearDecoder, MaskTransformer
from edgeseg.models.setr import NaiveDecoder
from edgeseg.models.vit import VitSize

SIZE = VitSize(dim=24, heads=3)


def randomised(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return module.eval()


def layer_of(x: Tensor, weights: dict[str, Tensor], name: str, heads: int) -> Tensor:
    """A transformer layer, pre-norm, on one image's tokens `(n, D)`, one head after another."""

    def of(part: str) -> tuple[Tensor, Tensor]:
        return weights[f"{name}.{part}.weight"], weights[f"{name}.{part}.bias"]

    dim = x.shape[1]
    normed = F.layer_norm(x, (dim,), *of("norm1"))
    query, key, value = F.linear(normed, *of("attn.qkv")).split(dim, dim=1)
    width = dim // heads
    mixed = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        mixed.append(torch.softmax(query[:, part] @ key[:, part].T / width**0.5, dim=1) @ value[:, part])
    x = x + F.linear(torch.cat(mixed, dim=1), *of("attn.proj"))
    hidden = F.gelu(F.linear(F.layer_norm(x, (dim,), *of("norm2")), *of("mlp.fc1")))
    return x + F.linear(hidden, *of("mlp.fc2"))


def test_mask_transformer_is_the_published_formula() -> None:
    decoder = randomised(MaskTransformer(5, SIZE))
    tokens = torch.randn(2, 12, 24)
    weights = {name: value.detach() for name, value in decoder.state_dict().items()}
    for image in range(2):
        x = F.linear(tokens[image], weights["proj_dec.weight"], weights["proj_dec.bias"])
        x = torch.cat((x, weights["cls_emb"][0]))
        for number in range(2):
            x = layer_of(x, weights, f"blocks.{number}", 3)
        x = F.layer_norm(x, (24,), weights["decoder_norm.weight"], weights["decoder_norm.bias"])
        patches, classes = x[:12] @ weights["proj_patch"], x[12:] @ weights["proj_classes"]
        cosine = torch.stack([F.cosine_similarity(patches, each[None], dim=1) for each in classes], dim=1)
        expected = F.layer_norm(cosine, (5,), weights["mask_norm.weight"], weights["mask_norm.bias"])
        torch.testing.assert_close(decoder([tokens])[image], expected, atol=1e-4, rtol=0)


def test_linear_decoder_gives_a_token_the_same_logits_in_any_company() -> None:
    decoder, tokens = randomised(LinearDecoder(5, 24)), torch.randn(1, 12, 24)
    torch.testing.assert_close(decoder([tokens])[:, 3:5], decoder([tokens[:, 3:5]]))


def test_naive_decoder_is_two_layers_per_token() -> None:
    decoder = randomised(NaiveDecoder(5, 24, channels=8))
    tokens = torch.randn(2, 12, 24)
    hidden = F.linear(tokens, decoder.conv.weight[:, :, 0, 0]) / (1 + decoder.bn.eps) ** 0.5
    hidden = F.relu(hidden * decoder.bn.weight + decoder.bn.bias)
    expected = F.linear(hidden, decoder.conv_seg.weight[:, :, 0, 0], decoder.conv_seg.bias)
    torch.testing.assert_close(decoder([tokens]), expected, atol=1e-4, rtol=0)
