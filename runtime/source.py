"""Where frames come from, each with the time at which it was captured: cameras, video files, image folders, data sets.

A recorded source behaves as the camera did: frame i exists from `start + i / fps` on and not before, and frames whose
time has passed while nobody took them are skipped. With `paced=False` every frame is given as fast as it is asked for.
"""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edgeseg.classes import ClassSet
from edgeseg.data.image_files import image_files, read_frame_rgb, read_size_hw
from edgeseg.data.open import is_simulator, open_dataset
from edgeseg.data.video import Video
from edgeseg.errors import InputError, SourceError

DEFAULT_CAMERA_FPS = 30.0
"""Assumed when a camera does not tell."""
STREET_FPS, STREET_S = 15.0, 60.0
"""Frame rate unless told otherwise, and length, of a drive through the simulator."""


@dataclass(frozen=True)
class Frame:
    """One frame of a source."""

    index: int
    """Number of the frame in its source; skipped frames leave gaps."""
    captured_at_s: float
    """Seconds on the source's clock (`time.monotonic` unless told otherwise)."""
    rgb: np.ndarray
    """uint8 `(H, W, 3)` RGB, 0-255; a fresh array that the taker owns."""


class Source(ABC):
    """Frames one after another. One thread reads; `close` is called when that thread has ended."""

    name: str
    fps: float
    """Frames per second."""
    size_hw: tuple[int, int]
    paced: bool
    """Whether frames come at their time, taken or not; False: each frame waits until it is asked for."""
    classes: ClassSet | None = None
    """Classes of its label maps, when it has any."""

    @abstractmethod
    def read(self, stop: threading.Event) -> Frame | None:
        """The next frame, waiting until it exists; None at the end, or soon after `stop` is set.

        Raises:
            SourceError: the source broke; the message says at which frame.
        """

    def labels(self, index: int) -> np.ndarray | None:
        """Label map of frame `index`, uint8 `(H, W)`; None where it has none."""
        return None

    def captured_at_s(self, index: int) -> float | None:
        """When frame `index` was captured, read or not; None where the source cannot know."""
        return None

    def close(self) -> None:
        """Free the device or file. May be called twice."""
        return None


class RecordedSource(Source):
    """What recorded sources share: the schedule of their frames, and its waiting.

    Args:
        name: for messages.
        fps: frames per second.
        size_hw: height and width of the frames.
        paced: see `Source`.
        clock: seconds.
        wait: waits on an event for some seconds, like `threading.Event.wait`; returns whether it is set.
    """

    def __init__(
        self,
        name: str,
        fps: float,
        size_hw: tuple[int, int],
        *,
        paced: bool = True,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[threading.Event, float], bool] = threading.Event.wait,
    ) -> None:
        if not 0 < fps < float("inf"):
            raise InputError(f"{name}: a frame rate must be positive | got {fps}")
        self.name, self.fps, self.size_hw, self.paced = name, fps, size_hw, paced
        self._clock, self._wait = clock, wait
        self._started_at_s: float | None = None
        self._next = 0

    def read(self, stop: threading.Event) -> Frame | None:
        if self._started_at_s is None:
            # The first frame is decoded before the clock starts, so that it is not late by its own decoding.
            rgb = self._decode(0)
            self._started_at_s = self._clock()
        else:
            self._skip_what_has_passed()
            rgb = self._decode(self._next)
        if rgb is None or stop.is_set():
            return None
        index, self._next = self._next, self._next + 1
        if not self.paced:
            return Frame(index, self._clock(), rgb)
        due = self._started_at_s + index / self.fps
        while (remaining := due - self._clock()) > 0:
            if self._wait(stop, remaining):
                return None
        return Frame(index, due, rgb)

    def captured_at_s(self, index: int) -> float | None:
        if not self.paced or self._started_at_s is None:
            return None
        return self._started_at_s + index / self.fps

    @abstractmethod
    def _decode(self, index: int) -> np.ndarray | None:
        """Frame `index` (ascending, with gaps) as uint8 `(H, W, 3)` RGB; None after the last one."""

    def _skip_what_has_passed(self) -> None:
        """A camera's frame that the next one has already replaced was never seen."""
        if self.paced and self._started_at_s is not None:
            newest = int((self._clock() - self._started_at_s) * self.fps)
            self._next = max(self._next, newest)


