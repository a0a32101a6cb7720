"""Network cameras that end, stall, send garbage, change their size and come back."""

import gc
import logging
import os
import threading
import time
from contextlib import contextmanager

import cv2
import numpy as np
import pytest

from edgeseg.errors import InputError, SourceError
from edgeseg.runtime.camera import DEFAULT_CAMERA_FPS, CameraSource, Reconnection, open_camera
from edgeseg.runtime.capture import Capture, CaptureLost, DeviceCapture
from edgeseg.runtime.loop import Loop
from edgeseg.runtime.session_loading import load
from edgeseg.runtime.source import SourceCounts
from support.mjpeg_server import MjpegServer, jpeg
from support.repeating import repeating
from support.waiting import threads_of_loops, until

SIZE_HW = (32, 48)
QUICK = Reconnection(stall_s=0.4, first_wait_s=0.01, most_wait_s=0.05, open_s=5.0)


def picture(level: int, size_hw: tuple[int, int] = SIZE_HW) -> np.ndarray:
    return np.full((*size_hw, 3), level, np.uint8)


@pytest.fixture
def server():
    pytest.importorskip("av")
    with MjpegServer() as server:
        yield server


@contextmanager
def sending(server: MjpegServer, level: int, size_hw: tuple[int, int] = SIZE_HW):
    """The same picture again and again, as a camera gives it: who opens a stream looks at several of them first."""
    with repeating(lambda number: server.send(picture(level, size_hw)), every_s=0.01):
        yield


@contextmanager
def camera(server: MjpegServer, limits: Reconnection = QUICK):
    with sending(server, 10):
        source = open_camera(server.url, fps=100, reconnection=limits)
    try:
        yield source
    finally:
        source.close()


def read_until(source: CameraSource, level: int, *, size_hw: tuple[int, int] = SIZE_HW, stop=None):
    """Read on to a frame of that brightness and size, or to `stop`."""
    stop, deadline_s = stop or threading.Event(), time.monotonic() + 10
    while (frame := source.read(stop)) is not None:
        if abs(int(frame.rgb[0, 0, 0]) - level) <= 4 and frame.rgb.shape[:2] == size_hw:
            return frame
        assert time.monotonic() < deadline_s
    return None


def test_frames_of_a_stream_are_rgb_with_the_time_at_which_they_came(server):
    with camera(server) as source:
        before_s = time.monotonic()
        server.send(np.full((*SIZE_HW, 3), (200, 100, 50), np.uint8))
        frame = read_until(source, 200)
        assert before_s <= frame.captured_at_s <= time.monotonic()
        assert frame.rgb[5, 5].tolist() == pytest.approx([200, 100, 50], abs=6)
        assert (source.size_hw, source.fps, source.counts) == (SIZE_HW, 100.0, SourceCounts())


def test_a_stream_that_is_cut_is_opened_again_and_frames_go_on_counting(server, caplog):
    with camera(server) as source:
        before = read_until(source, 10)
        server.cut()
        with sending(server, 60):
            after = read_until(source, 60)
        assert (source.counts, source.is_lost) == (SourceCounts(reconnects=1), False)
        assert after.index > before.index
        assert after.captured_at_s > before.captured_at_s
    assert len([line for line in caplog.messages if "lost after frame" in line]) == 1
    assert len([line for line in caplog.messages if "back after" in line]) == 1
    lost, *again, back = [record.fields for record in caplog.records]
    assert (lost["event"], lost["source"]) == ("camera_lost", source.name)
    assert before.index <= lost["frame_index"] < after.index
    assert {told["event"] for told in again} <= {"camera_still_lost"}
    assert (back["event"], back["away_s"] > 0) == ("camera_back", True)


def test_a_stream_that_stalls_is_noticed_and_opened_again(server, caplog):
    with camera(server) as source:
        read_until(source, 10)
        begin_s = time.monotonic()
        until_lost = threading.Thread(target=read_until, args=(source, 60))
        until_lost.start()
        until(lambda: source.counts.stalls == 1)
        assert time.monotonic() - begin_s < 2.0
        until(lambda: source.is_lost)
        with sending(server, 60):
            until_lost.join(10)
        assert source.counts == SourceCounts(reconnects=1, stalls=1)
    assert "nothing came for 0.4 s" in caplog.text


