import threading

import numpy as np
import pytest

from edgeseg.data.video import Video
from edgeseg.errors import InputError
from edgeseg.runtime.adjusted_source import AdjustedSource
from edgeseg.runtime.source import VideoSource
from edgeseg.runtime.source_opening import open_source


class Corner(Video):
    """One frame, red and labelled in its upper left corner."""

    name, fps, size_hw = "corner", 10.0, (2, 3)

    def __len__(self) -> int:
        return 1

    def frame_rgb(self, index: int) -> np.ndarray:
        frame = np.zeros((2, 3, 3), np.uint8)
        frame[0, 0] = (200, 0, 10)
        return frame

    def labels(self, index: int) -> np.ndarray:
        return (self.frame_rgb(index)[..., 0] > 0).astype(np.uint8)

    def has_labels(self, index: int) -> bool:
        return True


@pytest.mark.parametrize(
    ("rotate_deg", "size_hw", "corner"), [(90, (3, 2), (0, 1)), (180, (2, 3), (1, 2)), (270, (3, 2), (2, 0))]
)
def test_frames_and_labels_are_turned_clockwise(rotate_deg, size_hw, corner):
    source = open_source(Corner(), rotate_deg=rotate_deg)
    frame = source.read(threading.Event())
    assert source.size_hw == size_hw == frame.rgb.shape[:2]
    assert frame.rgb[corner].tolist() == [200, 0, 10]
    assert source.labels(0)[corner] == 1


def test_red_and_blue_are_swapped_when_the_source_has_them_so():
    frame = open_source(Corner(), colour_order="BGR").read(threading.Event())
    assert frame.rgb[0, 0].tolist() == [10, 0, 200]


def test_what_the_source_tells_is_told():
    inner = VideoSource(Corner())
    source = AdjustedSource(inner, rotate_deg=90)
    source.read(threading.Event())
    assert (source.name, source.fps, source.paced, source.counts) == ("corner", 10.0, True, inner.counts)
    assert source.captured_at_s(0) == inner.captured_at_s(0)


class Lost(VideoSource):
    """As a camera that was lost."""

    is_lost = True


@pytest.mark.parametrize(("kind", "is_lost"), [(Lost, True), (VideoSource, False)])
def test_a_source_is_lost_when_the_one_within_is(kind, is_lost):
    assert AdjustedSource(kind(Corner())).is_lost is is_lost


@pytest.mark.parametrize("wrong", [{"rotate_deg": 45}, {"colour_order": "GRB"}])
def test_other_angles_and_orders_are_refused(wrong):
    with pytest.raises(InputError, match=r"45|GRB"):
        open_source(Corner(), **wrong)


def test_a_recording_has_the_size_it_has():
    with pytest.raises(InputError, match="--camera-size: for cameras and streams"):
        open_source("street", size_hw=(480, 640))
