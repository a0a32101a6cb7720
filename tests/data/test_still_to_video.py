"""Videos made from labelled stills: exact labels, nothing from outside, CamVid's pace."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from edgeseg.data.camvid import CamVid
from edgeseg.data.still_to_video import Drive, StillVideo, still_to_video
from edgeseg.errors import InputError
from edgeseg.metrics.confusion import ConfusionMatrix

HEIGHT, WIDTH = 60, 80


def stripes() -> tuple[np.ndarray, np.ndarray]:
    """Labels in 8-pixel squares of 4 classes, and a frame whose red channel is 60 times the label."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] // 8
    labels = ((rows + 2 * columns) % 4).astype(np.uint8)
    frame_rgb = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    frame_rgb[..., 0] = labels * 60
    return frame_rgb, labels


def drive_into_stripes(seed: int = 0, frames: int = 6) -> StillVideo:
    frame_rgb, labels = stripes()
    return still_to_video(frame_rgb, labels, frames=frames, fps=15.0, seed=seed, ignore_value=255)


def test_frame_0_is_the_still() -> None:
    frame_rgb, labels = stripes()
    video = drive_into_stripes()
    np.testing.assert_array_equal(video.frame_rgb(0), frame_rgb)
    np.testing.assert_array_equal(video.labels(0), labels)


def test_video_has_the_length_rate_and_size_asked_for() -> None:
    video = drive_into_stripes(frames=7)
    assert (len(video), video.fps, video.size_hw, video.labelled_indices()) == (7, 15.0, (60, 80), list(range(7)))


@pytest.mark.parametrize("seed", range(5))
def test_labels_fit_the_frame_when_the_camera_has_moved(seed: int) -> None:
    video = drive_into_stripes(seed)
    red = video.frame_rgb(5)[..., 0].astype(int)
    pure = red % 60 == 0
    assert pure.mean() > 0.5
    # Other values of red are mixtures of two labels; a few mixtures are by chance the value of a third.
    assert (red[pure] // 60 == video.labels(5)[pure]).mean() > 0.98


def test_labels_are_those_of_the_nearest_source_pixel() -> None:
    _, labels = stripes()
    video = drive_into_stripes(seed=3)
    x, y = np.rint(video.source_xy(4)).astype(int)
    assert (labels[y, x] == video.labels(4)).mean() > 0.999


@pytest.mark.parametrize("fps", [2.0, 15.0])
def test_every_pixel_comes_from_inside_the_still(fps: float) -> None:
    for seed in range(60):
        drive = Drive(seed)
        for index in range(10):
            x, y = drive.source_xy((HEIGHT, WIDTH), index / fps)
            assert x.min() > -0.01
            assert x.max() < WIDTH - 1 + 0.01
            assert y.min() > -0.01
            assert y.max() < HEIGHT - 1 + 0.01


def test_every_pixel_comes_from_inside_the_still_when_the_camera_turns_fast() -> None:
    drive = Drive(seed=0)
    drive.yaw_per_s, drive.pitch_amplitude = 2.0, 0.5
    x, y = drive.source_xy((HEIGHT, WIDTH), 0.2)
    assert x.max() == pytest.approx(WIDTH - 1, abs=0.01)
    assert y.max() == pytest.approx(HEIGHT - 1, abs=0.01)


def test_near_ground_moves_more_than_the_distance() -> None:
    drive = Drive(seed=0)
    before, after = (drive.source_xy((HEIGHT, WIDTH), time_s) for time_s in (0.0, 0.2))
    moved = np.hypot(*(after - before))
    row, column = (int(share * size) for share, size in zip(drive.vanishing_yx, (HEIGHT, WIDTH), strict=True))
    assert moved[-1, column] > 3 * moved[row, column]


def test_way_never_shrinks_when_the_camera_brakes() -> None:
    drive = Drive(seed=0)
    drive.acceleration_per_s2 = -0.2 * drive.speed_per_s
    ways = [drive.way(time_s) for time_s in np.arange(0, 20, 0.5)]
    assert all(later >= earlier for earlier, later in pairwise(ways))


def test_frame_is_the_same_when_asked_for_in_another_order() -> None:
    video = drive_into_stripes()
    video.labels(2)
    np.testing.assert_array_equal(video.frame_rgb(5), drive_into_stripes().frame_rgb(5))


def test_same_seed_gives_the_same_video() -> None:
    np.testing.assert_array_equal(drive_into_stripes(4).frame_rgb(5), drive_into_stripes(4).frame_rgb(5))


def test_other_seed_gives_another_video() -> None:
    assert (drive_into_stripes(4).frame_rgb(5) != drive_into_stripes(5).frame_rgb(5)).any()


def test_half_the_rate_moves_twice_as_far_per_frame() -> None:
    frame_rgb, labels = stripes()
    slow, fast = (
        still_to_video(frame_rgb, labels, frames=5, fps=fps, seed=1, ignore_value=255).source_xy(index)
        for fps, index in ((10.0, 2), (20.0, 4))
    )
    np.testing.assert_array_equal(slow, fast)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros((60, 79), np.uint8)}, "labels do not fit the still"),
        ({"labels": np.zeros((60, 80), np.int64)}, "labels do not fit the still"),
        ({"frame_rgb": np.zeros((60, 80), np.uint8)}, "not an image"),
        ({"frame_rgb": np.zeros((60, 80, 3), np.float32)}, "not an image"),
        ({"frames": 0}, "must be positive"),
        ({"fps": 0.0}, "must be positive"),
    ],
)
def test_still_is_refused_when_wrong(change: dict, message: str) -> None:
    frame_rgb, labels = stripes()
    arguments = {"frame_rgb": frame_rgb, "labels": labels, "frames": 3, "fps": 15.0, "seed": 0, "ignore_value": 255}
    with pytest.raises(InputError, match=message):
        still_to_video(**{**arguments, **change})