def test_a_stall_is_noticed_within_two_seconds_by_default():
    assert Reconnection().stall_s < 2.0


@pytest.mark.parametrize(
    "damaged", [b"garbage" * 30, jpeg(picture(90))[:100], b""], ids=["garbage", "truncated", "empty"]
)
def test_a_corrupt_picture_is_counted_and_skipped(server, damaged):
    with camera(server) as source:
        server.send(damaged)
        with sending(server, 60):
            read_until(source, 60)
        assert source.counts == SourceCounts(corrupt=1)


def test_every_picture_is_a_frame_or_counted(server):
    with camera(server) as source:
        server.send(picture(60))
        first = read_until(source, 60)
        for number in range(60):
            server.send(b"garbage" * 30 if number % 3 == 0 else picture(100))
        server.send(picture(200))
        last = read_until(source, 200)
        assert last.index - first.index == 41
        assert source.counts == SourceCounts(corrupt=20)


def test_frames_change_their_size_in_mid_stream(server, caplog):
    with camera(server) as source:
        with sending(server, 60, (64, 80)):
            frame = read_until(source, 60, size_hw=(64, 80))
        assert frame.rgb.shape == (64, 80, 3)
        assert source.size_hw == SIZE_HW
        assert source.counts == SourceCounts()
    assert len([line for line in caplog.messages if "pictures of 64x80 instead of 32x48" in line]) == 1


def test_a_camera_that_refuses_is_tried_again_until_it_answers(server):
    with camera(server) as source:
        server.refuses = True
        server.cut()
        reading = threading.Thread(target=read_until, args=(source, 60))
        reading.start()
        server.wait_for_refusals(3)
        server.refuses = False
        with sending(server, 60):
            reading.join(10)
        assert source.counts == SourceCounts(reconnects=1)


def test_waits_between_attempts_double_up_to_the_longest(server, caplog):
    caplog.set_level(logging.WARNING)
    with camera(server) as source:
        server.refuses = True
        server.cut()
        stop = threading.Event()
        reading = threading.Thread(target=read_until, args=(source, 60), kwargs={"stop": stop})
        reading.start()
        server.wait_for_refusals(5)
        stop.set()
        reading.join(10)
    waits = [line.rsplit("next try in ")[1] for line in caplog.messages if "next try in" in line]
    assert waits[:5] == ["0.01 s", "0.02 s", "0.04 s", "0.05 s", "0.05 s"]


def test_a_camera_that_stays_away_is_given_up_with_the_last_frame_and_the_reason(server):
    limits = Reconnection(stall_s=0.4, first_wait_s=0.01, most_wait_s=0.05, give_up_s=0.1)
    with camera(server, limits) as source:
        last = read_until(source, 10)
        server.refuses = True
        server.cut()
        with pytest.raises(SourceError, match=r"stopped after frame \d+ \| .*5XX"):
            read_until(source, 60)
        assert last.index >= 0


def test_the_first_loss_ends_it_when_told_so(server):
    with camera(server, Reconnection(give_up_s=0.0)) as source:
        server.cut()
        with pytest.raises(SourceError, match="stopped after frame"):
            read_until(source, 60)
        assert server.connections == 1


def test_waiting_for_a_camera_that_is_away_ends_when_stopped(server):
    with camera(server, Reconnection(first_wait_s=60, most_wait_s=60)) as source:
        stop = threading.Event()
        server.cut()
        threading.Timer(0.2, stop.set).start()
        begin_s = time.monotonic()
        while source.read(stop) is not None:
            pass
        assert time.monotonic() - begin_s < 5


def test_a_camera_that_never_answers_is_refused(server):
    server.refuses = True
    with pytest.raises(SourceError, match=r"cannot be opened .*5XX.* does it answer"):
        open_camera(server.url, reconnection=QUICK)


def test_a_camera_that_opens_and_gives_nothing_is_refused(server):
    with pytest.raises(SourceError, match=r"opens but gives no picture.*key frame.*--open-limit|cannot be opened"):
        open_camera(server.url, reconnection=Reconnection(open_s=0.3))


