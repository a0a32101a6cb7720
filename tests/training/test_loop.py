"""The loop: it learns, stops, resumes after kill -9 with the same bytes, and refuses what does not fit."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from edgeseg.data.open import open_dataset
from edgeseg.errors import ArtifactError, DeviceError, InputError
from edgeseg.models.cwm import masked_layers
from edgeseg.training.checkpoint import IMAGENET_MEAN, IMAGENET_STD, load_checkpoint
from edgeseg.training.loop import CHECKPOINT_FILE, LOG_FILE, STATE_FILE, TrainingResult, train
from edgeseg.training.recipe import Recipe
from edgeseg.training.recipe_file import load_recipe, parse_recipe
from edgeseg.training.samples import SampleSource, network_inputs
from edgeseg.training.validation import Validation

MASKED = {"cwm": {"rho": 0.25}, "sequence": {"length": 3, "starts": 2}, "run": {"warm_up_frames": 4}}


def tiny(steps: int = 6, **tables: dict) -> Recipe:
    """Width 1/8, 32 x 48 pixels, batch 2."""
    plain: dict[str, dict] = {
        "data": {"size_hw": [32, 48]},
        "network": {"width": 0.125},
        "augment": {"scale": [0.75, 1.5], "brightness": 0.2},
        "loss": {"class_weights": "median"},
        "optimiser": {"steps": steps, "batch": 2, "lr": 5e-3},
        "run": {"checkpoint_every": 2, "validate_every": 100},
    }
    return parse_recipe(
        {"name": "tiny", **{key: {**plain.get(key, {}), **tables.get(key, {})} for key in plain | tables}}
    )


class Losses:
    """A reporter that keeps the losses."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self.validations: list[int] = []

    def told(self, text: str) -> None:
        pass

    def stepped(self, step: int, loss: float) -> None:
        self.values.append(loss)

    def validated(self, step: int, validation: Validation) -> None:
        self.validations.append(step)


def test_network_learns_the_square(square_root: Path, tmp_path: Path) -> None:
    losses = Losses()
    result = train(tiny(steps=40), open_dataset(square_root), tmp_path, reporter=losses)
    assert result.finished
    assert sum(losses.values[-5:]) < 0.5 * sum(losses.values[:5])
    assert result.scores["miou"] > 0.6


def test_result_and_checkpoint_say_what_was_trained(square_root: Path, tmp_path: Path) -> None:
    losses = Losses()
    recipe = tiny(steps=2, run={"validate_every": 1})
    result = train(recipe, open_dataset(square_root), tmp_path, reporter=losses)
    meta = load_checkpoint(tmp_path / CHECKPOINT_FILE).meta
    assert result == TrainingResult(2, True, tmp_path / CHECKPOINT_FILE, meta.scores)
    assert losses.validations == [1, 2]
    assert meta.trained_on == {"dataset": "square", "splits": ["train"], "fps": 10.0, "size_hw": [32, 48]}
    assert meta.recipe == recipe.as_dict()
    assert meta.classes.names == ("ground", "square")


def test_two_frame_network_that_anticipates_is_trained(square_root: Path, tmp_path: Path) -> None:
    recipe = tiny(steps=1, network={"name": "swiftnet_r18_x", "width": 0.125}, sequence={"target_offset": 2})
    train(recipe, open_dataset(square_root), tmp_path)
    meta = load_checkpoint(tmp_path / CHECKPOINT_FILE).meta
    assert (meta.input_frames, meta.target_offset) == (2, 2)


def test_masked_network_is_trained_from_a_dense_checkpoint(square_root: Path, tmp_path: Path) -> None:
    dataset = open_dataset(square_root)
    dense = train(tiny(steps=2), dataset, tmp_path / "dense").checkpoint
    assert dense is not None
    slow = {**MASKED, "optimiser": {"lr": 1e-12, "weight_decay": 0.0}}
    masked = train(tiny(steps=2, **slow), dataset, tmp_path / "masked", start_from=dense)
    assert masked.checkpoint is not None
    loaded = load_checkpoint(masked.checkpoint)
    assert len(masked_layers(loaded.network)) == 28
    assert loaded.meta.cwm is not None
    assert loaded.meta.cwm["rho"] == 0.25
    weights = load_checkpoint(dense).network.state_dict()["backbone.conv1.weight"]
    torch.testing.assert_close(loaded.network.state_dict()["backbone.conv1.weight"], weights, rtol=0, atol=1e-6)


