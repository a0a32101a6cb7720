import pytest

from edgeseg.accuracy import CompensatedAccuracy
from edgeseg.config import UNCOMPENSATED, Compensation
from edgeseg.device_profile import DeviceProfile, LatencyProfile
from edgeseg.errors import ArtifactError, InputError
from edgeseg.runtime.pick import pick
from edgeseg.runtime.schedule import Schedule

PLAIN, PHASES, FRAMES = "plain_32x48", "phases_32x48_rho0-concat", "frames_32x48"
# Tables at 15 frames/s (period 66.7 ms): plain .6 .5 .4, phases .55 .5 .45, frames .58 .5 .4


def profile(bundle, samples_ms: dict[str, tuple[float, ...]], **changes) -> DeviceProfile:
    entries = tuple(LatencyProfile(name, "d", samples, 5) for name, samples in samples_ms.items())
    values = {
        "device": "cpu", "facts": {}, "bundle_name": bundle.name, "bundle_digest": bundle.digest, "fps": 15.0,
        "exhaustive": False, "frame_size_hw": None, "threads": 1, "entries": entries, "measured_at": "2026-01-01",
        "command_line": "edgeseg profile",
    }  # fmt: skip
    return DeviceProfile(**{**values, **changes})


def test_rows_hold_the_arithmetic_of_the_definitions(bundle):
    # 3 of 4 samples within one period, one in the second: .75 * .5 + .25 * .4 = .475
    samples = {PLAIN: (50.0, 60.0, 60.0, 100.0), PHASES: (70.0, 70.0), FRAMES: (70.0, 70.0)}
    row = next(row for row in pick(bundle, profile(bundle, samples), 15.0).rows if row.name == PLAIN)
    assert row.offset == 1
    assert row.miou == 0.6
    assert row.expected_lamiou == pytest.approx(0.475)
    assert row.median_lamiou == 0.5
    assert row.latency_tax == pytest.approx(0.6 - row.streaming_lamiou)
    assert row.p50_ms == 60.0


def test_jitter_decides_when_expected_and_median_disagree(bundle):
    samples = {PLAIN: (60.0,) * 6 + (250.0,) * 4, PHASES: (60.0,) * 5 + (120.0,) * 5}
    measured = profile(bundle, samples)
    # plain: .6 * .5 + .4 * .4 = .46, median .5; phases: .5 * .5 + .5 * .45 = .475, median (90 ms) .45
    assert pick(bundle, measured, 15.0, statistic="expected").row.name == PHASES
    assert pick(bundle, measured, 15.0, statistic="median").row.name == PLAIN


def test_delay_is_interpolated_when_the_camera_has_another_rate(bundle):
    # 20 frames/s, 40 ms: one frame late = 50 ms = entry .75 of a 15 frames/s table: .25 * .6 + .75 * .5
    chosen = pick(bundle, profile(bundle, {PLAIN: (40.0,)}), 20.0)
    assert chosen.row.expected_lamiou == pytest.approx(0.525)
    assert any("interpolated" in note for note in chosen.notes)


def test_no_interpolation_is_noted_when_the_rates_agree(bundle):
    chosen = pick(bundle, profile(bundle, {PLAIN: (40.0,)}), 15.0)
    assert not any("interpolated" in note for note in chosen.notes)


def test_a_delay_beyond_the_table_is_marked_as_a_bound(bundle):
    chosen = pick(bundle, profile(bundle, {PLAIN: (500.0,)}), 15.0)
    assert chosen.row.is_bound
    assert chosen.row.expected_lamiou == pytest.approx(0.4)
    assert any("upper bound" in note for note in chosen.notes)


def test_the_faster_one_is_picked_when_scores_are_alike(bundle):
    chosen = pick(bundle, profile(bundle, {PLAIN: (60.0,), PHASES: (50.0,), FRAMES: (55.0,)}), 15.0)
    assert chosen.row.name == PHASES


def alike(tmp_path, graphs, quick: float, **changes):
    """The pick between `slow`, .5 a frame late at 50 ms, and `quick`, that much at 40 ms."""
    tables = {"slow": (0.6, 0.5, 0.4), "quick": (0.55, quick, 0.4)}
    made = graphs.write_bundle(
        tmp_path / "alike.edgeseg", [graphs.stateless(name, miou=table) for name, table in tables.items()]
    )
    entries = (
        LatencyProfile("slow_32x48", "d", (50.0,), 5),
        LatencyProfile("quick_32x48", "d", (40.0,), 5, **changes),
    )
    return pick(made, profile(made, {}, entries=entries), 15.0)


