import json

import pytest

from edgeseg.device_profile import DeviceProfile, LatencyProfile
from edgeseg.errors import ArtifactError, InputError
from edgeseg.runtime.pick import pick
from edgeseg.runtime.schedule import CHOICES, Schedule
from edgeseg.runtime.simulate import simulate

PLAIN, PHASES = "plain_32x48", "phases_32x48_rho0-concat"


def profile(bundle, samples):
    entries = tuple(LatencyProfile(name, "d", tuple(values), 5) for name, values in samples.items())
    return DeviceProfile(
        "cpu", {}, bundle.name, bundle.digest, 15.0, True, None, 1, entries, "2026-01-01", "edgeseg profile"
    )


def test_each_candidate_has_a_row_for_each_schedule_the_best_first(bundle):
    found = simulate(bundle, profile(bundle, {PLAIN: (140.0,), PHASES: (40.0,)}), 15.0, schedules=CHOICES)
    assert len(found.rows) == 4
    assert {(row.configuration, row.schedule) for row in found.rows} == {
        (name, schedule.name) for name in (PLAIN, PHASES) for schedule in CHOICES
    }
    figures = [row.streaming_lamiou for row in found.rows]
    assert figures == sorted(figures, reverse=True)
    assert found.rows[0].configuration == PHASES


def test_the_best_row_is_what_is_picked(bundle):
    # Steps of a little more than one and a half periods of 30 frames/s.
    measured = profile(bundle, {PLAIN: (50.7, 50.9), PHASES: (51.0,)})
    found, picked = simulate(bundle, measured, 30.0, schedules=CHOICES), pick(bundle, measured, 30.0)
    assert (found.rows[0].name, found.rows[0].schedule) == (picked.row.name, picked.schedule.name)
    assert found.rows[0].streaming_lamiou == picked.row.streaming_lamiou
    assert found.rows[0].schedule == "shrinking-tail"


def test_ages_and_steps_are_those_of_the_schedule(bundle):
    schedules = (Schedule("latest-frame"), Schedule("every-n-th", 3.0))
    found = simulate(bundle, profile(bundle, {PLAIN: (40.0,)}), 20.0, schedules=schedules)
    latest, third = found.rows
    assert latest.mean_age_ms == pytest.approx(50.0)
    assert latest.steps_per_s == pytest.approx(20.0)
    # Labels of frame 0 are read at frames 1, 2 and 3.
    assert third.mean_age_ms == pytest.approx(100.0, abs=1)
    assert third.steps_per_s == pytest.approx(20.0 / 3)


def test_where_shrinking_tail_is_better_is_told(bundle):
    mixed = simulate(bundle, profile(bundle, {PLAIN: (50.7,), PHASES: (20.0,)}), 30.0)
    assert "better than latest-frame for 1 of 2 candidates: by 0.0" in mixed.waiting_gain()
    assert mixed.waiting_gain().endswith(PLAIN)
    never = simulate(bundle, profile(bundle, {PLAIN: (20.0,)}), 30.0)
    assert never.waiting_gain() == "shrinking-tail is better than latest-frame for 0 of 1 candidates"
    one = simulate(bundle, profile(bundle, {PLAIN: (20.0,)}), 30.0, schedules=(Schedule("latest-frame"),))
    assert one.waiting_gain() is None


def test_only_the_configurations_asked_for_are_simulated(bundle):
    measured = profile(bundle, {PLAIN: (50.0,), PHASES: (20.0,)})
    assert {row.configuration for row in simulate(bundle, measured, 15.0, configurations=[PLAIN]).rows} == {PLAIN}
    with pytest.raises(ArtifactError, match="has no configuration 'big'"):
        simulate(bundle, measured, 15.0, configurations=["big"])
    with pytest.raises(InputError, match=rf"nothing to simulate of {PHASES} \| measure it"):
        simulate(bundle, profile(bundle, {PLAIN: (50.0,)}), 15.0, configurations=[PHASES])


def test_a_schedule_named_twice_is_simulated_once(bundle):
    found = simulate(bundle, profile(bundle, {PLAIN: (50.0,)}), 15.0, schedules=[Schedule()] * 2)
    assert len(found.rows) == 1
    with pytest.raises(InputError, match="no schedule to simulate"):
        simulate(bundle, profile(bundle, {PLAIN: (50.0,)}), 15.0, schedules=[])


def test_the_same_question_has_the_same_answer(bundle):
    measured = profile(bundle, {PLAIN: (50.0, 70.0, 31.0, 66.0), PHASES: (20.0, 90.0)})
    assert simulate(bundle, measured, 25.0) == simulate(bundle, measured, 25.0)
    json.dumps(simulate(bundle, measured, 25.0).as_dict(), allow_nan=False)
