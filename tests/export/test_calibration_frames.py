from collections.abc import Sequence

import numpy as np
import pytest

from edgeseg.classes import ClassSet
from edgeseg.data.video import Dataset, Video
from edgeseg.errors import InputError
from edgeseg.export.cached_video import CachedVideo, FrameCache
from edgeseg.export.calibration_frames import CalibrationFrames, CalibrationSource, open_calibration
from edgeseg.export.evaluation_data import EvaluationData

HW = (32, 48)


class Numbered(Video):
    """Frame i of video n has the value 10 n + i everywhere."""

    def __init__(self, number: int, frames: int, fps: float = 10.0, size_hw: tuple[int, int] = HW) -> None:
        self.name, self.number, self.frames, self.fps, self.size_hw = f"v{number}", number, frames, fps, size_hw

    def __len__(self) -> int:
        return self.frames

    def frame_rgb(self, index: int) -> np.ndarray:
        return np.full((*self.size_hw, 3), 10 * self.number + index, np.uint8)

    def labels(self, index: int) -> np.ndarray:
        return np.zeros(self.size_hw, np.uint8)


class Numbers(Dataset):
    name = "numbers"
    classes = ClassSet(("road", "car"), ((0, 0, 0), (9, 9, 9)))

    def __init__(self, **videos: Sequence[Video]) -> None:
        self._videos = videos

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._videos)

    def videos(self, split: str) -> Sequence[Video]:
        self._check_split(split)
        return self._videos[split]


def source(*videos: Video, images: int = 8, fps: float = 10.0) -> CalibrationSource:
    cache = FrameCache(1 << 20)
    return CalibrationSource("numbers", "train", tuple(CachedVideo(video, cache) for video in videos), images, fps)


def data(split: str = "val", size_hw: tuple[int, int] = HW, **videos: Sequence[Video]) -> EvaluationData:
    return EvaluationData.open(Numbers(**{"val": [Numbered(5, 9, size_hw=size_hw)], **videos}), split)


def counted_values(stretches, size_hw=HW):
    frames = CalibrationFrames(stretches, size_hw)
    return [int(frame[0, 0, 0]) for each in stretches for frame in list(frames.of(each))[each.warm_up :]]


def test_single_frames_are_spread_evenly_over_all_videos():
    chosen = source(Numbered(0, 8), Numbered(1, 24)).stretches(phases=1, warm_up=0)
    assert counted_values(chosen) == [2, 6, 12, 16, 20, 24, 28, 32]


def test_all_frames_are_taken_when_there_are_just_enough():
    assert counted_values(source(Numbered(0, 8)).stretches(phases=1, warm_up=0)) == list(range(8))


def test_frames_that_count_are_consecutive_distinct_and_follow_the_warm_up():
    chosen = source(Numbered(0, 30), Numbered(4, 30)).stretches(phases=2, warm_up=8)
    values = counted_values(chosen)
    assert [len(each.frames) for each in chosen] == [12] * 4
    assert len(set(values)) == len(values) == 16
    assert values[:4] == [values[0] + step for step in range(4)]
    assert min(values) >= 8
    assert any(value >= 48 for value in values)


def test_stretches_are_shorter_when_there_is_little_video():
    chosen = source(Numbered(0, 26), images=9).stretches(phases=2, warm_up=8)
    assert [each.counted for each in chosen] == [2] * 9


def test_too_little_video_for_states_says_how_many_images_there_are():
    message = (
        r"too little video .* gives 9 images with 8 frames before them, --calib-images asks for 10 .*--calib-images 9"
    )
    with pytest.raises(InputError, match=message):
        source(Numbered(0, 26), images=10).stretches(phases=2, warm_up=8)


def test_stills_become_video_when_a_network_has_states():
    stills = source(Numbered(0, 10, fps=1.0), images=8, fps=15.0)
    chosen = stills.stretches(phases=2, warm_up=8)
    assert stills.is_stills
    assert [each.video.video.fps for each in chosen] == [15.0] * 8
    assert [len(each.frames) for each in chosen] == [10] * 8
    assert len({each.video.video.name for each in chosen}) == 8


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (9, r"too few images .* has 8, --calib-images asks for 9 .*--calib-images 8"),
        (7, "--calib-images is at least 8"),
    ],
)
def test_too_few_images_are_refused(images, message):
    with pytest.raises(InputError, match=message):
        source(Numbered(0, 8), images=images)


