"""`edgeseg show --image`: a picture of the tokens that stop, of a checkpoint and of a bundle."""

import json
from pathlib import Path

import cv2
import pytest
from click.testing import CliRunner, Result

from edgeseg.cli import main
from support.pictures import FRAME_RGB

pytest.importorskip("torch", reason="looking into a network needs torch")
pytest.importorskip("matplotlib", reason="pictures need matplotlib")


def show(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["show", *map(str, arguments)])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a small ViT with an auxiliary decoder, one of a SwiftNet, an image, and a damaged one."""
    import torch

    from edgeseg.classes import ClassSet
    from edgeseg.models import vit_segmenter
    from edgeseg.models.reductions import add_auxiliary_decoder
    from edgeseg.models.registry import build_network
    from edgeseg.models.vit import VitSize
    from edgeseg.training.checkpoint import CheckpointMeta, save_checkpoint

    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("tokens")
    classes = ClassSet(("road", "car", "sky"), ((1, 2, 3), (4, 5, 6), (7, 8, 9)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(vit_segmenter.VIT_SIZES, "ti", VitSize(dim=24, heads=3, layers=3))
        for name, options in (("vit", {"decoder": "linear", "size_hw": [64, 80]}), ("bare", {"size_hw": [64, 80]})):
            torch.manual_seed(0)
            network = build_network("segmenter_ti", 3, **options)
            auxiliary = None
            if name == "vit":
                add_auxiliary_decoder(network, 3)
                auxiliary = {"layers": []}
            meta = CheckpointMeta("segmenter_ti", options, classes, auxiliary=auxiliary,
                                  trained_on={"size_hw": [64, 80]})  # fmt: skip
            save_checkpoint(root / f"{name}.safetensors", network, meta)
    network = build_network("swiftnet_r18", 3, width=0.125)
    meta = CheckpointMeta("swiftnet_r18", {"width": 0.125}, classes, trained_on={"size_hw": [64, 80]})
    save_checkpoint(root / "convolutional.safetensors", network, meta)
    cv2.imwrite(str(root / "frame.png"), FRAME_RGB)
    (root / "cut.png").write_bytes((root / "frame.png").read_bytes()[:60])
    return root


@pytest.fixture(autouse=True)
def small_vit(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the checkpoints were made with."""
    from edgeseg.models import vit_segmenter
    from edgeseg.models.vit import VitSize

    monkeypatch.setitem(vit_segmenter.VIT_SIZES, "ti", VitSize(dim=24, heads=3, layers=3))


def test_checkpoint_gives_a_picture_and_the_counts_of_the_plan(place: Path, tmp_path: Path) -> None:
    result = show(place / "vit.safetensors", "--image", place / "frame.png", "--plan", "1:0.4,2:0.4",
                  "--method", "early-exit", "--out", tmp_path / "t.png", "--json")  # fmt: skip
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["tokens"], report["tokens_after_layer"]) == (20, {"1": 12, "2": 8})
    assert "early-exit" in report["configuration"]
    picture = cv2.imread(str(tmp_path / "t.png"))
    assert picture is not None
    assert picture.shape[1] > 4 * 400


def test_bundle_gives_a_picture_of_its_configuration_with_a_plan(place: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "vit.edgeseg"
    line = ["export", place / "vit.safetensors", "--plan", "none", "--plan", "1:0.5", "--labels-stride", 16, "--sweep",
            "--size", "64x80", "--out", bundle]  # fmt: skip
    assert CliRunner().invoke(main, [str(word) for word in line]).exit_code == 0
    result = show(bundle, "--image", place / "frame.png", "--out", tmp_path / "t.png")
    assert result.exit_code == 0, result.output
    assert "tokens         20, then 10 after layer 1, of 3 layers" in result.stdout
    assert (tmp_path / "t.png").is_file()


def exported(place: Path, bundle: Path, *methods: str) -> None:
    line = ["export", place / "vit.safetensors", "--plan", "1:0.5", "--labels-stride", 16, "--sweep", "--size", "64x80",
            "--out", bundle]  # fmt: skip
    for method in methods:
        line += ["--method", method]
    result = CliRunner().invoke(main, [str(word) for word in line])
    assert result.exit_code == 0, result.output


def test_bundle_gives_a_picture_of_the_one_that_sees_when_places_of_another_are_drawn_by_lot(
    place: Path, tmp_path: Path
) -> None:
    exported(place, tmp_path / "both.edgeseg", "pause-random", "pause")
    result = show(tmp_path / "both.edgeseg", "--image", place / "frame.png", "--out", tmp_path / "t.png")
    assert result.exit_code == 0, result.output
    assert "configuration  segmenter_ti_64x80_pause1-0.5_s16" in result.stdout


def test_bundle_is_refused_when_all_its_places_are_drawn_by_lot(place: Path, tmp_path: Path) -> None:
    exported(place, tmp_path / "lot.edgeseg", "pause-random")
    result = show(tmp_path / "lot.edgeseg", "--image", place / "frame.png", "--out", tmp_path / "t.png")
    assert result.exit_code == 2
    assert "places are drawn by lot, whatever the image shows | export with --method pause" in result.stderr
    assert not (tmp_path / "t.png").exists()


@pytest.mark.parametrize(
    ("network", "options", "words"),
    [
        ("vit", "", "a checkpoint has no token plan of its own | add --plan"),
        ("vit", "--method pause", "a checkpoint has no token plan of its own | add --plan"),
        ("vit", "--plan 3:0.4", "plan 3:0.4: layer out of range | got 3, expected 1 to 2"),
        ("vit", "--plan 1:1.5", "proportion out of range | got 1.5 after layer 1"),
        ("vit", "--plan published", "plan 'published' is not readable"),
        ("vit", "--plan 1:0.4 --method paws", "unknown --method 'paws' | known: pause"),
        ("vit", "--plan 1:0.4 --method pause-random", "places are drawn by lot"),
        ("vit", "--plan 1:0.4 --method prune", "the network has no pruning heads"),
        ("vit", "--plan 1:0.4 --size 60x80", "got 60x80, expected multiples of 16 | use 64x80"),
        ("vit", "--plan 1:0.4 --delay 2", "--delay goes with --source"),
        ("vit", "--plan 1:0.4 --configuration big", "--configuration is for bundles"),
        ("vit", "--plan 1:0.4 --out t.gif", "a plot is written as .png"),
        ("bare", "--plan 1:0.4", "the network has no auxiliary decoder"),
        ("convolutional", "--plan 1:0.4", "--plan is for networks on a plain ViT"),
    ],
)
def test_wrong_choice_is_refused_in_a_line_and_nothing_written(
    network: str, options: str, words: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = show(place / f"{network}.safetensors", "--image", place / "frame.png", *options.split())
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{place}/vit.safetensors --image {place}/cut.png --plan 1:0.4", "cut.png: image cannot be read"),
        ("{place}/vit.safetensors --image {place}/none.png --plan 1:0.4", "none.png: cannot be read"),
        ("{place}/none.safetensors --image {place}/frame.png --plan 1:0.4", "no such checkpoint"),
        ("shipped:street --image {place}/frame.png", "all tokens go through all layers in every configuration"),
        ("shipped:street --image {place}/frame.png --plan 1:0.4", "--plan is for checkpoints"),
        ("shipped:street --source street --plan 1:0.4", "--plan goes with --image"),
        ("shipped:street", "give a video with --source, or an image with --image"),
    ],
)
def test_wrong_file_is_refused(
    line: str, words: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = show(*line.format(place=place).split())
    assert result.exit_code == 2
    assert words in result.stderr
    assert list(tmp_path.iterdir()) == []