def test_the_faster_one_is_picked_when_nobody_sees_a_difference_and_the_reason_says_so(tmp_path, graphs):
    chosen = alike(tmp_path, graphs, quick=0.4996)
    assert [row.name for row in chosen.rows] == ["quick_32x48", "slow_32x48"]
    assert chosen.configuration.name == "quick_32x48"
    assert (
        "quick_32x48 is as good as the best predicted sLAmIoU at 15 frames/s, 0.4996 beside 0.5000 of slow_32x48, and "
        "faster: its labels are 1 frame late at 40.0 ms" in chosen.reason
    )


def test_the_reason_says_as_when_the_figures_are_the_same(tmp_path, graphs):
    assert "0.5000 as slow_32x48, and faster: " in alike(tmp_path, graphs, quick=0.49996).reason


def test_a_difference_that_is_seen_decides(tmp_path, graphs):
    assert alike(tmp_path, graphs, quick=0.4994).row.name == "slow_32x48"


def test_what_was_left_early_is_never_as_good_as_the_best(tmp_path, graphs):
    assert alike(tmp_path, graphs, quick=0.4996, skipped="cannot win: ...").row.name == "slow_32x48"


def test_configurations_without_samples_are_named(bundle):
    chosen = pick(bundle, profile(bundle, {PLAIN: (60.0,), FRAMES: ()}), 15.0)
    assert f"{FRAMES} was not measured" in chosen.notes
    assert f"{PHASES} was not measured" in chosen.notes


def test_limits_exclude_and_the_next_best_is_picked(bundle):
    samples = {PLAIN: (40.0,), PHASES: (70.0,), FRAMES: (30.0,)}
    chosen = pick(bundle, profile(bundle, samples), 15.0, max_latency_ms=35.0)
    assert chosen.row.name == FRAMES
    assert {row.name: row.excluded for row in chosen.rows}[PLAIN] == "p99 40.0 ms is over 35 ms"


def test_the_closest_is_named_when_nothing_satisfies_the_limits(bundle):
    samples = {PLAIN: (40.0,), PHASES: (70.0,), FRAMES: (30.0,)}
    with pytest.raises(InputError, match=rf"at most 20 ms.*closest is {FRAMES}: p99 30\.0 ms is over 20 ms"):
        pick(bundle, profile(bundle, samples), 15.0, max_latency_ms=20.0)


def test_the_limit_on_miou_holds_without_delay(bundle):
    samples = {PLAIN: (140.0,), PHASES: (40.0,)}
    assert pick(bundle, profile(bundle, samples), 15.0, min_miou=0.57).row.name == PLAIN


def test_the_profile_of_another_bundle_is_refused(bundle):
    with pytest.raises(ArtifactError, match="measured with another bundle"):
        pick(bundle, profile(bundle, {PLAIN: (40.0,)}, bundle_digest="0" * 64), 15.0)


def test_a_bundle_without_accuracy_is_refused(tmp_path, graphs):
    made = graphs.write_bundle(tmp_path / "bare.edgeseg", [graphs.stateless(miou=None)])
    with pytest.raises(ArtifactError, match="has no accuracy table"):
        pick(made, profile(made, {PLAIN: (40.0,)}), 15.0)


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf")])
def test_a_frame_rate_that_is_not_positive_is_refused(bundle, fps):
    with pytest.raises(InputError, match="fps must be positive"):
        pick(bundle, profile(bundle, {PLAIN: (40.0,)}), fps)


def test_the_reason_names_the_most_accurate_one_and_what_it_would_reach(bundle):
    samples = {PLAIN: (140.0,), PHASES: (40.0,)}
    reason = pick(bundle, profile(bundle, samples), 15.0).reason
    assert f"{PHASES} has the best predicted sLAmIoU" in reason
    assert f"{PLAIN} (mIoU 0.600), would be 3 frames late at 140.0 ms and reach 0.400" in reason


MOVED = Compensation()


@pytest.fixture(scope="module")
def movable(tmp_path_factory, graphs):
    """plain: .6 .5 .4, moved .6 .58 .56 .54 .52; quick: .55 .52 .5, moved .55 .53 .52 (15 frames/s)."""
    tables = {
        "plain": ((0.6, 0.5, 0.4), (0.6, 0.58, 0.56, 0.54, 0.52)),
        "quick": ((0.55, 0.52, 0.5), (0.55, 0.53, 0.52)),
    }
    entries = []
    for name, (table, moved) in tables.items():
        entry = graphs.stateless(name, miou=table)
        scored = CompensatedAccuracy(MOVED, moved, (None,) * len(moved))
        entry.accuracy = entry.accuracy.with_compensated([scored])
        entries.append(entry)
    return graphs.write_bundle(tmp_path_factory.mktemp("movable") / "movable.edgeseg", entries)


