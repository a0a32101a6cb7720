"""The period of a camera's frames, from capture times."""

import math

import pytest

from edgeseg.runtime.frame_period import FramePeriod

STATED_S = 1 / 30


def period(frames) -> float:
    """What (index, capture time) pairs give."""
    measured = FramePeriod(STATED_S)
    for index, captured_at_s in frames:
        measured.add(index, captured_at_s)
    return measured.seconds


def test_the_stated_period_stands_until_there_are_three_differences():
    frames = [(0, 0.0), (1, 0.1), (2, 0.2), (3, 0.3)]
    assert period([]) == period(frames[:1]) == period(frames[:3]) == STATED_S
    assert period(frames) == pytest.approx(0.1)


def test_skipped_indices_share_their_time():
    assert period([(0, 0.0), (2, 0.2), (3, 0.3), (7, 0.7), (9, 0.9)]) == pytest.approx(0.1)


def test_frames_lost_before_they_had_an_index_do_not_count():
    assert period(enumerate([0.0, 0.1, 0.3, 0.4, 0.5, 0.8, 0.9])) == pytest.approx(0.1)


def test_a_change_of_rate_is_followed_after_five_frames():
    before = [index / 30 for index in range(20)]
    after = [before[-1] + step / 15 for step in range(1, 6)]
    assert period(enumerate(before + after[:4])) == pytest.approx(1 / 30)
    assert period(enumerate(before + after)) == pytest.approx(1 / 15)


@pytest.mark.parametrize("jumped", [[0.3] * 9, [0.2, 0.1, 0.0], [math.inf], [-math.inf], [math.nan], [1e9]])
def test_a_clock_that_stands_or_jumps_changes_nothing(jumped):
    times = [0.0, 0.1, 0.2, 0.3, *jumped]
    assert period(enumerate(times)) == pytest.approx(0.1)