def test_batch_norms_learn_from_the_last_pass_of_a_sequence_only(square_root: Path, tmp_path: Path) -> None:
    dataset = open_dataset(square_root)
    still = {**MASKED, "optimiser": {"lr": 1e-12, "weight_decay": 0.0}, "sequence": {"length": 3, "starts": 1}}
    recipe = tiny(steps=1, **still)
    checkpoint = train(recipe, dataset, tmp_path).checkpoint
    assert checkpoint is not None
    network = load_checkpoint(checkpoint, cwm=False).network
    frames = SampleSource(dataset, recipe, 1).batch(0).frames
    last = network_inputs(frames, 1, IMAGENET_MEAN, IMAGENET_STD, "RGB")[-1]
    # The first norm follows the stem, which has no mask: it starts at mean 0 and keeps 1 - 0.1 of it.
    mean = network.backbone.conv1(last).mean((0, 2, 3)).detach()
    torch.testing.assert_close(network.backbone.bn1.running_mean, 0.1 * mean, rtol=1e-3, atol=1e-5)


def test_masked_network_is_trained_on_drives_into_camvids_stills(camvid_root: Path, tmp_path: Path) -> None:
    tables = {**MASKED, "data": {"size_hw": [48, 64], "stills": True}, "run": {"val_frames": 2, "warm_up_frames": 2}}
    losses = Losses()
    result = train(tiny(steps=2, **tables), open_dataset(camvid_root), tmp_path, reporter=losses)
    # Fresh weights on 11 classes: the loss starts near ln 11.
    assert losses.values[0] == pytest.approx(2.4, abs=1.5)
    assert result.scores["frames"] == 4


@pytest.mark.parametrize("stop_after", [1, 3])
def test_stopped_training_resumes_to_the_same_bytes(square_root: Path, tmp_path: Path, stop_after: int) -> None:
    dataset, recipe = open_dataset(square_root), tiny(steps=4, **MASKED)
    whole = train(recipe, dataset, tmp_path / "whole")
    asked = iter(range(1, 100))
    part = train(recipe, dataset, tmp_path / "part", should_stop=lambda: next(asked) >= stop_after)
    assert (part.step, part.finished, part.checkpoint) == (stop_after, False, None)
    resumed = train(recipe, dataset, tmp_path / "part", resume=True)
    assert resumed.scores == whole.scores
    for name in (CHECKPOINT_FILE, STATE_FILE, LOG_FILE):
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


CHILD = """
import sys, torch
torch.set_num_threads(1)
from edgeseg.data.open import open_dataset
from edgeseg.training.loop import train
from edgeseg.training.recipe_file import load_recipe
train(load_recipe(sys.argv[1]), open_dataset(sys.argv[2]), sys.argv[3])
"""
CHILD_RECIPE = """
name = "child"
[data]
size_hw = [32, 48]
[network]
width = 0.125
[augment]
scale = [0.75, 1.5]
[optimiser]
steps = 30
batch = 2
[run]
checkpoint_every = 3
validate_every = 12
val_frames = 3
"""


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As many threads as the child process has: sums of several threads may differ in the last bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_training_gives_the_same_bytes_when_killed_and_resumed(square_root: Path, tmp_path: Path) -> None:
    path, dataset = tmp_path / "child.toml", open_dataset(square_root)
    path.write_text(CHILD_RECIPE)
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path), str(square_root), str(killed)])
    deadline = time.monotonic() + 60
    while not (killed / STATE_FILE).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    assert child.wait(10) == -signal.SIGKILL
    recipe = load_recipe(str(path))
    train(recipe, dataset, whole)
    train(recipe, dataset, killed, resume=True)
    for name in (CHECKPOINT_FILE, STATE_FILE, LOG_FILE):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name


