"""Which data set a name or a folder is taken for."""

import subprocess
import sys
from pathlib import Path

import pytest

from edgeseg.data.open import open_dataset
from edgeseg.errors import InputError


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("valannot", "no CamVid images found"),
        ("leftImg8bit", "no Cityscapes images found"),
        ("leftImg8bit_sequence", "no Cityscapes images found"),
    ],
)
def test_layout_is_recognised_by_its_folder(tmp_path: Path, folder: str, message: str) -> None:
    (tmp_path / folder).mkdir()
    with pytest.raises(InputError, match=message):
        open_dataset(str(tmp_path))


def test_own_folder_is_recognised_by_its_description(tmp_path: Path) -> None:
    (tmp_path / "dataset.toml").write_text('name = "yard"\nfps = 10\n[classes]\nnames = ["ground"]\n')
    with pytest.raises(InputError, match="frames: no such folder"):
        open_dataset(tmp_path)


def test_camvid_is_opened_from_its_folder(camvid_root: Path) -> None:
    assert open_dataset(str(camvid_root)).name == "camvid"


def test_options_are_refused_for_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="options fps are for 'street'"):
        open_dataset(tmp_path, fps=30)


def test_known_layouts_are_named_when_folder_is_missing(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"nowhere: no such folder \| expected 'street\[:HxW\]\[@FPS\]' or a folder with dataset\.toml"
    ):
        open_dataset(tmp_path / "nowhere")


def test_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "video.mp4").touch()
    with pytest.raises(InputError, match=r"video\.mp4: a file"):
        open_dataset(tmp_path / "video.mp4")


def test_error_says_empty_when_folder_is_empty(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"it is empty \| looked for"):
        open_dataset(tmp_path)


def test_error_says_what_is_there_when_layout_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "holiday.txt").touch()
    with pytest.raises(InputError, match=r"it holds holiday\.txt \| looked for .*leftImg8bit"):
        open_dataset(tmp_path)


def test_street_options_reach_the_simulator() -> None:
    video = open_dataset("street", size_hw=(32, 64), fps=10.0).videos("val")[0]
    assert (video.size_hw, video.fps) == ((32, 64), 10.0)


def test_import_loads_neither_simulator_nor_opencv() -> None:
    code = "import sys, edgeseg.data.open; print(sorted({'cv2', 'torch', 'edgeseg.data.street'} & sys.modules.keys()))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_simulator_takes_size_and_rate_from_its_name():
    video = open_dataset("street:64x96@30").videos("val")[0]
    assert (video.size_hw, video.fps) == ((64, 96), 30.0)


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("street:64x96", {"size_hw": (32, 64)}, "both give size_hw"),
        ("street", {"seed": 1}, r"no option seed \| known: size_hw, fps"),
        ("street:64", {}, "no such folder"),
    ],
)
def test_simulator_is_refused_when_its_options_make_no_sense(spec, options, message):
    with pytest.raises(InputError, match=message):
        open_dataset(spec, **options)
