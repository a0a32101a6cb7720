"""Quantisation-aware training: what it starts from, what its checkpoint holds, that it resumes, what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from edgeseg.cli.info import command as info
from edgeseg.cli.train import command
from edgeseg.data.folder import FolderDataset
from edgeseg.errors import ArtifactError, InputError
from edgeseg.models import vit_segmenter
from edgeseg.models.vit import VitSize
from edgeseg.training.checkpoint import load_checkpoint, read_meta, read_tensors, write_tensors
from edgeseg.training.loop import CHECKPOINT_FILE, train
from edgeseg.training.recipe import Recipe
from edgeseg.training.recipe_file import load_recipe, parse_recipe

pytest.importorskip("modelopt", reason="needs the extra quant")

MASKS = {"cwm": {"rho": 0.0}, "sequence": {"length": 3}}
QAT = {"images": 4, "steps": 2, "lr": 1e-5}


def recipe(*, qat: bool, lr: float = 1e-3, **tables: Any) -> Recipe:
    return parse_recipe(
        {
            "name": "square",
            "data": {"size_hw": [32, 48]},
            "network": {"name": "swiftnet_r18", "width": 0.25},
            "optimiser": {"steps": 2, "batch": 2, "lr": lr},
            "run": {"validate_every": 2, "val_frames": 2},
            **({"qat": QAT} if qat else {}),
            **tables,
        }
    )


@pytest.fixture(scope="module")
def data(square_root: Path) -> FolderDataset:
    return FolderDataset(square_root)


@pytest.fixture(scope="module")
def trained(data: FolderDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a dense network, trained in float."""
    result = train(recipe(qat=False), data, tmp_path_factory.mktemp("float"))
    assert result.checkpoint is not None
    return result.checkpoint


