"""Position tables, the report, refusals, and what the checkpoint says."""

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from edgeseg.errors import InputError
from edgeseg.models.registry import NETWORKS
from edgeseg.models.vit import VIT_SIZES, VitSize, resize_position_table
from edgeseg.training.checkpoint import load_checkpoint, save_checkpoint
from edgeseg.training.foreign_weights.importer import import_weights, require_complete

OPTIONS = {"size_hw": [32, 48]}


@pytest.fixture
def weights(tmp_path: Path, reference_vit, mask_decoder, segmenter_names) -> dict[str, Tensor]:
    """A whole Segmenter by its authors' names."""
    return segmenter_names(reference_vit(1e-5), mask_decoder)


@pytest.fixture
def imported_from(tmp_path: Path, classes):
    """A function: what the import of a state dict gives."""

    def import_dict(tensors, network: str = "segmenter_ti", **arguments):
        torch.save(tensors, tmp_path / "weights.pth")
        return import_weights(tmp_path / "weights.pth", network, classes, **{"options": OPTIONS, **arguments})

    return import_dict


def test_square_position_table_is_resized_to_the_networks_grid(weights, imported_from) -> None:
    table = torch.randn(1, 1 + 9, 16)
    imported = imported_from({**weights, "encoder.pos_embed": table})
    expected = resize_position_table(table, (3, 3), (4, 6), "bilinear")
    torch.testing.assert_close(imported.network.encoder.pos_embed, expected)
    assert imported.report.notes == ("position table: resized from 3 x 3 to 4 x 6 patches (bilinear)",)


def test_oblong_position_table_is_kept_when_it_has_the_networks_grid(weights, imported_from) -> None:
    imported = imported_from(weights)
    torch.testing.assert_close(imported.network.encoder.pos_embed, weights["encoder.pos_embed"], rtol=0, atol=0)
    assert imported.report.notes == ()


def test_position_table_without_a_class_entry_gets_a_zero(weights, imported_from) -> None:
    table = torch.randn(1, 24, 16)
    imported = imported_from({**weights, "encoder.pos_embed": table})
    torch.testing.assert_close(imported.network.encoder.pos_embed[:, 1:], table)
    assert not imported.network.encoder.pos_embed[:, 0].any()
    assert "zero put in for the class token" in imported.report.notes[0]


def test_position_table_of_unknown_grid_is_refused(weights, imported_from) -> None:
    with pytest.raises(InputError, match=r"got 14 entries, expected a square number, or the 4 x 6 .*network\.size_hw"):
        imported_from({**weights, "encoder.pos_embed": torch.randn(1, 14, 16)})


def test_distilled_vit_is_refused(weights, imported_from) -> None:
    with pytest.raises(InputError, match=r"distilled ViT, with a second class token \(encoder\.dist_token\)"):
        imported_from({**weights, "encoder.dist_token": torch.zeros(1, 1, 16)})


def test_report_lists_every_name_once(weights, imported_from) -> None:
    changed = {name: tensor for name, tensor in weights.items() if name != "decoder.cls_emb"}
    changed |= {"encoder.norm.bias": torch.zeros(7), "decoder.strange": torch.zeros(1)}
    imported = imported_from(changed, options={**OPTIONS, "decoder": "mask"})
    report = imported.report
    assert report.missing == ("decoder.cls_emb",)
    assert report.unused == ("decoder.strange",)
    assert report.differing == (("encoder.norm.bias", (7,), (16,)),)
    assert sorted([*report.matched, "decoder.cls_emb", "encoder.norm.bias"]) == sorted(imported.network.state_dict())
    assert len(report.matched) + len(report.unused) + len(report.differing) + len(report.dropped) == len(changed)


def test_mismatch_is_refused_with_counts_and_names(weights, imported_from) -> None:
    changed = {**weights, "decoder.mask_norm.bias": torch.zeros(150), "decoder.strange": torch.zeros(1)}
    report = imported_from(changed).report
    with pytest.raises(
        InputError,
        match=r"1 of another shape: decoder\.mask_norm\.bias is \(150,\), expected \(3,\); 1 without a place in the "
        r"network: decoder\.strange \| --partial",
    ):
        require_complete(report)


