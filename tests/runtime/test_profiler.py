import threading
from collections import Counter

import numpy as np
import pytest

from edgeseg.accuracy import CompensatedAccuracy
from edgeseg.bundle import Candidate
from edgeseg.config import UNCOMPENSATED, Compensation
from edgeseg.device_profile import DeviceProfile
from edgeseg.errors import ArtifactError, DeviceError, InputError
from edgeseg.runtime import bench
from edgeseg.runtime.bench import STEPS_A_TURN
from edgeseg.runtime.clip import noise_frames
from edgeseg.runtime.pick import pick
from edgeseg.runtime.profiler import profile_bundle


class TickingClock:
    """Every look at it takes a millisecond: so each step measures one."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 0.001
        return self.now_s


def test_every_configuration_is_measured_in_full_when_exhaustive(bundle):
    profile = profile_bundle(bundle, fps=15, samples=7, threads=1, exhaustive=True)
    assert {entry.name for entry in profile.entries} == {entry.name for entry in bundle.configurations}
    # Turns are whole: 7 samples take two turns of 5.
    assert [len(entry.samples_ms) for entry in profile.entries] == [2 * STEPS_A_TURN] * 3
    assert all(entry.warm_up_steps >= 6 for entry in profile.entries)
    # The CPU's steps have no clock of their own.
    assert all(entry.device_ms == () for entry in profile.entries)
    assert all(entry.digest == bundle.configuration(entry.name).digest for entry in profile.entries)


def test_samples_are_the_times_of_single_steps(bundle):
    profile = profile_bundle(bundle, fps=15, samples=5, threads=1, exhaustive=True, clock=TickingClock())
    assert [sample for entry in profile.entries for sample in entry.samples_ms] == pytest.approx([1.0] * 15)


def test_the_first_step_is_noted_when_the_configuration_has_state(bundle):
    profile = profile_bundle(bundle, fps=15, samples=5, threads=1, exhaustive=True, clock=TickingClock())
    noted = {entry.name: entry.first_step_ms for entry in profile.entries}
    assert noted == {"plain_32x48": None, "phases_32x48_rho0-concat": 1.0, "frames_32x48": 1.0}


def test_what_cannot_win_is_left_early(tmp_path, graphs):
    entries = [graphs.stateless("good", miou=(0.6, 0.6)), graphs.stateless("poor", miou=(0.2, 0.2), macs=2000)]
    made = graphs.write_bundle(tmp_path / "two.edgeseg", entries)
    profile = profile_bundle(made, fps=15, samples=20, threads=1, clock=TickingClock())
    poor, good = profile.entry("poor_32x48"), profile.entry("good_32x48")
    assert poor.skipped.startswith("cannot win")
    assert len(poor.samples_ms) == STEPS_A_TURN
    assert len(good.samples_ms) == 20
    assert pick(made, profile, 15).row.name == "good_32x48"


def test_frames_are_resized_as_part_of_the_step_when_a_frame_size_is_given(bundle):
    profile = profile_bundle(bundle, fps=15, samples=5, threads=1, frame_size_hw=(100, 200))
    assert profile.frame_size_hw == (100, 200)


def test_given_frames_are_used(bundle):
    frames = [np.full((64, 96, 3), value, np.uint8) for value in (10, 200)]
    profile = profile_bundle(bundle, fps=15, samples=5, threads=1, frames_rgb=frames)
    assert any(entry.samples_ms for entry in profile.entries)


def test_the_profile_survives_the_round_trip_through_its_file(bundle, tmp_path):
    profile = profile_bundle(bundle, fps=15, samples=5, threads=1)
    profile.save(tmp_path / "p.json")
    assert DeviceProfile.load(tmp_path / "p.json") == profile


def test_a_damaged_bundle_is_refused_before_anything_is_measured(own_bundle):
    path = own_bundle.root / "plain_32x48.step.onnx"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ArtifactError, match="damaged"):
        profile_bundle(own_bundle, fps=15)


def test_an_unknown_device_is_refused(bundle):
    with pytest.raises(DeviceError, match="unknown device"):
        profile_bundle(bundle, device="abacus", fps=15)


def test_a_frame_rate_that_is_not_positive_is_refused(bundle):
    with pytest.raises(InputError, match="fps positive"):
        profile_bundle(bundle, fps=0)


MOVED = Compensation()
FRAME_HW = (64, 96)


@pytest.fixture(scope="module")
def movable(tmp_path_factory, graphs):
    """Configurations `one` and `two`, and for both a table of labels that are moved."""
    entries = [graphs.stateless("one"), graphs.stateless("two", miou=(0.61, 0.5, 0.4)), graphs.two_phases()]
    for entry in entries:
        table = CompensatedAccuracy(MOVED, (entry.accuracy.miou[0], 0.58, 0.57), (None,) * 3)
        entry.accuracy = entry.accuracy.with_compensated([table])
    return graphs.write_bundle(tmp_path_factory.mktemp("movable") / "movable.edgeseg", entries)


def full(made, **options):
    return profile_bundle(made, **{"fps": 15, "samples": 5, "threads": 1, "exhaustive": True} | options)


def test_each_configuration_is_measured_with_what_it_has_tables_for(movable):
    profile = full(movable, frame_size_hw=FRAME_HW)
    measured = Counter((entry.name, entry.compensation) for entry in profile.entries)
    assert measured == Counter((e.name, c) for e in movable.configurations for c in (UNCOMPENSATED, MOVED))
    assert all(len(entry.samples_ms) == STEPS_A_TURN for entry in profile.entries)


def test_the_flow_is_noted_where_labels_are_moved_and_they_always_are(movable):
    profile = full(movable, frame_size_hw=FRAME_HW, samples=10)
    for entry in profile.entries:
        assert (len(entry.flow_ms) >= len(entry.samples_ms)) == entry.compensation.moves
    assert "unmoved" not in profile.facts


def test_compensations_that_are_named_are_measured_alone(movable):
    late = Compensation(mode="late-warp")
    profile = full(movable, frame_size_hw=FRAME_HW, compensations=[late])
    assert {entry.compensation for entry in profile.entries} == {late}


def test_candidates_of_a_configuration_share_a_session(movable, monkeypatch):
    loaded = []

    class CountedSession(bench.Session):
        def __init__(self, root, configuration, **options):
            loaded.append(configuration.name)
            super().__init__(root, configuration, **options)

    monkeypatch.setattr(bench, "Session", CountedSession)
    full(movable, frame_size_hw=FRAME_HW, samples=10)
    assert sorted(loaded) == sorted(entry.name for entry in movable.configurations)


def test_every_turn_begins_with_the_other_phase_when_candidates_share_a_session(movable, monkeypatch):
    phases, roles = movable.configuration("phases_32x48_rho0-concat"), []

    class WatchedSession(bench.Session):
        def step(self, frame, out=None):
            labels = super().step(frame, out)
            roles.append("phase1" if labels[0, 0] >= 100 else "phase0")
            return labels

    monkeypatch.setattr(bench, "Session", WatchedSession)
    candidates = [Candidate(phases), Candidate(phases, MOVED)]
    with bench.Bench(
        movable, candidates, device="cpu", threads=1, fps=15, frame_size_hw=None, frames_rgb=None, clock=TickingClock()
    ) as measuring:
        first = []
        for _ in range(3):
            for candidate in candidates:
                measuring.turn(candidate.name)
                first.append(roles[-STEPS_A_TURN])
    assert first[::2] in (["phase0", "phase1", "phase0"], ["phase1", "phase0", "phase1"])
    assert first[1::2] == first[::2]


def test_labels_that_stay_are_counted_when_the_video_has_cuts(movable):
    frames = [noise_frames(FRAME_HW)[0], noise_frames(FRAME_HW)[0][:, ::-1].copy()]
    profile = full(movable, frame_size_hw=FRAME_HW, frames_rgb=frames)
    assert set(profile.facts["unmoved"]) == {"scene cut"}


def test_frames_too_small_for_a_flow_are_noted_instead_of_samples(movable):
    entry = full(movable, frame_size_hw=(24, 36)).entry_of(Candidate(movable.configurations[0], MOVED))
    assert entry.samples_ms == ()
    assert entry.skipped == "frames of 24 x 36 are too small for a flow"


def test_a_flow_whose_hardware_is_missing_is_noted_instead_of_samples(movable):
    hardware = Compensation(flow="vpi")
    profile = full(movable, frame_size_hw=FRAME_HW, compensations=[UNCOMPENSATED, hardware])
    assert "VPI" in profile.entry_of(Candidate(movable.configurations[0], hardware)).skipped


def test_a_flow_slower_than_the_camera_is_left_whatever_its_labels_are_worth(movable):
    # A flow takes two looks at the clock of 1 ms each: more than the period of 2000 frames/s.
    profile = profile_bundle(
        movable, fps=2000, samples=5, threads=1, frame_size_hw=FRAME_HW, clock=TickingClock(),
        compensations=[UNCOMPENSATED, Compensation(flow="dis-fast")],
    )  # fmt: skip
    moved = [entry for entry in profile.entries if entry.compensation.moves and entry.samples_ms]
    assert moved
    assert all("cannot keep up" in entry.skipped for entry in moved)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_the_thread_ends_when_measuring_is_broken_off(movable, error):
    def progress(name, share):
        if MOVED.name in name:
            raise error

    with pytest.raises(error):
        full(movable, frame_size_hw=FRAME_HW, progress=progress)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("edgeseg-flow")]


def test_the_thread_ends_with_the_measurement(movable):
    full(movable, frame_size_hw=FRAME_HW)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("edgeseg-flow")]
