from dataclasses import replace

import numpy as np
import pytest

from edgeseg.accuracy import CompensatedAccuracy
from edgeseg.config import Compensation
from edgeseg.device_profile import DeviceProfile, LatencyProfile
from edgeseg.errors import InputError
from edgeseg.metrics.latency_aware import AccuracyTable
from edgeseg.metrics.rated_table import RatedTable
from edgeseg.runtime import ladder as module
from edgeseg.runtime.ladder import Ladder, Rung, rungs_of
from edgeseg.runtime.pick import pick
from edgeseg.runtime.schedule import LATEST_FRAME
from edgeseg.runtime.slowdown import MEETING_STEPS, STALE_S, STEPS
from support.ladder_replay import Clock

PLAIN, PHASES, FRAMES = "plain_32x48", "phases_32x48_rho0-concat", "frames_32x48"
FPS = 30.0
PERIOD_S = 1 / FPS


def rung(name, latency_s, *miou):
    return Rung(name, RatedTable(AccuracyTable(miou), FPS, FPS), np.full(20, latency_s))


BIG, SMALL = rung("big", 0.02, 0.9, 0.8, 0.7, 0.6, 0.5), rung("small", 0.005, 0.8, 0.78, 0.6, 0.5, 0.4)
"""At 30 frames/s big is better while a step takes at most a period; small four times as fast."""


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def ladder(clock):
    return Ladder([BIG, SMALL], "big", clock=clock)


def run(ladder, clock, latency_s, seconds):
    """Steps as a loop makes them; the first move that is due, and after how many steps."""
    end_s, count = clock.now_s + seconds, 0
    while clock.now_s < end_s:
        clock.now_s += max(latency_s, PERIOD_S)
        count += 1
        ladder.add(latency_s)
        if (move := ladder.decide()) is not None:
            return move, count
    return None, count


def fall(ladder, clock):
    """Two seconds without load, then so much that small takes over."""
    run(ladder, clock, 0.02, 2)
    move, _ = run(ladder, clock, 0.04, 60)
    assert move.name == "small"
    ladder.changed("small")


def test_nothing_changes_while_latencies_are_those_of_the_profile(ladder, clock):
    assert run(ladder, clock, 0.02, 20)[0] is None
    assert run(ladder, clock, 0.03, 20)[0] is None


def test_the_faster_one_is_due_after_a_handful_of_slow_steps(ladder, clock):
    run(ladder, clock, 0.02, 2)
    move, steps = run(ladder, clock, 0.04, 60)
    assert move.name == "small"
    assert steps <= STEPS + 1
    assert "steps of big take 40.0 ms, 2.00 times the profile's 20.0 ms" in move.reason
    assert "predicted sLAmIoU 0.780, big would reach 0.6" in move.reason


@pytest.mark.parametrize("stray", [1, 2])
def test_stray_steps_change_nothing_however_long_they_take(ladder, clock, stray):
    for _ in range(20):
        run(ladder, clock, 0.02, 0.5)
        for _ in range(stray):
            clock.now_s += 0.4
            ladder.add(0.4)
            assert ladder.decide() is None


def test_few_steps_say_nothing(ladder):
    for _ in range(STEPS - 1):
        ladder.add(0.5)
    assert ladder.decide() is None


def test_steps_before_a_pause_of_the_camera_say_nothing(ladder, clock):
    run(ladder, clock, 0.04, 0.16)
    clock.now_s += STALE_S + 0.1
    ladder.add(0.04)
    assert ladder.decide() is None
    assert run(ladder, clock, 0.02, 20)[0] is None


def test_it_stays_with_the_faster_one_while_its_steps_are_slow_and_goes_back_when_they_are_not(ladder, clock):
    fall(ladder, clock)
    assert run(ladder, clock, 0.01, 20)[0] is None
    move, steps = run(ladder, clock, 0.005, 60)
    assert move.name == "big"
    assert steps * PERIOD_S < 1.0


