import json
import threading
import time

import numpy as np
import pytest

from edgeseg.config import UNCOMPENSATED, Compensation, Configuration
from edgeseg.data.video import Video
from edgeseg.errors import InputError
from edgeseg.metrics.streaming import Publication
from edgeseg.runtime.loop import Loop
from edgeseg.runtime.run import run_loop
from edgeseg.runtime.session_loading import load
from edgeseg.runtime.slot import LatestSlot
from edgeseg.runtime.source import Frame, Source, VideoSource
from edgeseg.runtime.warp_stage import Finished, WarpStage
from support.sessions import HeldSession
from support.waiting import threads_of_loops, until

SIZE_HW = (96, 128)
PAN_PX = 3
PERIOD_S = 0.1


def scene() -> np.ndarray:
    """Blocks of red, green and blue with a texture, uint8 (96, 640, 3)."""
    random = np.random.default_rng(7)
    channels = random.integers(0, 3, (4, 640 // 24 + 1)).repeat(24, axis=0).repeat(24, axis=1)[:96, :640]
    texture = random.integers(40, 90, (24, 160)).repeat(4, axis=0).repeat(4, axis=1)
    image = np.repeat(texture[..., None], 3, axis=2)
    np.put_along_axis(image, channels[..., None], texture[..., None] + 120, axis=2)
    return image.astype(np.uint8)


SCENE = scene()


def view(index: int) -> np.ndarray:
    """What a camera sees that pans to the right."""
    return np.ascontiguousarray(SCENE[:, PAN_PX * index : PAN_PX * index + SIZE_HW[1]])


def truth(index: int) -> np.ndarray:
    return view(index).argmax(axis=2).astype(np.uint8)


def right(labels: np.ndarray, index: int) -> float:
    """Share of pixels that are right for a frame, without a margin that came into view."""
    return float((labels == truth(index))[:, :-20].mean())


class ScriptedSource(Source):
    """Frame i was captured at i * PERIOD_S, and comes when the test lets it."""

    name, fps, size_hw, paced = "panned", 1 / PERIOD_S, SIZE_HW, True
    is_lost = False

    def __init__(self, frames: int, indices=None) -> None:
        self.indices = list(indices or range(frames))
        self.allowed = threading.Semaphore(0)

    def read(self, stop: threading.Event) -> Frame | None:
        while not self.allowed.acquire(timeout=0.01):
            if stop.is_set():
                return None
        if not self.indices:
            return None
        index = self.indices.pop(0)
        return frame(index)


class Panned(Video):
    name, fps, size_hw = "panned", 25.0, SIZE_HW

    def __len__(self) -> int:
        return 60

    def frame_rgb(self, index: int) -> np.ndarray:
        return view(index)

    def labels(self, index: int) -> np.ndarray:
        return truth(index)


@pytest.fixture(scope="module")
def panned_bundle(tmp_path_factory, graphs):
    root = tmp_path_factory.mktemp("bundles") / "panned.edgeseg"
    entries = [graphs.stateless(name, SIZE_HW, graphs.brightest_channel(SIZE_HW)) for name in ("plain", "ahead")]
    entries[1].knobs = Configuration("ahead", SIZE_HW, target_offset=2)
    return graphs.write_bundle(root, entries)


@pytest.fixture
def session(panned_bundle):
    with load(panned_bundle, configuration="plain_96x128", threads=1) as session:
        yield session


def late_result(session, mode: str):
    """The result of a network that finishes frame 0 when frame 3 is the newest one, and the loop's summary."""
    held, source = HeldSession(session), ScriptedSource(4)
    with Loop(held, source, compensation=Compensation(mode)) as loop:
        source.allowed.release()
        assert held.entered.acquire(timeout=10)
        source.allowed.release(3)
        until(lambda: loop.summary.frames_captured == 4)
        held.allowed.release()
        result = next(iter(loop))
        held.allowed.release(9)
    return result, loop.summary


def test_labels_stand_for_the_newest_frame_when_they_are_warped(session):
    result, _ = late_result(session, "late-warp")
    assert (result.source_index, result.frame_index) == (0, 3)
    assert result.stands_for == pytest.approx(3 * PERIOD_S)
    assert right(result.labels, 3) > 0.97
    assert right(truth(0), 3) < 0.9


def test_labels_stand_for_the_next_frame_when_they_are_extrapolated(session):
    result, _ = late_result(session, "late-warp+extrapolate")
    assert result.stands_for == pytest.approx(4 * PERIOD_S)
    assert right(result.labels, 4) > 0.97
    assert result.moved_px == pytest.approx(4 * PAN_PX, abs=1.5)
    np.testing.assert_array_equal(result.frame_rgb, view(3))


def test_labels_are_as_the_network_gave_them_when_the_mode_is_none(session):
    held, source = HeldSession(session, Compensation()), ScriptedSource(1)
    held.allowed.release()
    source.allowed.release(2)
    with Loop(held, source, compensation=UNCOMPENSATED) as loop:
        result = next(iter(loop))
    np.testing.assert_array_equal(result.labels, truth(0))
    assert (result.stands_for, result.moved_px, result.fallback) == (0.0, 0.0, None)
    assert loop.summary.compensation is None


def test_the_sessions_compensation_moves_at_the_cameras_rate_unless_told_otherwise(session):
    loop = Loop(HeldSession(session, Compensation("late-warp")), ScriptedSource(1))
    assert (loop.compensation, loop.rate) == (Compensation("late-warp"), "camera")
    assert (Loop(session, ScriptedSource(1)).compensation, Loop(session, ScriptedSource(1)).rate) == (
        UNCOMPENSATED,
        "network",
    )


def test_the_reason_is_told_and_counted_when_labels_cannot_be_moved(session):
    held, source = HeldSession(session), ScriptedSource(1)
    held.allowed.release()
    with Loop(held, source, compensation=Compensation()) as loop:
        source.allowed.release(2)
        result = next(iter(loop))
    assert result.fallback == "no motion known"
    assert result.stands_for == result.source_at
    assert loop.summary.compensation.fallbacks == {"no motion known": 1}


def test_every_camera_frame_gives_a_result_while_the_network_is_busy(session):
    held, source = HeldSession(session), ScriptedSource(4)
    held.allowed.release()
    seen = []
    with Loop(held, source, compensation=Compensation("late-warp"), rate="camera") as loop:
        results = iter(loop)
        for index in range(4):
            source.allowed.release()
            if index < 2:
                assert held.entered.acquire(timeout=10)
            seen.append(next(results))
        # The network is in frame 1 all the time; its labels are moved to frame 3 when they are finished.
        held.allowed.release()
        seen.append(next(results))
        held.allowed.release(9)
    assert [(result.source_index, result.frame_index) for result in seen] == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 3)]
    assert min(right(result.labels, result.frame_index) for result in seen) > 0.97


