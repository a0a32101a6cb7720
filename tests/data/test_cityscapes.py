"""Cityscapes' layout on made files: two snippets of one city."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg.data.cityscapes import Cityscapes
from edgeseg.errors import InputError

LABEL_IDS = np.array([[7, 8, 11, 12, 13, 17, 19], [20, 21, 22, 23, 24, 25, 26], [27, 28, 31, 32, 33, 0, 6]], np.uint8)
TRAIN_IDS = np.array([[0, 1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12, 13], [14, 15, 16, 17, 18, 255, 255]], np.uint8)
LABELLED = (19, 164)


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def frame(number: int) -> np.ndarray:
    return np.full((3, 7, 3), number, np.uint8)


def make_stills(root: Path, split: str = "val") -> Path:
    for number in LABELLED:
        stem = f"bonn_000000_{number:06d}"
        save(root / "leftImg8bit" / split / "bonn" / f"{stem}_leftImg8bit.png", frame(number))
        save(root / "gtFine" / split / "bonn" / f"{stem}_gtFine_labelIds.png", LABEL_IDS)
    return root


def make_sequences(root: Path, split: str = "val") -> Path:
    make_stills(root, split)
    for labelled in LABELLED:
        for number in range(labelled - 19, labelled + 11):
            name = f"bonn_000000_{number:06d}_leftImg8bit.png"
            save(root / "leftImg8bit_sequence" / split / "bonn" / name, frame(number))
    return root


def test_snippet_is_30_frames_at_17_hz_when_sequences_are_there(tmp_path: Path) -> None:
    videos = Cityscapes(make_sequences(tmp_path)).videos("val")
    assert [(video.name, video.fps, len(video)) for video in videos] == [
        ("bonn_000000_000019", 17.0, 30),
        ("bonn_000000_000164", 17.0, 30),
    ]


def test_only_the_20th_frame_is_labelled_when_sequences_are_there(tmp_path: Path) -> None:
    video = Cityscapes(make_sequences(tmp_path)).videos("val")[1]
    assert video.labelled_indices() == [19]
    assert int(video.frame_rgb(19)[0, 0, 0]) == 164


def test_frame_without_labels_is_an_error_when_asked_for(tmp_path: Path) -> None:
    video = Cityscapes(make_sequences(tmp_path)).videos("val")[0]
    with pytest.raises(InputError, match="frame 18 of bonn_000000_000019 has no labels"):
        video.labels(18)


def test_videos_are_single_labelled_frames_when_there_are_only_stills(tmp_path: Path) -> None:
    videos = Cityscapes(make_stills(tmp_path)).videos("val")
    assert [(len(video), video.labelled_indices()) for video in videos] == [(1, [0]), (1, [0])]


def test_label_ids_become_train_ids(tmp_path: Path) -> None:
    np.testing.assert_array_equal(Cityscapes(make_stills(tmp_path)).videos("val")[0].labels(0), TRAIN_IDS)


def test_train_ids_are_taken_as_they_are_when_only_they_exist(tmp_path: Path) -> None:
    root = make_stills(tmp_path)
    for path in sorted((root / "gtFine").rglob("*_labelIds.png")):
        path.unlink()
        save(path.with_name(path.name.replace("labelIds", "labelTrainIds")), TRAIN_IDS)
    np.testing.assert_array_equal(Cityscapes(root).videos("val")[0].labels(0), TRAIN_IDS)


def test_unknown_label_id_is_refused(tmp_path: Path) -> None:
    root = make_stills(tmp_path)
    save(root / "gtFine/val/bonn/bonn_000000_000019_gtFine_labelIds.png", np.full((3, 7), 40, np.uint8))
    with pytest.raises(InputError, match=r"000019_gtFine_labelIds\.png: label id 40 on 21 pixels"):
        Cityscapes(root).videos("val")[0].labels(0)


def test_test_split_has_frames_but_no_labels(tmp_path: Path) -> None:
    video = Cityscapes(make_stills(tmp_path, "test")).videos("test")[0]
    assert (len(video), video.labelled_indices()) == (1, [])


def test_splits_are_those_with_frames(tmp_path: Path) -> None:
    make_stills(tmp_path, "train")
    assert Cityscapes(make_sequences(tmp_path, "val")).splits == ("train", "val")


def test_error_names_the_frame_when_a_snippet_has_a_hole(tmp_path: Path) -> None:
    root = make_sequences(tmp_path)
    (root / "leftImg8bit_sequence/val/bonn/bonn_000000_000150_leftImg8bit.png").unlink()
    with pytest.raises(InputError, match=r"bonn_000000_000150_leftImg8bit\.png: frame missing"):
        Cityscapes(root).videos("val")


def test_error_names_the_label_map_when_it_is_missing(tmp_path: Path) -> None:
    root = make_stills(tmp_path)
    (root / "gtFine/val/bonn/bonn_000000_000164_gtFine_labelIds.png").unlink()
    with pytest.raises(InputError, match=r"bonn_000000_000164_gtFine_labelIds\.png: label map missing"):
        Cityscapes(root).videos("val")


def test_error_says_what_is_needed_when_there_are_only_sequences(tmp_path: Path) -> None:
    save(tmp_path / "leftImg8bit_sequence/val/bonn/bonn_000000_000000_leftImg8bit.png", frame(0))
    with pytest.raises(InputError, match=r"the labelled frames of val are not known \| expected gtFine/val"):
        Cityscapes(tmp_path).videos("val")


def test_layout_is_named_when_folder_is_empty(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no Cityscapes images found \| expected leftImg8bit"):
        Cityscapes(tmp_path)


def test_error_names_the_file_when_it_is_not_named_as_cityscapes_names(tmp_path: Path) -> None:
    root = make_stills(tmp_path)
    save(root / "gtFine/val/bonn/mine_gtFine_labelIds.png", LABEL_IDS)
    with pytest.raises(InputError, match=r"mine_gtFine_labelIds\.png: not a Cityscapes file name"):
        Cityscapes(root).videos("val")
