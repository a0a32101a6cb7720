"""When a stored profile stands for what is asked."""

import pytest

from edgeseg.config import Compensation
from edgeseg.device_profile import DeviceProfile, LatencyProfile
from edgeseg.runtime.fitting_profile import measured_otherwise

PLAIN = LatencyProfile("plain", "d", (10.0,), 5)
MOVED = LatencyProfile("plain", "d", (12.0,), 5, compensation=Compensation(), flow_ms=(2.0,))


def profile(entries, frame_size_hw):
    return DeviceProfile("cpu", {}, "b", "0", 15.0, True, frame_size_hw, 2, entries, "2026-01-01", "edgeseg profile")


@pytest.mark.parametrize(
    ("entries", "measured_hw", "asked_hw", "words"),
    [
        ((PLAIN,), None, (360, 480), None),
        ((PLAIN, MOVED), None, None, None),
        ((PLAIN, MOVED), (360, 480), (360, 480), None),
        ((PLAIN, MOVED), None, (360, 480), "has the flow of frames of the configurations' sizes"),
        ((PLAIN,), (180, 240), (360, 480), "was measured with frames of 180 x 240, asked are 360 x 480"),
    ],
    ids=["no-flow", "no-size-asked", "same-size", "flow-of-other-frames", "other-size"],
)
def test_a_profile_stands_for_frames_whose_resizing_and_flow_it_holds(entries, measured_hw, asked_hw, words):
    difference = measured_otherwise(profile(entries, measured_hw), None, asked_hw)
    assert difference is None if words is None else words in difference
