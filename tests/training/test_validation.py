"""Validation: the right frame against the right labels, and masked networks in steady state."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeseg.data.open import open_dataset
from edgeseg.errors import InputError
from edgeseg.models.cwm import BiStep, apply_cwm, masked_layers
from edgeseg.training.checkpoint import CheckpointMeta
from edgeseg.training.recipe import Recipe
from edgeseg.training.recipe_file import parse_recipe
from edgeseg.training.validation import Validator

CPU = torch.device("cpu")


class Brightness(nn.Module):
    """Gives the data set's labels exactly: a bright pixel is class 1. A second, useless path can be masked."""

    def __init__(self) -> None:
        super().__init__()
        self.path = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1))
        self.steps = 0

    def forward(self, x: Tensor) -> Tensor:
        self.steps += 1
        newest = x[:, -3:].mean(1, keepdim=True)
        return torch.cat((torch.zeros_like(newest), newest), 1) * 100 + 0 * self.path(x[:, -3:])


def validator(root: Path, *, target_offset: int = 0, **run: int) -> Validator:
    dataset = open_dataset(root)
    recipe: Recipe = parse_recipe({"name": "test", "data": {"size_hw": [32, 48]}, "run": run})
    meta = CheckpointMeta("x", {}, dataset.classes, target_offset=target_offset, mean=(0.5,) * 3, std=(1.0,) * 3)
    return Validator(dataset, recipe, meta)


def test_exact_network_scores_one(square_root: Path) -> None:
    validation = validator(square_root)(Brightness(), CPU)
    assert validation.miou == 1
    assert validation.iou == {"ground": 1, "square": 1}
    assert validation.frames == 12


def test_network_that_should_anticipate_is_scored_against_later_labels(square_root: Path) -> None:
    # The square is 20 wide and moves 1 pixel per frame: after 4 frames 16 columns of 24 are in both.
    validation = validator(square_root, target_offset=4)(Brightness(), CPU)
    assert validation.iou["square"] == pytest.approx(16 / 24)
    assert validation.frames == 8


def test_frames_are_limited_and_spread(square_root: Path) -> None:
    network = Brightness()
    assert validator(square_root, val_frames=5)(network, CPU).frames == 5
    assert network.steps == 5


def test_masked_network_runs_twice_and_its_warm_up_is_not_scored(square_root: Path) -> None:
    network = Brightness()
    apply_cwm(network, BiStep(0), example=torch.zeros(1, 3, 8, 8))
    network.steps = 0
    validation = validator(square_root, warm_up_frames=4)(network, CPU)
    assert network.steps == 12 + 11
    assert validation.frames == 8 + 7
    assert all(layer.step == 0 for layer in masked_layers(network).values())


def test_masked_network_runs_to_the_only_label_when_frames_are_few(square_root: Path, tmp_path: Path) -> None:
    # As in Cityscapes: one frame per video is labelled, behind the warm-up, and one frame per video is scored.
    root = tmp_path / "sparse"
    shutil.copytree(square_root, root)
    for path in (root / "labels" / "val" / "c").iterdir():
        if path.stem != "009":
            path.unlink()
    network = Brightness()
    apply_cwm(network, BiStep(0), example=torch.zeros(1, 3, 8, 8))
    network.steps = 0
    validation = validator(root, warm_up_frames=4, val_frames=1)(network, CPU)
    assert (validation.frames, validation.miou) == (2, 1)
    assert network.steps == 10 + 9


def test_network_stays_in_training_mode(square_root: Path) -> None:
    network = Brightness().train()
    validator(square_root, val_frames=1)(network, CPU)
    assert network.training


def test_offset_beyond_every_video_is_refused(square_root: Path) -> None:
    with pytest.raises(InputError, match="no frame can be scored"):
        validator(square_root, target_offset=12)(Brightness(), CPU)


class Warmth(nn.Module):
    """Class 1 where the third channel is above the first."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((torch.zeros_like(x[:, :1]), x[:, 2:3] - x[:, :1]), 1)


def test_network_is_scored_on_frames_in_its_own_colour_order(tmp_path: Path) -> None:
    # Red frames all of class 1: only a network that gets blue first finds its third channel above the first.
    for kind, image in (
        ("frames", np.full((32, 48, 3), (0, 0, 255), np.uint8)),
        ("labels", np.ones((32, 48), np.uint8)),
    ):
        for split in ("train", "val"):
            (tmp_path / kind / split / "a").mkdir(parents=True)
            cv2.imwrite(str(tmp_path / kind / split / "a" / "0.png"), image)
    (tmp_path / "dataset.toml").write_text('name = "red"\nfps = 10.0\n[classes]\nnames = ["cold", "warm"]\n')
    dataset = open_dataset(tmp_path)
    recipe = parse_recipe({"name": "test", "data": {"size_hw": [32, 48]}})
    scores = [
        Validator(dataset, recipe, CheckpointMeta("x", {}, dataset.classes, colour_order=order))(Warmth(), CPU).miou
        for order in ("RGB", "BGR")
    ]
    assert scores == [0, 1]