def test_what_a_load_did_to_the_slower_one_counts_while_the_faster_one_tells_that_it_is_there(ladder, clock):
    fall(ladder, clock)
    # The load that doubles big's latencies makes small slower by 1.3 alone: big would be in time at that.
    assert run(ladder, clock, 0.0065, 0.9 * module.PATIENCE_S)[0] is None


def test_it_goes_back_at_once_when_the_faster_one_tells_that_the_load_is_gone(ladder, clock):
    fall(ladder, clock)
    run(ladder, clock, 0.0065, (MEETING_STEPS + 1) * PERIOD_S)
    move, steps = run(ladder, clock, 0.005, 60)
    assert move.name == "big"
    assert steps * PERIOD_S < 1.0


def waits(ladder, clock, count):
    """How long small runs, untouched by the load, before each of so many climbs that fail."""
    fall(ladder, clock)
    found = []
    for _ in range(count):
        move, steps = run(ladder, clock, 0.005, 1000)
        assert move.name == "big"
        found.append(steps * PERIOD_S)
        ladder.changed("big")
        run(ladder, clock, 0.04, 60)
        ladder.changed("small")
    return found


def test_what_was_too_slow_is_tried_again_after_waits_that_double_up_to_a_bound(ladder, clock, monkeypatch):
    monkeypatch.setattr(module, "MOST_PATIENCE_S", 6 * module.PATIENCE_S)
    expected = np.array([1, 2, 4, 6, 6]) * module.PATIENCE_S
    np.testing.assert_allclose(waits(ladder, clock, 5), expected, atol=0.7)


def test_the_reason_of_another_try_says_so(ladder, clock):
    fall(ladder, clock)
    move, _ = run(ladder, clock, 0.005, 60)
    assert "left for being slow" in move.reason
    assert "it is tried again" in move.reason


def test_the_wait_is_the_first_one_again_after_a_climb_that_lasted(ladder, clock):
    waits(ladder, clock, 3)
    run(ladder, clock, 0.005, 1000)
    ladder.changed("big")
    run(ladder, clock, 0.02, 2 * module.SOON_S)
    fall(ladder, clock)
    assert run(ladder, clock, 0.005, 60)[1] * PERIOD_S == pytest.approx(module.PATIENCE_S, abs=0.7)


def test_a_small_gain_changes_nothing(clock):
    near = rung("near", 0.005, 0.9, 0.8 + module.GAIN / 2, 0.7, 0.6, 0.5)
    assert run(Ladder([BIG, near], "big", clock=clock), clock, 0.02, 20)[0] is None


def test_it_changes_to_the_best_one_and_not_to_the_next_one(clock):
    middle = rung("middle", 0.0186, 0.89, 0.79, 0.68, 0.58, 0.48)
    ladder = Ladder([BIG, middle, SMALL], "big", clock=clock)
    assert run(ladder, clock, 0.04, 60)[0].name == "small"


def test_a_loop_begins_prepared_for_what_it_would_change_to_under_load(clock):
    assert Ladder([BIG, SMALL], "big", clock=clock).next_faster == "small"
    assert Ladder([BIG, SMALL], "small", clock=clock).next_faster is None
    assert Ladder([rung("quick", 0.01, 0.9, 0.8, 0.7), SMALL], "quick", clock=clock).next_faster is None


def test_what_cannot_be_loaded_is_left_out(ladder, clock):
    ladder.leave_out("small")
    assert run(ladder, clock, 0.04, 20)[0] is None
    assert ladder.names == ("big",)


def test_the_ladder_begins_on_one_of_its_rungs(clock):
    with pytest.raises(InputError, match="huge is no rung"):
        Ladder([BIG, SMALL], "huge", clock=clock)
    assert Ladder([BIG, SMALL], "big", clock=clock).names == ("small", "big")