def test_a_password_is_not_shown(server):
    server.refuses = True
    with pytest.raises(SourceError) as error:
        open_camera(server.url.replace("//", "//viewer:secret@"), reconnection=QUICK)
    assert "secret" not in str(error.value)
    assert server.url in str(error.value)


def test_a_stream_has_the_size_it_has(server):
    with pytest.raises(InputError, match="leave --camera-size out"):
        open_camera(server.url, size_hw=(480, 640))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"stall_s": 0}, "--stall"),
        ({"most_wait_s": 0.1}, "--retry-most"),
        ({"give_up_s": -1.0}, "--give-up"),
        ({"open_s": 0.0}, "--open-limit"),
    ],
)
def test_limits_that_cannot_be_are_refused(wrong, words):
    with pytest.raises(InputError, match=words):
        Reconnection(**wrong)


def test_nothing_is_left_open_after_many_reconnections(server):
    with camera(server) as source:
        read_until(source, 10)
        gc.collect()
        files, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
        for round_ in range(10):
            server.cut()
            with sending(server, 60 + 10 * round_):
                read_until(source, 60 + 10 * round_)
        until(lambda: threading.active_count() <= threads)
        assert source.counts.reconnects == 10
        assert len(os.listdir("/proc/self/fd")) <= files + 1


def test_the_loop_goes_on_over_losses_garbage_and_another_size_and_tells_of_them(server, bundle):
    seen = threading.Condition()
    brightness = []

    def note(result) -> None:
        with seen:
            brightness.append(int(result.frame_rgb[0, 0, 0]))
            seen.notify_all()

    def wait_for(level: int) -> None:
        with seen:
            assert seen.wait_for(lambda: brightness and abs(brightness[-1] - level) <= 4, timeout=10)

    with camera(server) as source, load(bundle, configuration="plain_32x48", threads=1) as session:
        with Loop(session, source, on_result=note) as loop:
            server.send(b"garbage" * 30)
            with sending(server, 60):
                wait_for(60)
            server.cut()
            with sending(server, 100, (64, 96)):
                wait_for(100)
        summary = loop.summary
    assert (summary.reconnects, summary.corrupt_frames) == (1, 1)
    assert summary.as_dict()["stalls"] == 0
    until(lambda: threads_of_loops() == [])


def test_a_network_that_remembers_begins_anew_when_a_camera_was_away_for_long(server, bundle):
    lefts = []
    # The first graph gives 0 in the left half, each later step 20 and the steps since.
    with (
        camera(server) as source,
        load(bundle, configuration="frames_32x48", threads=1) as session,
        Loop(session, source, on_result=lambda result: lefts.append(int(result.labels[0, 0])), gap_s=0.6) as loop,
    ):
        with sending(server, 60):
            until(lambda: len(lefts) > 3)
        server.refuses = True
        server.cut()
        time.sleep(0.8)
        server.refuses = False
        before = len(lefts)
        with sending(server, 100):
            until(lambda: len(lefts) > before + 3)
        summary = loop.summary
    assert summary.reconnects >= 1
    assert lefts[before] == 0
    assert lefts[before + 1] == 21
    assert "since the frame before" in summary.last_events[-1].reason


class Held(Capture):
    """A driver in which a call hangs until the test lets it go."""

    fps = 50.0

    def __init__(self, pictures: list) -> None:
        self.pictures, self.released, self.closed = pictures, threading.Event(), threading.Event()

    def read(self):
        if self.pictures:
            return time.monotonic(), self.pictures.pop(0)
        self.released.wait(20)
        raise CaptureLost("released")

    def close(self) -> None:
        self.closed.set()


def test_a_call_that_hangs_in_the_driver_is_left_behind_and_closed_when_it_comes_back():
    captures = [Held([picture(1)]), Held([picture(2), picture(2)])]
    opened = iter(captures)
    source = CameraSource("camera 0", lambda: next(opened), reconnection=QUICK)
    stop = threading.Event()
    assert source.read(stop).rgb[0, 0, 0] == 1
    assert source.read(stop).rgb[0, 0, 0] == 2
    assert source.counts == SourceCounts(reconnects=1, stalls=1)
    assert not captures[0].closed.is_set()
    captures[0].released.set()
    assert captures[0].closed.wait(10)
    captures[1].released.set()
    source.close()


