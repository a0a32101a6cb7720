import shutil
import subprocess
import sys
import threading
import time

import cv2
import numpy as np
import pytest

from edgeseg.errors import InputError, MissingPackageError, SourceError
from edgeseg.runtime import capture as captures
from edgeseg.runtime import gstreamer
from edgeseg.runtime.gstreamer import GStreamerSource, has_gstreamer, pipeline
from edgeseg.runtime.source_opening import is_camera, open_source
from support.jetson_root import write_board

SINK = "appsink drop=true max-buffers=1 sync=false"


def test_a_csi_camera_comes_through_the_image_signal_processor():
    assert pipeline("csi:0") == (
        "nvarguscamerasrc sensor-id=0 ! "
        "video/x-raw(memory:NVMM),format=NV12,width=1280,height=720,framerate=30/1 ! "
        f"nvvidconv ! video/x-raw,format=BGRx ! {SINK}"
    )


@pytest.mark.parametrize(("is_jetson", "convert"), [(False, "videoconvert"), (True, "nvvidconv")])
def test_a_usb_camera_may_give_jpeg_or_raw_pictures(tmp_path, is_jetson, convert):
    if is_jetson:
        write_board(tmp_path)
    assert pipeline("usb:2:480x640@15", root=tmp_path) == (
        "v4l2src device=/dev/video2 ! "
        'capsfilter caps="image/jpeg,width=640,height=480,framerate=15/1;'
        'video/x-raw,width=640,height=480,framerate=15/1" '
        f"! decodebin ! {convert} ! video/x-raw,format=BGRx ! {SINK}"
    )


@pytest.mark.parametrize(
    ("source", "fps", "words"),
    [
        ("csi:1:1080x1920@60", None, "sensor-id=1 "),
        ("csi:1:1080x1920@60", None, "width=1920,height=1080,framerate=60/1"),
        ("csi:0", 15.0, "framerate=15/1"),
        ("csi:0@25", 25.0, "framerate=25/1"),
    ],
)
def test_size_and_rate_are_those_asked_for(source, fps, words):
    assert words in pipeline(source, fps=fps)


def test_a_pipeline_gets_the_sink_that_holds_the_newest_frame():
    assert pipeline("gst:videotestsrc ! videoconvert") == f"videotestsrc ! videoconvert ! {SINK}"


def test_a_pipeline_that_ends_in_a_link_is_completed():
    assert pipeline("gst:videotestsrc ! ") == f"videotestsrc ! {SINK}"


def test_a_pipeline_keeps_its_own_sink():
    assert pipeline("gst:videotestsrc ! appsink sync=true") == "videotestsrc ! appsink sync=true"


@pytest.mark.parametrize(
    ("source", "fps", "words"),
    [
        ("csi:", None, "unknown camera 'csi:'"),
        ("csi:front", None, "unknown camera"),
        ("usb:0:640", None, "unknown camera"),
        ("gst:", None, "unknown camera"),
        ("csi:0@30", 15.0, "csi:0@30 and --fps 15 both give a frame rate"),
        ("csi:0", 7.5, "whole frame rates | got 7.5"),
        ("csi:0@0", None, "whole frame rates | got 0"),
        ("csi:0:0x640", None, "positive | got 0x640"),
        ("gst:videotestsrc", 30.0, "its own frame rate | leave --fps out"),
    ],
)
def test_a_source_that_stands_for_no_pipeline_is_refused(source, fps, words):
    with pytest.raises(InputError) as error:
        pipeline(source, fps=fps)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("source", "expected"),
    [("csi:0", True), ("gst:rtspsrc location=rtsp://camera/1", True), ("rtsp://camera/1", True), ("0", True),
     ("video.mp4", False), ("street:540x720@30", False), ("csi", False)],
)  # fmt: skip
def test_cameras_are_known_by_their_names(source, expected):
    assert is_camera(source) is expected