def picked(bundle, samples_ms, fps=15.0, **limits):
    entries = tuple(LatencyProfile(name, "d", (values,) * 4, 5) for name, values in samples_ms.items())
    profile = DeviceProfile(
        "cpu", {}, bundle.name, bundle.digest, fps, True, None, 1, entries, "2026-01-01", "edgeseg profile"
    )
    return pick(bundle, profile, fps, **limits)


def names(bundle, chosen):
    return {each.name for each in rungs_of(bundle, chosen, LATEST_FRAME)}


def test_rungs_are_those_that_are_the_best_at_some_slowdown(bundle):
    # At 30 frames/s one frame late is .55 for plain, .54 for frames, .525 for phases: each is the best while it keeps
    # up. At these latencies they stop doing so one after another.
    chosen = picked(bundle, {PLAIN: 30.0, FRAMES: 15.0, PHASES: 8.0}, 30.0)
    assert chosen.row.configuration == PLAIN
    assert names(bundle, chosen) == {PLAIN, FRAMES, PHASES}


def test_what_is_never_the_best_is_no_rung(bundle):
    # Slower than phases, and no better at any offset but the first.
    assert names(bundle, picked(bundle, {PHASES: 20.0, FRAMES: 50.0})) == {PHASES}


def test_what_the_pick_left_out_by_its_limits_or_was_not_measured_is_no_rung(bundle):
    samples_ms = {PLAIN: 30.0, FRAMES: 15.0}
    assert names(bundle, picked(bundle, samples_ms, 30.0, min_miou=0.59)) == {PLAIN}
    assert names(bundle, picked(bundle, {PHASES: 8.0}, 30.0)) == {PHASES}


def test_what_anticipates_further_is_no_rung(tmp_path, graphs):
    entries = [graphs.stateless("now", miou=(0.6, 0.5, 0.4)), graphs.stateless("ahead", miou=(0.5, 0.49, 0.48))]
    entries[1].knobs = replace(entries[1].knobs, target_offset=1)
    made = graphs.write_bundle(tmp_path / "two.edgeseg", entries)
    now, ahead = (entry.name for entry in made.configurations)
    assert names(made, picked(made, {now: 60.0, ahead: 10.0})) == {now}


@pytest.fixture
def movable(tmp_path, graphs):
    """slow and quick, whose labels can be moved; quick is the better one from two frames late on."""
    entries = []
    for name, moved in (("slow", (0.6, 0.58, 0.4, 0.3)), ("quick", (0.55, 0.53, 0.5, 0.4))):
        entry = graphs.stateless(name, miou=(0.5, 0.4, 0.3, 0.2))
        scored = CompensatedAccuracy(Compensation(), moved, (None,) * len(moved))
        entry.accuracy = entry.accuracy.with_compensated([scored])
        entries.append(entry)
    return graphs.write_bundle(tmp_path / "movable.edgeseg", entries)


@pytest.mark.parametrize(
    ("skipped", "expected_ms"),
    [
        ("cannot win: its network alone, 10.0 ms, allows 0.550 at most", {"slow_32x48": 33.0, "quick_32x48": 13.0}),
        ("its flow cannot keep up", {"slow_32x48": 33.0}),
    ],
)
def test_what_could_not_win_with_moved_labels_is_predicted_by_its_network(movable, skipped, expected_ms):
    entries = (
        LatencyProfile("slow_32x48", "d", (30.0,) * 4, 5),
        LatencyProfile("slow_32x48", "d", (33.0,) * 4, 5, compensation=Compensation(), flow_ms=(3.0,)),
        LatencyProfile("quick_32x48", "d", (10.0,) * 4, 5),
        LatencyProfile("quick_32x48", "d", (), 0, skipped=skipped, compensation=Compensation()),
    )
    profile = DeviceProfile(
        "cpu", {}, movable.name, movable.digest, 15.0, False, None, 1, entries, "2026-01-01", "edgeseg profile"
    )
    rungs = rungs_of(movable, pick(movable, profile, 15.0), LATEST_FRAME)
    assert {rung.name: pytest.approx(1e3 * rung.median_s) for rung in rungs} == expected_ms