@pytest.fixture(scope="module")
def rounded(data: FolderDataset, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network, trained on with INT8's rounding."""
    result = train(recipe(qat=True), data, tmp_path_factory.mktemp("qat"), start_from=trained)
    assert result.checkpoint is not None
    return result.checkpoint


def weights(path: Path) -> dict[str, Tensor]:
    return load_checkpoint(path).network.state_dict()


def test_checkpoint_holds_ranges_and_what_they_were_found_on(rounded: Path) -> None:
    int8 = read_meta(rounded).int8
    assert int8 is not None
    assert len(int8.ranges) == 27
    assert int8.left_float["head.conv"] == "last layer"
    assert (int8.calibration.images, int8.calibration.method) == (4, "percentile")
    assert int8.library.startswith("nvidia-modelopt ")


def test_weights_are_those_of_the_float_network_and_were_trained(trained: Path, rounded: Path) -> None:
    before, after = weights(trained), weights(rounded)
    assert before.keys() == after.keys()
    assert not torch.equal(before["backbone.layer1.0.conv1.weight"], after["backbone.layer1.0.conv1.weight"])


def test_statistics_of_batch_norms_stay_as_the_exported_graph_has_them(trained: Path, rounded: Path) -> None:
    before, after = weights(trained), weights(rounded)
    for name in before:
        if "running_" in name or "num_batches" in name:
            torch.testing.assert_close(after[name], before[name], rtol=0, atol=0)


def test_resumed_training_gives_the_same_bits(
    data: FolderDataset, trained: Path, rounded: Path, tmp_path: Path
) -> None:
    stops = iter([True])
    train(recipe(qat=True), data, tmp_path, start_from=trained, should_stop=lambda: next(stops))
    train(recipe(qat=True), data, tmp_path, resume=True)
    resumed = tmp_path / CHECKPOINT_FILE
    assert read_meta(resumed).int8 == read_meta(rounded).int8
    got = weights(resumed)
    for name, value in weights(rounded).items():
        torch.testing.assert_close(got[name], value, rtol=0, atol=0)


def test_float_training_does_not_resume_as_one_of_int8(data: FolderDataset, trained: Path) -> None:
    with pytest.raises(InputError, match=r"another recipe: qat\.calibration"):
        train(recipe(qat=True), data, trained.parent, resume=True)


def test_network_without_training_is_refused(data: FolderDataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--qat without a checkpoint .* --start-from"):
        train(recipe(qat=True), data, tmp_path)


def test_masked_network_is_not_made_of_a_dense_one(data: FolderDataset, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"recipe's \[cwm\] is another"):
        train(recipe(qat=True, **MASKS), data, tmp_path, start_from=trained)


def test_masked_network_learns_with_rounding_in_all_steps(data: FolderDataset, tmp_path: Path) -> None:
    first = train(recipe(qat=False, **MASKS), data, tmp_path / "float").checkpoint
    result = train(recipe(qat=True, **MASKS), data, tmp_path / "qat", start_from=first)
    meta = read_meta(tmp_path / "qat" / CHECKPOINT_FILE)
    assert result.finished
    assert meta.int8 is not None
    assert meta.int8.calibration.frames == 3 * meta.int8.calibration.images
    assert set(meta.cwm["masked"]) - set(meta.int8.left_float) <= set(meta.int8.ranges)


def test_pausing_network_learns_with_a_float_auxiliary_decoder(
    data: FolderDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(vit_segmenter.VIT_SIZES, "ti", VitSize(dim=24, heads=3, layers=4))
    vit = {"network": {"name": "segmenter_ti", "decoder": "linear"}, "pausing": {"layers": [1, 2]}}
    first = train(recipe(qat=False, **vit), data, tmp_path / "float").checkpoint
    train(recipe(qat=True, **vit), data, tmp_path / "qat", start_from=first)
    int8 = read_meta(tmp_path / "qat" / CHECKPOINT_FILE).int8
    assert int8 is not None
    assert int8.left_float["auxiliary.heads.all"] == "decides which tokens pause"
    assert "encoder.blocks.3.mlp.fc2" in int8.ranges


def test_float_training_goes_on_from_it(data: FolderDataset, rounded: Path, tmp_path: Path) -> None:
    train(recipe(qat=False, lr=1e-9), data, tmp_path, start_from=rounded)
    assert read_meta(tmp_path / CHECKPOINT_FILE).int8 is None


@pytest.mark.parametrize("value", [0, -1.0, "wide", True])
def test_damaged_range_is_refused(rounded: Path, tmp_path: Path, value: object) -> None:
    tensors, header = read_tensors(rounded)
    header["int8"]["ranges"]["spp.fuse.conv"] = value
    write_tensors(tmp_path / "damaged.safetensors", tensors, header)
    with pytest.raises(ArtifactError, match=r"range of spp\.fuse\.conv is a positive number"):
        load_checkpoint(tmp_path / "damaged.safetensors")


def test_ranges_are_found_on_frames_normalised_as_the_network_was_trained(
    data: FolderDataset, trained: Path, rounded: Path, tmp_path: Path
) -> None:
    tensors, header = read_tensors(trained)
    # A tenth of the deviation makes every number that the first layer gets ten times as large.
    header["std"] = [each / 10 for each in header["std"]]
    write_tensors(tmp_path / "loud.safetensors", tensors, header)
    loud = train(recipe(qat=True), data, tmp_path / "qat", start_from=tmp_path / "loud.safetensors").checkpoint
    assert loud is not None
    first, other = (read_meta(path).int8.ranges["backbone.layer1.0.conv1"] for path in (rounded, loud))
    assert other > 5 * first


def test_pruning_is_refused() -> None:
    with pytest.raises(InputError, match=r"\[pruning\] contradicts --qat"):
        recipe(qat=True, pruning={})


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    """With a schedule of its own and a table for quantisation-aware training."""
    (tmp_path / "square.toml").write_text(
        '[data]\nsize_hw = [32, 48]\n[network]\nname = "swiftnet_r18"\nwidth = 0.25\n[qat]\nsteps = 7\n'
        "[optimiser]\nsteps = 300\nwarmup_steps = 50\nlr = 2e-3\nmin_lr = 1e-3\n"
    )
    return tmp_path / "square.toml"


def test_its_table_counts_only_when_asked_for(recipe_file: Path) -> None:
    assert load_recipe(str(recipe_file)).qat is None
    assert load_recipe(str(recipe_file)).optimiser.steps == 300
    gentle = load_recipe(str(recipe_file), qat=True).optimiser
    assert (gentle.steps, gentle.lr, gentle.min_lr, gentle.warmup_steps) == (7, 2e-5, 0, 0)


@pytest.mark.parametrize(
    ("override", "qat", "message"),
    [
        ("optimiser.lr=1e-4", True, r"optimiser\.lr=1e-4 contradicts --qat.* --set qat\.lr"),
        ("optimiser.warmup_steps=5", True, r"contradicts --qat.* leave it out"),
        ("qat.images=5", False, r"qat\.images=5 is for .* add --qat"),
        ("qat.calibration=mean", True, r"unknown qat\.calibration 'mean' \| known: entropy, max, percentile"),
    ],
)
def test_overrides_without_effect_are_refused(recipe_file: Path, override: str, qat: bool, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_recipe(str(recipe_file), (override,), qat=qat)


def test_command_goes_on_from_a_checkpoint_and_info_tells_of_the_ranges(
    recipe_file: Path, square_root: Path, trained: Path, tmp_path: Path
) -> None:
    quick = ("--set", "qat.steps=1", "--set", "qat.images=2", "--set", "optimiser.batch=2", "--set", "run.val_frames=1")
    arguments = [
        str(recipe_file),
        "--data",
        str(square_root),
        "--out",
        str(tmp_path / "run"),
        "--qat",
        *quick,
        "--json",
    ]
    result = CliRunner().invoke(command, [*arguments, "--start-from", str(trained)], catch_exceptions=False)
    report = json.loads(result.stdout)
    told = CliRunner().invoke(info, [report["checkpoint"]], catch_exceptions=False).stdout
    assert "27 of 33 layers trained in INT8, percentile, 2 images of square train" in " ".join(told.split())
