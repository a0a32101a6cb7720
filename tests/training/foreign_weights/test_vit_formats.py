"""ViTs of four codes: files with their names and layouts, and equal outputs after the import."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from edgeseg.models.registry import build_network
from edgeseg.training.foreign_weights.importer import import_weights, require_complete

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
OPTIONS = {"size_hw": [32, 48]}
CLOSE = {"rtol": 0.0, "atol": 1e-4}


def encoder_missing(report) -> list[str]:
    return [name for name in report.missing if name.startswith("encoder.")]


@pytest.mark.parametrize("container", ["plain", "model", "state_dict", "parallel", "safetensors", "half"])
def test_timm_encoder_computes_what_pytorchs_layers_do(
    tmp_path: Path, classes, images, reference_vit, timm_names, container
) -> None:
    vit = reference_vit(1e-5).eval()
    tensors = {**timm_names(vit), "head.weight": torch.randn(10, 16), "head.bias": torch.randn(10)}
    path = tmp_path / "weights"
    if container == "safetensors":
        save_file(tensors, path)
    elif container == "parallel":
        torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in tensors.items()}}, path)
    elif container == "half":
        torch.save({name: tensor.half() for name, tensor in tensors.items()}, path)
    else:
        torch.save(tensors if container == "plain" else {container: tensors, "epoch": 3}, path)
    imported = import_weights(path, "segmenter_ti", classes, options=OPTIONS)
    close = {"rtol": 0.0, "atol": 1e-2} if container == "half" else CLOSE
    torch.testing.assert_close(imported.network.encoder(images).tokens[0], vit(images), **close)
    report = imported.report
    assert (report.format, encoder_missing(report), report.unused, report.differing) == ("timm", [], (), ())
    assert set(report.dropped) == {"head.weight", "head.bias"}
    assert (report.mean, report.std) == HALF


def test_timm_encoder_computes_what_transformers_does(tmp_path: Path, classes, images, randomised) -> None:
    transformers = pytest.importorskip("transformers", reason="holds a second ViT")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64, image_size=(32, 48),
        patch_size=8, layer_norm_eps=1e-5, hidden_act="gelu", attn_implementation="eager",
    )  # fmt: skip
    vit = transformers.ViTModel(config, add_pooling_layer=False).eval()
    randomised(vit)
    torch.save(timm_names_of_transformers(vit.state_dict()), tmp_path / "vit.pth")
    imported = import_weights(tmp_path / "vit.pth", "segmenter_ti", classes, options=OPTIONS)
    expected = vit(pixel_values=images).last_hidden_state[:, 1:]
    torch.testing.assert_close(imported.network.encoder(images).tokens[0], expected, **CLOSE)


def timm_names_of_transformers(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """By the last parts of the names, which did not change over the versions of transformers."""

    def one(*ends: str) -> Tensor:
        (found,) = [tensor for name, tensor in theirs.items() if name.endswith(ends)]
        return found

    tensors = {
        "cls_token": one("cls_token"),
        "pos_embed": one("position_embeddings"),
        "patch_embed.proj.weight": one("projection.weight"),
        "patch_embed.proj.bias": one("projection.bias"),
        "norm.weight": one("layernorm.weight"),
        "norm.bias": one("layernorm.bias"),
    }
    places = {
        "norm1": ("layernorm_before",), "norm2": ("layernorm_after",), "attn.proj": ("o_proj", "output.dense"),
        "mlp.fc1": ("mlp.fc1", "intermediate.dense"), "mlp.fc2": ("mlp.fc2", "output.dense"),
    }  # fmt: skip
    for layer in range(3):

        def of(part: tuple[str, ...], kind: str, inside: str, layer: int = layer) -> Tensor:
            ends = tuple(f"{each}.{kind}" for each in part)
            names = [name for name in theirs if f".{layer}." in f".{name}" and name.endswith(ends)]
            (name,) = [name for name in names if ("attention" in name) == (inside == "attn.proj")]
            return theirs[name]

        for kind in ("weight", "bias"):
            for ours, part in places.items():
                tensors[f"blocks.{layer}.{ours}.{kind}"] = of(part, kind, ours)
            parts = [(f"{letter}_proj", word) for letter, word in (("q", "query"), ("k", "key"), ("v", "value"))]
            tensors[f"blocks.{layer}.attn.qkv.{kind}"] = torch.cat([of(part, kind, "attn.proj") for part in parts])
    return tensors


def write_augreg(path: Path, vit: nn.Module, *, big_vision: bool = False, without: str = "nothing") -> None:
    """`vit` as Google's JAX code saves it: kernels `(in, out)`, heads apart, patches `(rows, columns, in, out)`."""
    first = "params/" if big_vision else ""
    norm2, attention, mlp = (
        ("LayerNorm_1", "MultiHeadDotProductAttention_0", "MlpBlock_0")
        if big_vision
        else ("LayerNorm_2", "MultiHeadDotProductAttention_1", "MlpBlock_3")
    )
    arrays = {
        "cls": vit.class_token,
        "pos_embedding" if big_vision else "Transformer/posembed_input/pos_embedding": vit.positions,
        "embedding/kernel": vit.project.weight.permute(2, 3, 1, 0),
        "embedding/bias": vit.project.bias,
        "Transformer/encoder_norm/scale": vit.norm.weight,
        "Transformer/encoder_norm/bias": vit.norm.bias,
        "head/kernel": torch.randn(16, 10),
        "head/bias": torch.randn(10),
    }
    for number, layer in enumerate(vit.layers):
        block = f"Transformer/encoderblock_{number}"
        for name, norm in (("LayerNorm_0", layer.norm1), (norm2, layer.norm2)):
            arrays |= {f"{block}/{name}/scale": norm.weight, f"{block}/{name}/bias": norm.bias}
        weights, biases = layer.self_attn.in_proj_weight.chunk(3), layer.self_attn.in_proj_bias.chunk(3)
        for name, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
            arrays[f"{block}/{attention}/{name}/kernel"] = weight.T.reshape(16, 2, 8)
            arrays[f"{block}/{attention}/{name}/bias"] = bias.reshape(2, 8)
        arrays[f"{block}/{attention}/out/kernel"] = layer.self_attn.out_proj.weight.T.reshape(2, 8, 16)
        arrays[f"{block}/{attention}/out/bias"] = layer.self_attn.out_proj.bias
        for name, dense in (("Dense_0", layer.linear1), ("Dense_1", layer.linear2)):
            arrays |= {f"{block}/{mlp}/{name}/kernel": dense.weight.T, f"{block}/{mlp}/{name}/bias": dense.bias}
    content = {
        first + name: np.ascontiguousarray(array.numpy()) for name, array in arrays.items() if without not in name
    }
    with path.open("wb") as file:
        np.savez(file, **content)


