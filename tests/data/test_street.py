"""The street simulator: exact, reproducible, and as fast-moving as real video."""

import copy
import hashlib
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
import pytest

from edgeseg.classes import CAMVID
from edgeseg.data.open import open_dataset
from edgeseg.data.street import SPLIT_SEEDS, StreetDataset, StreetVideo
from edgeseg.data.video import check_labels
from edgeseg.errors import InputError
from edgeseg.metrics.confusion import ConfusionMatrix

CAMVID_MOTION = {1: 0.743, 2: 0.643, 3: 0.580, 4: 0.543}
"""mIoU of CamVid's labels k frames late at 15 Hz (val)."""
SMALL_HW = (96, 128)


@pytest.fixture(scope="module")
def val_labels() -> list[list[np.ndarray]]:
    """Label maps of the val split, by video."""
    videos = StreetDataset(size_hw=(180, 240), frames=(1, 30, 1)).videos("val")
    return [[video.labels(index) for index in range(len(video))] for video in videos]


def digest(video: StreetVideo, indices: Sequence[int]) -> str:
    """One hash over frames and label maps."""
    total = hashlib.sha256()
    for index in indices:
        frame, labels = video.render(index)
        total.update(frame.tobytes() + labels.tobytes())
    return total.hexdigest()


def test_frame_and_labels_have_the_asked_size_and_type() -> None:
    frame, labels = StreetVideo(1, 2, size_hw=SMALL_HW).render(1)
    assert (frame.shape, frame.dtype, labels.shape, labels.dtype) == ((96, 128, 3), np.uint8, SMALL_HW, np.uint8)


def test_frames_are_equal_in_two_instances_whatever_the_order() -> None:
    first, second = (StreetVideo(5, 200, size_hw=SMALL_HW) for _ in range(2))
    second.render(199)
    assert digest(first, [0, 7, 150]) == digest(second, [0, 7, 150])


def test_frames_are_equal_when_opencv_uses_more_threads() -> None:
    threads = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        alone = digest(StreetVideo(5, 9, size_hw=(360, 480)), [0, 8])
        cv2.setNumThreads(4)
        together = digest(StreetVideo(5, 9, size_hw=(360, 480)), [0, 8])
    finally:
        cv2.setNumThreads(threads)
    assert alone == together


def test_frames_are_equal_in_another_process() -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "from test_street import *; print(digest(StreetVideo(5, 9, size_hw=SMALL_HW), [0, 8]))"
    )
    command = [sys.executable, "-c", program, os.path.dirname(__file__)]
    printed = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONHASHSEED": "7"}
    )
    assert printed.stdout.strip() == digest(StreetVideo(5, 9, size_hw=SMALL_HW), [0, 8])


def test_two_rates_show_the_same_at_common_times() -> None:
    slow, fast = StreetVideo(6, 60, 15.0, SMALL_HW), StreetVideo(6, 120, 30.0, SMALL_HW)
    assert digest(slow, [0, 13, 47]) == digest(fast, [0, 26, 94])


def test_two_seeds_show_different_streets() -> None:
    assert digest(StreetVideo(6, 1, size_hw=SMALL_HW), [0]) != digest(StreetVideo(7, 1, size_hw=SMALL_HW), [0])


def test_two_sizes_show_the_same_scene() -> None:
    small, large = (StreetVideo(8, 1, size_hw=size).labels(0) for size in ((120, 160), (360, 480)))
    assert np.mean(large[1::3, 1::3] == small) > 0.93


def test_copies_render_the_same_when_pickled_or_copied() -> None:
    video = StreetVideo(9, 3, 30.0, SMALL_HW)
    expected = digest(video, [2])
    assert {digest(pickle.loads(pickle.dumps(video)), [2]), digest(copy.deepcopy(video), [2])} == {expected}  # noqa: S301


def test_frames_handed_out_are_the_callers_own() -> None:
    video = StreetVideo(9, 3, size_hw=SMALL_HW)
    video.frame_rgb(0)[:] = 0
    video.labels(0)[:] = 0
    frame, labels = video.render(0)
    assert np.array_equal(video.frame_rgb(0), frame)
    assert np.array_equal(video.labels(0), labels)


@pytest.mark.parametrize("size_hw", [(32, 64), (64, 64), (65, 131), (181, 97), (64, 700)])
def test_every_pixel_is_labelled_with_a_class_at_odd_sizes(size_hw: tuple[int, int]) -> None:
    video = StreetVideo(3, 31, size_hw=size_hw)
    for index in (0, 30):
        labels = check_labels(video.labels(index), CAMVID, size_hw, video.name)
        assert labels.max() < len(CAMVID)
        assert video.frame_rgb(index).shape == (*size_hw, 3)