class VideoSource(RecordedSource):
    """A video of a data set, or the simulator: frames by index, labels where there are some."""

    def __init__(
        self, video: Video, classes: ClassSet | None = None, *, fps: float | None = None, **schedule: object
    ) -> None:
        super().__init__(video.name, fps or video.fps, video.size_hw, **schedule)  # type: ignore[arg-type]
        self.classes = classes
        self._video = video

    def labels(self, index: int) -> np.ndarray | None:
        # A paced schedule goes on after the last frame.
        return self._video.labels(index) if index < len(self._video) and self._video.has_labels(index) else None

    def _decode(self, index: int) -> np.ndarray | None:
        return self._video.frame_rgb(index) if index < len(self._video) else None


class FolderSource(RecordedSource):
    """A folder of images in the order of their names, all of one size."""

    def __init__(self, folder: Path, *, fps: float | None, **schedule: object) -> None:
        self._paths = image_files(folder)
        if not self._paths:
            raise SourceError(f"{folder} holds no images | expected .png or .jpg files, or a data set")
        if fps is None:
            raise InputError(f"{folder} is a folder of images, which has no frame rate | give one: --fps")
        super().__init__(str(folder), fps, read_size_hw(self._paths[0]), **schedule)  # type: ignore[arg-type]

    def _decode(self, index: int) -> np.ndarray | None:
        if index >= len(self._paths):
            return None
        try:
            return read_frame_rgb(self._paths[index], self.size_hw)
        except InputError as error:
            raise SourceError(f"{self.name} broke at frame {index} of {len(self._paths)} | {error}") from error


class VideoFileSource(RecordedSource):
    """A video file, decoded by OpenCV."""

    def __init__(self, path: Path, *, fps: float | None = None, **schedule: object) -> None:
        if not path.is_file():
            raise SourceError(f"no video file at {path} | give a file, a folder, a camera index, a URL or 'street'")
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise SourceError(f"{path} cannot be opened as a video | it is damaged, or of a format that OpenCV lacks")
        self._frame_count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self._position = 0
        own_fps = self._capture.get(cv2.CAP_PROP_FPS)
        if fps is None and not 0 < own_fps < 1000:
            raise InputError(f"{path} does not tell its frame rate | give one: --fps")
        super().__init__(str(path), fps or own_fps, _capture_size(self._capture), **schedule)  # type: ignore[arg-type]

    def close(self) -> None:
        self._capture.release()

    def _decode(self, index: int) -> np.ndarray | None:
        while self._position < index:
            # Seeking lands on key frames only; grabbing decodes what later frames need and keeps the count right.
            if not self._capture.grab():
                self._check_end()
                return None
            self._position += 1
        ok, frame_bgr = self._capture.read()
        if not ok:
            self._check_end()
            return None
        self._position += 1
        if frame_bgr.shape[:2] != self.size_hw:
            raise SourceError(
                f"{self.name} broke at frame {index} | the frame is {frame_bgr.shape[:2]}, expected {self.size_hw}"
            )
        return cv2.cvtColor(frame_bgr, cv2.COLOR_BGR2RGB, dst=frame_bgr)

    def _check_end(self) -> None:
        # Containers count by duration and may be one frame off.
        if self._position < self._frame_count - 1:
            raise SourceError(
                f"{self.name} broke at frame {self._position} of {self._frame_count} | the file is damaged or cut off"
            )


class CameraSource(Source):
    """A camera by its index, or a network stream by its URL: frames come when they come."""

    def __init__(
        self, address: int | str, *, fps: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = f"camera {address}" if isinstance(address, int) else address
        self.paced = True
        self._clock = clock
        self._capture = self._open(address)
        if not self._capture.isOpened():
            raise SourceError(f"{self.name} cannot be opened | {self._advice(address)}")
        if fps is not None:
            self._capture.set(cv2.CAP_PROP_FPS, fps)
        own_fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = own_fps if 0 < own_fps < 1000 else fps or DEFAULT_CAMERA_FPS
        self.size_hw = _capture_size(self._capture)
        self._next = 0

    def read(self, stop: threading.Event) -> Frame | None:
        if stop.is_set():
            return None
        if not self._capture.grab():
            raise SourceError(f"{self.name} stopped after frame {self._next - 1} | the connection is lost")
        captured_at_s = self._clock()
        ok, frame_bgr = self._capture.retrieve()
        if not ok:
            raise SourceError(f"{self.name} broke at frame {self._next} | the frame cannot be decoded")
        index, self._next = self._next, self._next + 1
        return Frame(index, captured_at_s, self._rgb(frame_bgr))

    def close(self) -> None:
        self._capture.release()

    def _open(self, address: int | str) -> cv2.VideoCapture:
        return cv2.VideoCapture(address)

    def _rgb(self, frame: np.ndarray) -> np.ndarray:
        """What the capture gave as uint8 `(H, W, 3)` RGB."""
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)

    def _advice(self, address: int | str) -> str:
        """What to do when it cannot be opened."""
        if isinstance(address, int):
            return "is it connected, and free of other programs? Its index may be another one"
        return "does it answer, and is the address right? --verbose shows what the decoder says"