def test_the_frame_of_a_moved_result_cannot_be_drawn_on(session):
    result, _ = late_result(session, "late-warp")
    with pytest.raises(ValueError, match="read-only"):
        result.frame_rgb[0] = 0


def test_the_summary_tells_the_warps_latency_by_itself(session):
    _, summary = late_result(session, "late-warp")
    values = json.loads(json.dumps(summary.as_dict()))["compensation"]
    assert values["name"] == "late-warp_dis-ultrafast_d2"
    assert values["invalid_share"] is None
    assert set(values["warp_ms"]) == {"p50", "p90", "p99", "max"}


def test_every_frame_is_moved_in_order_when_the_source_is_not_paced(session):
    source = VideoSource(Panned(), paced=False)
    with Loop(session, source, compensation=Compensation(), rate="network") as loop:
        results = list(loop)
    assert [result.source_index for result in results] == list(range(60))
    # However fast the frames come, the motion is that of the recording.
    assert loop.summary.compensation.fallbacks.keys() <= {"no motion known"}
    assert min(right(result.labels, result.frame_index + 1) for result in results[1:]) > 0.97


def test_the_log_holds_the_frames_that_labels_come_from(session):
    source = VideoSource(Panned(), paced=False)
    with Loop(session, source, compensation=Compensation(), rate="network", keep_log=True) as loop:
        loop.wait()
    assert [entry.frame_index for entry in loop.log] == list(range(60))
    assert isinstance(loop.log[0], Publication)


def test_the_failure_is_raised_and_all_stop_when_the_warp_fails(session):
    source = ScriptedSource(0, indices=[5, 5])
    with (
        pytest.raises(InputError, match="frames come in order"),
        Loop(session, source, compensation=Compensation()) as loop,
    ):
        source.allowed.release()
        until(lambda: loop.summary.results == 1)
        source.allowed.release()
        loop.wait()
    assert threads_of_loops() == []


def test_the_loop_stops_soon_when_nothing_comes(session):
    source = ScriptedSource(3)
    with Loop(session, source, compensation=Compensation(), rate="camera"):
        begin = time.monotonic()
    assert time.monotonic() - begin < 2.0
    assert threads_of_loops() == []


