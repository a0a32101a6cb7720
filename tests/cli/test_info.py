import json
import re

import pytest
from click.testing import CliRunner

from edgeseg.cli import main
from edgeseg.device_profile import DeviceProfile, LatencyProfile


def run(*arguments):
    return CliRunner().invoke(main, ["info", *map(str, arguments)])


def test_info_tells_what_a_bundle_holds(bundle):
    result = run(bundle.root, "--verify", "--json")
    values = json.loads(result.stdout)
    assert values["bundle"] == "tiny"
    assert values["files"] == "all as in the manifest"
    assert [row["roles"] for row in values["configurations"]] == ["step", "init phase1 phase0", "init step"]


def test_info_exits_with_2_when_a_file_is_damaged(own_bundle):
    path = own_bundle.root / "plain_32x48.step.onnx"
    path.write_bytes(path.read_bytes() + b" ")
    assert run(own_bundle.root).exit_code == 0
    assert run(own_bundle.root, "--verify").exit_code == 2


def test_info_exits_with_2_when_the_file_is_none_of_ours(tmp_path):
    (tmp_path / "x.txt").write_text("x")
    assert "none of ours" in run(tmp_path / "x.txt").stderr
    assert "nothing at" in run(tmp_path / "y.txt").stderr


def test_info_tells_what_a_profile_holds(bundle, tmp_path):
    path = tmp_path / "p.json"
    entries = (LatencyProfile("plain_32x48", "d", (10.0, 10.0, 10.0), 5),)
    DeviceProfile(
        "cpu", {"cpu": "Abacus"}, "tiny", bundle.digest, 15.0, True, (64, 96), 2, entries, "2026-01-01", "edgeseg"
    ).save(path)
    lines = run(path).stdout.splitlines()
    assert any(line.split() == ["machine", "Abacus,", "2", "threads"] for line in lines)
    assert any(line.split() == ["frames", "64", "x", "96"] for line in lines)
    assert any(line.split() == ["plain_32x48", "10.0", "10.0", "10.0", "3", "yes"] for line in lines)


@pytest.fixture
def checkpoint(tmp_path):
    from edgeseg.classes import CAMVID
    from edgeseg.models.registry import build_network
    from edgeseg.training.checkpoint import CheckpointMeta, save_checkpoint

    meta = CheckpointMeta(
        "swiftnet_r18",
        {"width": 0.0625},
        CAMVID,
        target_offset=2,
        trained_on={"dataset": "camvid", "size_hw": [180, 240]},
        scores={"miou": 0.54321, "iou": {"sky": 0.9}},
        recipe={"name": "camvid"},
    )
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, build_network("swiftnet_r18", 11, width=0.0625), meta)
    return path


def test_info_tells_what_a_checkpoint_holds(checkpoint):
    text = run(checkpoint).stdout
    assert "swiftnet_r18, width 0.0625" in text
    assert "labels 2 frames ahead" in text
    assert "dataset camvid, size_hw 180 x 240" in text
    assert "miou 0.5432" in text


def test_info_of_a_vit_tells_its_trainings_apart_and_takes_the_size_that_it_was_built_for(tmp_path):
    from edgeseg.classes import CAMVID
    from edgeseg.models.registry import build_network
    from edgeseg.training.checkpoint import CheckpointMeta, save_checkpoint

    options = {"decoder": "linear", "size_hw": [48, 64]}
    trained_on = {"dataset": "camvid", "splits": ["train"], "before": [{"dataset": "street", "splits": ["train"]}]}
    meta = CheckpointMeta("segmenter_ti", options, CAMVID, trained_on=trained_on)
    save_checkpoint(tmp_path / "vit.safetensors", build_network("segmenter_ti", 11, **options), meta)
    text = run(tmp_path / "vit.safetensors").stdout
    assert "dataset camvid, splits train" in text
    assert "dataset street, splits train" in text
    assert "{" not in text
    assert "at 48 x 64, all channels and tokens" in text


@pytest.mark.parametrize(
    ("options", "auxiliary", "row"),
    [
        ({"prune_heads": "fcn"}, None, "after layers 6, 8 by --method prune"),
        ({"prune_heads": "atm", "prune_layers": [4]}, None, "after layer 4 by --method prune"),
        (
            {"prune_heads": "fcn"},
            {"layers": [], "criterion": "entropy"},
            "after any layer but the last, trained for entropy; after layers 6, 8 by --method prune",
        ),
        ({}, {"layers": [], "criterion": "random"}, "after any layer but the last, trained for random"),
    ],
)
def test_info_tells_which_token_plans_a_checkpoint_takes(tmp_path, options, auxiliary, row):
    from edgeseg.classes import CAMVID
    from edgeseg.models.registry import build_network
    from edgeseg.training.checkpoint import CheckpointMeta, save_checkpoint

    options = {"size_hw": [48, 64], "cascade": [12], **options}
    meta = CheckpointMeta("segvit_ti", options, CAMVID, auxiliary=auxiliary)
    save_checkpoint(tmp_path / "vit.safetensors", build_network("segvit_ti", 11, **options), meta)
    assert re.search(rf"^token plans +{row} *$", run(tmp_path / "vit.safetensors").stdout, re.MULTILINE)


def test_info_tells_how_frames_are_normalised(tmp_path):
    from edgeseg.classes import CAMVID
    from edgeseg.models.registry import build_network
    from edgeseg.training.checkpoint import CheckpointMeta, save_checkpoint

    frames = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.5, 1.0), "colour_order": "BGR"}
    meta = CheckpointMeta("swiftnet_r18", {"width": 0.0625}, CAMVID, **frames)
    save_checkpoint(tmp_path / "c.safetensors", build_network("swiftnet_r18", 11, width=0.0625), meta)
    assert "1 frame, BGR, mean 0.5 0.5 0.5, deviation 0.25 0.5 1 " in run(tmp_path / "c.safetensors").stdout + " "


def test_info_gives_all_metadata_of_a_checkpoint_as_json(checkpoint):
    values = json.loads(run(checkpoint, "--json").stdout)
    assert values["scores"]["iou"] == {"sky": 0.9}
    assert values["classes"]["names"][0] == "sky"


def test_info_tells_what_a_network_costs_by_its_name():
    text = run("segmenter_b", "--size", "512x512", "--classes", "150").stdout
    assert "102.50 M" in text
    assert "129.29 at 512 x 512" in text
    assert "129.57 (LayerNorm 5, bilinear resize 4 per element)" in text


def test_info_tells_what_a_checkpoint_costs_at_any_size(checkpoint):
    own, other = (
        json.loads(run(checkpoint, "--json", *more).stdout)["complexity"] for more in ([], ["--size", "90x120"])
    )
    assert own["size_hw"] == [180, 240]
    assert other["size_hw"] == [90, 120]
    assert own["macs"] > 3 * other["macs"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["segmenter_ti", "--size", "100x100"], "does not divide into patches | got 100x100"),
        (["segmenter_ti", "--verify"], "--verify is for bundles"),
        (["segmenter_x"], "or a network's name"),
    ],
)
def test_info_refuses_what_does_not_fit_a_network(arguments, message):
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_info_refuses_options_of_networks_for_other_artifacts(checkpoint, bundle):
    assert "has its own classes" in run(checkpoint, "--classes", "3").stderr
    assert "--size is for networks and checkpoints" in run(bundle.root, "--size", "64x64").stderr
