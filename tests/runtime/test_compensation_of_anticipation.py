"""Labels that stand for another time than their frame's move from that time on, by exact shares of the known motion."""

import cv2
import numpy as np
import pytest

from edgeseg.config import Compensation
from edgeseg.runtime.compensation import Compensator

HEIGHT, WIDTH = 192, 256
PERIOD_S = 1 / 15
STEP_PX = 6
FRAMES = 5
INNER = (slice(24, -24), slice(48, -48))
"""Pixels that stay in the picture in all motions used here."""


def picture_at(periods):
    """A picture with detail that goes `STEP_PX` to the right per period, RGB."""
    rng = np.random.default_rng(4)
    wide = cv2.resize(
        rng.uniform(0, 255, (24, 48)).astype(np.float32), (2 * WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC
    )
    shifted = cv2.warpAffine(wide, np.float32([[1, 0, STEP_PX * periods], [0, 1, 0]]), (2 * WIDTH, HEIGHT))
    grey = np.clip(shifted[:, WIDTH // 2 : -WIDTH // 2], 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def labels_at(periods):
    """True labels of that moment: vertical bars 18 pixels wide, so that a pixel of error shows on a ninth of them."""
    place = np.arange(WIDTH) - round(STEP_PX * periods)
    return np.repeat(((place // 18) % 2).astype(np.uint8)[None], HEIGHT, axis=0)


def compensator(mode="late-warp+extrapolate", times=range(FRAMES)):
    filled = Compensator(Compensation(mode, "dis-fast", 1))
    for index, periods in enumerate(times):
        filled.add_frame(index, picture_at(periods), PERIOD_S * periods)
    return filled


def wrong(labels, periods):
    return float((labels[INNER] != labels_at(periods)[INNER]).mean())


def moved(filled, shows, to, source=0):
    filled.add_labels(labels_at(shows), source, PERIOD_S * shows)
    return filled.labels_at(PERIOD_S * to)


@pytest.mark.parametrize("to", [4, 4.5, 5, 6])
@pytest.mark.parametrize("shows", [0, 1, 2, 3, 4, 5, 6, 1.5, 2.25, 3.5, 4.5])
def test_labels_arrive_whatever_time_they_show(shows, to):
    result = moved(compensator(), shows, to)
    assert result.fallback is None
    assert wrong(result.labels, to) < 0.06
    assert result.moved_px == pytest.approx(STEP_PX * abs(to - shows), rel=0.1, abs=0.05)


def test_labels_move_back_when_they_are_ahead_of_the_time_asked_for():
    result = moved(compensator(), shows=7, to=5)
    assert wrong(result.labels, 5) < 0.06
    assert wrong(labels_at(7), 5) > 0.5


def test_labels_stay_when_they_show_the_very_time_asked_for():
    result = moved(compensator(), shows=5.5, to=5.5)
    assert (result.fallback, result.moved_px) == (None, 0.0)
    assert (result.labels == labels_at(5.5)).all()


@pytest.mark.parametrize("shows", [1, 2.5, 4, 5])
def test_late_warp_moves_to_the_newest_frame_whatever_time_is_asked_for(shows):
    result = moved(compensator("late-warp"), shows, to=6)
    assert wrong(result.labels, 4) < 0.06


@pytest.mark.parametrize("shows", [1, 2, 3, 5])
def test_extrapolation_uses_the_motion_up_to_the_source_alone(shows):
    filled = compensator("extrapolate", times=[0, 1, 2])
    stands_still = picture_at(2)
    for index in (3, 4):
        filled.add_frame(index, stands_still, PERIOD_S * index)
    result = moved(filled, shows, to=4, source=2)
    assert wrong(result.labels, 4) < 0.06


def test_mode_none_leaves_labels_of_any_time():
    assert (moved(compensator("none"), shows=2, to=6).labels == labels_at(2)).all()


@pytest.mark.parametrize("shows", [0.8, 2, 2.6, 3.4])
def test_times_count_and_not_indices_when_frames_were_dropped(shows):
    result = moved(compensator(times=[0, 1, 3, 4]), shows, to=5)
    assert wrong(result.labels, 5) < 0.06


def test_default_is_the_capture_time_of_the_frame():
    filled = compensator()
    filled.add_labels(labels_at(1), 1)
    by_default = filled.labels_at(5 * PERIOD_S)
    assert (by_default.labels == moved(filled, shows=1, to=5, source=1).labels).all()


def test_offline_call_moves_as_the_loop_does():
    filled = compensator()
    offline = filled.move(labels_at(2), 0, 3, PERIOD_S * 4, PERIOD_S * 2)
    assert wrong(offline.labels, 4) < 0.06
    assert (offline.labels == moved(compensator(times=range(4)), shows=2, to=4).labels).all()


def test_source_time_is_that_of_the_frame():
    assert moved(compensator(), shows=3, to=5, source=1).source_at_s == PERIOD_S


@pytest.mark.parametrize("shows", [float("nan"), float("inf"), 40])
def test_labels_stay_when_the_time_that_they_show_is_no_time(shows):
    filled = compensator()
    filled.add_labels(labels_at(1), 1, PERIOD_S * shows)
    result = filled.labels_at(5 * PERIOD_S)
    assert result.fallback == "clock"
    assert (result.labels == labels_at(1)).all()


def test_labels_stay_when_the_scene_changes_between_their_frame_and_the_time_that_they_show():
    filled = Compensator(Compensation(divisor=1))
    frames = [255 - picture_at(0)[::-1], *(picture_at(periods) for periods in (1, 2, 3))]
    for index, frame in enumerate(frames):
        filled.add_frame(index, frame, PERIOD_S * index)
    assert moved(filled, shows=2, to=4, source=0).fallback == "scene cut"
    assert moved(filled, shows=2, to=4, source=1).fallback is None