def is_camera(source: str) -> bool:
    """Whether `source` is a camera or a stream, which gives its frames when they come and never again."""
    from edgeseg.runtime.gstreamer import is_gstreamer

    return source.isdecimal() or is_gstreamer(source) or "://" in source


def open_source(
    source: int | str | Path | Video | Source, *, fps: float | None = None, paced: bool = True, split: str | None = None
) -> Source:
    """Open what the user named as a source.

    Args:
        source: camera index (or its digits), URL, camera through GStreamer (`edgeseg.runtime.gstreamer`), video file,
            folder of images, data set, the simulator as `street[:HxW][@FPS]`, a video of a data set, or a source, which
            is returned as it is.
        fps: frame rate at which the frames come; None: the source's own. Folders of images have none. The simulator
            renders at it; a recording is played faster or slower.
        paced: see `Source`; cameras are always paced.
        split: split of a data set; None: `val`, else its last one. Its longest video is played.

    Raises:
        SourceError: it cannot be opened.
        InputError: a frame rate is missing or out of range, there is no such split, or `source` is of another type.
    """
    if isinstance(source, Source):
        return source
    if fps is not None and not 0 < fps < float("inf"):
        raise InputError(f"{source}: a frame rate must be positive | got {fps}")
    if isinstance(source, Video):
        return VideoSource(source, fps=fps, paced=paced)
    if not isinstance(source, (int, str, Path)):
        raise InputError(
            f"a {type(source).__name__} is no source | expected a camera index, a file, a folder, a URL, a Video or a "
            "Source | frames of your own: subclass edgeseg.runtime.Source, or call Session.step on each"
        )
    text = str(source)
    if is_camera(text):
        from edgeseg.runtime.gstreamer import GStreamerSource, is_gstreamer

        if not paced:
            raise InputError(f"a camera gives its frames when they come | leave --no-pace out for {text}")
        if is_gstreamer(text):
            return GStreamerSource(text, fps=fps)
        return CameraSource(int(text) if text.isdecimal() else text, fps=fps)
    if is_simulator(source):
        return _street_source(text, fps, split or "val", paced)
    path = Path(text).expanduser()
    if path.is_dir():
        try:
            return _dataset_source(path, split, fps, paced)
        except InputError as error:
            if split is not None or not image_files(path):
                raise SourceError(f"{path} cannot be played | {error}") from error
        return FolderSource(path, fps=fps, paced=paced)
    return VideoFileSource(path, fps=fps, paced=paced)


def _street_source(spec: str, fps: float | None, split: str, paced: bool) -> VideoSource:
    """One drive through the simulator that is longer than the clips it trains and scores on."""
    own = spec.partition("@")[2]
    if own and fps is not None and float(own) != fps:
        raise InputError(f"{spec} and --fps {fps:g} both give a frame rate | give it once")
    rate = float(own or fps or STREET_FPS)
    frames = max(1, round(STREET_S * rate))
    given = {} if own else {"fps": rate}
    dataset = open_dataset(spec, frames=(frames, frames, frames), **given)
    return VideoSource(dataset.videos(split)[0], dataset.classes, paced=paced)


def _dataset_source(path: Path, split: str | None, fps: float | None, paced: bool) -> VideoSource:
    dataset = open_dataset(path)
    chosen = split or ("val" if "val" in dataset.splits else dataset.splits[-1])
    video = max(dataset.videos(chosen), key=len)
    return VideoSource(video, dataset.classes, fps=fps, paced=paced)


def _capture_size(capture: cv2.VideoCapture) -> tuple[int, int]:
    return int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)), int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