def test_no_more_than_a_few_calls_hang_at_once(monkeypatch):
    hold = threading.Event()
    first, calls = Held([picture(1)]), []

    def open_capture():
        calls.append(1)
        if len(calls) == 1:
            return first
        hold.wait(20)
        raise SourceError("released")

    limits = Reconnection(stall_s=0.05, first_wait_s=0.001, most_wait_s=0.002, open_s=0.05, give_up_s=1.5)
    source = CameraSource("camera 0", open_capture, reconnection=limits)
    stop = threading.Event()
    source.read(stop)
    with pytest.raises(SourceError, match="8 calls hang in its driver"):
        source.read(stop)
    assert len(calls) == 8
    hold.set()
    first.released.set()


class Cut(Held):
    """Its cable is cut after the pictures."""

    def read(self):
        if not self.pictures:
            raise CaptureLost("the cable is cut")
        return super().read()


def test_an_attempt_takes_no_longer_than_is_left_before_giving_up_for_the_reason_before_it():
    hold = threading.Event()
    opened = iter([Cut([picture(1)])])

    def open_capture():
        try:
            return next(opened)
        except StopIteration:
            hold.wait(20)
            raise SourceError("released") from None

    limits = Reconnection(first_wait_s=0.01, open_s=15.0, give_up_s=0.3)
    source = CameraSource("camera 0", open_capture, reconnection=limits)
    stop, begin_s = threading.Event(), time.monotonic()
    source.read(stop)
    with pytest.raises(SourceError, match=r"stopped after frame 0 \| the cable is cut; given up after"):
        source.read(stop)
    assert time.monotonic() - begin_s < 10
    hold.set()


def test_a_slow_camera_is_told_of_with_the_option_for_it_once(caplog):
    captures = [Held([picture(1)]) for _ in range(5)]
    opened = iter(captures)
    source = CameraSource("camera 0", lambda: next(opened), reconnection=Reconnection(stall_s=0.05, first_wait_s=0.001))
    stop = threading.Event()
    for _ in captures:
        source.read(stop)
    assert source.counts.stalls == 4
    assert len([line for line in caplog.messages if "--stall SECONDS" in line]) == 1
    for capture in captures:
        capture.released.set()
    source.close()


class Untold(Held):
    """Tells no rate. Ten pictures had waited when it was opened; then one comes every tenth of a second."""

    fps = None

    def __init__(self, pictures: int) -> None:
        super().__init__([picture(1)] * pictures)
        self._read = 0

    def read(self):
        number, self._read = self._read, self._read + 1
        self.had_waited = number < 10
        _, rgb = super().read()
        return max(0, number - 10) / 10, rgb


def test_a_rate_that_is_not_told_is_that_of_the_first_pictures_but_for_those_that_had_waited():
    capture = Untold(40)
    source = CameraSource("camera 0", lambda: capture, reconnection=QUICK)
    assert (source.fps, source.fps_origin) == (pytest.approx(10.0), "measured")
    capture.released.set()
    source.close()


def test_a_rate_is_assumed_when_too_few_pictures_come_to_measure_it():
    capture = Untold(13)
    source = CameraSource("camera 0", lambda: capture, reconnection=Reconnection(open_s=0.2))
    assert (source.fps, source.fps_origin) == (DEFAULT_CAMERA_FPS, "assumed")
    capture.released.set()
    source.close()


@pytest.mark.parametrize("told", [None, 25.0])
def test_a_rate_that_is_given_is_believed_whatever_is_told(told):
    capture = Untold(13)
    capture.fps = told
    source = CameraSource("camera 0", lambda: capture, fps=12.0)
    assert (source.fps, source.fps_origin) == (12.0, "given")
    capture.released.set()
    source.close()


@pytest.mark.parametrize(("told", "is_other"), [(25.0, True), (11.0, False)])
def test_a_camera_is_told_of_that_gives_another_rate_than_it_tells(told, is_other, caplog):
    capture = Untold(100)
    capture.fps = told
    source = CameraSource("camera 0", lambda: capture, reconnection=QUICK)
    stop = threading.Event()
    until(lambda: not capture.pictures)
    assert source.read(stop) is not None
    warned = [line for line in caplog.messages if "10 frames/s come, 25 were told | where that lasts: --fps 10" in line]
    assert len(warned) == is_other
    events = [(record.fields["event"], record.fields["expected_fps"]) for record in caplog.records]
    assert events == [("camera_rate", 25.0)] * is_other
    assert source.fps == told
    capture.released.set()
    source.close()


