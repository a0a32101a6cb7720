import numpy as np
import pytest

from edgeseg.data.recorded import RecordedVideo
from edgeseg.data.street import StreetVideo
from edgeseg.errors import InputError

STREET = StreetVideo(7, frames=5, fps=15.0, size_hw=(64, 96))


class EveryOther(StreetVideo):
    def has_labels(self, index):
        return index % 2 == 0


def test_recording_holds_the_frames_and_labels_of_its_video():
    recorded = RecordedVideo(STREET, frames=3)
    assert (len(recorded), recorded.fps, recorded.size_hw) == (3, 15.0, (64, 96))
    assert np.array_equal(recorded.frame_rgb(2), STREET.frame_rgb(2))
    assert np.array_equal(recorded.labels(2), STREET.labels(2))


def test_recording_ends_with_its_video():
    assert len(RecordedVideo(STREET, frames=99)) == 5


def test_recording_knows_which_frames_are_labelled():
    recorded = RecordedVideo(EveryOther(7, frames=4, size_hw=(64, 96)), frames=4)
    assert recorded.labelled_indices() == [0, 2]
    with pytest.raises(InputError, match="frame 1 has no labels"):
        recorded.labels(1)


def test_recorded_frame_cannot_be_changed_by_its_reader():
    with pytest.raises(ValueError, match="read-only"):
        RecordedVideo(STREET, frames=1).frame_rgb(0)[0] = 0
