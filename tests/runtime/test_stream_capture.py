"""Videos on a web server are recordings, which end; what has no length is live, and is opened again."""

import threading
import time

import numpy as np
import pytest
from click.testing import CliRunner

from edgeseg.cli import main
from edgeseg.errors import SourceError
from edgeseg.runtime.camera import Reconnection, open_camera
from edgeseg.runtime.capture import CaptureEnded
from edgeseg.runtime.source import SourceCounts
from edgeseg.runtime.source_opening import open_source
from edgeseg.runtime.stream_capture import PAUSE_S, StreamCapture
from support.h264 import write_h264
from support.web_server import WebServer

pytest.importorskip("av")

FPS, FRAMES = 25, 40
QUICK = Reconnection(stall_s=1.0, first_wait_s=0.01, most_wait_s=0.05, open_s=5.0)


def level(index: int) -> int:
    return 20 + 5 * index


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Frame i is grey of `level(i)` with noise, a key frame every ten, in several containers."""
    folder = tmp_path_factory.mktemp("web")
    random = np.random.default_rng(0)
    frames = [np.clip(level(i) + random.integers(-9, 10, (96, 128, 3)), 0, 255).astype(np.uint8) for i in range(FRAMES)]
    write_h264(folder / "v.mp4", frames, fps=FPS)
    write_h264(folder / "fast.mp4", frames, fps=FPS, movflags="faststart")
    write_h264(folder / "live.mp4", frames, fps=FPS, movflags="frag_keyframe+empty_moov")
    write_h264(folder / "v.mkv", frames, fps=FPS)
    write_h264(folder / "v.ts", frames, fps=FPS)
    whole = (folder / "fast.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.fixture
def server(folder):
    with WebServer(folder).running() as server:
        yield server


def read_all(source) -> list:
    stop, frames = threading.Event(), []
    while (frame := source.read(stop)) is not None:
        frames.append(frame)
    source.close()
    return frames


def levels_of(frames) -> list[int]:
    """Which picture of the video each frame shows."""
    return [round((float(frame.rgb.mean()) - level(0)) / 5) for frame in frames]


@pytest.mark.parametrize("name", ["v.mp4", "fast.mp4", "live.mp4", "v.mkv", "v.ts"])
def test_a_video_on_a_web_server_is_played_to_its_end_once_at_its_own_pace(server, name):
    source = open_camera(server.url(name), reconnection=QUICK)
    frames = read_all(source)
    assert source.counts == SourceCounts()
    # A measured rate is that of a machine that may be away for a while.
    assert source.fps == pytest.approx(FPS, rel={"told": 0.01, "measured": 0.5}[source.fps_origin])
    shown = levels_of(frames)
    assert shown[-1] == FRAMES - 1
    assert shown == sorted(set(shown))
    # In how far it was read late depends on the machine; it never runs ahead.
    seconds = frames[-1].captured_at_s - frames[0].captured_at_s
    assert seconds >= (shown[-1] - shown[0] - 1) / FPS


def test_a_video_begins_when_it_is_first_read(server):
    source = open_camera(server.url("v.mp4"), reconnection=QUICK)
    # Longer than the video, and than a stall: a configuration is picked.
    time.sleep(FRAMES / FPS + QUICK.stall_s)
    begin_s = time.monotonic()
    frames = read_all(source)
    assert levels_of(frames)[0] == 0
    assert len(frames) > 5
    assert frames[0].captured_at_s >= begin_s
    assert source.counts == SourceCounts()


def test_the_end_of_a_video_is_told_again_and_again(server):
    source = open_camera(server.url("v.mp4"), reconnection=QUICK)
    stop = threading.Event()
    while source.read(stop) is not None:
        pass
    assert source.read(stop) is None
    source.close()


def test_a_run_over_a_video_on_a_web_server_ends_well(server, bundle):
    result = CliRunner().invoke(
        main, ["run", str(bundle.root), "--source", server.url("v.mp4"), "--configuration", "plain_32x48"]
    )
    assert result.exit_code == 0, result.output
    assert "25 frames/s\n" in result.stdout
    assert "lost and back" not in result.stdout


def test_a_video_whose_connection_was_cut_goes_on_where_it_was(server):
    server.cut_at = (server.folder / "fast.mp4").stat().st_size // 2
    source = open_camera(server.url("fast.mp4"), reconnection=QUICK)
    shown = levels_of(read_all(source))
    assert source.counts.reconnects == 1
    assert shown == sorted(set(shown))
    assert shown[-1] == FRAMES - 1


def test_a_video_that_is_cut_off_is_refused_with_the_time_at_which_it_broke(server):
    source = open_camera(server.url("cut.mp4"), reconnection=QUICK)
    with pytest.raises(SourceError, match=r"cut\.mp4 broke at 0\.\d of 1\.6 s \| it breaks off: it is damaged"):
        read_all(source)


def test_a_stream_without_a_length_is_live_and_opened_again_when_it_is_cut(folder):
    with WebServer(folder, tells_length=False).running() as server:
        source = open_source(server.url("live.mp4"), reconnection=QUICK)
        stop = threading.Event()
        before = source.counts.reconnects
        deadline_s = time.monotonic() + 10
        while source.counts.reconnects < before + 2:
            assert source.read(stop) is not None
            assert time.monotonic() < deadline_s
        source.close()
        server.wait_for_requests(3)


def test_pictures_of_a_video_wait_for_their_time_and_what_is_late_delays_the_rest(server):
    now_s, waits_s = [100.0], []

    def wait(seconds: float) -> None:
        waits_s.append(seconds)
        now_s[0] += seconds

    capture = StreamCapture(server.url("v.mp4"), name="v", open_s=5, read_s=5, clock=lambda: now_s[0], wait=wait)
    came_s = [capture.read()[0] for _ in range(3)]
    now_s[0] += 3.0
    came_s += [capture.read()[0] for _ in range(2)]
    assert came_s == pytest.approx([100.0, 100.04, 100.08, 103.08, 103.12])
    assert waits_s == pytest.approx([0.04, 0.04, 0.04])
    with pytest.raises(CaptureEnded):
        for _ in range(FRAMES):
            capture.read()
    capture.close()


def test_a_video_is_played_at_the_rate_given(server):
    now_s = [100.0]

    def wait(seconds: float) -> None:
        now_s[0] += seconds

    capture = StreamCapture(
        server.url("v.mp4"), name="v", open_s=5, read_s=5, fps=2.5 * FPS, clock=lambda: now_s[0], wait=wait
    )
    assert [capture.read()[0] for _ in range(3)] == pytest.approx([100.0, 100.016, 100.032])
    capture.close()


def test_a_pause_in_a_video_is_cut_short(tmp_path):
    import av

    with av.open(str(tmp_path / "p.mp4"), "w") as file:
        stream = file.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in (0, 1, 50):
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
            frame.pts = index
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    now_s = [0.0]

    def wait(seconds: float) -> None:
        now_s[0] += seconds

    with WebServer(tmp_path).running() as server:
        capture = StreamCapture(
            server.url("p.mp4"), name="p", open_s=5, read_s=5, clock=lambda: now_s[0], wait=wait
        )  # fmt: skip
        came_s = [capture.read()[0] for _ in range(3)]
        capture.close()
    assert came_s == pytest.approx([0.0, 0.1, 0.1 + PAUSE_S])
