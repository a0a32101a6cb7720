"""`edgeseg tune` from the outside: a bundle that can be picked from, figures on stdout, mistakes as one line."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgeseg.bundle import Bundle
from edgeseg.cli import main
from edgeseg.cli.tune import _layers
from edgeseg.config import DEFAULT_COMPENSATIONS
from edgeseg.device_profile import DeviceProfile
from edgeseg.errors import InputError

pytest.importorskip("torch", reason="tuning needs the export extra")

import torch
from onnx import ModelProto

from edgeseg.classes import ClassSet, distinct_colours
from edgeseg.export.graph_edit import fold_constants
from edgeseg.models.registry import NETWORKS
from edgeseg.training.checkpoint import CheckpointMeta, save_checkpoint
from support import tiny_vit

torch.set_num_threads(1)
NAMES = ("road", "car", "sky")
QUICK = ("--fps", 10, "--threads", 1, "--samples", 2, "--max-offset", 2)


@pytest.fixture(scope="module", autouse=True)
def folded_once() -> Iterator[None]:
    """Folding is most of the work here and depends on the graph alone: each is folded once for all tests."""
    folded: dict[bytes, bytes] = {}

    def fold(model: ModelProto) -> ModelProto:
        key = model.SerializeToString(deterministic=True)
        if key not in folded:
            folded[key] = fold_constants(model).SerializeToString()
        return ModelProto.FromString(folded[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgeseg.export.onnx_export.fold_constants", fold)
        yield


@pytest.fixture
def vit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny ViT of four layers with an auxiliary decoder, for the classes of `noise`."""
    monkeypatch.setitem(NETWORKS, tiny_vit.NAME, tiny_vit.SHALLOW_BUILDER)
    monkeypatch.setattr("edgeseg.runtime.profiler.SAMPLES", 5)
    classes = ClassSet(NAMES, distinct_colours(3), movable=("car",))
    where = {"dataset": "other", "splits": ["train"], "size_hw": [48, 64]}
    meta = CheckpointMeta(tiny_vit.NAME, {}, classes, auxiliary={"layers": []}, trained_on=where)
    save_checkpoint(tmp_path / "vit.safetensors", tiny_vit.seeded(3, tiny_vit.build_shallow), meta)
    return tmp_path / "vit.safetensors"


