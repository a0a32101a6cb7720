import threading

import cv2
import numpy as np
import pytest

from edgeseg.data.video import Video
from edgeseg.errors import InputError, SourceError
from edgeseg.runtime.file_sources import FolderSource, VideoFileSource
from edgeseg.runtime.source import VideoSource
from edgeseg.runtime.source_opening import open_source
from support.videos import read_all, write_video


class Clock:
    """Time that passes only when somebody waits, or when a test says so."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        self.now_s += seconds
        return stop.is_set()


class NumberedVideo(Video):
    """Frame i is i everywhere; even frames are labelled."""

    name, fps, size_hw = "numbered", 10.0, (4, 6)

    def __init__(self, frames: int = 8) -> None:
        self._frames = frames

    def __len__(self) -> int:
        return self._frames

    def frame_rgb(self, index: int) -> np.ndarray:
        return np.full((4, 6, 3), index, np.uint8)

    def labels(self, index: int) -> np.ndarray:
        return np.full((4, 6), index, np.uint8)

    def has_labels(self, index: int) -> bool:
        return 0 <= index < len(self) and index % 2 == 0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


def numbered(clock: Clock, **options) -> VideoSource:
    return VideoSource(NumberedVideo(), clock=clock, wait=lambda stop, seconds: clock.wait(stop, seconds), **options)


def test_frames_come_at_their_time(clock, stop):
    source = numbered(clock)
    frames = [source.read(stop) for _ in range(3)]
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert [frame.captured_at_s for frame in frames] == pytest.approx([100.0, 100.1, 100.2])
    assert clock.now_s == pytest.approx(100.2)
    assert frames[2].rgb[0, 0, 0] == 2


def test_frames_whose_time_has_passed_are_skipped(clock, stop):
    source = numbered(clock)
    source.read(stop)
    clock.now_s += 0.35
    frame = source.read(stop)
    assert frame.index == 3
    assert frame.captured_at_s == pytest.approx(100.3)


def test_no_frame_is_skipped_and_none_waited_for_when_not_paced(clock, stop):
    source = numbered(clock, paced=False)
    indices = []
    while (frame := source.read(stop)) is not None:
        indices.append(frame.index)
        clock.now_s += 0.5
    assert indices == list(range(8))
    assert clock.now_s == pytest.approx(104.0)


def test_the_source_ends_after_its_last_frame(clock, stop):
    source = numbered(clock)
    source.read(stop)
    clock.now_s += 0.71
    assert source.read(stop).index == 7
    assert source.read(stop) is None


def test_waiting_ends_when_stopped(stop):
    source = VideoSource(NumberedVideo(), fps=0.001)
    source.read(stop)
    threading.Timer(0.05, stop.set).start()
    assert source.read(stop) is None


def test_a_given_rate_changes_the_schedule(clock, stop):
    source = numbered(clock, fps=20.0)
    source.read(stop)
    assert source.read(stop).captured_at_s == pytest.approx(100.05)
    assert source.captured_at_s(6) == pytest.approx(100.3)


def test_labels_are_those_of_the_video(clock):
    source = numbered(clock)
    assert source.labels(2)[0, 0] == 2
    assert source.labels(3) is None
    assert source.labels(99) is None


@pytest.mark.parametrize("fps", [0.0, -5.0, float("inf"), float("nan")])
def test_a_rate_that_is_not_positive_is_refused(fps):
    video = NumberedVideo()
    video.fps = fps
    with pytest.raises(InputError, match="frame rate must be positive"):
        VideoSource(video)


def test_a_video_file_gives_all_its_frames_in_rgb(tmp_path):
    write_video(tmp_path / "v.avi")
    source = open_source(tmp_path / "v.avi", paced=False)
    frames = read_all(source)
    source.close()
    assert source.fps == 10.0
    assert source.size_hw == (48, 64)
    assert [frame.index for frame in frames] == list(range(12))
    assert frames[5].rgb[24, 32].tolist() == pytest.approx([100, 0, 250], abs=6)


def test_a_video_file_skips_what_has_passed(tmp_path, clock, stop):
    write_video(tmp_path / "v.avi")
    source = VideoFileSource(tmp_path / "v.avi", clock=clock, wait=lambda event, seconds: clock.wait(event, seconds))
    source.read(stop)
    clock.now_s += 0.45
    frame = source.read(stop)
    assert frame.index == 4
    assert frame.rgb[24, 32, 0] == pytest.approx(80, abs=6)


def test_the_frame_at_which_a_video_broke_is_named_when_it_is_cut_off(tmp_path):
    write_video(tmp_path / "v.avi", frames=40)
    content = (tmp_path / "v.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(content[: len(content) // 2])
    with pytest.raises(SourceError, match=r"broke at frame \d+ of 40"):
        read_all(VideoFileSource(tmp_path / "cut.avi", paced=False))


def test_a_file_is_freed_after_the_read_that_hangs_in_it(tmp_path, monkeypatch):
    write_video(tmp_path / "v.avi", 3)
    source = VideoFileSource(tmp_path / "v.avi", paced=False)
    hangs, let_go, decoded = threading.Event(), threading.Event(), source._decoded

    def hang(index: int) -> np.ndarray | None:
        hangs.set()
        assert let_go.wait(10)
        return decoded(index)

    monkeypatch.setattr(source, "_decoded", hang)
    reading = threading.Thread(target=source.read, args=(threading.Event(),))
    reading.start()
    assert hangs.wait(10)
    source.close()
    assert source._capture.isOpened()
    let_go.set()
    reading.join()
    assert not source._capture.isOpened()


def test_a_file_that_is_no_video_is_refused(tmp_path):
    (tmp_path / "v.mp4").write_bytes(b"not a video at all" * 20)
    with pytest.raises(SourceError, match="cannot be opened as a video"):
        open_source(tmp_path / "v.mp4")


def write_images(folder, count: int = 3) -> None:
    folder.mkdir()
    for index in range(count):
        cv2.imwrite(str(folder / f"{index:03d}.png"), np.full((8, 8, 3), (200, 0, index), np.uint8))


def test_a_folder_of_images_is_played_at_the_given_rate(tmp_path):
    write_images(tmp_path / "images")
    frames = read_all(open_source(tmp_path / "images", fps=5, paced=False))
    assert [frame.rgb[0, 0].tolist() for frame in frames] == [[0, 0, 200], [1, 0, 200], [2, 0, 200]]


def test_a_folder_of_images_needs_a_rate(tmp_path):
    write_images(tmp_path / "images")
    with pytest.raises(InputError, match="no frame rate"):
        open_source(tmp_path / "images")


def test_the_damaged_image_is_named(tmp_path):
    write_images(tmp_path / "images")
    path = tmp_path / "images" / "001.png"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(SourceError, match=r"broke at frame 1 of 3.*001\.png"):
        read_all(FolderSource(tmp_path / "images", fps=5, paced=False))