@pytest.mark.skipif(has_gstreamer(), reason="this OpenCV has GStreamer")
def test_an_opencv_without_gstreamer_is_refused_in_one_line():
    # Not a SourceError, which whoever waits for a camera would try again for ever.
    with pytest.raises(MissingPackageError) as error:
        open_source("csi:0")
    assert "csi:0 needs an OpenCV with GStreamer" in str(error.value)
    assert cv2.__version__ in str(error.value)
    assert "jetson/setup.sh" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_camera_cannot_be_read_faster_than_it_gives_frames():
    with pytest.raises(InputError, match="leave --no-pace out for csi:0"):
        open_source("csi:0", paced=False)


class Capture:
    """Stands in for `cv2.VideoCapture` on an OpenCV with GStreamer, which tests are not given."""

    frame = np.zeros((2, 3, 4), np.uint8)
    is_open = True
    opened_with = ()

    def __init__(self, *arguments) -> None:
        type(self).opened_with = arguments

    def isOpened(self):
        return self.is_open

    def get(self, prop):
        return {cv2.CAP_PROP_FPS: 30.0, cv2.CAP_PROP_POS_MSEC: 0.0}[prop]

    def grab(self):
        time.sleep(0.001)
        return True

    def release(self):
        pass

    def retrieve(self):
        return True, self.frame


@pytest.fixture
def capture(monkeypatch):
    class Own(Capture):
        pass

    monkeypatch.setattr(gstreamer, "has_gstreamer", lambda: True)
    monkeypatch.setattr(captures.cv2, "VideoCapture", Own)
    return Own


def test_the_pipeline_is_opened_by_gstreamer_and_no_other_backend(capture):
    source = open_source("csi:0")
    assert capture.opened_with == (pipeline("csi:0"), cv2.CAP_GSTREAMER)
    assert (source.fps, source.size_hw, source.paced) == (30.0, (2, 3), True)
    source.close()


@pytest.mark.parametrize("channels", [3, 4])
def test_frames_are_rgb_whether_the_pipeline_gives_bgr_or_bgrx(capture, channels):
    capture.frame = np.full((2, 3, channels), (1, 2, 3, 255)[:channels], np.uint8)
    source = GStreamerSource("csi:0")
    frame = source.read(threading.Event())
    source.close()
    assert frame.rgb.shape == (2, 3, 3)
    assert frame.rgb[0, 0].tolist() == [3, 2, 1]


@pytest.mark.parametrize("shape", [(3, 3), (2, 3, 2)], ids=["NV12", "YUY2"])
def test_a_pipeline_of_another_format_is_refused_with_the_end_it_needs(capture, shape):
    capture.frame = np.zeros(shape, np.uint8)
    with pytest.raises(SourceError, match=r"expected BGR or BGRx.*videoconvert ! video/x-raw,format=BGRx"):
        GStreamerSource("gst:nvarguscamerasrc")


def test_a_pipeline_that_does_not_start_names_the_command_that_says_why(capture):
    capture.is_open = False
    with pytest.raises(SourceError) as error:
        GStreamerSource("usb:0")
    assert "usb:0 cannot be opened" in str(error.value)
    assert "gst-launch-1.0 -v v4l2src device=/dev/video0 '!'" in str(error.value)
    assert str(error.value).endswith("'!' fakesink")


@pytest.mark.skipif(shutil.which("gst-inspect-1.0") is None or not has_gstreamer(), reason="needs GStreamer")
def test_a_real_pipeline_gives_frames():
    source = open_source("gst:videotestsrc pattern=red is-live=true ! video/x-raw,width=64,height=48,format=BGRx")
    try:
        assert source.read(threading.Event()).rgb[10, 10].tolist() == [255, 0, 0]
    finally:
        source.close()


def test_run_exits_with_2_when_the_camera_needs_another_opencv(bundle):
    if has_gstreamer():
        pytest.skip("this OpenCV has GStreamer")
    command = [sys.executable, "-m", "edgeseg", "run", str(bundle.root), "--source", "csi:0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