def test_labels_are_not_moved_for_a_difference_that_nobody_sees(tmp_path, graphs):
    entry = graphs.stateless("plain", miou=(0.5, 0.5, 0.5))
    entry.accuracy = entry.accuracy.with_compensated([CompensatedAccuracy(MOVED, (0.5001,) * 3, (None,) * 3)])
    made = graphs.write_bundle(tmp_path / "a.edgeseg", [entry])
    entries = (
        LatencyProfile(PLAIN, "d", (40.01,), 5),
        LatencyProfile(PLAIN, "d", (40.00,), 5, compensation=MOVED, flow_ms=(3.0,)),
    )
    chosen = pick(made, profile(made, {}, entries=entries), 15.0)
    assert chosen.row.compensation == "none"
    assert f"0.5000 beside 0.5001 of {PLAIN} {MOVED.name}, and no slower, without compensation" in chosen.reason


def moved_profile(bundle, plain_ms=(100.0,), plain_moved_ms=(110.0,), quick_ms=(30.0,), flow_ms=(3.0,), **changes):
    entries = (
        LatencyProfile(PLAIN, "d", plain_ms, 5),
        LatencyProfile(PLAIN, "d", plain_moved_ms, 5, compensation=MOVED, flow_ms=flow_ms),
        LatencyProfile(QUICK, "d", quick_ms, 5),
        LatencyProfile(QUICK, "d", quick_ms, 5, compensation=MOVED, flow_ms=flow_ms),
    )
    return profile(bundle, {}, **{"entries": entries} | changes)


QUICK = "quick_32x48"


def test_the_candidate_that_a_reader_sees_most_of_is_picked(movable):
    # Steps of 110 ms at 66.7 ms a frame: labels are 2 to 4 frames old when they are read, k = 2 says .56.
    chosen = pick(movable, moved_profile(movable), 15.0)
    assert (chosen.configuration.name, chosen.candidate.compensation) == (PLAIN, MOVED)
    assert (chosen.row.configuration, chosen.row.compensation) == (PLAIN, MOVED.name)
    assert chosen.row.name == f"{PLAIN} {MOVED.name}"
    assert chosen.row.expected_lamiou == pytest.approx(0.56)
    assert 0.53 < chosen.row.streaming_lamiou < 0.56
    assert chosen.row.flow_p90_ms == 3.0


def test_labels_that_are_held_lower_the_default_statistic_and_not_the_expected_form(movable):
    # Every other step takes three frames: the labels before it are read meanwhile, however quick their own step was.
    measured = moved_profile(movable, plain_moved_ms=(66.0, 195.0))
    row = next(row for row in pick(movable, measured, 15.0).rows if row.name == f"{PLAIN} {MOVED.name}")
    assert row.expected_lamiou == pytest.approx((0.58 + 0.54) / 2)
    assert row.streaming_lamiou < row.expected_lamiou


def test_another_statistic_is_maximised_when_it_is_asked_for(movable):
    measured = moved_profile(movable)
    for statistic in ("streaming", "expected", "median"):
        figures = [row.lamiou(statistic) for row in pick(movable, measured, 15.0, statistic=statistic).rows]
        assert figures == sorted(figures, reverse=True)


def test_a_flow_that_cannot_keep_up_excludes_its_candidate(movable):
    chosen = pick(movable, moved_profile(movable, flow_ms=(70.0,) * 10), 15.0)
    assert chosen.row.name == QUICK
    excluded = next(row for row in chosen.rows if row.name == f"{PLAIN} {MOVED.name}").excluded
    assert excluded == "its flow cannot keep up: p90 70.0 ms a frame, a frame comes every 66.7 ms"


def test_candidates_are_restricted_to_the_compensations_asked_for(movable):
    chosen = pick(movable, moved_profile(movable), 15.0, compensations=[UNCOMPENSATED])
    assert {row.compensation for row in chosen.rows} == {"none"}
    assert chosen.row.name == QUICK


def test_the_reason_says_what_compensation_gives_back(movable):
    chosen = pick(movable, moved_profile(movable), 15.0)
    plain = next(row for row in chosen.rows if row.name == PLAIN)
    back = chosen.row.streaming_lamiou - plain.streaming_lamiou
    assert f"labels moved by {MOVED.name} give back {back:.3f} ({plain.streaming_lamiou:.3f} without)" in chosen.reason
    assert f"the best without compensation, {QUICK}, reaches 0.520" in chosen.reason
    assert chosen.reason.endswith("it is also the most accurate one")


