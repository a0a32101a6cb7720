"""CamVid's layout, on made files and on the real data."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg.data.camvid import CamVid
from edgeseg.errors import InputError
from edgeseg.metrics.confusion import ConfusionMatrix

TRAIN = ("0001TP_006690", "0006R0_f00930", "0006R0_f00960")
VAL = ("0016E5_07959", "0016E5_07961")


def make_camvid(root: Path, suffix: str = ".png") -> Path:
    for split, names in (("train", TRAIN), ("val", VAL)):
        (root / split).mkdir(parents=True)
        (root / f"{split}annot").mkdir()
        for grey, name in enumerate(names):
            cv2.imwrite(str(root / split / f"{name}{suffix}"), np.full((4, 6, 3), 40 * grey, np.uint8))
            cv2.imwrite(str(root / f"{split}annot" / f"{name}.png"), np.full((4, 6), grey, np.uint8))
    return root


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_val_is_one_15_hz_video_in_file_order(tmp_path: Path, suffix: str) -> None:
    (video,) = CamVid(make_camvid(tmp_path, suffix)).videos("val")
    assert (video.fps, len(video), video.size_hw) == (15.0, 2, (4, 6))
    assert [int(video.frame_rgb(i)[0, 0, 0]) for i in range(2)] == [0, 40]


def test_train_is_a_1_hz_video_per_recording(tmp_path: Path) -> None:
    videos = CamVid(make_camvid(tmp_path)).videos("train")
    assert [(video.name, len(video), video.fps) for video in videos] == [
        ("train_0001TP", 1, 1.0),
        ("train_0006R0", 2, 1.0),
    ]


def test_labels_belong_to_their_frame(tmp_path: Path) -> None:
    video = CamVid(make_camvid(tmp_path)).videos("train")[1]
    assert [int(video.labels(i)[0, 0]) for i in video.labelled_indices()] == [1, 2]


def test_split_is_not_listed_when_absent(tmp_path: Path) -> None:
    assert CamVid(make_camvid(tmp_path)).splits == ("train", "val")


def test_unknown_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="camvid has no split 'test'"):
        CamVid(make_camvid(tmp_path)).videos("test")


def test_error_names_the_label_file_when_it_is_missing(tmp_path: Path) -> None:
    root = make_camvid(tmp_path)
    (root / "valannot" / f"{VAL[1]}.png").unlink()
    with pytest.raises(InputError, match=r"val/0016E5_07961\.png: image without label map"):
        CamVid(root)


def test_error_names_the_label_file_when_its_image_is_missing(tmp_path: Path) -> None:
    root = make_camvid(tmp_path)
    (root / "train" / f"{TRAIN[0]}.png").unlink()
    with pytest.raises(InputError, match=r"trainannot/0001TP_006690\.png: label map without image"):
        CamVid(root)


def test_layout_is_named_when_folder_is_empty(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no CamVid images found \| expected train/ and trainannot/"):
        CamVid(tmp_path)


def test_layout_is_named_when_folder_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        CamVid(tmp_path / "nowhere")


def test_frame_in_two_splits_is_refused(tmp_path: Path) -> None:
    root = make_camvid(tmp_path)
    for folder in ("", "annot"):
        (root / f"val{folder}" / f"{TRAIN[0]}.png").write_bytes(
            (root / f"train{folder}" / f"{TRAIN[0]}.png").read_bytes()
        )
    with pytest.raises(InputError, match="the same frame is in train/"):
        CamVid(root)


def test_labels_of_another_size_are_refused(tmp_path: Path) -> None:
    root = make_camvid(tmp_path)
    cv2.imwrite(str(root / "valannot" / f"{VAL[0]}.png"), np.zeros((4, 5), np.uint8))
    with pytest.raises(InputError, match=r"07959\.png: label map of another size \| got \(4, 5\)"):
        CamVid(root).videos("val")[0].labels(0)


def test_label_value_out_of_range_is_refused(tmp_path: Path) -> None:
    root = make_camvid(tmp_path)
    cv2.imwrite(str(root / "valannot" / f"{VAL[0]}.png"), np.full((4, 6), 12, np.uint8))
    with pytest.raises(InputError, match=r"07959\.png: label value 12 on 24 pixels"):
        CamVid(root).videos("val")[0].labels(0)


def test_frame_of_another_size_is_refused(tmp_path: Path) -> None:
    root = make_camvid(tmp_path)
    cv2.imwrite(str(root / "val" / f"{VAL[1]}.png"), np.zeros((5, 6, 3), np.uint8))
    with pytest.raises(InputError, match=r"07961\.png: frame of another size"):
        CamVid(root).videos("val")[0].frame_rgb(1)


@pytest.mark.parametrize("index", [-1, 2])
def test_frame_outside_the_video_is_refused(tmp_path: Path, index: int) -> None:
    (video,) = CamVid(make_camvid(tmp_path)).videos("val")
    with pytest.raises(InputError, match="it has frames 0 to 1"):
        video.frame_rgb(index)


def test_real_camvid_has_its_frames_and_rates(camvid_root: Path) -> None:
    dataset = CamVid(camvid_root)
    assert sum(len(video) for video in dataset.videos("train")) == 367
    (val,) = dataset.videos("val")
    assert (len(val), val.fps, val.size_hw) == (101, 15.0, (360, 480))
    assert val.frame_rgb(100).shape == (360, 480, 3)


def test_real_val_moves_as_measured_when_labels_are_k_frames_late(camvid_root: Path) -> None:
    (video,) = CamVid(camvid_root).videos("val")
    labels = [video.labels(index) for index in range(len(video))]
    measured = {}
    for k in (1, 2, 3, 4, 6, 8):
        matrix = ConfusionMatrix(11)
        for late, now in zip(labels, labels[k:], strict=False):
            matrix.add(np.where(late == 11, 11, now), late)
        measured[k] = matrix.scores().miou
    assert measured == pytest.approx({1: 0.743, 2: 0.643, 3: 0.580, 4: 0.543, 6: 0.497, 8: 0.458}, abs=0.002)