def test_frame_outside_the_video_is_refused() -> None:
    with pytest.raises(InputError, match="it has frames 0 to 5"):
        drive_into_stripes().labels(6)


def test_pace_is_that_of_real_video_when_made_from_camvid_stills(camvid_root: Path) -> None:
    stills = [(video, index) for video in CamVid(camvid_root).videos("train") for index in range(0, len(video), 4)]
    matrices = {k: ConfusionMatrix(11) for k in (1, 2, 3, 4)}
    for seed, (still, index) in enumerate(stills):
        video = still_to_video(
            still.frame_rgb(index), still.labels(index), frames=9, fps=15.0, seed=seed, ignore_value=11
        )
        labels = [video.labels(t) for t in range(9)]
        for k, matrix in matrices.items():
            for late, now in zip(labels, labels[k:], strict=False):
                matrix.add(np.where(late == 11, 11, now), late)
    measured = {k: matrix.scores().miou for k, matrix in matrices.items()}
    assert measured == pytest.approx({1: 0.743, 2: 0.643, 3: 0.580, 4: 0.543}, abs=0.02)


def test_still_is_the_frame_that_was_asked_for() -> None:
    video = still_to_video(*stripes(), frames=5, fps=15, seed=3, ignore_value=255, still_index=3)
    np.testing.assert_array_equal(video.frame_rgb(3), stripes()[0])
    np.testing.assert_array_equal(video.labels(3), stripes()[1])


@pytest.mark.parametrize("seed", range(8))
def test_frames_before_the_still_show_it_smaller_with_an_ignored_rim(seed: int) -> None:
    video = still_to_video(*stripes(), frames=9, fps=15, seed=seed, ignore_value=255, still_index=8)
    ignored = [float((video.labels(index) == 255).mean()) for index in range(9)]
    assert ignored == sorted(ignored, reverse=True)
    assert ignored[-1] == 0 < ignored[-2]
    assert ignored[0] < 0.9


def test_still_that_is_none_of_the_frames_is_refused() -> None:
    with pytest.raises(InputError, match="the still is none of the frames"):
        still_to_video(*stripes(), frames=2, fps=15, seed=0, ignore_value=255, still_index=2)
