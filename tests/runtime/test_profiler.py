import numpy as np
import pytest

from edgeseg.device_profile import DeviceProfile
from edgeseg.errors import ArtifactError, DeviceError, InputError
from edgeseg.runtime.pick import pick
from edgeseg.runtime.bench import STEPS_A_TURN
from edgeseg.runtime.clip import noise_frames
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


def test_noise_frames_differ_and_repeat():
    first, again = noise_frames((40, 60)), noise_frames((40, 60))
    assert all((one == other).all() for one, other in zip(first, again, strict=True))
    assert (first[0] != first[1]).mean() > 0.9
    assert first[0].std() > 10
