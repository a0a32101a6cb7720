import pytest

from edgeseg.runtime.slowdown import MEETING_STEPS, MORE_STEPS, STEPS, Fall, Slowdown


def after(*factors):
    slowdown = Slowdown()
    for factor in factors:
        slowdown.add(factor)
    return slowdown


def test_few_steps_say_nothing():
    assert after(*[1.0] * (STEPS - 1)).now is None
    assert after(*[1.0] * STEPS).now == 1.0


def test_stray_steps_do_not_count():
    assert after(*[1.0] * 10, 9.0, 9.0).now == 1.0


def test_a_change_counts_as_soon_as_most_of_the_last_few_steps_show_it():
    assert after(*[1.0] * MORE_STEPS, *[2.0] * (STEPS // 2 + 1)).now == 2.0


def test_while_nothing_changes_more_steps_count():
    # The median of the last five is 1.1, of all fifteen 1.0.
    assert after(*[1.0] * 12, 1.1, 1.1, 1.1).now == 1.0


def test_the_first_steps_are_told_once_they_are_over_and_stay():
    assert after(*[2.0] * (MEETING_STEPS - 1)).at_first is None
    assert after(*[2.0] * MEETING_STEPS, *[1.0] * 50).at_first == 2.0


FALL = Fall(at_s=100.0, patience_s=5.0, before=1.0, slow=2.0)


@pytest.mark.parametrize(
    ("beside", "running", "expected"),
    [
        (None, 1.0, 2.0),  # nothing is known of the other one yet
        (1.0, 1.0, 2.0),  # a load that the other one does not notice: it may still be there
        (2.0, 2.0, 2.0),
        (2.0, 1.0, 1.0),
        (4.0, 2.0, 2.0),  # half of the way back would be 1.41, but the other one is slow itself
        (1.44, 1.2, 2**0.5),
        (1.44, 1.0, 1.0),
        (1.44, 0.9, 1.0),  # never better than before the fall
        (1.44, 1.44**2, 4.0),
    ],
)
def test_a_fall_tells_how_slow_it_would_be_now(beside, running, expected):
    assert FALL.met(beside).factor(running) == pytest.approx(expected)


def test_a_fall_counts_for_as_long_as_patience_lasts():
    assert FALL.until_s == 105.0
