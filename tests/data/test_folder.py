"""A user's own folder: dataset.toml, frames/ and labels/."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg.data.folder import FolderDataset
from edgeseg.errors import InputError

DESCRIPTION = """
name = "yard"
fps = 12.5

[classes]
names = ["ground", "cart"]
palette = [[1, 2, 3], [4, 5, 6]]
ignore_value = 9
movable = ["cart"]
"""


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def make_folder(root: Path, places: tuple[str, ...] = ("train/a", "train/b", "val/c"), labelled: int = 2) -> Path:
    (root / "dataset.toml").write_text(DESCRIPTION)
    for place in places:
        for index in range(3):
            save(root / "frames" / place / f"{index:03d}.jpg", np.full((4, 6, 3), 50 * index, np.uint8))
            if index < labelled:
                save(root / "labels" / place / f"{index:03d}.png", np.full((4, 6), index, np.uint8))
    return root


def test_videos_carry_the_description(tmp_path: Path) -> None:
    dataset = FolderDataset(make_folder(tmp_path))
    assert (dataset.name, dataset.splits) == ("yard", ("train", "val"))
    assert (dataset.classes.names, dataset.classes.ignore_value) == (("ground", "cart"), 9)
    assert [(video.name, video.fps) for video in dataset.videos("train")] == [("train_a", 12.5), ("train_b", 12.5)]


def test_frames_may_lack_labels(tmp_path: Path) -> None:
    video = FolderDataset(make_folder(tmp_path)).videos("val")[0]
    assert (len(video), video.labelled_indices(), int(video.labels(1)[0, 0])) == (3, [0, 1], 1)


def test_split_is_its_own_video_when_it_holds_the_images(tmp_path: Path) -> None:
    dataset = FolderDataset(make_folder(tmp_path, ("train", "val")))
    assert [video.name for split in dataset.splits for video in dataset.videos(split)] == ["train", "val"]


def test_split_is_val_when_frames_holds_the_images(tmp_path: Path) -> None:
    dataset = FolderDataset(make_folder(tmp_path, (".",)))
    assert (dataset.splits, dataset.videos("val")[0].name) == (("val",), "yard")


def test_palette_is_made_when_left_out(tmp_path: Path) -> None:
    root = make_folder(tmp_path)
    (root / "dataset.toml").write_text(DESCRIPTION.replace("palette = [[1, 2, 3], [4, 5, 6]]\n", ""))
    assert len(FolderDataset(root).classes.palette) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("fps = 12.5", ""), "missing fps"),
        (("fps = 12.5", "fps = 0"), "fps is not a frame rate"),
        (("fps = 12.5", 'fps = "12"'), "fps is not a frame rate"),
        (("fps = 12.5", "fps = 12.5\nrate = 3"), "unknown rate"),
        (("movable", "moveable"), "unknown moveable"),
        (('["ground", "cart"]', '["ground", "ground"]'), "must be unique"),
        (("[classes]", "[classes"), "not valid TOML"),
        (('name = "yard"', "name = 3"), "name is not a text"),
    ],
)
def test_description_is_refused_when_wrong(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    root = make_folder(tmp_path)
    (root / "dataset.toml").write_text(DESCRIPTION.replace(*change))
    with pytest.raises(InputError, match=rf"dataset\.toml.*{message}"):
        FolderDataset(root)


def test_error_names_the_description_when_it_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"dataset\.toml: cannot be read"):
        FolderDataset(tmp_path)


def test_error_names_labels_when_the_folder_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="labels: no such folder"):
        FolderDataset(make_folder(tmp_path, labelled=0))


def test_error_says_so_when_there_are_no_frames(tmp_path: Path) -> None:
    root = make_folder(tmp_path, ())
    (root / "frames/train/a").mkdir(parents=True)
    (root / "labels").mkdir()
    with pytest.raises(InputError, match="frames: no images found"):
        FolderDataset(root)


def test_error_says_so_when_there_are_no_label_maps(tmp_path: Path) -> None:
    root = make_folder(tmp_path, labelled=0)
    (root / "labels").mkdir()
    with pytest.raises(InputError, match="labels: no label maps found"):
        FolderDataset(root)


def test_error_names_the_label_map_when_it_has_no_frame(tmp_path: Path) -> None:
    root = make_folder(tmp_path)
    save(root / "labels/val/c/0001.png", np.zeros((4, 6), np.uint8))
    with pytest.raises(InputError, match=r"val/c/0001\.png: label map without frame"):
        FolderDataset(root)


def test_error_names_the_folder_when_images_lie_beside_subfolders(tmp_path: Path) -> None:
    root = make_folder(tmp_path, ("train", "train/a"))
    with pytest.raises(InputError, match="train: images and subfolders side by side"):
        FolderDataset(root)


def test_label_value_is_refused_when_no_class_has_it(tmp_path: Path) -> None:
    root = make_folder(tmp_path)
    save(root / "labels/val/c/000.png", np.full((4, 6), 2, np.uint8))
    with pytest.raises(InputError, match=r"000\.png: label value 2 .* expected 0 to 1, or 9"):
        FolderDataset(root).videos("val")[0].labels(0)
