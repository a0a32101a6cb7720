"""Networks that shrink or prune, through recipes to checkpoints and bundles."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from edgeseg.cli import main
from edgeseg.data.folder import FolderDataset
from edgeseg.errors import InputError
from edgeseg.models import vit_segmenter
from edgeseg.models.dynamic_pruning import DynamicPruning
from edgeseg.models.registry import build_network
from edgeseg.models.vit import VitSize
from edgeseg.training.checkpoint import load_checkpoint
from edgeseg.training.loop import train
from edgeseg.training.recipe import Recipe
from edgeseg.training.recipe_file import parse_recipe


@pytest.fixture(autouse=True)
def small_vit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of four narrow layers, so that a training takes seconds."""
    for name in ("ti", "b"):
        monkeypatch.setitem(vit_segmenter.VIT_SIZES, name, VitSize(dim=24, heads=3, layers=4))


SEGVIT = {"name": "segvit_ti", "prune_layers": [2, 3]}
SETR = {"name": "setr_naive_b", "prune_layers": [2, 3]}


def recipe(network: dict, loss: str, pruning: dict | None = None) -> Recipe:
    return parse_recipe(
        {
            "name": "reduction",
            "data": {"size_hw": [32, 48]},
            "network": network,
            "loss": {"name": loss},
            "optimiser": {"steps": 2, "batch": 2, "lr": 1e-3},
            "run": {"validate_every": 2, "val_frames": 2},
            **({} if pruning is None else {"pruning": pruning}),
        }
    )


@pytest.mark.parametrize("shrink", ["qd", "qd+qu", "eqd"])
def test_shrunk_network_trains_and_is_exported_with_equal_labels(
    square_root: Path, tmp_path: Path, shrink: str
) -> None:
    network = {"name": "segvit_ti", "shrink": shrink, "shrink_layer": 1, "cascade": [4]}
    result = train(recipe(network, "segvit"), FolderDataset(square_root), tmp_path / "run")
    assert_exported(result.checkpoint, tmp_path / "bundle.edgeseg")


@pytest.mark.parametrize(
    ("network", "heads", "loss"),
    [
        (SEGVIT, "atm", "segvit"),
        (SEGVIT, "fcn", "segvit"),
        (SETR, "fcn", "cross_entropy"),
        (SETR, "atm", "cross_entropy"),
    ],
)
@pytest.mark.parametrize("mode", ["direct", "retrain"])
def test_pruning_network_trains_with_its_heads(
    square_root: Path, tmp_path: Path, network: dict, heads: str, loss: str, mode: str
) -> None:
    pruning = {"mode": mode, "threshold": 0.5, "k": 1}
    trained = recipe({**network, "prune_heads": heads}, loss, pruning)
    result = train(trained, FolderDataset(square_root), tmp_path / "run")
    loaded = load_checkpoint(result.checkpoint).network
    torch.manual_seed(trained.run.seed)
    fresh = build_network(network["name"], 2, size_hw=(32, 48), prune_heads=heads, prune_layers=[2, 3])
    expected = fresh.state_dict()
    trained_parts = {
        name.split(".heads.")[0] + "".join(name.split(".heads.")[1:])[:1]
        for name, value in loaded.state_dict().items()
        if name.endswith("weight") and not torch.equal(value, expected[name])
    }
    assert {"pruning_heads2", "pruning_heads3", "encoder.blocks.0.mlp.fc1.weight"} <= trained_parts


def test_finetuning_changes_the_heads_alone(square_root: Path, tmp_path: Path) -> None:
    network, data = {**SEGVIT, "prune_heads": "atm"}, FolderDataset(square_root)
    direct = train(recipe(network, "segvit", {"mode": "direct"}), data, tmp_path / "direct")
    tuned = recipe(network, "segvit", {"mode": "finetune", "threshold": 0.3})
    after = train(tuned, data, tmp_path / "tuned", start_from=direct.checkpoint)
    old, new = (load_checkpoint(each.checkpoint).network.state_dict() for each in (direct, after))
    changed = {name.split(".")[0] for name, value in new.items() if not torch.equal(value, old[name])}
    assert changed == {"decoder", "pruning_heads"}


def test_network_is_scored_as_it_prunes(square_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = []
    begin = DynamicPruning.begin
    monkeypatch.setattr(DynamicPruning, "begin", lambda self, layout: (rules.append(self.rule), begin(self, layout))[1])
    train(
        recipe({**SETR, "prune_heads": "fcn"}, "cross_entropy", {"mode": "direct"}),
        FolderDataset(square_root),
        tmp_path,
    )
    # Two steps in which the heads only listen, then two frames scored at the threshold of FCN heads.
    assert [rule and rule.threshold for rule in rules] == [None, None, 0.98, 0.98]


@pytest.mark.parametrize("heads", ["atm", "fcn"])
def test_pruned_plan_is_exported_with_equal_labels(square_root: Path, tmp_path: Path, heads: str) -> None:
    trained = recipe({**SEGVIT, "prune_heads": heads}, "segvit", {"mode": "retrain"})
    result = train(trained, FolderDataset(square_root), tmp_path / "run")
    assert_exported(result.checkpoint, tmp_path / "bundle.edgeseg", "--method", "prune", "--plan", "2:0.4,3:0.3")


def assert_exported(checkpoint: Path | None, bundle: Path, *options: str) -> None:
    arguments = ["export", str(checkpoint), "--out", str(bundle), "--size", "32x48", *options]
    exported = CliRunner().invoke(main, arguments)
    assert exported.exit_code == 0, exported.output
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert all(entry["parity"]["label_agreement"] >= 0.999 for entry in manifest["configurations"])


@pytest.mark.parametrize(
    ("network", "pruning", "message"),
    [
        ({"name": "segvit_ti", "cascade": [4]}, {}, "has no pruning heads"),
        ({"name": "swiftnet_r18", "width": 0.125}, {}, r"\[pruning\] needs a network on a plain ViT"),
        ({**SEGVIT, "prune_heads": "atm"}, {"mode": "finetune"}, "without a checkpoint to go on from"),
        ({**SEGVIT, "prune_heads": "atm"}, {"threshold": 1.5}, "pruning.threshold out of range"),
        ({**SEGVIT, "prune_heads": "atm"}, {"mode": "tune"}, "unknown pruning.mode 'tune'"),
        ({**SEGVIT, "prune_heads": "atm"}, {"threshold": 0.9, "share": 0.3}, "pruning.share contradicts"),
    ],
)
def test_recipe_that_does_not_fit_is_refused(
    square_root: Path, tmp_path: Path, network: dict, pruning: dict, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        train(recipe(network, "cross_entropy", pruning), FolderDataset(square_root), tmp_path / "out")
