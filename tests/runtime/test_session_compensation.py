"""What a session's compensation is: the pick's, the one asked for, or none."""

import numpy as np
import pytest

from edgeseg.accuracy import CompensatedAccuracy
from edgeseg.config import UNCOMPENSATED, Compensation
from edgeseg.data.video import Video
from edgeseg.device_profile import DeviceProfile, LatencyProfile
from edgeseg.errors import ArtifactError, InputError
from edgeseg.runtime.device import default_profile_path
from edgeseg.runtime.run import run_loop
from edgeseg.runtime.session_loading import load
from edgeseg.runtime.source import VideoSource

SIZE_HW = (32, 48)
PLAIN, MOVED = "plain_32x48", Compensation("late-warp")


@pytest.fixture(scope="module")
def movable(tmp_path_factory, graphs):
    """A bundle whose one configuration loses nothing to the delay when its labels are moved."""
    entry = graphs.stateless(miou=(0.6, 0.5, 0.4))
    scored = CompensatedAccuracy(MOVED, (0.6, 0.6, 0.6), (None,) * 3)
    entry.accuracy = entry.accuracy.with_compensated([scored])
    return graphs.write_bundle(tmp_path_factory.mktemp("bundles") / "movable.edgeseg", [entry])


@pytest.fixture
def profile(movable):
    entries = (
        LatencyProfile(PLAIN, "d", (40.0,) * 9, 5),
        LatencyProfile(PLAIN, "d", (45.0,) * 9, 5, compensation=MOVED, flow_ms=(3.0,)),
    )
    return DeviceProfile(
        "cpu", {}, movable.name, movable.digest, 15.0, False, None, 1, entries, "2026-01-01", "edgeseg profile"
    )


class Still(Video):
    name, fps, size_hw = "still", 40.0, SIZE_HW

    def __len__(self) -> int:
        return 12

    def frame_rgb(self, index: int) -> np.ndarray:
        return np.full((*SIZE_HW, 3), (200, 0, 0), np.uint8)

    def labels(self, index: int) -> np.ndarray:
        return np.zeros(SIZE_HW, np.uint8)


def test_a_session_has_the_compensation_that_the_pick_chose(movable, profile):
    with load(movable, profile=profile) as session:
        assert session.compensation == MOVED


@pytest.mark.parametrize("asked", ["none", UNCOMPENSATED])
def test_the_pick_is_among_candidates_with_the_compensation_that_was_asked_for(movable, profile, asked):
    with load(movable, profile=profile, compensation=asked) as session:
        assert session.compensation == UNCOMPENSATED
        assert session.pick.row.compensation == "none"


def test_marking_invalid_pixels_leaves_the_pick_as_it_is(movable, profile):
    marked = Compensation("late-warp", mark_invalid=True)
    with load(movable, profile=profile, compensation=marked) as session:
        assert session.compensation == marked
        assert session.pick.candidate.compensation == MOVED


def test_nothing_is_picked_when_no_table_is_of_the_compensation(movable, profile):
    with pytest.raises(ArtifactError, match=r"nothing to pick from .* makes it \(1 candidate\)$"):
        load(movable, profile=profile, compensation="extrapolate")


@pytest.fixture
def stored(movable, tmp_path, monkeypatch):
    """Stores a profile of these entries as this device's."""
    monkeypatch.chdir(tmp_path)

    def store(*entries):
        made = DeviceProfile("cpu", {}, "m", movable.digest, 15.0, False, None, 1, entries, "2026-01-01", "profile")
        made.save(default_profile_path("cpu"))

    return store


LEFT = LatencyProfile(PLAIN, "d", (), 0, skipped="cannot win: its network alone", compensation=MOVED)


def test_what_could_not_win_is_measured_when_it_is_asked_for(movable, stored, caplog):
    stored(LatencyProfile(PLAIN, "d", (40.0,) * 9, 5), LEFT)
    with load(movable, fps=15, threads=1, compensation=MOVED) as session:
        assert session.pick.row.compensation == MOVED.name
    assert "holds no latencies with late-warp_dis-ultrafast_d2: measuring" in caplog.text


def test_what_could_not_win_is_not_measured_when_nothing_is_asked_for(movable, stored, caplog):
    stored(LatencyProfile(PLAIN, "d", (40.0,) * 9, 5), LEFT)
    with load(movable, fps=15, threads=1) as session:
        assert session.compensation == UNCOMPENSATED
    assert caplog.records == []


def test_the_log_says_so_when_the_stored_profile_is_of_before_compensation(movable, stored, caplog):
    stored(LatencyProfile(PLAIN, "d", (40.0,) * 9, 5))
    with load(movable, fps=15, threads=1) as session:
        assert session.compensation == UNCOMPENSATED
    assert "holds no compensation: labels are not moved" in caplog.text


def test_the_pick_says_how_to_measure_what_could_not_win(movable):
    entries = (LatencyProfile(PLAIN, "d", (40.0,) * 9, 5), LEFT)
    made = DeviceProfile("cpu", {}, "m", movable.digest, 15.0, False, None, 1, entries, "2026-01-01", "profile")
    with pytest.raises(ArtifactError, match=r"measure them: edgeseg profile \S+ --fps 15 --exhaustive"):
        load(movable, profile=made, compensation=MOVED)


def test_a_named_configuration_is_not_compensated_unless_told_to(movable):
    with load(movable, configuration=PLAIN) as session:
        assert session.compensation == UNCOMPENSATED
    with load(movable, configuration=PLAIN, compensation="late-warp_dis-fast_d1") as session:
        assert session.compensation == Compensation("late-warp", "dis-fast", 1)


@pytest.mark.parametrize(
    ("name", "words"), [("all", "moves labels in one way"), ("forwards", "unknown compensation 'forwards'")]
)
def test_a_compensation_must_be_one_that_exists(movable, name, words):
    with pytest.raises(InputError, match=words):
        load(movable, configuration=PLAIN, compensation=name)


@pytest.mark.parametrize(
    ("options", "predicted"),
    [
        ({}, True),
        ({"rate": "network"}, False),
        ({"compensation": UNCOMPENSATED}, False),
    ],
)
def test_a_run_tells_the_prediction_only_when_it_ran_as_predicted(movable, profile, graphs, options, predicted):
    with load(movable, profile=profile) as session:
        report = run_loop(session, VideoSource(Still()), classes=graphs.classes, **options)
        expected = session.pick.row.streaming_lamiou if predicted else None
    assert report.predicted_slamiou == expected
