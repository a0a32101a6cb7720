"""First weights of another training: frames stay what those weights were trained on, and another network is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from edgeseg.classes import CAMVID
from edgeseg.data.open import open_dataset
from edgeseg.errors import ArtifactError, InputError
from edgeseg.models.registry import build_network
from edgeseg.training.checkpoint import CheckpointMeta, read_meta, save_checkpoint
from edgeseg.training.first_weights import check_same_network
from edgeseg.training.loop import train
from edgeseg.training.losses import at_label_size
from edgeseg.training.progress import ProgressBar
from edgeseg.training.recipe import Recipe
from edgeseg.training.recipe_file import parse_recipe
from edgeseg.training.samples import SampleSource

FRAMES: dict[str, Any] = {"mean": (0.1, 0.5, 0.9), "std": (0.5, 0.4, 0.3), "colour_order": "BGR"}
SWIFTNET = {"width": 0.125}


def recipe(steps: int = 1) -> Recipe:
    return parse_recipe(
        {
            "name": "tiny",
            "data": {"size_hw": [32, 48]},
            "network": SWIFTNET,
            "optimiser": {"steps": steps, "batch": 2, "lr": 1e-12},
            "run": {"validate_every": 1, "val_frames": 2},
        }
    )


@pytest.fixture
def imported(square_root: Path, tmp_path: Path) -> Path:
    """A checkpoint as `edgeseg import` writes it: of frames that are normalised in another way, and never trained."""
    torch.manual_seed(0)
    network = build_network("swiftnet_r18", 2, **SWIFTNET)
    meta = CheckpointMeta("swiftnet_r18", SWIFTNET, open_dataset(square_root).classes, **FRAMES)
    save_checkpoint(tmp_path / "imported.safetensors", network, meta)
    return tmp_path / "imported.safetensors"


def frames_of(path: Path | None) -> dict[str, Any]:
    assert path is not None
    return {key: getattr(read_meta(path), key) for key in FRAMES}


def test_frames_are_normalised_as_the_first_weights_were_trained(
    square_root: Path, tmp_path: Path, imported: Path
) -> None:
    result = train(recipe(), open_dataset(square_root), tmp_path / "run", start_from=imported)
    assert frames_of(result.checkpoint) == FRAMES


def test_resumed_training_keeps_the_normalisation_of_its_first_weights(
    square_root: Path, tmp_path: Path, imported: Path
) -> None:
    data = open_dataset(square_root)
    train(recipe(2), data, tmp_path / "run", start_from=imported, should_stop=lambda: True)
    resumed = train(recipe(2), data, tmp_path / "run", resume=True)
    assert resumed.finished
    assert frames_of(resumed.checkpoint) == FRAMES


def test_loss_is_that_of_frames_normalised_as_the_first_weights_were_trained(
    square_root: Path, tmp_path: Path, imported: Path
) -> None:
    data, made = open_dataset(square_root), recipe()
    train(made, data, tmp_path / "run", start_from=imported)
    logged = float((tmp_path / "run" / "log.csv").read_text().splitlines()[-1].split(",")[2])
    torch.manual_seed(0)
    network, batch = build_network("swiftnet_r18", 2, **SWIFTNET).train(), SampleSource(data, made, 1).batch(0)
    blue_first = batch.frames[:, 0].flip(1).float() / 255
    mean, std = (torch.tensor(FRAMES[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    labels = batch.labels.long()
    expected = F.cross_entropy(at_label_size(network((blue_first - mean) / std), labels), labels)
    assert logged == pytest.approx(expected.item(), abs=1e-4)


def test_normalisation_of_the_first_weights_is_told_when_it_is_not_the_usual_one(
    square_root: Path, tmp_path: Path, imported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = open_dataset(square_root)
    with ProgressBar("tiny", 1) as bar:
        train(recipe(), data, tmp_path / "run", start_from=imported, reporter=bar)
    said = capsys.readouterr().err
    assert f"frames as {imported} was trained on: BGR, mean 0.1 0.5 0.9, deviation 0.5 0.4 0.3" in said
    with ProgressBar("tiny", 1) as bar:
        train(recipe(), data, tmp_path / "usual", reporter=bar)
    assert "frames as" not in capsys.readouterr().err


def test_recipe_that_names_a_normalisation_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"unknown key data\.mean .*as the first weights were trained, which edgeseg import"
    ):
        parse_recipe({"name": "tiny", "data": {"mean": [0.5, 0.5, 0.5]}})


def meta_of(architecture: str, **options: Any) -> CheckpointMeta:
    return CheckpointMeta(architecture, options, CAMVID)


@pytest.mark.parametrize(
    ("theirs", "mine", "message"),
    [
        (
            meta_of("segmenter_ti", size_hw=[192, 256]),
            meta_of("segmenter_ti", size_hw=[192, 256], decoder="linear"),
            "start.safetensors: checkpoint of another network | got segmenter_ti with decoder mask, expected "
            "segmenter_ti with decoder linear | train on as it is with --set network.decoder=mask",
        ),
        (
            meta_of("segmenter_s"),
            meta_of("segmenter_ti", decoder="linear"),
            "start.safetensors: checkpoint of another network | got segmenter_s with decoder mask, expected "
            "segmenter_ti with decoder linear | train on as it is with --set network.name=segmenter_s --set "
            "network.decoder=mask",
        ),
        (
            meta_of("segvit_ti", cascade=(3, 12), shrink_layer=8),
            meta_of("segvit_ti"),
            "start.safetensors: checkpoint of another network | got segvit_ti with cascade [3, 12], shrink_layer 8, "
            "expected segvit_ti with cascade none, shrink_layer 6 | train on as it is with --set "
            "network.cascade=[3,12] --set network.shrink_layer=8",
        ),
        (
            meta_of("segvit_ti", cascade=[12]),
            meta_of("segvit_ti", cascade=[12], prune_heads="fcn"),
            "start.safetensors: checkpoint of another network | got segvit_ti with prune_heads none, expected "
            "segvit_ti with prune_heads fcn | train on as it is by a recipe without network.prune_heads",
        ),
        (
            meta_of("swiftnet_r18", width=0.5),
            meta_of("segmenter_ti", decoder="linear"),
            "start.safetensors: checkpoint of another network | got swiftnet_r18, expected segmenter_ti | give a "
            "checkpoint of segmenter_ti, or a recipe of swiftnet_r18",
        ),
        (
            meta_of("hal_9000"),
            meta_of("segmenter_ti"),
            "start.safetensors: checkpoint of another network | got hal_9000, expected segmenter_ti | give a "
            "checkpoint of segmenter_ti, or a recipe of hal_9000",
        ),
    ],
    ids=["option", "size of a ViT", "list and number", "none", "family", "unknown"],
)
def test_start_of_another_network_is_refused_with_what_differs_and_what_to_set(
    theirs: CheckpointMeta, mine: CheckpointMeta, message: str
) -> None:
    with pytest.raises(ArtifactError) as refused:
        check_same_network(mine, theirs, "start.safetensors")
    assert str(refused.value) == message


def test_start_of_another_image_size_is_accepted_when_all_else_is_the_same() -> None:
    check_same_network(meta_of("segmenter_ti", size_hw=[32, 48]), meta_of("segmenter_ti", decoder="mask"), "start")
