"""Checkpoints: what is written is read back; what is damaged or foreign is refused with the reason."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from edgeseg.classes import CAMVID
from edgeseg.errors import ArtifactError
from edgeseg.models.cwm import BiStep, apply_cwm, masked_layers
from edgeseg.models.registry import build_network
from edgeseg.training.checkpoint import (
    CheckpointMeta,
    load_checkpoint,
    load_weights,
    read_meta,
    read_tensors,
    save_checkpoint,
    write_tensors,
)

META = CheckpointMeta("swiftnet_r18", {"width": 0.125}, CAMVID, scores={"miou": 0.5}, trained_on={"dataset": "street"})


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return build_network("swiftnet_r18", 11, width=0.125)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "small.safetensors"
    save_checkpoint(path, small_network(), META)
    return path


def with_header(checkpoint: Path, **changes: object) -> Path:
    """The same weights under a changed header."""
    tensors, header = read_tensors(checkpoint)
    write_tensors(checkpoint, tensors, {**header, **changes})
    return checkpoint


def test_network_and_metadata_survive_the_file(checkpoint: Path) -> None:
    loaded = load_checkpoint(checkpoint)
    assert loaded.meta == META
    assert not loaded.network.training
    for name, value in small_network().state_dict().items():
        torch.testing.assert_close(loaded.network.state_dict()[name], value, rtol=0, atol=0)


def test_metadata_is_read_without_weights(checkpoint: Path) -> None:
    assert read_meta(checkpoint) == META


def test_same_network_gives_the_same_bytes(checkpoint: Path, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "again.safetensors", small_network(), META)
    assert (tmp_path / "again.safetensors").read_bytes() == checkpoint.read_bytes()


@pytest.mark.parametrize("cwm", [True, False])
def test_masked_network_loads_masked_or_dense(tmp_path: Path, cwm: bool) -> None:
    network = small_network()
    generator = BiStep(0.25, align=16)
    masked = apply_cwm(network, generator, example=torch.zeros(1, 3, 32, 32))
    path = tmp_path / "masked.safetensors"
    save_checkpoint(path, network, replace(META, cwm={**generator.as_dict(), "masked": masked}))
    layers = masked_layers(load_checkpoint(path, cwm=cwm).network)
    assert sorted(layers) == (sorted(masked) if cwm else [])
    assert {layer.generator for layer in layers.values()} == ({generator} if cwm else set())


def test_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "none.safetensors")


@pytest.mark.parametrize("keep", [0, 5, 200, 50_000])
def test_truncated_checkpoint_is_refused(checkpoint: Path, keep: int) -> None:
    checkpoint.write_bytes(checkpoint.read_bytes()[:keep])
    with pytest.raises(ArtifactError, match="truncated or damaged"):
        load_checkpoint(checkpoint)


def test_pickle_is_refused_and_never_run(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(ArtifactError, match=r"pickled PyTorch file, which is not read .* package\.module:function"):
        load_checkpoint(path)


def test_pickle_is_refused_when_its_name_says_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(ArtifactError, match="not a whole safetensors file"):
        load_checkpoint(path)


def test_foreign_safetensors_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(ArtifactError, match="without edgeseg's metadata"):
        load_checkpoint(tmp_path / "foreign.safetensors")


def test_unknown_version_is_refused(checkpoint: Path) -> None:
    with pytest.raises(ArtifactError, match=r"checkpoint format 99 \| expected 1"):
        load_checkpoint(with_header(checkpoint, format_version=99))


def test_unknown_architecture_is_refused(checkpoint: Path) -> None:
    with pytest.raises(ArtifactError, match=r"unknown architecture 'hal9000' \| known: swiftnet_r18"):
        load_checkpoint(with_header(checkpoint, architecture="hal9000"))


def test_weights_of_another_width_are_refused_with_the_first_few_names(checkpoint: Path) -> None:
    with pytest.raises(
        ArtifactError, match=r"conv1.weight is \(8, 3, 7, 7\), expected \(16, 3, 7, 7\); .* and \d+ more"
    ):
        load_checkpoint(with_header(checkpoint, options={"width": 0.25}))


def test_weights_of_another_architecture_are_refused(checkpoint: Path) -> None:
    with pytest.raises(ArtifactError, match=r"conv1\.0\.weight missing"):
        load_checkpoint(with_header(checkpoint, architecture="swiftnet_r18_x"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": {"names": ["a", "a"]}}, "class names must be unique"),
        ({"mean": [0.5]}, "metadata of the checkpoint is not readable"),
        ({"surprise": 1}, "surprise"),
        ({"options": {"depth": 3}}, "contradicts itself"),
        ({"cwm": {"generator": "bi_step", "rho": 0.5, "align": 1, "masked": ["nowhere"]}}, "no layer nowhere to mask"),
    ],
)
def test_contradictory_metadata_is_refused(checkpoint: Path, changes: dict, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        load_checkpoint(with_header(checkpoint, **changes))


def test_header_is_plain_json(checkpoint: Path) -> None:
    json.dumps(read_tensors(checkpoint, header_only=True)[1])


def test_unknown_and_missing_weights_are_named() -> None:
    with pytest.raises(ArtifactError, match=r"here: .* \| weight missing; extra not in the network"):
        load_weights(nn.Conv2d(1, 1, 1, bias=False), {"extra": torch.zeros(1)}, "here")
