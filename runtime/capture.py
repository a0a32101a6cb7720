"""Cameras and streams that are open: one picture after another, each with the time at which it came.

Devices and GStreamer pipelines are read by OpenCV, network streams by PyAV. Both were measured on loopback (2 cores,
640x480, OpenCV 5.0 and PyAV 18.1, latency from the send call to the decoded picture; RTSP: `benchmarks/rtsp.py`):

| stream | by | open | p50 | p90 | damaged picture in the stream |
| --- | --- | --- | --- | --- | --- |
| MJPEG, 30/s | OpenCV | 0.02 s | 1.4 ms | 5.3 ms | the stream ends, nothing says why |
| MJPEG, 30/s | PyAV | 0.25 s | 2.5 ms | 9.2 ms | told, the stream goes on |
| RTSP H.264, 25/s | OpenCV | 1.12 s | 80.9 ms | 86.9 ms | handed out, and 39 that are predicted from it |
| RTSP H.264, 25/s | PyAV | 0.37 s | 43.0 ms | 51.2 ms | skipped with those (`edgeseg.runtime.damage`) |

The time of a picture is that at which its last byte came, before it was decoded; of a V4L2 device that of the driver.
The 40 ms of RTSP are one period: FFmpeg knows the end of a picture by the beginning of the next one.
"""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable

import cv2
import numpy as np

from edgeseg.errors import SourceError

PLAUSIBLE_FPS = 1000.0
"""What tells a rate no lower than this tells none: it is the clock of the stream, or a driver's nonsense."""
OTHER_FPS = 0.05
"""A device that differs by more from the rate asked for gives another one."""
DRIVER_AGE_S = 1.0
"""A driver's time of a picture is believed when it lies no further back: else its clock is another one."""

_log = logging.getLogger(__name__)


class CaptureLost(Exception):
    """The capture gives no more pictures; the message says why."""


class CaptureEnded(Exception):
    """A recording was played to its end."""


class RecordingBroken(SourceError):
    """A recording cannot be played to its end, opened again or not."""


class CorruptPicture(Exception):
    """The next picture cannot be used; the message says why. The one after it may be whole."""


class Capture(ABC):
    """An open camera or stream. One thread opens, reads and closes it."""

    fps: float | None
    """Frames per second as it tells them; None where it does not."""
    is_recording: bool = False
    """Whether it is played, to its end: it can wait until somebody looks."""
    had_waited: bool = False
    """Whether the picture read last had been there for some time: it came before its time says."""

    @abstractmethod
    def read(self) -> tuple[float, np.ndarray]:
        """The next picture: when it came, in seconds, and uint8 `(H, W, 3)` RGB. May block for as long as it likes.

        Raises:
            CaptureLost, CaptureEnded, CorruptPicture: see there.
            SourceError: pictures of this kind will never be of use.
        """

    @abstractmethod
    def close(self) -> None:
        """Free the device or connection."""


class DeviceCapture(Capture):
    """A camera by OpenCV: V4L2, what else the system has, or a GStreamer pipeline.

    Args:
        address: index, path of a device, or a pipeline.
        backend: OpenCV's `CAP_` constant.
        name: for messages.
        advice: what to do when it cannot be opened.
        fps, size_hw: to be asked of the camera; None: what it gives.
        clock: seconds.

    Raises:
        SourceError: it cannot be opened, or gives pictures of another size than the one asked for.
    """

    def __init__(
        self,
        address: int | str,
        *,
        backend: int = cv2.CAP_ANY,
        name: str,
        advice: str,
        fps: float | None = None,
        size_hw: tuple[int, int] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name, self._clock = name, clock
        self._capture = cv2.VideoCapture(address, backend)
        if not self._capture.isOpened():
            raise SourceError(f"{name} cannot be opened | {advice}")
        if size_hw is not None:
            self._ask_for(size_hw)
        if fps is not None:
            self._capture.set(cv2.CAP_PROP_FPS, fps)
        own_fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = own_fps if 0 < own_fps < PLAUSIBLE_FPS else None
        if fps is not None and self.fps is not None and abs(self.fps / fps - 1) > OTHER_FPS:
            _log.warning(
                "%s: gives %.4g frames/s, not the %.4g asked for | edgeseg doctor --camera lists what it has",
                name, self.fps, fps,
            )  # fmt: skip
        self._has_given = False

    def read(self) -> tuple[float, np.ndarray]:
        if not self._capture.grab():
            raise CaptureLost("the connection is lost")
        came_at_s = self._came_at_s()
        done, picture = self._capture.retrieve()
        if not done or picture is None or picture.size == 0:
            raise CorruptPicture("it cannot be decoded")
        return came_at_s, self._rgb(picture)

    def close(self) -> None:
        self._capture.release()

    def _ask_for(self, size_hw: tuple[int, int]) -> None:
        self._capture.set(cv2.CAP_PROP_FRAME_HEIGHT, size_hw[0])
        self._capture.set(cv2.CAP_PROP_FRAME_WIDTH, size_hw[1])
        given = tuple(int(self._capture.get(each)) for each in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH))
        if given != size_hw:
            self.close()
            raise SourceError(
                f"{self._name} gives no pictures of {size_hw[0]}x{size_hw[1]}, the nearest are {given[0]}x{given[1]} | "
                f"ask for a size that it has: --camera-size {given[0]}x{given[1]}"
            )

    def _came_at_s(self) -> float:
        now_s = self._clock()
        driver_s = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
        return driver_s if 0 <= now_s - driver_s < DRIVER_AGE_S else now_s

    def _rgb(self, picture: np.ndarray) -> np.ndarray:
        if picture.ndim != 3 or picture.shape[2] not in (3, 4):
            if self._has_given:
                raise CorruptPicture(f"it is of shape {picture.shape}")
            raise SourceError(
                f"{self._name} gives pictures of {picture.shape} | expected BGR or BGRx: end the pipeline in "
                "! videoconvert ! video/x-raw,format=BGRx"
            )
        self._has_given = True
        return cv2.cvtColor(picture, cv2.COLOR_BGRA2RGB if picture.shape[2] == 4 else cv2.COLOR_BGR2RGB)
