"""Real H.264: files, whole and cut off, and a camera that gives it by RTSP."""

import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest

from edgeseg.errors import SourceError
from edgeseg.runtime.camera import Reconnection, open_camera
from edgeseg.runtime.source import SourceCounts
from edgeseg.runtime.source_opening import open_source
from support.repeating import repeating
from support.rtsp_server import RtspServer
from support.waiting import until

pytest.importorskip("av")

from support.h264 import Encoder, write_h264

SIZE_HW = (64, 96)


def picture(level: int) -> np.ndarray:
    return np.full((*SIZE_HW, 3), level, np.uint8)


def read_all(source) -> list:
    stop, frames = threading.Event(), []
    try:
        while (frame := source.read(stop)) is not None:
            frames.append(frame)
    finally:
        source.close()
    return frames


def test_a_file_gives_every_frame_in_order_though_it_stores_them_in_another(tmp_path):
    write_h264(tmp_path / "v.mp4", [picture(10 * index) for index in range(20)])
    source = open_source(tmp_path / "v.mp4", paced=False)
    assert (source.fps, source.size_hw) == (10.0, SIZE_HW)
    assert [int(frame.rgb[9, 9, 0]) for frame in read_all(source)] == pytest.approx([10 * i for i in range(20)], abs=6)


def noisy(count: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 255, (*SIZE_HW, 3)).astype(np.uint8) for _ in range(count)]


def test_a_file_that_is_cut_off_tells_where_it_broke_and_is_not_opened_again(tmp_path):
    write_h264(tmp_path / "v.mp4", noisy(40), movflags="faststart")
    content = (tmp_path / "v.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) // 2])
    source = open_source(tmp_path / "cut.mp4", paced=False)
    with pytest.raises(SourceError, match=r"broke at frame \d+ of 40 \| the file is damaged or cut off"):
        read_all(source)
    assert source.counts == SourceCounts()


def test_a_file_that_is_cut_off_before_its_index_is_refused(tmp_path):
    write_h264(tmp_path / "v.mp4", noisy(20))
    content = (tmp_path / "v.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) // 2])
    with pytest.raises(SourceError, match="cannot be opened as a video"):
        open_source(tmp_path / "cut.mp4")


@contextmanager
def playing(server: RtspServer, level: int):
    """The camera films one brightness, at 50 pictures a second, to whoever plays."""
    encoder = Encoder(SIZE_HW)
    with repeating(lambda number: server.send(encoder.encode(picture(level)), 3600 * number), every_s=0.02):
        yield


def read_until(source, level: int):
    stop, deadline_s = threading.Event(), time.monotonic() + 10
    while (frame := source.read(stop)) is not None:
        if abs(int(frame.rgb[9, 9, 0]) - level) <= 4:
            return frame
        assert time.monotonic() < deadline_s


@pytest.mark.parametrize(("told", "given", "is_rate"), [(25, None, 25.0), (25, 15.0, 15.0), (90_000, 15.0, 15.0)])
def test_the_rate_of_a_stream_is_the_one_given_else_the_one_told(told, given, is_rate):
    with RtspServer(told) as server, playing(server, 40):
        source = open_camera(server.url, fps=given)
        assert source.fps == is_rate
        source.close()


def test_a_stream_whose_key_frame_is_far_is_refused_with_the_option_that_waits_longer():
    encoder = Encoder(SIZE_HW, key_every=10_000)
    encoder.encode(picture(40))
    with (
        RtspServer() as server,
        repeating(lambda number: server.send(encoder.encode(picture(40)), 3600 * number), every_s=0.02),
        pytest.raises(SourceError, match=r"no picture .* key frame: .* more than 0\.5 s apart, give --open-limit"),
    ):
        open_camera(server.url, reconnection=Reconnection(open_s=0.5))


def test_a_rate_that_cannot_be_is_not_believed_of_a_stream():
    with RtspServer(90_000) as server, playing(server, 40):
        source = open_camera(server.url)
        assert source.fps < 200
        assert source.fps_origin == "measured"
        source.close()


def test_a_camera_by_rtsp_gives_frames_and_is_opened_again_after_a_cut_and_a_stall():
    limits = Reconnection(stall_s=0.5, first_wait_s=0.01, most_wait_s=0.05)
    with RtspServer() as server:
        with playing(server, 40):
            source = open_camera(server.url, reconnection=limits)
            assert source.fps == 25.0
            first = read_until(source, 40)
        server.cut()
        with playing(server, 90):
            second = read_until(source, 90)
        assert source.counts == SourceCounts(reconnects=1)
        # Nobody films: the connection stays open, and nothing comes.
        reading = threading.Thread(target=read_until, args=(source, 150))
        reading.start()
        server.wait_for_plays(2)
        until(lambda: source.counts.stalls == 1)
        with playing(server, 150):
            reading.join(15)
        assert source.counts == SourceCounts(reconnects=2, stalls=1)
        assert first.index < second.index
        source.close()