@pytest.mark.parametrize("big_vision", [False, True])
def test_augreg_encoder_computes_what_pytorchs_layers_do(
    tmp_path: Path, classes, images, reference_vit, big_vision
) -> None:
    vit = reference_vit(1e-5).eval()
    write_augreg(tmp_path / "Ti_8.npz", vit, big_vision=big_vision)
    imported = import_weights(tmp_path / "Ti_8.npz", "segmenter_ti", classes, options=OPTIONS)
    torch.testing.assert_close(imported.network.encoder(images).tokens[0], vit(images), **CLOSE)
    report = imported.report
    assert (report.format, encoder_missing(report), report.unused) == ("augreg", [], ())
    assert (report.mean, report.std) == HALF


def test_heads_of_augreg_are_where_flax_puts_them(tmp_path: Path, classes, reference_vit) -> None:
    write_augreg(tmp_path / "w.npz", reference_vit(1e-5))
    arrays = np.load(tmp_path / "w.npz")
    attention = "Transformer/encoderblock_0/MultiHeadDotProductAttention_1"
    tokens = torch.randn(1, 5, 16)
    # Flax: DenseGeneral over `...d,dhk->...hk`, and out over `...hk,hkd->...d`.
    query, key, value = (
        np.einsum("bnd,dhk->bhnk", tokens, arrays[f"{attention}/{name}/kernel"])
        + arrays[f"{attention}/{name}/bias"][None, :, None]
        for name in ("query", "key", "value")
    )
    weights = torch.from_numpy(np.einsum("bhnk,bhmk->bhnm", query, key) / 8**0.5).softmax(-1).numpy()
    mixed = np.einsum("bhnm,bhmk->bnhk", weights, value)
    expected = np.einsum("bnhk,hkd->bnd", mixed, arrays[f"{attention}/out/kernel"]) + arrays[f"{attention}/out/bias"]
    imported = import_weights(tmp_path / "w.npz", "segmenter_ti", classes, options=OPTIONS)
    got = imported.network.encoder.blocks[0].attn(tokens)
    torch.testing.assert_close(got, torch.from_numpy(expected), **CLOSE)