def test_stop_may_be_called_from_the_callback(session):
    source = VideoSource(Panned(), paced=False)
    loop = Loop(session, source, on_result=lambda result: loop.stop(), compensation=Compensation())
    with loop:
        loop.wait()
    assert loop.summary.results == 1


def test_the_cameras_rate_is_refused_without_compensation(session):
    with pytest.raises(InputError, match="are moved labels"):
        Loop(session, ScriptedSource(1), rate="camera")
    with pytest.raises(InputError, match="unknown rate 'fast'"):
        Loop(session, ScriptedSource(1), rate="fast")


class SlowSession(HeldSession):
    def step(self, frame: np.ndarray) -> np.ndarray:
        time.sleep(0.1)
        return self._session.step(frame)


@pytest.mark.parametrize("rate", ["network", "camera"])
def test_what_a_reader_sees_is_better_when_labels_are_moved(session, graphs, rate):
    def score(compensation: Compensation) -> float:
        report = run_loop(
            SlowSession(session),
            VideoSource(Panned(), graphs.classes),
            classes=graphs.classes,
            compensation=compensation,
            rate=rate if compensation.moves else "network",
            seconds=1.5,
        )
        return report.slamiou_after_first

    assert score(Compensation()) > score(UNCOMPENSATED) + 0.05