def test_every_class_occurs_in_every_val_video(val_labels: list[list[np.ndarray]]) -> None:
    for maps in val_labels:
        assert set(np.unique(np.stack(maps))) == set(range(len(CAMVID)))


def test_classes_are_shared_out_as_on_a_real_street(val_labels: list[list[np.ndarray]]) -> None:
    pixels = np.bincount(np.stack([np.stack(maps) for maps in val_labels]).ravel(), minlength=len(CAMVID))
    share = dict(zip(CAMVID.names, pixels / pixels.sum(), strict=True))
    assert 0.25 < share["road"] < 0.42
    assert 0.15 < share["building"] < 0.3
    assert 0.05 < share["tree"] < 0.18
    assert max(share["pole"], share["sign"], share["pedestrian"], share["bicyclist"]) < 0.025
    assert min(share["pole"], share["sign"], share["pedestrian"], share["bicyclist"]) > 0.002


@pytest.mark.parametrize("k", sorted(CAMVID_MOTION))
def test_old_labels_score_as_on_camvid(val_labels: list[list[np.ndarray]], k: int) -> None:
    matrix = ConfusionMatrix(len(CAMVID))
    for maps in val_labels:
        for late, labels in zip(maps, maps[k:], strict=False):
            matrix.add(labels, late)
    assert matrix.scores().miou == pytest.approx(CAMVID_MOTION[k], abs=0.08)


def test_image_edges_lie_where_labels_change() -> None:
    video = StreetVideo(2_000_002, 30, size_hw=(256, 512))
    at_boundary, elsewhere = [], []
    for index in range(0, 30, 10):
        frame, labels = video.render(index)
        step = np.abs(np.diff(frame.astype(int), axis=1)).sum(axis=2)
        changes = np.diff(labels.astype(int), axis=1) != 0
        at_boundary.append(step[changes].mean())
        elsewhere.append(step[~changes].mean())
    assert np.mean(at_boundary) > 3 * np.mean(elsewhere)


def test_splits_share_no_video() -> None:
    dataset = StreetDataset(size_hw=SMALL_HW)
    names = [video.name for split in dataset.splits for video in dataset.videos(split)]
    assert len(names) == len(set(names)) == 60


def test_largest_splits_keep_to_their_seeds() -> None:
    first = sorted(SPLIT_SEEDS.values())
    assert all(after - before >= 1_000_000 for before, after in pairwise(first))


def test_dataset_passes_its_parameters_on_when_opened_by_name() -> None:
    dataset = open_dataset("street", size_hw=SMALL_HW, fps=30, videos=(3, 2, 1), frames=(4, 5, 6))
    assert [len(dataset.videos(split)) for split in ("train", "val", "test")] == [3, 2, 1]
    video = dataset.videos("val")[1]
    assert (video.fps, video.size_hw, len(video), dataset.classes) == (30.0, SMALL_HW, 5, CAMVID)


def test_unknown_split_is_refused() -> None:
    with pytest.raises(InputError, match="street has no split 'all'"):
        StreetDataset().videos("all")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "seed is not usable"),
        ({"seed": 1.5}, "seed is not usable"),
        ({"seed": 2**63}, "seed is not usable"),
        ({"frames": 0}, "too few frames"),
        ({"frames": 1_300_000}, "drive is too long"),
        ({"fps": 0}, "frame rate is not usable"),
        ({"fps": float("nan")}, "frame rate is not usable"),
        ({"fps": "15"}, "frame rate is not usable"),
        ({"size_hw": (31, 480)}, "size_hw is not usable"),
        ({"size_hw": (360, 5000)}, "size_hw is not usable"),
        ({"size_hw": (360.0, 480.0)}, "size_hw is not usable"),
        ({"size_hw": 360}, "size_hw is not usable"),
    ],
)
def test_video_refuses_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        StreetVideo(**{"seed": 1, "frames": 1, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"videos": (1, 0, 1)}, "videos is not usable"),
        ({"videos": (1_000_001, 1, 1)}, "videos is not usable"),
        ({"frames": (1, 1)}, "frames is not usable"),
        ({"fps": -1}, "frame rate is not usable"),
        ({"size_hw": (10, 10)}, "size_hw is not usable"),
    ],
)
def test_dataset_refuses_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        StreetDataset(**arguments)


@pytest.mark.parametrize("index", [-1, 3, 1.0, True])
def test_frame_outside_of_the_video_is_refused(index: object) -> None:
    video = StreetVideo(1, 3, size_hw=SMALL_HW)
    with pytest.raises(InputError, match="has no frame"):
        video.frame_rgb(index)  # type: ignore[arg-type]