def run(*arguments: object, code: int = 0) -> str:
    """stdout of `edgeseg ARGUMENTS`, or stderr when it is to fail."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.stderr


def test_tuned_bundle_can_be_picked_from_at_once(vit, video, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grid = ("--layers", "1,3", "--proportions", "0.5", "--compensation", "late-warp")
    values = json.loads(run("tune", vit, "--data", video, *QUICK, *grid, "--out", "a.edgeseg", "--json"))
    bundle = Bundle.open("a.edgeseg")
    names = [entry.name for entry in bundle.configurations]
    assert names[0] == "tiny_vit_48x64"
    assert set(values["front"]) <= set(names)
    assert values["search"]["measurements"] == len(values["search"]["trials"]) <= values["search"]["grid_plans"] == 4
    assert all(entry.accuracy.compensated and entry.parity.label_agreement >= 0.999 for entry in bundle.configurations)
    assert Path(values["plot"]).is_file()
    picked = json.loads(run("pick", "a.edgeseg", "--fps", 10, "--json"))
    assert picked["configuration"] == values["configuration"]
    assert {row["compensation"] for row in picked["rows"]} == {"none", "late-warp_dis-ultrafast_d2"}


def test_a_tuned_bundle_has_the_compensations_of_an_export_scored_and_measured(vit, video, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grid = ("--layers", "2", "--proportions", "0.5", "--search", "exhaustive")
    values = json.loads(run("tune", vit, "--data", video, *QUICK, *grid, "--out", "a.edgeseg", "--json"))
    run("export", vit, "--data", video, "--threads", 1, "--max-offset", 2, "--out", "b.edgeseg")
    (exported,) = Bundle.open("b.edgeseg").configurations
    tuned = Bundle.open("a.edgeseg").configuration(exported.name)
    assert tuned.accuracy == exported.accuracy
    assert tuned.accuracy.compensations == DEFAULT_COMPENSATIONS
    profile = DeviceProfile.load(values["profile"])
    measured = {(entry.name, entry.compensation) for entry in profile.entries if entry.samples_ms}
    names = [entry.name for entry in Bundle.open("a.edgeseg").configurations]
    assert measured == {(name, way) for name in names for way in DEFAULT_COMPENSATIONS}
    # The flow is that of the frames that were scored.
    assert profile.frame_size_hw == (48, 64)


def test_progress_is_a_line_per_plan_on_standard_error_where_there_is_no_terminal(vit, video, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grid = ("--layers", "2", "--proportions", "0.5", "--search", "exhaustive", "--compensation", "none", "--json")
    result = CliRunner().invoke(main, [*map(str, ("tune", vit, "--data", video, *QUICK, *grid))])
    assert result.exit_code == 0, result.output
    json.loads(result.stdout)
    said = [re.sub(r"[\d.]+ ms|mIoU [\d.]+", "...", line) for line in result.stderr.splitlines()]
    assert said == [
        "exhaustive search, at most 2 of 2 plans",
        "measured the whole network: ... (1 of at most 2)",
        "scored the whole network: ...",
        "measured plan 2:0.5: ... (2 of at most 2)",
        "scored plan 2:0.5: ...",
    ]


def test_without_out_figures_are_printed_and_nothing_is_left(vit, video, tmp_path, monkeypatch):
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("TMPDIR", str(work))
    grid = ("--layers", "2", "--proportions", "0.5", "--search", "exhaustive", "--rank-frames", 4)
    text = run("tune", vit, "--data", video, *QUICK, *grid)
    assert "tiny_vit_48x64" in text
    assert "Pareto front of latency and mIoU" in text
    assert "exhaustive search: 2 of 2 plans measured" in text
    # ONNX Runtime leaves a file of its own when it is first used.
    assert [path.name for path in work.iterdir() if path.name != ".ses"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--layers", "2,4"), "--layers: layer out of range | got 4"),
        (("--layers", "a"), "--layers is written 3,5,7 or 3-9"),
        (("--proportions", "0.5,1"), "proportion out of range"),
        (("--proportions", "half"), "--proportions is written .2,.3,.4"),
        (("--max-layers", 3, "--layers", "2,3"), "--max-layers lies between 1 and the number of --layers"),
        (("--method", "stop"), "unknown --method 'stop'"),
        (("--method", "prune"), "--method prune does not fit"),
        (("--search", "random"), "unknown search 'random'"),
        (("--budget", 2), "--budget is too small"),
        (("--budget", 5, "--search", "exhaustive"), "--budget is too small"),
        (("--rank-frames", 2, "--max-offset", 2), "--rank-frames leaves too few frames to score labels 2 frames late"),
        (("--device", "abacus"), "unknown device 'abacus'"),
        (("--size", "40x60"), "does not divide into patches"),
        (("--compensation", "sideways"), "unknown compensation 'sideways'"),
        (("--out", "a.bundle"), "--out must end in .edgeseg"),
        (("--profile", "p.json"), "--profile is the device profile of the bundle --out"),
        (("--out", "a.edgeseg", "--plot", "p.txt"), "a plot is written as"),
        (("--split", "test"), "has no split 'test'"),
    ],
)
def test_mistake_is_one_line_and_leaves_nothing(vit, video, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    text = run("tune", vit, "--data", video, "--fps", 10, *arguments, code=2)
    assert message in text
    assert text.startswith("edgeseg: ")
    assert len(text.strip().splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before


def test_a_convolutional_checkpoint_is_told_where_its_choices_are_made(checkpoint, video):
    text = run("tune", checkpoint, "--data", video, "--fps", 10, code=2)
    assert "token plans, which are for networks on a plain ViT" in text
    assert "edgeseg export --sweep, then edgeseg profile" in text


def test_a_bundle_is_told_from_a_checkpoint(bundle, video):
    text = run("tune", bundle.root, "--data", video, "--fps", 10, code=2)
    assert (
        text == f"edgeseg: {bundle.root}: a bundle, expected a checkpoint | give the .safetensors file that it was "
        "exported from\n"
    )


def test_interrupt_leaves_nothing(vit, video, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())

    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    # In the middle of the last stage, when the bundle is whole and not yet in its place.
    monkeypatch.setattr("edgeseg.runtime.pick.pick", interrupted)
    grid = ("--layers", "2", "--proportions", "0.5", "--search", "exhaustive", "--rank-frames", 4)
    run("tune", vit, "--data", video, *QUICK, *grid, "--out", "new/a.edgeseg", code=130)
    assert sorted(tmp_path.iterdir()) == before


def test_layers_are_a_list_or_a_range():
    assert _layers("3,5-7") == [3, 5, 6, 7]
    assert _layers(None) is None
    with pytest.raises(InputError, match="--layers is written"):
        _layers("3-")
