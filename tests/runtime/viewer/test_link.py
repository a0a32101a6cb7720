"""How often the live view asks for pictures."""

import pytest

from edgeseg.runtime.viewer.link import Turns

SECONDS = 20


def shown_times(camera_fps, fps_max, jitter=(0.0,)):
    """When the pictures come of a camera whose frames are late by that in turn, in shares of its period."""
    turns, times = Turns(fps_max), []
    for index in range(round(SECONDS * camera_fps)):
        at_s = 100.0 + (index + jitter[index % len(jitter)]) / camera_fps
        if at_s >= turns.free_at_s:
            turns.take(at_s)
            times.append(at_s)
    return times


@pytest.mark.parametrize("camera_fps", [16.0, 20.0, 25.0, 29.0, 30.0, 50.0, 60.0])
def test_a_camera_that_is_faster_is_shown_at_the_rate_that_is_allowed(camera_fps):
    assert len(shown_times(camera_fps, 15.0)) == pytest.approx(15 * SECONDS, rel=0.01)


@pytest.mark.parametrize("camera_fps", [3.0, 14.0, 15.0])
def test_each_frame_of_a_camera_that_is_not_faster_is_shown_though_they_come_unevenly(camera_fps):
    assert len(shown_times(camera_fps, 15.0, jitter=(0.0, 0.3, 0.1, 0.25))) == round(SECONDS * camera_fps)


def test_pictures_keep_half_a_period_apart_after_a_pause():
    turns = Turns(10.0)
    turns.take(100.0)
    turns.take(107.0)
    assert turns.free_at_s == pytest.approx(107.05)
    turns.take(107.05)
    assert turns.free_at_s == pytest.approx(107.1)
    turns.take(107.1)
    assert turns.free_at_s == pytest.approx(107.2)