def test_the_video_has_every_camera_frame_once_at_the_cameras_rate(session, graphs, tmp_path):
    import cv2

    shown = []
    run_loop(
        session,
        VideoSource(Panned(), graphs.classes, paced=False),
        classes=graphs.classes,
        save=tmp_path / "v.mp4",
        progress=lambda result: shown.append(result.frame_index),
        compensation=Compensation(),
        rate="camera",
    )
    assert shown == sorted(shown)
    assert len(shown) > len(set(shown))
    assert cv2.VideoCapture(str(tmp_path / "v.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == shown[-1] - shown[0] + 1


def warp_stage(rate: str = "camera", **options) -> WarpStage:
    values = {
        "compensation": Compensation("late-warp"), "period_s": PERIOD_S, "paced": True, "ignore_value": 255,
        "stop": threading.Event(),
    }  # fmt: skip
    return WarpStage(rate=rate, **(values | options))


def frame(index: int) -> Frame:
    return Frame(index, index * PERIOD_S, view(index))


def put_frame(stage: WarpStage, index: int, *, taken: bool = False) -> None:
    if taken:
        stage.note_source(frame(index))
    stage.put_frame(frame(index))


def published(stage: WarpStage) -> list:
    """What the stage publishes of what waits, half a second after the source's start."""
    stage.close()
    seen = []
    stage.run(lambda result: seen.append(result) or 0.5)
    return seen


def test_the_newest_frame_alone_gives_a_result_when_the_stage_is_behind():
    stage = warp_stage()
    for index in range(4):
        put_frame(stage, index, taken=index == 0)
    stage.put_labels(Finished(frame(0), truth(0), 1.0))
    seen = published(stage)
    assert [(result.source.frame.index, result.frame.index) for result in seen] == [(0, 3)]
    assert right(seen[0].moved.labels, 3) > 0.97
    assert stage.summary().source_age_ms["p50"] == 500.0


def test_the_frames_that_labels_come_from_are_kept_however_long_the_stage_was_stalled():
    stage = warp_stage()
    for index in range(60):
        put_frame(stage, index, taken=index in (1, 58))
        if index == 30:
            stage.put_labels(Finished(frame(1), truth(1), 1.0))
    stage.put_labels(Finished(frame(58), truth(58), 1.0))
    (result,) = published(stage)
    assert (result.source.frame.index, result.frame.index, result.moved.fallback) == (58, 59, None)


def test_labels_are_extrapolated_by_the_measured_period_when_the_camera_tells_another_rate():
    """A camera of half the rate that it tells, as in the dark."""
    stage = warp_stage("network", compensation=Compensation(), period_s=PERIOD_S / 2)
    for index in range(6):
        put_frame(stage, index, taken=True)
    stage.put_labels(Finished(frame(3), truth(3), 1.0))
    (result,) = published(stage)
    assert result.stands_for_s == pytest.approx(6 * PERIOD_S)
    assert right(result.moved.labels, 6) > 0.97


def test_frames_of_a_recording_that_wait_are_a_stated_period_apart_however_they_come():
    stage = warp_stage("network", compensation=Compensation(), period_s=2 * PERIOD_S, paced=False)
    for index in range(6):
        put_frame(stage, index)
    stage.put_labels(Finished(frame(3), truth(3), 1.0))
    (result,) = published(stage)
    assert result.stands_for_s == pytest.approx(5 * PERIOD_S + 2 * PERIOD_S)
    assert right(result.moved.labels, 6) > 0.97


def test_no_frame_is_kept_in_mind_once_its_labels_have_come():
    stage = warp_stage()
    for index in range(5):
        put_frame(stage, index, taken=True)
    stage.put_labels(Finished(frame(3), truth(3), 1.0))
    published(stage)
    assert stage._noted == {4}


def test_labels_are_moved_when_they_are_ready_before_their_frame_was_handed_over():
    stage = warp_stage()
    put_frame(stage, 0)
    stage.put_labels(Finished(frame(1), truth(1), 1.0))
    put_frame(stage, 1)
    put_frame(stage, 2)
    (result,) = published(stage)
    assert (result.source.frame.index, result.frame.index, result.moved.fallback) == (1, 2, None)


def test_labels_of_a_network_that_anticipates_stand_for_a_later_time_until_they_are_moved():
    stage = warp_stage(lead_s=2 * PERIOD_S)
    put_frame(stage, 0, taken=True)
    stage.put_labels(Finished(frame(0), truth(2), 1.0))
    (result,) = published(stage)
    assert result.moved.fallback is not None
    assert result.stands_for_s == 2 * PERIOD_S


def test_labels_of_a_network_that_anticipates_are_moved_by_the_rest_of_the_way():
    stage = warp_stage(lead_s=2 * PERIOD_S)
    put_frame(stage, 0, taken=True)
    put_frame(stage, 2)
    stage.put_labels(Finished(frame(0), truth(2), 1.0))
    (result,) = published(stage)
    assert result.stands_for_s == 2 * PERIOD_S
    np.testing.assert_array_equal(result.moved.labels, truth(2))


def test_labels_with_marked_pixels_tell_their_share_and_are_not_scored(session, graphs):
    results = []
    report = run_loop(
        session,
        VideoSource(Panned(), graphs.classes),
        classes=graphs.classes,
        frames=8,
        progress=results.append,
        compensation=Compensation(mark_invalid=True),
    )
    assert report.slamiou is None
    assert results[-1].invalid_share is not None
    assert (results[-1].labels == 255).mean() == pytest.approx(results[-1].invalid_share)


def test_the_share_of_invalid_pixels_is_told_when_the_consistency_is_checked(session, graphs):
    results = []
    report = run_loop(
        session,
        VideoSource(Panned(), graphs.classes, paced=False),
        classes=graphs.classes,
        frames=8,
        progress=results.append,
        compensation=Compensation(),
        check_consistency=True,
    )
    shares = [result.invalid_share for result in results if result.invalid_share is not None]
    assert report.summary.compensation.invalid_share == pytest.approx(np.mean(shares), abs=0.05)


def test_the_consistency_cannot_be_checked_where_nothing_moves(session):
    with pytest.raises(InputError, match="share of invalid pixels are moved labels"):
        Loop(session, ScriptedSource(1), check_consistency=True)


def test_labels_of_a_network_that_anticipates_stand_for_a_later_time_without_compensation(panned_bundle):
    with load(panned_bundle, configuration="ahead_96x128_t2", threads=1) as session:
        source = ScriptedSource(2)
        source.allowed.release(2)
        with Loop(session, source) as loop:
            result = next(iter(loop))
    # Two frames of the table's videos, which had 15 frames a second.
    assert result.stands_for == pytest.approx(result.source_at + 2 / 15)


def test_slot_gives_all_that_waits():
    slot: LatestSlot[int] = LatestSlot(threading.Event(), capacity=3)
    for item in (1, 2, 3):
        slot.put(item)
    slot.close()
    assert (slot.take_all(), slot.take_all()) == ([1, 2, 3], [])


def test_the_loop_does_not_wait_for_a_lost_camera_while_the_callback_hangs(session):
    called, back, source = threading.Event(), threading.Event(), ScriptedSource(1)

    def hang(result):
        called.set()
        assert back.wait(10)

    with Loop(session, source, compensation=Compensation(), on_result=hang) as loop:
        source.allowed.release()
        assert called.wait(10)
        source.is_lost = True
        for _ in range(20):
            assert not loop.waits_for_camera
            time.sleep(0.01)
        back.set()
        until(lambda: loop.waits_for_camera)
