import json
import threading
import time

import numpy as np
import pytest

from edgeseg.config import Compensation
from edgeseg.data.video import Video
from edgeseg.errors import InputError
from edgeseg.metrics.streaming import Publication
from edgeseg.runtime.loop import Loop
from edgeseg.runtime.run import run_loop
from edgeseg.runtime.session import load
from edgeseg.runtime.slot import LatestSlot
from edgeseg.runtime.source import Frame, Source, VideoSource
from edgeseg.runtime.warp_stage import Finished, WarpStage

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
        return Frame(index, index * PERIOD_S, view(index))


class HeldSession:
    """A session whose steps wait until the test lets them, around a real one."""

    classes = None

    def __init__(self, session) -> None:
        self._session = session
        self.configuration = session.configuration
        self.entered, self.allowed = threading.Semaphore(0), threading.Semaphore(0)

    def step(self, frame: np.ndarray) -> np.ndarray:
        self.entered.release()
        assert self.allowed.acquire(timeout=10)
        return self._session.step(frame)

    def reset(self) -> None:
        self._session.reset()

    def take_frames_of(self, size_hw) -> None:
        self._session.take_frames_of(size_hw)


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
    return graphs.write_bundle(root, [graphs.stateless("plain", SIZE_HW, graphs.brightest_channel(SIZE_HW))])


@pytest.fixture
def session(panned_bundle):
    with load(panned_bundle, configuration="plain_96x128", threads=1) as session:
        yield session


def until(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


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
    result, _ = late_result(session, "none")
    np.testing.assert_array_equal(result.labels, truth(0))
    assert (result.stands_for, result.moved_px, result.fallback) == (0.0, 0.0, None)


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
    assert values["mode"] == "late-warp"
    assert set(values["warp_ms"]) == {"p50", "p90", "p99", "max"}


def test_every_frame_is_moved_in_order_when_the_source_is_not_paced(session):
    source = VideoSource(Panned(), paced=False)
    with Loop(session, source, compensation=Compensation()) as loop:
        assert [result.source_index for result in loop] == list(range(60))


def test_the_log_holds_the_frames_that_labels_come_from(session):
    source = VideoSource(Panned(), paced=False)
    with Loop(session, source, compensation=Compensation(), keep_log=True) as loop:
        loop.wait()
    assert [entry.frame_index for entry in loop.log] == list(range(60))
    assert isinstance(loop.log[0], Publication)


def test_the_failure_is_raised_and_all_stop_when_the_warp_fails(session):
    source = ScriptedSource(0, indices=[5, 5])
    source.allowed.release(2)
    with (
        pytest.raises(InputError, match="frames come in order"),
        Loop(session, source, compensation=Compensation()) as loop,
    ):
        loop.wait()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("edgeseg-")] == []


def test_the_loop_stops_soon_when_nothing_comes(session):
    source = ScriptedSource(3)
    with Loop(session, source, compensation=Compensation(), rate="camera"):
        begin = time.monotonic()
    assert time.monotonic() - begin < 2.0
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("edgeseg-")] == []


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
    def score(compensation: Compensation | None) -> float:
        report = run_loop(
            SlowSession(session),
            VideoSource(Panned(), graphs.classes),
            classes=graphs.classes,
            compensation=compensation,
            rate=rate if compensation else "network",
            seconds=1.5,
        )
        return report.slamiou_after_first

    assert score(Compensation()) > score(None) + 0.05


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


def test_the_newest_frame_alone_gives_a_result_when_the_stage_is_behind():
    stage = WarpStage(
        Compensation("late-warp"), rate="camera", period_s=PERIOD_S, paced=True, ignore_value=255,
        stop=threading.Event(),
    )  # fmt: skip
    for index in range(4):
        stage.put_frame(Frame(index, index * PERIOD_S, view(index)))
    stage.put_labels(Finished(0, 0.0, truth(0), 1.0))
    stage.close()
    seen = []
    stage.run(lambda result: seen.append(result) or 0.5)
    assert [(result.source.source_index, result.frame.index) for result in seen] == [(0, 3)]
    assert right(seen[0].moved.labels, 3) > 0.97
    assert stage.summary().source_age_ms["p50"] == 500.0


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


def test_slot_gives_all_that_waits():
    slot: LatestSlot[int] = LatestSlot(threading.Event(), capacity=3)
    for item in (1, 2, 3):
        slot.put(item)
    slot.close()
    assert (slot.take_all(), slot.take_all()) == ([1, 2, 3], [])
