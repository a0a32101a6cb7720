"""`edgeseg train` from the outside: results on stdout, progress on stderr, Ctrl-C leaves a state to go on from."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from edgeseg.cli.train import command
from edgeseg.errors import InputError
from edgeseg.training import recipe_file

RECIPE = """
[data]
size_hw = [32, 48]
[network]
width = 0.125
[optimiser]
steps = 4
batch = 2
[run]
validate_every = 2
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set of two noisy frames per split, and a recipe beside it."""
    root = tmp_path / "data"
    root.mkdir()
    (root / "dataset.toml").write_text('name = "noise"\nfps = 10.0\n[classes]\nnames = ["dark", "bright"]\n')
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for index in range(2):
            labels = random.integers(0, 2, (32, 48), np.uint8)
            for kind, image in (("frames", np.repeat(labels[..., None] * np.uint8(200), 3, 2)), ("labels", labels)):
                (root / kind / split).mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(root / kind / split / f"{index}.png"), image)
    (tmp_path / "noise.toml").write_text(RECIPE)
    return tmp_path


def arguments(folder: Path, *more: str) -> list[str]:
    return [str(folder / "noise.toml"), "--data", str(folder / "data"), "--out", str(folder / "run"), *more]


def test_result_is_json_alone_on_stdout_when_asked(folder: Path) -> None:
    result = CliRunner().invoke(command, arguments(folder, "--json"), catch_exceptions=False)
    report = json.loads(result.stdout)
    assert report["step"] == 4
    assert set(report["scores"]) == {"miou", "moving_miou", "iou", "frames"}
    assert Path(report["checkpoint"]).is_file()
    assert "step 2 of 4: loss" in result.stderr


def test_set_overrides_the_recipe(folder: Path) -> None:
    result = CliRunner().invoke(command, arguments(folder, "--set", "optimiser.steps=1"), catch_exceptions=False)
    assert "after 1 steps" in result.stdout


def test_recipe_without_data_asks_for_it(folder: Path) -> None:
    with pytest.raises(InputError, match=r"recipe noise names no data set \| give it with --data PATH"):
        CliRunner().invoke(command, [str(folder / "noise.toml")], catch_exceptions=False)


def test_data_path_with_a_quote_is_taken_as_it_is(folder: Path) -> None:
    with pytest.raises(InputError, match=r"it's \"odd\"=1: no such folder"):
        CliRunner().invoke(command, [str(folder / "noise.toml"), "--data", 'it\'s "odd"=1'], catch_exceptions=False)


def test_ctrl_c_leaves_a_state_and_says_how_to_go_on(folder: Path) -> None:
    endless = ("--set", "optimiser.steps=100000", "--set", "run.validate_every=1")
    child = subprocess.Popen(
        [sys.executable, "-c", "from edgeseg.cli.train import command; command()", *arguments(folder, *endless)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 60
    while not (folder / "run" / "checkpoint.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=30)
    assert child.returncode == 130
    assert "go on with the same command and --resume" in errors
    assert sorted(path.name for path in (folder / "run").iterdir()) == [
        "checkpoint.safetensors",
        "log.csv",
        "state.safetensors",
    ]


def test_resume_says_so_in_one_line_when_the_training_is_finished(folder: Path) -> None:
    line = arguments(folder, "--resume", "--set", "optimiser.steps=1")
    first = CliRunner().invoke(command, line, catch_exceptions=False)
    again = CliRunner().invoke(command, line, catch_exceptions=False)
    assert "nothing to resume" not in first.stderr
    (said,) = again.stderr.splitlines()
    assert "nothing to resume: all 1 steps of the training in" in said
    assert again.stdout == first.stdout


def test_resume_says_so_when_there_is_nothing_to_resume(folder: Path) -> None:
    line = arguments(folder, "--resume", "--set", "optimiser.steps=1")
    result = CliRunner().invoke(command, line, catch_exceptions=False)
    assert result.exit_code == 0
    assert "to resume: starting anew" in result.stderr


def test_help_lists_every_recipe_of_the_folder_with_what_it_trains() -> None:
    text = CliRunner().invoke(command, ["--help"], catch_exceptions=False).stdout
    shipped = Path(recipe_file.__file__).parent / "recipes"
    names = sorted(path.stem for path in shipped.glob("*.toml"))
    assert re.findall(r"^  ([a-z-]+)  ", text.partition("Recipes:")[2], re.MULTILINE) == names
    assert re.search(r"^  street-vit +Segmenter on ViT-Ti that learns to pause patches", text, re.MULTILINE)


def test_every_shipped_recipe_begins_with_what_it_trains() -> None:
    assert [name for name, summary in recipe_file.recipe_summaries().items() if not 10 < len(summary) < 120] == []
