"""Cameras through GStreamer: `csi:0`, `usb:0`, or a pipeline of one's own, `gst:PIPELINE`.

The image signal processor of a Jetson is reached in no other way, and pip's OpenCV has no GStreamer: it takes the
system's. Pipelines end in a sink that holds the newest frame only and never waits, as the loop takes no other.
"""

import re
import shlex
from pathlib import Path

import cv2

from edgeseg.errors import InputError, MissingPackageError
from edgeseg.runtime.camera import DEFAULT_CAMERA_FPS, CameraSource, Reconnection
from edgeseg.runtime.capture import Capture, DeviceCapture
from edgeseg.runtime.jetson.board_files import ROOT, is_jetson
from edgeseg.runtime.source_address import public_name

SIZE_HW = (720, 1280)
"""Of a camera's frames unless told otherwise."""
SINK = "appsink drop=true max-buffers=1 sync=false"
_SCHEMES = ("csi", "usb", "gst")
_CAMERA = re.compile(r"(csi|usb):(\d+)(?::(\d+)x(\d+))?(?:@(\d+))?")
# The caps are one for all sensors: the processor scales the nearest mode of the sensor to them. The conversion to three
# channels is left to `DeviceCapture`, which has to swap them anyway.
_CSI = (
    "nvarguscamerasrc sensor-id={index} ! "
    "video/x-raw(memory:NVMM),format=NV12,width={width},height={height},framerate={fps}/1 ! "
    "nvvidconv ! video/x-raw,format=BGRx ! {sink}"
)
# USB 2 has no room for raw pictures of this size at a video's rate: those of a camera that gives JPEG come so.
_USB = (
    "v4l2src device=/dev/video{index} ! "
    'capsfilter caps="image/jpeg,width={width},height={height},framerate={fps}/1;'
    'video/x-raw,width={width},height={height},framerate={fps}/1" ! '
    "decodebin ! {convert} ! video/x-raw,format=BGRx ! {sink}"
)
_PIPELINES = {"csi": _CSI, "usb": _USB}


def is_gstreamer(source: str) -> bool:
    """Whether `source` names a camera that is reached through GStreamer."""
    return source.partition(":")[0] in _SCHEMES and ":" in source


def pipeline(
    source: str, *, fps: float | None = None, size_hw: tuple[int, int] | None = None, root: Path = ROOT
) -> str:
    """The pipeline that `source` stands for, with its sink.

    Args:
        source: `csi:INDEX[:HxW][@FPS]`, `usb:INDEX[:HxW][@FPS]`, or `gst:PIPELINE`, whose sink may be left out.
        fps: frame rate of a camera that names none, whole frames per second.
        size_hw: size of the frames of a camera that names none.
        root: of the file system, which tells whether this is a Jetson.

    Raises:
        InputError: it is none of these, or two different rates or sizes are given.
    """
    scheme, _, rest = source.partition(":")
    shown = public_name(source)
    if scheme == "gst" and rest.strip():
        if fps is not None:
            raise InputError(f"a pipeline says its own frame rate | leave --fps out, got {fps:g} for {shown}")
        if size_hw is not None:
            raise InputError(f"a pipeline says its own size | leave --camera-size out for {shown}")
        return rest.strip() if "appsink" in rest else f"{rest.strip().rstrip('!').rstrip()} ! {SINK}"
    found = _CAMERA.fullmatch(source)
    if found is None:
        raise InputError(
            f"unknown camera {source!r} | expected csi:0, usb:0, both with :HxW and @FPS if wanted, such as "
            "csi:0:720x1280@30, or gst:PIPELINE"
        )
    own_fps = None if found[5] is None else int(found[5])
    if own_fps is not None and fps is not None and own_fps != fps:
        raise InputError(f"{source} and --fps {fps:g} both give a frame rate | give it once")
    rate = (fps or DEFAULT_CAMERA_FPS) if own_fps is None else own_fps
    if rate != int(rate) or rate <= 0:
        raise InputError(f"cameras have whole frame rates | got {rate:g} for {source}")
    own_size_hw = (int(found[3]), int(found[4])) if found[3] else None
    if own_size_hw and size_hw and own_size_hw != size_hw:
        raise InputError(f"{source} and --camera-size {size_hw[0]}x{size_hw[1]} both give a size | give it once")
    height, width = own_size_hw or size_hw or SIZE_HW
    if not height or not width:
        raise InputError(f"the size of a camera's frames is positive | got {height}x{width} in {source}")
    # A Jetson's decoders may leave pictures in memory that videoconvert cannot reach; nvvidconv takes them from both.
    convert = "nvvidconv" if is_jetson(root) else "videoconvert"
    return _PIPELINES[found[1]].format(
        index=int(found[2]), width=width, height=height, fps=int(rate), convert=convert, sink=SINK
    )


class GStreamerSource(CameraSource):
    """A camera behind a GStreamer pipeline; arguments and errors as of `pipeline` and `CameraSource`.

    Raises:
        MissingPackageError: this OpenCV has no GStreamer.
        SourceError: the pipeline does not start, or it gives no BGR or BGRx.
    """

    def __init__(
        self,
        source: str,
        *,
        fps: float | None = None,
        size_hw: tuple[int, int] | None = None,
        reconnection: Reconnection | None = None,
    ) -> None:
        described, name = pipeline(source, fps=fps, size_hw=size_hw), public_name(source)
        if not has_gstreamer():
            raise MissingPackageError(
                f"{name} needs an OpenCV with GStreamer | OpenCV {cv2.__version__} in {cv2.__file__} has none, "
                "as none of pip's has | take the system's python3-opencv; on a Jetson jetson/setup.sh does"
            )
        alone = public_name("gst:" + re.sub(r"\bappsink\b[^!]*$", "fakesink", described)).removeprefix("gst:")
        advice = f"what does it say by itself: gst-launch-1.0 -v {shlex.join(alone.split())}"

        def open_capture() -> Capture:
            # Rate and size are part of the pipeline: a started one cannot be told others.
            return DeviceCapture(described, backend=cv2.CAP_GSTREAMER, name=name, advice=advice)

        super().__init__(name, open_capture, reconnection=reconnection)


def has_gstreamer() -> bool:
    """Whether this OpenCV can run pipelines."""
    return bool(cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER))
