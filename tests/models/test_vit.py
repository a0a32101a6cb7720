"""The ViT encoder: held against transformers' ViT, and what token reductions may ask of it."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from edgeseg.errors import InputError
from edgeseg.models.token_reduction import LayerInput, ReductionPass, TokenLayout
from edgeseg.models.vit import VIT_SIZES, Attention, VisionTransformer, VitSize, resize_position_table

SMALL = VitSize(dim=24, heads=3, layers=4)


def randomised(encoder: VisionTransformer) -> VisionTransformer:
    """With weights, norms and biases that are not at their start values."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return encoder.eval()


def in_transformers_names(encoder: VisionTransformer) -> dict[str, Tensor]:
    weights = {
        "embeddings.cls_token": encoder.cls_token,
        "embeddings.position_embeddings": encoder.pos_embed,
        "embeddings.patch_embeddings.projection.weight": encoder.patch_embed.proj.weight,
        "embeddings.patch_embeddings.projection.bias": encoder.patch_embed.proj.bias,
        "layernorm.weight": encoder.norm.weight,
        "layernorm.bias": encoder.norm.bias,
    }
    parts = {
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
        "attention.output.dense": "attn.proj",
        "intermediate.dense": "mlp.fc1",
        "output.dense": "mlp.fc2",
    }
    for number, block in enumerate(encoder.blocks):
        for theirs, mine in parts.items():
            for kind in ("weight", "bias"):
                weights[f"encoder.layer.{number}.{theirs}.{kind}"] = getattr(block.get_submodule(mine), kind)
        for kind in ("weight", "bias"):
            for name, part in zip(("query", "key", "value"), getattr(block.attn.qkv, kind).chunk(3), strict=True):
                weights[f"encoder.layer.{number}.attention.attention.{name}.{kind}"] = part
    return weights


def test_tokens_are_those_of_transformers_vit_on_the_same_weights() -> None:
    transformers = pytest.importorskip("transformers")
    encoder = randomised(VisionTransformer(SMALL, (64, 64)))
    config = transformers.ViTConfig(
        hidden_size=24, num_hidden_layers=4, num_attention_heads=3, intermediate_size=96, image_size=64, patch_size=16
    )
    config.layer_norm_eps = 1e-6
    theirs = transformers.ViTModel(config, add_pooling_layer=False).eval()
    weights = {name: value.detach().clone() for name, value in in_transformers_names(encoder).items()}
    renamed = _as_installed(weights, list(theirs.state_dict()))
    theirs.load_state_dict(renamed)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = theirs(images).last_hidden_state[:, 1:]
        torch.testing.assert_close(encoder(images).tokens[0], expected, atol=1e-4, rtol=0)


def _as_installed(weights: dict[str, Tensor], names: list[str]) -> dict[str, Tensor]:
    """transformers 5 renamed parts of its ViT; the classic names are translated where they are not known."""
    if set(weights) == set(names):
        return weights
    newer = {
        "encoder.layer.": "layers.",
        "attention.attention.query": "attention.q_proj",
        "attention.attention.key": "attention.k_proj",
        "attention.attention.value": "attention.v_proj",
        "attention.output.dense": "attention.o_proj",
        "intermediate.dense": "mlp.fc1",
        "output.dense": "mlp.fc2",
    }
    renamed = {}
    for name, value in weights.items():
        for old, new in newer.items():
            name = name.replace(old, new)
        renamed[name] = value
    return renamed


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_position_table_of_another_grid_is_resized_and_the_class_token_kept(mode: str) -> None:
    table = torch.randn(1, 1 + 4 * 4, 8)
    resized = resize_position_table(table, (4, 4), (2, 6), mode)
    grid = table[0, 1:].T.reshape(1, 8, 4, 4)
    expected = F.interpolate(grid, (2, 6), mode=mode).reshape(8, 12).T
    torch.testing.assert_close(resized[0], torch.cat((table[0, :1], expected)))


def test_one_table_serves_other_sizes() -> None:
    encoder = randomised(VisionTransformer(SMALL, (64, 64)))
    output = encoder(torch.randn(1, 3, 32, 96))
    assert output.tokens[0].shape == (1, 12, 24)
    assert output.grid_hw == (2, 6)


@pytest.mark.parametrize("size_hw", [(100, 64), (64, 8), (64,), "64x64"])
def test_size_that_does_not_divide_into_patches_is_refused(size_hw: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"does not divide into patches|a height and a width"):
        VisionTransformer(SMALL, size_hw)


def test_image_that_does_not_divide_into_patches_is_refused_with_the_nearest_size() -> None:
    with pytest.raises(InputError, match=r"got 180x240, expected multiples of 16 \| use 176x240"):
        VisionTransformer(SMALL, (64, 64))(torch.zeros(1, 3, 180, 240))


@pytest.mark.parametrize("collect", [(0,), (2, 5), ()])
def test_layer_out_of_range_is_refused(collect: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="layer out of range"):
        VisionTransformer(SMALL, (64, 64), collect=collect)


def test_attention_to_a_context_gives_what_the_same_queries_get_among_all() -> None:
    torch.manual_seed(0)
    attention, tokens = Attention(24, 3), torch.randn(2, 9, 24)
    torch.testing.assert_close(attention(tokens[:, ::2], tokens), attention(tokens)[:, ::2])


def test_masked_key_is_as_good_as_absent() -> None:
    torch.manual_seed(0)
    attention, tokens = Attention(24, 3), torch.randn(1, 9, 24)
    mask = torch.ones(1, 9, dtype=torch.bool)
    mask[0, 4:] = False
    torch.testing.assert_close(attention(tokens, key_mask=mask)[:, :4], attention(tokens[:, :4]))


class HoldBack:
    """Layers after the first see the class token and the even patches only; the odd ones are put back at the end."""

    def begin(self, layout: TokenLayout) -> ReductionPass:
        return _HoldBackPass(layout)


class _HoldBackPass(ReductionPass):
    def after_layer(self, layer: int, tokens: Tensor) -> Tensor:
        self.seen = tokens.shape[1]
        if layer == 1:
            self.held = tokens[:, 2::2]
            return torch.cat((tokens[:, :1], tokens[:, 1::2]), dim=1)
        return tokens

    def finish(self, collected: dict[int, Tensor]) -> dict[int, Tensor]:
        return {
            layer: torch.stack((tokens[:, 1:], self.held), dim=2).flatten(1, 2) for layer, tokens in collected.items()
        }


def test_reduction_decides_who_goes_on_and_puts_the_others_back() -> None:
    encoder = randomised(VisionTransformer(SMALL, (64, 64), final_norm=False))
    images = torch.randn(1, 3, 64, 64)
    output = encoder(images, HoldBack())
    embedded = torch.cat((encoder.cls_token, encoder.patch_embed(images)), dim=1) + encoder.pos_embed
    first = encoder.blocks[0](LayerInput(embedded))
    torch.testing.assert_close(output.tokens[0][:, 1::2], first[:, 2::2])
    assert output.tokens[0].shape == (1, 16, 24)
    assert output.reduction.seen == 1 + 8


@pytest.mark.parametrize(("name", "millions"), [("ti", 5.93), ("s", 22.48)])
def test_backbone_has_the_theses_parameters(name: str, millions: float) -> None:
    with torch.device("meta"):
        encoder = VisionTransformer(VIT_SIZES[name], (768, 768))
    assert sum(each.numel() for each in encoder.parameters()) / 1e6 == pytest.approx(millions, rel=0.02)
