from dataclasses import replace

import numpy as np
import pytest

from edgeseg.device_profile import DeviceProfile, LatencyProfile
from edgeseg.errors import InputError
from edgeseg.metrics.latency_aware import AccuracyTable
from edgeseg.metrics.rated_table import RatedTable
from edgeseg.runtime import ladder as module
from edgeseg.runtime.ladder import Ladder, Rung, rungs_of
from edgeseg.runtime.pick import pick
from edgeseg.runtime.schedule import LATEST_FRAME

PLAIN, PHASES, FRAMES = "plain_32x48", "phases_32x48_rho0-concat", "frames_32x48"


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def rung(name, latency_s, *miou):
    return Rung(name, RatedTable(AccuracyTable(miou), 10.0, 10.0), np.full(20, latency_s))


BIG, SMALL = rung("big", 0.08, 0.9, 0.8, 0.5, 0.4, 0.3), rung("small", 0.02, 0.7, 0.65, 0.5, 0.4, 0.3)
"""At 10 frames/s big is better while a step takes at most a period; small four times as fast."""


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def ladder(clock):
    return Ladder([BIG, SMALL], "big", clock=clock)


def run(ladder, clock, latency_s, seconds):
    """A step each 100 ms, a look after each; the first move that is due, and after how long it came."""
    begin_s = clock.now_s
    while clock.now_s < begin_s + seconds:
        clock.now_s += 0.1
        ladder.add(latency_s)
        if (move := ladder.decide()) is not None:
            return move, clock.now_s - begin_s
    return None, seconds


def test_nothing_changes_while_latencies_are_those_of_the_profile(ladder, clock):
    assert run(ladder, clock, 0.08, 20)[0] is None
    assert run(ladder, clock, 0.099, 20)[0] is None


def test_the_faster_one_is_due_when_steps_get_slower(ladder, clock):
    move, after_s = run(ladder, clock, 0.16, 60)
    assert move.name == "small"
    assert module.SETTLE_S <= after_s <= module.SETTLE_S + module.WINDOW_S
    assert "steps of big take 160.0 ms, 2.00 times the profile's 80.0 ms" in move.reason
    assert "predicted sLAmIoU 0.650, big would reach 0.4" in move.reason


def test_a_short_slowness_changes_nothing(ladder, clock):
    run(ladder, clock, 0.08, 5)
    assert run(ladder, clock, 0.16, 0.4)[0] is None
    assert run(ladder, clock, 0.08, 20)[0] is None


def test_few_steps_say_nothing(ladder, clock):
    for _ in range(module.LEAST_STEPS - 1):
        ladder.add(0.5)
    assert ladder.decide() is None


def test_old_steps_say_nothing(ladder, clock):
    for _ in range(20):
        ladder.add(0.5)
    clock.now_s += module.WINDOW_S + 0.1
    assert ladder.decide() is None


def test_it_goes_back_when_steps_of_the_faster_one_are_as_the_profile_says(ladder, clock):
    run(ladder, clock, 0.16, 60)
    ladder.changed("small")
    # Four times as fast, twice as slow as in the profile: big would take 160 ms still.
    assert run(ladder, clock, 0.04, 20)[0] is None
    move, after_s = run(ladder, clock, 0.02, 60)
    assert move.name == "big"
    assert after_s >= module.SETTLE_S


def test_nothing_slower_is_tried_soon_after_a_change(ladder, clock):
    run(ladder, clock, 0.16, 60)
    ladder.changed("small")
    move, after_s = run(ladder, clock, 0.02, 60)
    assert move.name == "big"
    assert module.PATIENCE_S <= after_s <= module.PATIENCE_S + module.SETTLE_S + 0.3


def climb_and_fall(ladder, clock):
    """From small up to big, where it is slow at once; how long it took until the climb."""
    _, after_s = run(ladder, clock, 0.02, 1000)
    ladder.changed("big")
    run(ladder, clock, 0.16, 60)
    ladder.changed("small")
    return after_s


def test_patience_doubles_when_a_climb_does_not_last_and_is_bounded(ladder, clock, monkeypatch):
    monkeypatch.setattr(module, "MOST_PATIENCE_S", 6 * module.PATIENCE_S)
    run(ladder, clock, 0.16, 60)
    ladder.changed("small")
    waits_s = [climb_and_fall(ladder, clock) for _ in range(5)]
    assert waits_s[1] == pytest.approx(2 * module.PATIENCE_S, abs=module.SETTLE_S + 0.3)
    assert waits_s[2] == pytest.approx(4 * module.PATIENCE_S, abs=module.SETTLE_S + 0.3)
    assert waits_s[-1] <= module.MOST_PATIENCE_S + module.SETTLE_S + 0.3


def test_patience_is_the_first_one_again_after_a_climb_that_lasted(ladder, clock):
    run(ladder, clock, 0.16, 60)
    ladder.changed("small")
    climb_and_fall(ladder, clock)
    run(ladder, clock, 0.02, 60)
    ladder.changed("big")
    run(ladder, clock, 0.08, 4 * module.PATIENCE_S)
    run(ladder, clock, 0.16, 60)
    ladder.changed("small")
    assert run(ladder, clock, 0.02, 60)[1] <= module.PATIENCE_S + module.SETTLE_S + 0.3


def test_a_small_gain_changes_nothing(clock):
    near = rung("near", 0.02, 0.9, 0.8 + module.GAIN / 2, 0.5, 0.4, 0.3)
    assert run(Ladder([BIG, near], "big", clock=clock), clock, 0.08, 20)[0] is None


def test_what_cannot_be_loaded_is_left_out(ladder, clock):
    ladder.leave_out("small")
    assert run(ladder, clock, 0.16, 20)[0] is None
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
