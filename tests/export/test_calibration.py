import numpy as np
import pytest

from edgeseg.config import Configuration
from edgeseg.data.folder import FolderDataset
from edgeseg.errors import InputError
from edgeseg.export import calibration
from edgeseg.export.cached_video import CachedVideo, FrameCache
from edgeseg.export.calibration import SteadyState
from edgeseg.export.calibration_frames import CalibrationSource
from edgeseg.export.graph_runner import GraphRunner

SIZE_HW = (48, 64)


@pytest.fixture
def squares(video_root) -> CalibrationSource:
    cache = FrameCache(8 << 20)
    videos = FolderDataset(video_root).videos("val")
    return CalibrationSource("squares", "val", tuple(CachedVideo(video, cache) for video in videos), 8)


def variant_of(source, **knobs):
    return source.variant(Configuration("tiny", SIZE_HW, **knobs))


def by_hand(variant, stretch, counted):
    """What the role at the counted frame is fed with, run from a reset."""
    runner = GraphRunner(variant)
    for index in list(stretch.frames)[: stretch.warm_up + counted]:
        runner.step(stretch.video.frame_rgb(index, SIZE_HW))
    return runner.role, runner.feeds(stretch.video.frame_rgb(stretch.start + stretch.warm_up + counted, SIZE_HW))


def test_each_phase_is_fed_with_the_states_that_it_sees_in_steady_state(make_source, squares):
    variant = variant_of(make_source(), rho=0.25, cwm_form="concat")
    steady = SteadyState(variant, squares)
    stretch = steady.frames.stretches[3]
    for counted in (0, 1):
        role, expected = by_hand(variant, stretch, counted)
        got = steady.feeds(role)[3 * steady.per_stretch]
        assert got.keys() == expected.keys()
        assert len(got) > 1
        for name in expected:
            np.testing.assert_array_equal(got[name], expected[name])


def test_first_graph_is_fed_with_frames_alone(make_source, squares):
    steady = SteadyState(variant_of(make_source(), rho=0.0, cwm_form="concat"), squares)
    feeds = list(steady.feeds("init"))
    assert [list(entry) for entry in feeds] == [["image"]] * 8
    assert len({entry["image"].tobytes() for entry in feeds}) == 8


def test_every_role_gets_as_many_images_as_asked_for(make_source, squares):
    steady = SteadyState(variant_of(make_source(), rho=0.25, cwm_form="concat"), squares)
    assert {role: len(list(steady.feeds(role))) for role in ("init", "phase0", "phase1")} == dict.fromkeys(
        ("init", "phase0", "phase1"), 8
    )


def test_two_frame_network_is_fed_with_pairs_of_consecutive_frames(make_source, squares):
    steady = SteadyState(variant_of(make_source(2), input_frames=2), squares)
    for stretch, feeds in zip(steady.frames.stretches, list(steady.feeds("step"))[:: steady.per_stretch], strict=True):
        now = stretch.start + stretch.warm_up
        np.testing.assert_array_equal(feeds["image"][0], stretch.video.frame_rgb(now, SIZE_HW))
        (before,) = (array for name, array in feeds.items() if name != "image")
        np.testing.assert_array_equal(before[0], stretch.video.frame_rgb(now - 1, SIZE_HW))


def test_stateless_network_is_not_run_to_be_fed(make_source, squares, monkeypatch):
    monkeypatch.setattr(calibration, "GraphRunner", None)
    feeds = SteadyState(variant_of(make_source()), squares).feeds("step")
    assert [entry["image"].shape for entry in feeds] == [(1, *SIZE_HW, 3)] * 8


def test_feeds_are_the_same_when_there_is_no_memory_to_keep_them(make_source, squares):
    variant = variant_of(make_source(), rho=0.25, cwm_form="concat")
    frames: list[int] = []
    kept = list(SteadyState(variant, squares).feeds("phase0"))
    steady = SteadyState(variant, squares, kept_bytes=0, on_frame=lambda: frames.append(1))
    for _ in range(2):
        for entry, expected in zip(steady.feeds("phase0"), kept, strict=True):
            for name in expected:
                np.testing.assert_array_equal(entry[name], expected[name])
    assert len(frames) == 2 * steady.frames.count


def test_frames_are_run_once_for_all_roles_when_memory_allows(make_source, squares):
    frames: list[int] = []
    variant = variant_of(make_source(), rho=0.25, cwm_form="concat")
    steady = SteadyState(variant, squares, on_frame=lambda: frames.append(1))
    for role in ("init", "phase0", "phase1", "phase1"):
        list(steady.feeds(role))
    assert len(frames) == steady.frames.count


def test_slices_and_negative_places_are_those_of_a_list(make_source, squares):
    feeds = SteadyState(variant_of(make_source()), squares).feeds("step")
    every = [entry["image"].tobytes() for entry in feeds]
    assert [entry["image"].tobytes() for entry in feeds[2:5]] == every[2:5]
    assert feeds[-1]["image"].tobytes() == every[-1]
    with pytest.raises(IndexError):
        feeds[8]


def test_state_that_is_not_a_number_is_refused(make_source, squares):
    source = make_source()
    source._network.body[0].weight.data[4, 0, 0, 0] = float("nan")
    steady = SteadyState(variant_of(source, rho=0.25, cwm_form="concat"), squares)
    with pytest.raises(InputError, match=r"state state_\S+ has NaN or infinite values after 8 steps on val_a"):
        list(steady.feeds("phase1"))


def test_record_tells_frames_method_and_warm_up(make_source, squares):
    record = SteadyState(variant_of(make_source(), rho=0.25, cwm_form="concat"), squares).record("max")
    assert (record.data_set, record.split, record.images, record.frames) == ("squares", "val", 8, 4 * 12)
    assert (record.method, record.warm_up, record.stills_moved, record.size_hw) == ("max", 8, False, SIZE_HW)