def test_what_is_missing_is_fresh_and_the_same_each_time(weights, imported_from) -> None:
    encoder = {name: tensor for name, tensor in weights.items() if name.startswith("encoder.")}
    first = imported_from(encoder).network.state_dict()
    torch.manual_seed(5)
    second = imported_from(encoder).network.state_dict()
    assert first["decoder.proj_dec.weight"].any()
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=0, atol=0)


def test_nothing_that_fits_is_refused_with_the_networks_that_it_fits(weights, imported_from, no_segvits) -> None:
    with pytest.raises(
        InputError,
        match=r"nothing in it fits network swiftnet_r18 \| it holds segmenter weights such as encoder\.cls_token.* \| "
        "use --network segmenter_ti, segmenter_s, segmenter_b or setr_naive_b$",
    ):
        imported_from(weights, network="swiftnet_r18", options={})


@pytest.fixture
def no_segvits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small ViTs of these tests lack the layers that SegViT reads unless told otherwise."""
    for size in ("ti", "s", "b"):
        monkeypatch.delitem(NETWORKS, f"segvit_{size}")


@pytest.fixture
def wide_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ViT of size s is twice as wide as the others."""
    monkeypatch.setitem(VIT_SIZES, "s", VitSize(32, 2, 3, patch=8))


def test_weights_of_another_width_are_refused_with_the_network_that_fits(weights, imported_from, wide_s) -> None:
    # A single bias of one number per class is what a narrow ViT and a wide one have in common.
    with pytest.raises(
        InputError,
        match=r"weights\.pth: weights of width 16, but segmenter_s has width 32 \| .* \| use --network segmenter_ti or "
        "segmenter_b$",
    ):
        imported_from(weights, network="segmenter_s")


def test_weights_of_a_width_that_no_network_has_are_refused(
    weights, imported_from, wide_s, no_segvits, monkeypatch
) -> None:
    for size in ("ti", "b"):
        monkeypatch.setitem(VIT_SIZES, size, VIT_SIZES["s"])
    with pytest.raises(InputError, match=r"weights of width 16, but .* no network here has that backbone"):
        imported_from(weights, network="segmenter_s")


def test_encoder_of_which_hardly_anything_is_there_is_refused(weights, imported_from, no_segvits) -> None:
    first = {name: tensor for name, tensor in weights.items() if not re.match(r"encoder\.blocks\.[12]", name)}
    with pytest.raises(InputError, match=r"too little in it fits network segmenter_ti, \d\d % of the numbers of its"):
        imported_from(first)


def test_user_is_not_overruled_by_the_file(weights, imported_from) -> None:
    report = imported_from(weights, options={**OPTIONS, "decoder": "linear"}).report
    assert (report.options["decoder"], report.told_by_file) == ("linear", {})
    assert "decoder.head.weight" in report.missing


def test_unknown_names_are_refused_with_examples(imported_from) -> None:
    with pytest.raises(
        InputError, match=r"no format that is known \| its first names are a\.b, c \| known: timm, augreg"
    ):
        imported_from({"a.b": torch.zeros(1), "c": torch.zeros(1)})


def test_format_that_the_file_is_not_is_refused(weights, imported_from) -> None:
    with pytest.raises(InputError, match="not of format mmseg"):
        imported_from(weights, form="mmseg")


def test_two_frame_network_is_refused(imported_from, weights) -> None:
    with pytest.raises(InputError, match="swiftnet_r18_x takes 2"):
        imported_from(weights, network="swiftnet_r18_x", options={})


def test_option_of_another_type_is_refused(weights, imported_from) -> None:
    with pytest.raises(InputError, match="size"):
        imported_from(weights, options={"size_hw": 512})


def test_checkpoint_says_where_its_weights_are_from(tmp_path: Path, weights, imported_from, images) -> None:
    imported = imported_from(weights, mean=(0.1, 0.2, 0.3), colour_order="BGR")
    save_checkpoint(tmp_path / "net.safetensors", imported.network, imported.meta)
    loaded = load_checkpoint(tmp_path / "net.safetensors")
    torch.testing.assert_close(loaded.network(images), imported.network(images), rtol=0, atol=0)
    meta = loaded.meta
    assert (meta.mean, meta.std, meta.colour_order) == ((0.1, 0.2, 0.3), (0.5, 0.5, 0.5), "BGR")
    assert meta.recipe["name"] == "imported from weights.pth (segmenter)"
    assert (len(meta.recipe["sha256"]), meta.recipe["fresh"]) == (64, [])
    assert meta.trained_on == {}
