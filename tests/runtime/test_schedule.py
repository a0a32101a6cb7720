import pytest

from edgeseg.errors import InputError
from edgeseg.metrics.latency_aware import AccuracyTable
from edgeseg.metrics.rated_table import RatedTable
from edgeseg.metrics.streaming import streaming_ages, streaming_log
from edgeseg.runtime.schedule import CHOICES, Schedule


def frames_taken(name, latencies_s, least_frames=9):
    log = streaming_log(latencies_s, 0.1, rule=Schedule.parse(name).start_rule(10.0), least_frames=least_frames)
    return [entry.frame_index for entry in log]


@pytest.mark.parametrize("name", ["latest-frame", "shrinking-tail", "every-n-th:3", "fixed-rate:2.5"])
def test_a_schedule_has_the_name_that_it_was_read_from(name):
    assert Schedule.parse(name).name == name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("newest", r"unknown schedule 'newest' \| known: latest-frame"),
        ("latest-frame:2", "latest-frame has no number"),
        ("every-n-th", r"every-n-th takes a whole number from 1 to 1000 \| got no number: write every-n-th:3"),
        ("every-n-th:0", "from 1 to 1000"),
        ("every-n-th:2.5", "every-n-th takes a whole number"),
        ("every-n-th:nan", "every-n-th takes a whole number"),
        ("every-n-th:inf", "every-n-th takes a whole number"),
        ("fixed-rate", r"fixed-rate takes results per second \| got no number: write fixed-rate:5"),
        ("fixed-rate:-1", "fixed-rate takes results per second"),
        ("fixed-rate:nan", "fixed-rate takes results per second"),
        ("fixed-rate:fast", "no number after the colon"),
    ],
)
def test_a_schedule_is_refused_when_its_name_is_wrong(name, words):
    with pytest.raises(InputError, match=words):
        Schedule.parse(name)


def test_latest_frame_starts_in_the_middle_of_a_period():
    # Free at 0, .16, .32, .48, ...
    assert frames_taken("latest-frame", [0.16], least_frames=5) == [0, 1, 3, 4, 6]


def test_shrinking_tail_waits_for_the_next_frame_when_its_result_lies_about_for_less_long():
    # Free at .16: starting then would end at .32, with a tail of .02 less than .06: it waits for frame 2, and so on.
    assert frames_taken("shrinking-tail", [0.16], least_frames=8) == [0, 2, 4, 6, 8]


def test_shrinking_tail_starts_at_once_when_waiting_gives_nothing():
    # Free at .13: ends at .26, the tail grows from .03 to .06; at .26 to .39, .09; at .39 to .52: it would shrink.
    assert frames_taken("shrinking-tail", [0.13], least_frames=4)[:4] == [0, 1, 2, 4]


def test_shrinking_tail_starts_with_the_frame_that_it_waited_for_when_steps_take_nearly_whole_periods():
    # Whatever the tail at its end, a frame that comes to a free network is taken.
    rule = Schedule("shrinking-tail").start_rule(10.0)
    rule.finished(0.199)
    assert rule.takes(3, 0.3, free_at_s=0.25)
    assert not rule.takes(4, 0.4, free_at_s=0.45)
    assert rule.takes(5, 0.5, free_at_s=0.45)


@pytest.mark.parametrize("free_at_s", [0.413, 0.427, 0.45, 0.471, 0.499])
def test_shrinking_tail_starts_at_once_when_steps_take_whole_periods(free_at_s):
    # The tail stays what it is, but for rounding.
    rule = Schedule("shrinking-tail").start_rule(10.0)
    for _ in range(16):
        rule.finished(0.3)
    assert rule.takes(4, 0.4, free_at_s)


def test_shrinking_tail_follows_the_latency_when_it_changes():
    rule = Schedule("shrinking-tail").start_rule(10.0)
    for _ in range(50):
        rule.finished(0.03)
    assert rule.takes(1, 0.1, free_at_s=0.15)
    for _ in range(50):
        rule.finished(0.16)
    assert not rule.takes(4, 0.4, free_at_s=0.45)


def test_shrinking_tail_gives_fresher_labels_when_steps_take_a_little_more_than_one_and_a_half_periods():
    ages = {
        schedule.name: streaming_ages(streaming_log([0.152], 0.1, rule=schedule.start_rule(10.0)), 0.1).mean()
        for schedule in CHOICES
    }
    assert ages["shrinking-tail"] == pytest.approx(2.5, abs=0.01)
    assert ages["latest-frame"] > 2.6


def test_every_nth_takes_the_first_frame_of_each_group():
    assert frames_taken("every-n-th:3", [0.05]) == [0, 3, 6, 9]


def test_every_nth_takes_the_newest_frame_when_the_worker_is_late():
    # Free at .45, .80 and .85: frame 4 is of the second group, 8 of the third, and 9 the first one of the fourth.
    assert frames_taken("every-n-th:3", [0.45, 0.35, 0.05])[:4] == [0, 4, 8, 9]


def test_fixed_rate_takes_so_many_frames_a_second():
    taken = frames_taken("fixed-rate:4", [0.01], least_frames=100)
    assert len([index for index in taken if index < 100]) == 40
    assert taken[:4] == [0, 2, 5, 7]


def test_fixed_rate_takes_every_frame_when_the_camera_is_slower():
    assert frames_taken("fixed-rate:50", [0.01], least_frames=5) == [0, 1, 2, 3, 4, 5]


def test_fixed_rate_takes_a_frame_that_comes_a_little_early():
    rule = Schedule("fixed-rate", 5.0).start_rule(10.0)
    times = [7.0, 7.1, 7.199, 7.3, 7.401, 7.5]
    assert [rule.takes(index, at, 0.0) for index, at in enumerate(times)] == [True, False] * 3


def test_the_prediction_is_that_of_the_schedule():
    rated = RatedTable(AccuracyTable((0.9, 0.8, 0.6, 0.4, 0.3)), 10.0, 10.0)
    shrinking = rated.streaming([0.152], Schedule("shrinking-tail").start_rule(10.0))
    # Half of the frames read labels two frames old, the others three.
    assert shrinking == pytest.approx(0.5, abs=0.005)
    assert rated.streaming([0.152]) < 0.48


def test_the_prediction_tells_ages_and_steps():
    rated = RatedTable(AccuracyTable((0.9, 0.8, 0.6, 0.4, 0.3)), 10.0, 10.0)
    loop = rated.streamed([0.152] * 100, Schedule("shrinking-tail").start_rule(10.0))
    assert loop.mean_age_s == pytest.approx(0.25, abs=0.001)
    assert loop.steps_per_s == pytest.approx(5.0)
    # A step without any wait between.
    assert rated.streamed([0.152] * 100).steps_per_s == pytest.approx(1 / 0.152)