def test_hash_is_that_of_the_frames_and_not_of_where_they_came_from():
    def hash_of(*videos: Video, size_hw: tuple[int, int] = HW) -> str:
        return CalibrationFrames(source(*videos).stretches(phases=1, warm_up=0), size_hw).sha256()

    class Copied(Numbered):
        changed = 0

        def frame_rgb(self, index: int) -> np.ndarray:
            frame = super().frame_rgb(index)
            frame[3, 4, 1] += self.changed if index == 5 else 0
            return frame

    copied, changed = Copied(0, 8), Copied(0, 8)
    copied.name, changed.changed = "elsewhere", 1
    assert hash_of(copied) == hash_of(Numbered(0, 8))
    assert hash_of(changed) != hash_of(Numbered(0, 8))
    assert hash_of(Numbered(0, 8), size_hw=(16, 24)) != hash_of(Numbered(0, 8))


def test_training_split_of_the_scored_data_set_is_the_default():
    opened = open_calibration(None, None, images=8, data=data(train=[Numbered(0, 8)]))
    assert (opened.data_set, opened.split, opened.also_scored, opened.fps) == ("numbers", "train", False, 10.0)


def test_scored_split_is_calibrated_on_only_when_it_is_named():
    both = data("train", train=[Numbered(0, 8)])
    with pytest.raises(InputError, match="numbers train is scored, so it is not calibrated on by default"):
        open_calibration(None, None, images=8, data=both)
    assert open_calibration(None, "train", images=8, data=both).also_scored


def test_missing_training_split_names_those_that_there_are():
    with pytest.raises(InputError, match=r"no split 'train' to calibrate on .*it has: val.*--calib-split"):
        open_calibration(None, None, images=8, data=data())


def test_nothing_to_calibrate_on_asks_for_video():
    with pytest.raises(InputError, match=r"nothing to calibrate on .*--calib"):
        open_calibration(None, None, data=None)


def test_frames_of_other_proportions_than_the_scored_ones_are_refused(tmp_path):
    np.save(tmp_path / "wide.npy", np.zeros((8, 32, 96, 3), np.uint8))
    with pytest.raises(InputError, match=r"wide have another shape .*got 32x96, expected the proportions of 32x48"):
        open_calibration(str(tmp_path / "wide.npy"), None, images=8, data=data())


def test_file_of_frames_is_one_video(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (9, *HW, 3), dtype=np.uint8)
    np.save(tmp_path / "cam.npy", frames)
    opened = open_calibration(str(tmp_path / "cam.npy"), None, images=8, data=None)
    assert (opened.data_set, opened.split) == ("cam", "frames")
    (first, *_) = CalibrationFrames(opened.stretches(phases=1, warm_up=0), HW).of(
        opened.stretches(phases=1, warm_up=0)[0]
    )
    np.testing.assert_array_equal(first, frames[0])
    with pytest.raises(InputError, match="without splits"):
        open_calibration(str(tmp_path / "cam.npy"), "val", images=8, data=None)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((8, *HW, 3), np.nan, np.float32), r"got float32 .* with NaN .*expected uint8 \(N, H, W, 3\)"),
        (np.zeros((8, 3, *HW), np.uint8), r"got uint8 \(8, 3, 32, 48\), expected uint8 \(N, H, W, 3\)"),
    ],
)
def test_file_of_something_else_is_refused(tmp_path, array, message):
    np.save(tmp_path / "cam.npy", array)
    with pytest.raises(InputError, match=message):
        open_calibration(str(tmp_path / "cam.npy"), None, data=None)


@pytest.mark.parametrize(
    "content", [b"\x93NUMPY but no more", b"no frames at all", b"PK\x03\x04 an archive", b""], ids=repr
)
def test_damaged_file_of_frames_is_refused(tmp_path, content):
    (tmp_path / "cam.npy").write_bytes(content)
    with pytest.raises(InputError, match=r"cam\.npy is not readable \((?!.*allow_pickle)"):
        open_calibration(str(tmp_path / "cam.npy"), None, data=None)


def test_archive_of_frames_is_refused(tmp_path):
    with (tmp_path / "cam.npy").open("wb") as file:
        np.savez(file, frames=np.zeros((8, 4, 6, 3), np.uint8))
    with pytest.raises(InputError, match=r"cam\.npy is not readable"):
        open_calibration(str(tmp_path / "cam.npy"), None, data=None)


def test_too_short_file_of_frames_is_not_told_of_splits(tmp_path):
    np.save(tmp_path / "cam.npy", np.zeros((2, 4, 6, 3), np.uint8))
    with pytest.raises(InputError, match=r"asks for 8 \| give longer video with --calib$"):
        open_calibration(str(tmp_path / "cam.npy"), None, images=8, data=None)
