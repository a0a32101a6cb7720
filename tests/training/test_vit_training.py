"""ViT networks in the training loop, with options of their own, through the checkpoint to a bundle."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from edgeseg.cli import main
from edgeseg.data.folder import FolderDataset
from edgeseg.errors import InputError
from edgeseg.models import vit_segmenter
from edgeseg.models.vit import VitSize
from edgeseg.training.checkpoint import load_checkpoint
from edgeseg.training.loop import train
from edgeseg.training.recipe import Recipe
from edgeseg.training.recipe_file import load_recipe, parse_recipe


@pytest.fixture(autouse=True)
def small_vit(monkeypatch: pytest.MonkeyPatch) -> None:
    """ViT-Ti of four narrow layers, so that a training takes seconds."""
    monkeypatch.setitem(vit_segmenter.VIT_SIZES, "ti", VitSize(dim=24, heads=3, layers=4))


def recipe(network: dict, loss: str, steps: int = 4) -> Recipe:
    return parse_recipe(
        {
            "name": "vit",
            "data": {"size_hw": [32, 48]},
            "network": network,
            "loss": {"name": loss},
            "optimiser": {"steps": steps, "batch": 2, "lr": 1e-3},
            "run": {"validate_every": 4, "val_frames": 2},
        }
    )


SEGVIT = {"name": "segvit_ti", "cascade": [2, 4]}
SEGMENTER = {"name": "segmenter_ti", "decoder": "linear"}


@pytest.mark.parametrize(("network", "loss"), [(SEGVIT, "segvit"), (SEGMENTER, "cross_entropy")])
def test_checkpoint_holds_and_restores_the_networks_options(
    square_root: Path, tmp_path: Path, network: dict, loss: str
) -> None:
    result = train(recipe(network, loss), FolderDataset(square_root), tmp_path)
    loaded = load_checkpoint(result.checkpoint)
    options = {key: value for key, value in network.items() if key != "name"}
    assert loaded.meta.options == {"size_hw": [32, 48], **options}
    assert loaded.network(torch.zeros(1, 3, 32, 48)).shape == (1, 2, 2, 3)


def test_segvit_learns_with_its_own_loss(square_root: Path, tmp_path: Path) -> None:
    result = train(recipe(SEGVIT, "segvit", steps=60), FolderDataset(square_root), tmp_path)
    losses = [float(line.split(",")[2]) for line in (tmp_path / "log.csv").read_text().splitlines()[1:]]
    assert losses[-1] < 0.8 * losses[0]
    assert result.finished


def test_resumed_training_gives_the_same_weights(square_root: Path, tmp_path: Path) -> None:
    whole = train(recipe(SEGVIT, "segvit"), FolderDataset(square_root), tmp_path / "whole")
    stops = iter([False, True])
    again = {"should_stop": lambda: next(stops)}
    train(recipe(SEGVIT, "segvit"), FolderDataset(square_root), tmp_path / "parts", **again)
    parts = train(recipe(SEGVIT, "segvit"), FolderDataset(square_root), tmp_path / "parts", resume=True)
    expected = load_checkpoint(whole.checkpoint).network.state_dict()
    for name, value in load_checkpoint(parts.checkpoint).network.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)


def test_crop_gives_the_size_of_the_position_table(square_root: Path, tmp_path: Path) -> None:
    cropped = parse_recipe(recipe(SEGMENTER, "cross_entropy").as_dict() | {"augment": {"crop_hw": [32, 32]}})
    result = train(cropped, FolderDataset(square_root), tmp_path)
    assert load_checkpoint(result.checkpoint).meta.options["size_hw"] == [32, 32]


@pytest.mark.parametrize(
    ("network", "loss", "message"),
    [
        ({**SEGMENTER, "width": 0.5}, "cross_entropy", r"segmenter_ti has no option width \| known: decoder, size_hw"),
        ({"name": "swiftnet_r18", "width": 0.125}, "segvit", "needs more than the logits that swiftnet_r18 gives"),
        ({"name": "swiftnet_r18", "decoder": "mask"}, "cross_entropy", r"swiftnet_r18 has no option decoder"),
    ],
)
def test_recipe_that_does_not_fit_its_network_is_refused(
    square_root: Path, tmp_path: Path, network: dict, loss: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        train(recipe(network, loss), FolderDataset(square_root), tmp_path / "out")


def test_network_options_survive_the_recipes_dictionary() -> None:
    given = recipe(SEGVIT, "segvit")
    assert given.network.options == {"cascade": [2, 4]}
    assert parse_recipe(json.loads(json.dumps(given.as_dict()))) == given


def test_network_option_can_be_set_from_the_command_line() -> None:
    changed = load_recipe("camvid", ["network.name=segvit_ti", "network.cascade=[6, 12]"])
    assert changed.network.options == {"width": 0.5, "cascade": [6, 12]}


@pytest.mark.parametrize("width", ["0", '"wide"', "true", "5"])
def test_width_out_of_range_is_refused(width: str) -> None:
    with pytest.raises(InputError, match=r"network\.width out of range"):
        load_recipe("camvid", [f"network.width={width}"])


@pytest.mark.parametrize(("network", "loss"), [(SEGVIT, "segvit"), (SEGMENTER, "cross_entropy")])
def test_checkpoint_is_exported_with_equal_labels(square_root: Path, tmp_path: Path, network: dict, loss: str) -> None:
    result = train(recipe(network, loss), FolderDataset(square_root), tmp_path / "run")
    bundle = tmp_path / "vit.edgeseg"
    arguments = [
        "export",
        str(result.checkpoint),
        "--out",
        str(bundle),
        "--size",
        "32x48",
        "--size",
        "64x64",
        "--sweep",
    ]
    exported = CliRunner().invoke(main, arguments)
    assert exported.exit_code == 0, exported.output
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert len(manifest["configurations"]) == 4
    assert all(entry["parity"]["label_agreement"] >= 0.999 for entry in manifest["configurations"])