def test_key_that_augreg_lacks_is_reported_as_a_missing_projection(tmp_path: Path, classes, reference_vit) -> None:
    write_augreg(tmp_path / "w.npz", reference_vit(1e-5), without="encoderblock_1/MultiHeadDotProductAttention_1/key")
    report = import_weights(tmp_path / "w.npz", "segmenter_ti", classes, options=OPTIONS).report
    assert encoder_missing(report) == ["encoder.blocks.1.attn.qkv.weight", "encoder.blocks.1.attn.qkv.bias"]
    assert len(report.unused) == 4


def logits_of(tokens: Tensor) -> Tensor:
    return tokens.transpose(1, 2).reshape(2, -1, 4, 6)


def test_official_segmenter_gives_its_logits(
    tmp_path: Path, classes, images, reference_vit, mask_decoder, segmenter_names
) -> None:
    vit = reference_vit(1e-5).eval()
    snapshot = {"model": segmenter_names(vit, mask_decoder), "optimizer": {"state": {}}, "n_cls": 3, "epoch": 5}
    torch.save(snapshot, tmp_path / "checkpoint.pth")
    imported = import_weights(tmp_path / "checkpoint.pth", "segmenter_s", classes, options=OPTIONS)
    require_complete(imported.report)
    assert imported.report.told_by_file == {"decoder": "mask"}
    torch.testing.assert_close(imported.network(images), logits_of(mask_decoder(vit(images))), **CLOSE)


def test_official_linear_segmenter_gives_its_logits(tmp_path: Path, classes, images, reference_vit, timm_names) -> None:
    vit, head = reference_vit(1e-5).eval(), nn.Linear(16, 3)
    tensors = {f"encoder.{name}": tensor for name, tensor in timm_names(vit).items()}
    tensors |= {f"decoder.head.{name}": tensor for name, tensor in head.state_dict().items()}
    torch.save({"model": tensors}, tmp_path / "checkpoint.pth")
    imported = import_weights(tmp_path / "checkpoint.pth", "segmenter_b", classes, options=OPTIONS)
    require_complete(imported.report)
    torch.testing.assert_close(imported.network(images), logits_of(head(vit(images))), **CLOSE)


def mmseg_backbone(vit: nn.Module, mmseg_layer) -> dict[str, Tensor]:
    tensors = {
        "backbone.cls_token": vit.class_token,
        "backbone.pos_embed": vit.positions,
        "backbone.patch_embed.projection.weight": vit.project.weight,
        "backbone.patch_embed.projection.bias": vit.project.bias,
    }
    if isinstance(vit.norm, nn.LayerNorm):
        tensors |= {"backbone.ln1.weight": vit.norm.weight, "backbone.ln1.bias": vit.norm.bias}
    for number, layer in enumerate(vit.layers):
        tensors |= mmseg_layer(f"backbone.layers.{number}", layer)
    return tensors


