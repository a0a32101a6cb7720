"""Training a network to pause: the checkpoint holds the auxiliary decoder, resuming repeats, what is refused."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from edgeseg.data.folder import FolderDataset
from edgeseg.errors import InputError
from edgeseg.models import vit_segmenter
from edgeseg.models.pausing import auxiliary_of
from edgeseg.models.training_outputs import TrainingOutputs
from edgeseg.models.vit import VitSize, resize_position_table
from edgeseg.training.checkpoint import load_checkpoint
from edgeseg.training.loop import CHECKPOINT_FILE, train
from edgeseg.training.losses import build_loss, with_auxiliary
from edgeseg.training.recipe import Recipe
from edgeseg.training.recipe_file import load_recipe, parse_recipe


@pytest.fixture(autouse=True)
def small_vit(monkeypatch: pytest.MonkeyPatch) -> None:
    """ViT-Ti of four narrow layers, so that a training takes seconds."""
    monkeypatch.setitem(vit_segmenter.VIT_SIZES, "ti", VitSize(dim=24, heads=3, layers=4))


def recipe(steps: int = 4, **tables: dict) -> Recipe:
    return parse_recipe(
        {
            "name": "vit",
            "data": {"size_hw": [32, 48]},
            "network": {"name": "segmenter_ti", "decoder": "linear"},
            "pausing": {"layers": [1, 2]},
            "optimiser": {"steps": steps, "batch": 2, "lr": 1e-3},
            "run": {"validate_every": 4, "val_frames": 2},
            **tables,
        }
    )


def weights(path: Path | None) -> dict[str, Tensor]:
    assert path is not None
    return load_checkpoint(path).network.state_dict()


def test_checkpoint_holds_the_auxiliary_decoder_and_what_it_was_trained_for(square_root: Path, tmp_path: Path) -> None:
    random = recipe(pausing={"layers": [1, 2], "criterion": "random"})
    result = train(random, FolderDataset(square_root), tmp_path)
    loaded = load_checkpoint(result.checkpoint)
    assert loaded.meta.auxiliary == {"layers": [], "criterion": "random"}
    assert auxiliary_of(loaded.network)(torch.zeros(1, 2, 24), 1).shape == (1, 2, 2)
    assert "auxiliary.heads.all.weight" in loaded.network.state_dict()


@pytest.mark.parametrize("criterion", ["entropy", "random"])
def test_resumed_training_draws_the_same_pauses(square_root: Path, tmp_path: Path, criterion: str) -> None:
    made, data = recipe(pausing={"layers": [1, 2], "criterion": criterion}), FolderDataset(square_root)
    whole = train(made, data, tmp_path / "whole")
    stops = iter([False, True])
    train(made, data, tmp_path / "parts", should_stop=lambda: next(stops))
    parts = weights(train(made, data, tmp_path / "parts", resume=True).checkpoint)
    for name, value in weights(whole.checkpoint).items():
        torch.testing.assert_close(parts[name], value, rtol=0, atol=0)


def test_network_that_does_not_pause_yet_is_a_start(square_root: Path, tmp_path: Path) -> None:
    data = FolderDataset(square_root)
    plain = parse_recipe({**recipe().as_dict(), "pausing": None})
    whole = train(plain, data, tmp_path / "plain").checkpoint
    assert not any(name.startswith("auxiliary") for name in weights(whole))
    slow = recipe(steps=1, optimiser={"steps": 1, "batch": 2, "lr": 1e-9})
    started = weights(train(slow, data, tmp_path / "paused", start_from=whole).checkpoint)
    for name, value in weights(whole).items():
        torch.testing.assert_close(started[name], value, rtol=0, atol=1e-6)


def test_checkpoint_of_another_size_is_a_start_when_only_the_position_table_differs(
    square_root: Path, tmp_path: Path
) -> None:
    data = FolderDataset(square_root)
    small = parse_recipe({**recipe().as_dict(), "pausing": None})
    before = weights(train(small, data, tmp_path / "small").checkpoint)
    large = recipe(steps=1, data={"size_hw": [64, 80]}, optimiser={"steps": 1, "batch": 2, "lr": 1e-9})
    after = weights(train(large, data, tmp_path / "large", start_from=tmp_path / "small" / CHECKPOINT_FILE).checkpoint)
    resized = resize_position_table(before["encoder.pos_embed"], (2, 3), (4, 5), "bilinear")
    for name, value in {**before, "encoder.pos_embed": resized}.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=1e-6)


def test_loss_adds_the_weighted_loss_of_the_auxiliary_decoder() -> None:
    plain = build_loss("cross_entropy", ignore_value=255)
    labels = torch.randint(0, 3, (1, 8, 8))
    logits, auxiliary = torch.randn(1, 3, 8, 8), torch.randn(1, 3, 8, 8)
    total = with_auxiliary(plain, 0.1)(TrainingOutputs(logits, auxiliary=(auxiliary,)), labels)
    torch.testing.assert_close(total, plain(logits, labels) + 0.1 * plain(auxiliary, labels))


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"pausing": {"layers": [1, 4]}}, r"pausing layer out of range \| got 4, expected 1 to 3"),
        ({"pausing": {"layers": []}}, "pausing.layers out of range"),
        ({"pausing": {"proportions": [0.8, 0.2]}}, "pausing.proportions out of range"),
        ({"pausing": {"proportions": [0.2, 1.0]}}, "pausing.proportions out of range"),
        ({"pausing": {"criterion": "age"}}, r"unknown pausing.criterion 'age' \| known: entropy, random"),
        ({"pausing": {"aux_weight": 0.0}}, "pausing.aux_weight out of range"),
        ({"network": {"name": "swiftnet_r18", "width": 0.125}}, "needs a network on a plain ViT"),
        (
            {"network": {"name": "segvit_ti", "cascade": [2, 4]}, "loss": {"name": "segvit"}},
            "goes with losses on logits",
        ),
    ],
)
def test_pausing_that_does_not_fit_is_refused(square_root: Path, tmp_path: Path, tables: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        train(recipe(**tables), FolderDataset(square_root), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_shipped_recipe_pauses_at_the_layers_of_the_source_and_also_where_little_pauses() -> None:
    pausing = load_recipe("street-vit").pausing
    assert pausing is not None
    assert (pausing.layers, pausing.proportions, pausing.aux_weight) == ((3, 4, 5, 6, 7, 8, 9), (0.02, 0.8), 0.1)
