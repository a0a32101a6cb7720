"""What goes wrong in front of a camera: the loop goes on, labels stay as they are, and the reason is counted."""

import numpy as np
import pytest

from edgeseg.data.video import Video
from edgeseg.runtime.loop import Loop
from edgeseg.runtime.run import run_loop
from edgeseg.runtime.session_loading import load
from edgeseg.runtime.source import Frame, Source, VideoSource
from support.waiting import threads_of_loops

SIZE_HW = (96, 128)
FRAMES, BAD = 24, 12


def scene(seed: int) -> np.ndarray:
    """Blocks of three classes with a texture, uint8 (96, 320, 3)."""
    random = np.random.default_rng(seed)
    classes = random.integers(0, 3, (4, 14)).repeat(24, axis=0).repeat(24, axis=1)[:, :320]
    texture = random.integers(40, 90, (24, 80)).repeat(4, axis=0).repeat(4, axis=1)
    image = np.repeat(texture[..., None], 3, axis=2)
    np.put_along_axis(image, classes[..., None], texture[..., None] + 120, axis=2)
    return image.astype(np.uint8)


SCENES = scene(1), scene(2)


class Panned(Video):
    """A view that pans by three pixels a frame; `bad` changes it from frame `BAD` on, or there alone."""

    name, fps, size_hw = "panned", 25.0, SIZE_HW

    def __init__(self, bad: str = "") -> None:
        self._bad = bad

    def __len__(self) -> int:
        return FRAMES

    def frame_rgb(self, index: int) -> np.ndarray:
        view = SCENES[self._bad == "cut" and index >= BAD][:, 3 * index : 3 * index + SIZE_HW[1]]
        if self._bad == "black" and index == BAD:
            view = np.zeros_like(view)
        if self._bad == "size" and index >= BAD:
            view = view[:64, :96]
        return np.ascontiguousarray(view)

    def labels(self, index: int) -> np.ndarray:
        return self.frame_rgb(index).argmax(axis=2).astype(np.uint8)


class Disturbed(Source):
    """A source whose frames are dropped, or come with another capture time than theirs.

    Where they are dropped it is not paced: a machine that is away for a while drops no more of them.
    """

    name, fps, size_hw = "disturbed", Panned.fps, SIZE_HW

    def __init__(self, kind: str) -> None:
        self.paced = kind != "dropped"
        self._source, self._kind = VideoSource(Panned(), paced=self.paced), kind

    def read(self, stop) -> Frame | None:
        frame = self._source.read(stop)
        if frame is None or frame.index < BAD:
            self._last_s = frame and frame.captured_at_s
            return frame
        if self._kind == "dropped" and frame.index < BAD + 5:
            return self.read(stop)
        shifts_s = {"dropped": 0.0, "frozen": self._last_s - frame.captured_at_s, "back": -60.0, "ahead": 60.0}
        return Frame(frame.index, frame.captured_at_s + shifts_s[self._kind], frame.rgb)


@pytest.fixture(scope="module")
def session(tmp_path_factory, graphs):
    root = tmp_path_factory.mktemp("bundles") / "panned.edgeseg"
    entry = graphs.stateless("plain", SIZE_HW, graphs.brightest_channel(SIZE_HW))
    with load(
        graphs.write_bundle(root, [entry]), configuration="plain_96x128", threads=1, frame_size_hw=SIZE_HW,
        compensation="late-warp+extrapolate",
    ) as session:  # fmt: skip
        yield session


def played(session, source: Source):
    """The results of a whole run, and its summary."""
    with Loop(session, source) as loop:
        results = list(loop)
    assert threads_of_loops() == []
    return results, loop.summary


@pytest.mark.parametrize(("bad", "reason"), [("black", "scene cut"), ("cut", "scene cut"), ("size", "frame size")])
def test_labels_stay_and_the_reason_is_counted_when_there_is_no_motion_between_two_frames(session, bad, reason):
    # Not paced: every frame is computed, whatever else the machine does.
    results, summary = played(session, VideoSource(Panned(bad), paced=False))
    assert summary.compensation.fallbacks[reason] >= 1
    unmoved = [result for result in results if result.fallback == reason]
    assert {result.frame_index for result in unmoved} <= {BAD, BAD + 1, BAD + 2}
    assert results[-1].fallback is None
    assert results[-1].moved_px > 0


@pytest.mark.parametrize("kind", ["frozen", "back"])
def test_labels_stay_and_the_clock_is_blamed_when_capture_times_do_not_rise(session, kind):
    results, summary = played(session, Disturbed(kind))
    assert summary.compensation.fallbacks["clock"] >= 1
    assert results[-1].frame_index == FRAMES - 1


def test_the_loop_goes_on_when_the_capture_clock_jumps_ahead(session):
    results, summary = played(session, Disturbed("ahead"))
    assert summary.compensation.fallbacks["gap"] >= 1
    assert results[-1].frame_index == FRAMES - 1
    assert results[-1].fallback is None
    assert all(np.isfinite(result.moved_px) for result in results)


def test_labels_are_moved_across_frames_that_were_dropped(session):
    results, summary = played(session, Disturbed("dropped"))
    assert summary.frames_missed >= 5
    assert set(summary.compensation.fallbacks) <= {"no motion known"}
    assert results[-1].frame_index == FRAMES - 1


def test_the_run_and_its_video_go_on_when_the_frames_change_their_size(session, graphs, tmp_path):
    import cv2

    report = run_loop(
        session, VideoSource(Panned("size"), paced=False), classes=graphs.classes, save=tmp_path / "v.mp4",
        rate="network",
    )  # fmt: skip
    assert report.summary.results == FRAMES
    capture = cv2.VideoCapture(str(tmp_path / "v.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_HEIGHT) == SIZE_HW[0]
    # The first labels may be shown over the second frame, when that has come.
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) >= FRAMES - 1