def test_the_rate_of_a_stream_without_timing_is_measured(server):
    with repeating(lambda number: server.send(picture(number % 200)), every_s=0.05):
        source = open_camera(server.url, reconnection=QUICK)
        source.close()
    # Twenty a second, or fewer on a busy machine, and not the thirty that were assumed.
    assert 5 < source.fps < 25
    assert source.fps_origin == "measured"


class Device:
    """Stands in for `cv2.VideoCapture` on a V4L2 device, which a test machine has not."""

    given_hw, given_fps, driver_ms = (480, 640), None, 0.0
    pictures: tuple = ()

    def __init__(self, *arguments) -> None:
        self.asked, self._number = {}, 0

    def isOpened(self):
        return True

    def set(self, prop, value):
        self.asked[prop] = value

    def get(self, prop):
        height, width = self.given_hw
        return {
            cv2.CAP_PROP_FPS: self.given_fps or self.asked.get(cv2.CAP_PROP_FPS, 30.0),
            cv2.CAP_PROP_POS_MSEC: self.driver_ms,
            cv2.CAP_PROP_FRAME_HEIGHT: height, cv2.CAP_PROP_FRAME_WIDTH: width,
        }[prop]  # fmt: skip

    def grab(self):
        self._number += 1
        return self._number <= len(self.pictures)

    def retrieve(self):
        found = self.pictures[self._number - 1]
        return found is not None, found

    def release(self):
        pass


@pytest.fixture
def device(monkeypatch):
    class Own(Device):
        pass

    monkeypatch.setattr(cv2, "VideoCapture", Own)
    return Own


def test_a_size_that_the_camera_has_not_is_refused_with_the_nearest(device):
    with pytest.raises(SourceError, match=r"no pictures of 720x1280.*--camera-size 480x640"):
        open_camera("0", size_hw=(720, 1280))


def test_a_rate_that_the_camera_has_not_is_told_of(device, caplog):
    assert DeviceCapture(0, name="camera 0", advice="", fps=15).fps == 15
    assert caplog.messages == []
    device.given_fps = 30.0
    assert DeviceCapture(0, name="camera 0", advice="", fps=15).fps == 30
    assert "camera 0: gives 30 frames/s, not the 15 asked for" in caplog.text


@pytest.mark.parametrize("told", [1000.0, 90_000.0])
def test_a_rate_that_cannot_be_is_none(device, told):
    device.given_fps = told
    assert DeviceCapture(0, name="camera 0", advice="").fps is None


def test_a_devices_time_is_that_of_its_driver(device):
    device.pictures, device.driver_ms = (picture(1),), 99_960.0
    capture = DeviceCapture(0, name="camera 0", advice="", clock=lambda: 100.0)
    assert capture.read()[0] == pytest.approx(99.96)


def test_a_drivers_time_on_another_clock_is_not_believed(device):
    device.pictures, device.driver_ms = (picture(1),), 1.7e12
    capture = DeviceCapture(0, name="camera 0", advice="", clock=lambda: 100.0)
    assert capture.read()[0] == 100.0


@pytest.mark.parametrize("bad", [None, np.zeros((0, 0, 3), np.uint8), np.zeros((32, 48), np.uint8)],
                         ids=["undecodable", "empty", "one channel"])  # fmt: skip
def test_a_picture_of_a_device_that_is_no_use_is_counted_and_skipped(device, bad):
    device.pictures = (picture(1), bad, picture(2))
    source = open_camera("0", reconnection=Reconnection(give_up_s=0.0))
    stop = threading.Event()
    with pytest.raises(SourceError, match=r"stopped after frame \d \| the connection is lost"):
        while True:
            last = source.read(stop)
    assert last.rgb[0, 0, 0] == 2
    assert source.counts == SourceCounts(corrupt=1)
    source.close()