def test_segmenter_of_mmsegmentation_gives_its_logits(
    tmp_path: Path, classes, images, reference_vit, mask_decoder, mmseg_layer
) -> None:
    vit = reference_vit(1e-6).eval()
    tensors = mmseg_backbone(vit, mmseg_layer)
    tensors |= {
        "decode_head.cls_emb": mask_decoder.classes,
        "decode_head.patch_proj.weight": mask_decoder.of_patches.weight,
        "decode_head.classes_proj.weight": mask_decoder.of_classes.weight,
        "decode_head.conv_seg.weight": torch.randn(3, 16, 1, 1),
        "decode_head.conv_seg.bias": torch.randn(3),
        "auxiliary_head.conv_seg.weight": torch.randn(3, 16, 1, 1),
    }
    named = {"dec_proj": "project", "decoder_norm": "norm", "mask_norm": "mask_norm"}
    for theirs, part in named.items():
        module = getattr(mask_decoder, part)
        tensors |= {f"decode_head.{theirs}.weight": module.weight, f"decode_head.{theirs}.bias": module.bias}
    for number, layer in enumerate(mask_decoder.layers):
        tensors |= mmseg_layer(f"decode_head.layers.{number}", layer)
    torch.save({"meta": {"CLASSES": ["a", "b", "c"]}, "state_dict": tensors}, tmp_path / "mm.pth")
    imported = import_weights(tmp_path / "mm.pth", "segmenter_ti", classes, options=OPTIONS)
    require_complete(imported.report)
    assert len(imported.report.dropped) == 3
    torch.testing.assert_close(imported.network(images), logits_of(mask_decoder(vit(images))), **CLOSE)


def test_linear_segmenter_of_mmsegmentation_gives_its_logits(
    tmp_path: Path, classes, images, reference_vit, mmseg_layer
) -> None:
    vit, head = reference_vit(1e-6).eval(), nn.Conv2d(16, 3, 1)
    tensors = mmseg_backbone(vit, mmseg_layer)
    tensors |= {f"decode_head.conv_seg.{name}": tensor for name, tensor in head.state_dict().items()}
    torch.save({"state_dict": tensors}, tmp_path / "mm.pth")
    imported = import_weights(tmp_path / "mm.pth", "segmenter_ti", classes, options=OPTIONS)
    require_complete(imported.report)
    assert imported.report.options["decoder"] == "linear"
    expected = head(vit(images).transpose(1, 2).reshape(2, 16, 4, 6))
    torch.testing.assert_close(imported.network(images), expected, **CLOSE)


def test_setr_naive_of_mmsegmentation_gives_its_logits(
    tmp_path: Path, classes, images, reference_vit, mmseg_layer, randomised
) -> None:
    vit = reference_vit(1e-6, norm=False).eval()
    norm, conv, batch_norm = nn.LayerNorm(16, eps=1e-6), nn.Conv2d(16, 256, 1, bias=False), nn.BatchNorm2d(256)
    last = nn.Conv2d(256, 3, 1)
    head = nn.Sequential(conv, batch_norm, nn.ReLU(), last).eval()
    randomised(norm)
    randomised(head)
    tensors = mmseg_backbone(vit, mmseg_layer)
    for name, part in (
        ("norm", norm),
        ("up_convs.0.0.conv", conv),
        ("up_convs.0.0.bn", batch_norm),
        ("conv_seg", last),
    ):
        tensors |= {f"decode_head.{name}.{kind}": tensor for kind, tensor in part.state_dict().items()}
    torch.save({"state_dict": tensors}, tmp_path / "mm.pth")
    imported = import_weights(tmp_path / "mm.pth", "setr_naive_b", classes, options=OPTIONS)
    require_complete(imported.report)
    assert (imported.report.mean, imported.report.std) == IMAGENET
    expected = head(norm(vit(images)).transpose(1, 2).reshape(2, 16, 4, 6))
    torch.testing.assert_close(imported.network(images), expected, **CLOSE)


def test_segvit_decoder_of_its_authors_fits_and_its_encoder_comes_with_a_note(
    tmp_path: Path, classes, images, reference_vit, mmseg_layer, randomised
) -> None:
    options = {**OPTIONS, "cascade": [1, 2, 3]}
    source = build_network("segvit_ti", 3, presence="classes", **options).eval()
    randomised(source)
    tensors = mmseg_backbone(reference_vit(1e-6, norm=False), mmseg_layer)
    tensors |= {f"decode_head.{name}": tensor for name, tensor in source.decoder.state_dict().items()}
    torch.save({"state_dict": tensors}, tmp_path / "mm.pth")
    imported = import_weights(tmp_path / "mm.pth", "segvit_ti", classes, options=options)
    require_complete(imported.report)
    assert imported.report.told_by_file == {"presence": "classes"}
    tokens = [torch.randn(1, 24, 16) for _ in range(3)]
    torch.testing.assert_close(imported.network.decoder(tokens), source.decoder(tokens), **CLOSE)
    assert "class token" in imported.report.notes[0]
