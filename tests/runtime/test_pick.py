import pytest

from edgeseg.device_profile import DeviceProfile, LatencyProfile
from edgeseg.errors import ArtifactError, InputError
from edgeseg.runtime.pick import pick

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