def test_finished_training_is_left_alone_when_resumed(square_root: Path, tmp_path: Path) -> None:
    dataset, recipe = open_dataset(square_root), tiny(steps=1)
    first = train(recipe, dataset, tmp_path)
    before = (tmp_path / CHECKPOINT_FILE).stat().st_mtime_ns
    assert train(recipe, dataset, tmp_path, resume=True) == first
    assert (tmp_path / CHECKPOINT_FILE).stat().st_mtime_ns == before


def test_folder_of_another_training_is_refused_without_resume(square_root: Path, tmp_path: Path) -> None:
    dataset = open_dataset(square_root)
    train(tiny(steps=1), dataset, tmp_path)
    with pytest.raises(InputError, match=r"already holds a training \| go on with --resume"):
        train(tiny(steps=1), dataset, tmp_path)


def test_resuming_by_another_recipe_is_refused_with_the_difference(square_root: Path, tmp_path: Path) -> None:
    dataset = open_dataset(square_root)
    train(tiny(steps=1), dataset, tmp_path)
    with pytest.raises(InputError, match=r"another recipe: optimiser.steps \| optimiser.steps was 1, is 2"):
        train(tiny(steps=2), dataset, tmp_path, resume=True)


def test_start_from_another_network_is_refused(square_root: Path, tmp_path: Path) -> None:
    dataset = open_dataset(square_root)
    narrow = train(tiny(steps=1), dataset, tmp_path / "narrow").checkpoint
    with pytest.raises(ArtifactError, match="checkpoint of another network"):
        train(tiny(steps=1, network={"width": 0.25}), dataset, tmp_path / "wide", start_from=narrow)


def test_checkpoint_remembers_what_its_first_weights_were_trained_on(square_root: Path, tmp_path: Path) -> None:
    dataset = open_dataset(square_root)
    dense = train(tiny(steps=1, data={"train_split": "val", "val_split": "train"}), dataset, tmp_path / "dense")
    recipe, seen = tiny(steps=2, data={"val_split": "test"}), [{"dataset": "square", "splits": ["val"]}]
    shutil.copytree(square_root, tmp_path / "copy")
    for kind in ("frames", "labels"):
        shutil.copytree(tmp_path / "copy" / kind / "val", tmp_path / "copy" / kind / "test")
    copied = open_dataset(tmp_path / "copy")
    train(recipe, copied, tmp_path / "next", start_from=dense.checkpoint, should_stop=lambda: True)
    resumed = train(recipe, copied, tmp_path / "next", resume=True)
    assert resumed.checkpoint is not None
    assert load_checkpoint(resumed.checkpoint).meta.trained_on["before"] == seen


def test_start_from_weights_that_saw_the_validation_split_is_refused(square_root: Path, tmp_path: Path) -> None:
    dataset = open_dataset(square_root)
    dense = train(tiny(steps=1, data={"train_split": "val", "val_split": "train"}), dataset, tmp_path / "dense")
    with pytest.raises(InputError, match="was trained on square val, so it is not scored there"):
        train(tiny(steps=1), dataset, tmp_path / "next", start_from=dense.checkpoint)


def test_loss_that_is_no_number_ends_the_training(square_root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"loss is (nan|inf) at step \d+ \| lower optimiser.lr"):
        train(tiny(steps=30, optimiser={"name": "sgd", "lr": 1e30}), open_dataset(square_root), tmp_path)


@pytest.mark.parametrize(
    ("device", "message"), [("gpu", "unknown device"), ("meta", "not trained on"), ("cuda:99", "not there")]
)
def test_device_that_is_not_there_is_refused(square_root: Path, tmp_path: Path, device: str, message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        train(tiny(), open_dataset(square_root), tmp_path, device=device)