def test_the_reason_compares_with_the_most_accurate_one_at_its_best(movable):
    measured = moved_profile(movable, plain_moved_ms=(320.0,), plain_ms=(300.0,))
    reason = pick(movable, measured, 15.0).reason
    assert (
        f"the most accurate one, {PLAIN} (mIoU 0.600), would be 5 frames late at 320.0 ms with {MOVED.name}" in reason
    )


def test_a_profile_without_compensated_entries_still_gives_a_pick_and_says_what_is_missing(movable):
    old = profile(movable, {PLAIN: (100.0,), QUICK: (30.0,)})
    chosen = pick(movable, old, 15.0)
    assert chosen.row.name == QUICK
    assert f"not measured with {MOVED.name}: edgeseg profile does it (2 candidates)" in chosen.notes


def test_why_a_candidate_was_not_measured_is_noted(movable):
    entries = (
        LatencyProfile(PLAIN, "d", (30.0,), 5),
        LatencyProfile(PLAIN, "d", (), 0, compensation=MOVED, skipped="frames of 24 x 36 are too small for a flow"),
        LatencyProfile(QUICK, "d", (30.0,), 5),
        LatencyProfile(QUICK, "d", (), 0, compensation=MOVED, skipped="cannot win: its network alone ..."),
    )
    notes = pick(movable, profile(movable, {}, entries=entries), 15.0).notes
    assert f"not measured with {MOVED.name}: frames of 24 x 36 are too small for a flow (1 candidate)" in notes
    assert any(note.startswith("not measured with a compensation: even at") for note in notes)


def test_json_tells_configuration_and_compensation_apart(movable):
    values = pick(movable, moved_profile(movable), 15.0).as_dict()
    assert values["configuration"] == PLAIN
    assert Compensation.from_dict(values["compensation"]) == MOVED
    assert {(row["configuration"], row["compensation"]) for row in values["rows"]} == {
        (name, compensation) for name in (PLAIN, QUICK) for compensation in ("none", MOVED.name)
    }


def test_another_rate_than_that_of_the_measured_flow_is_noted(movable):
    notes = pick(movable, moved_profile(movable), 30.0).notes
    assert any("with the flow of 15 frames/s beside the network" in note for note in notes)


def test_a_schedule_is_picked_along_when_it_gives_fresher_labels(bundle):
    # A step takes a little more than one and a half periods of 30 frames/s.
    chosen = pick(bundle, profile(bundle, {PLAIN: (50.7,)}), 30.0)
    assert chosen.schedule.name == "shrinking-tail"
    assert chosen.row.streaming_lamiou == pytest.approx(0.475, abs=0.002)
    assert chosen.row.latest_frame_lamiou < chosen.row.streaming_lamiou
    assert "the loop's schedule is shrinking-tail, with which it reads" in chosen.reason


def test_latest_frame_is_picked_when_another_schedule_gives_nothing(bundle):
    chosen = pick(bundle, profile(bundle, {PLAIN: (40.0,)}), 15.0)
    assert chosen.schedule.name == "latest-frame"
    assert "schedule" not in chosen.reason


def test_the_schedule_that_was_asked_for_is_reckoned_with(bundle):
    measured = profile(bundle, {PLAIN: (50.7,)})
    asked = pick(bundle, measured, 30.0, schedules=(Schedule("latest-frame"),))
    assert asked.schedule.name == "latest-frame"
    assert asked.row.streaming_lamiou == pick(bundle, measured, 30.0).row.latest_frame_lamiou
    named = pick(bundle, measured, 30.0, schedules=(Schedule("every-n-th", 5.0),))
    assert named.row.latest_frame_lamiou is None
    assert "the loop's schedule is every-n-th:5, as asked" in named.reason
    with pytest.raises(InputError, match="no schedule to choose from"):
        pick(bundle, measured, 30.0, schedules=())


def test_no_schedule_is_picked_for_a_gain_that_nobody_sees(tmp_path, graphs):
    flat = graphs.write_bundle(tmp_path / "flat.edgeseg", [graphs.stateless(miou=(0.6, 0.5, 0.4, 0.3999, 0.3998))])
    chosen = pick(flat, profile(flat, {PLAIN: (101.5,)}), 15.0)
    assert chosen.schedule.name == "latest-frame"
    shrinking = pick(flat, profile(flat, {PLAIN: (101.5,)}), 15.0, schedules=(Schedule("shrinking-tail"),))
    assert chosen.row.streaming_lamiou < shrinking.row.streaming_lamiou
