"""Where frames come from, each with the time at which it was captured: cameras, video files, image folders, data sets.

A recorded source behaves as the camera did: frame i exists from `start + i / fps` on and not before, and frames whose
time has passed while nobody took them are skipped. With `paced=False` every frame is given as fast as it is asked for.
"""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING
from urllib.parse import unquote

import numpy as np

from edgeseg.classes import ClassSet
from edgeseg.data.image_files import image_files
from edgeseg.data.open import is_simulator, open_dataset
from edgeseg.data.video import Video
from edgeseg.errors import InputError, SourceError
from edgeseg.runtime.source_address import public_name, spelled_out

if TYPE_CHECKING:
    from edgeseg.runtime.camera import Reconnection

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
    stretch: int = 0
    """Counted up by the loop where a frame does not go on from the one before (`edgeseg.runtime.continuity`)."""


@dataclass(frozen=True)
class SourceCounts:
    """What went wrong with a camera so far."""

    reconnects: int = 0
    """How often it was lost and came back."""
    stalls: int = 0
    """How often it was open and gave nothing."""
    corrupt: int = 0
    """Pictures that could not be used, and were skipped; they are no frames and have no index."""


class Source(ABC):
    """Frames one after another. One thread reads; `close` is called when that thread has ended."""

    name: str
    fps: float
    """Frames per second."""
    fps_origin: str = "told"
    """Where the rate is known from: `given` by the user for a stream or an iterator, whatever that tells, `told` by the
    source, else `measured` by its first frames, or `assumed`."""
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

    def has_labels(self, index: int) -> bool:
        """Whether frame `index` has a label map; cheaper than reading it where the source can tell."""
        return self.labels(index) is not None

    def captured_at_s(self, index: int) -> float | None:
        """When frame `index` was captured, read or not; None where the source cannot know."""
        return None

    @property
    def counts(self) -> SourceCounts:
        """What went wrong so far."""
        return SourceCounts()

    @property
    def is_lost(self) -> bool:
        """Whether a camera was lost and has not come back so far."""
        return False

    def close(self) -> None:
        """Free the device or file. May be called twice."""
        return None

    def __enter__(self) -> "Source":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


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
        return self._video.labels(index) if self.has_labels(index) else None

    def has_labels(self, index: int) -> bool:
        # A paced schedule goes on after the last frame.
        return index < len(self._video) and self._video.has_labels(index)

    def _decode(self, index: int) -> np.ndarray | None:
        return self._video.frame_rgb(index) if index < len(self._video) else None


def is_camera(source: str) -> bool:
    """Whether `source` is a camera or a stream, which gives its frames when they come and never again.

    Raises:
        InputError: the file of an `@FILE` cannot be read.
    """
    from edgeseg.runtime.gstreamer import is_gstreamer

    source = spelled_out(source)
    is_stream = "://" in source and not source.startswith("file://")
    return source.isdecimal() or source.startswith("/dev/") or is_gstreamer(source) or is_stream


def open_source(
    source: "int | str | Path | Video | Source | Iterable[tuple[float, np.ndarray]]",
    *,
    fps: float | None = None,
    paced: bool = True,
    split: str | None = None,
    size_hw: tuple[int, int] | None = None,
    rotate_deg: int = 0,
    colour_order: str = "RGB",
    reconnection: "Reconnection | None" = None,
    clock: Callable[[], float] = time.monotonic,
) -> Source:
    """Open what the user named as a source.

    Args:
        source: camera index (or its digits) or device (`/dev/video0`), URL, camera through GStreamer
            (`edgeseg.runtime.gstreamer`), video file, folder of images, data set, the simulator as
            `street[:HxW][@FPS]`, `@FILE` for what a file's first line says, a video of a data set, an iterator of
            (capture time, frame) as in `edgeseg.runtime.frame_iterator`, or a source, which is returned as it is.
        fps: frame rate at which the frames come; None: the source's own. Folders of images have none. The simulator
            renders at it; a recording is played faster or slower.
        paced: see `Source`; cameras are always paced.
        split: split of a data set; None: `val`, else its last one. Its longest video is played.
        size_hw: size that a camera is to give; None: its own.
        rotate_deg: degrees by which frames and label maps are turned clockwise: 0, 90, 180 or 270.
        colour_order: `BGR` when what the source gives as red is blue.
        reconnection: how a camera is watched and opened again; None: the default limits.
        clock: seconds; of the times of an iterator.

    Raises:
        SourceError: it cannot be opened.
        InputError: a frame rate is missing or out of range, there is no such split, options contradict the source, or
            it is of another type, or names nothing.
    """
    if isinstance(source, str):
        source = spelled_out(source)
        if not source.strip():
            raise InputError("a source has a name | got an empty one: give a camera index, a file, a folder or a URL")
    is_live = isinstance(source, (int, str)) and is_camera(str(source))
    shown = public_name(str(source)) if is_live else source
    if fps is not None and not 0 < fps < float("inf"):
        raise InputError(f"{shown}: a frame rate must be positive | got {fps}")
    if not is_live and (size_hw is not None or reconnection is not None):
        option = "--stall, --retry-most, --give-up and --open-limit" if size_hw is None else "--camera-size"
        raise InputError(f"{option}: for cameras and streams | got {shown}: leave it out")
    if is_live and not paced:
        raise InputError(f"a camera gives its frames when they come | leave --no-pace out for {shown}")
    if split is not None and (is_live or not isinstance(source, (str, Path))):
        raise _no_splits(shown)
    if is_live:
        opened = _camera_source(str(source), fps, size_hw, reconnection)
    else:
        opened = _other_source(source, fps, paced, split, clock)
    if not rotate_deg and colour_order == "RGB":
        return opened
    from edgeseg.runtime.adjusted_source import AdjustedSource

    try:
        return AdjustedSource(opened, rotate_deg=rotate_deg, colour_order=colour_order)
    except BaseException:
        opened.close()
        raise


def _camera_source(
    address: str, fps: float | None, size_hw: tuple[int, int] | None, reconnection: "Reconnection | None"
) -> Source:
    from edgeseg.runtime.camera import open_camera
    from edgeseg.runtime.gstreamer import GStreamerSource, is_gstreamer

    opens = GStreamerSource if is_gstreamer(address) else open_camera
    return opens(address, fps=fps, size_hw=size_hw, reconnection=reconnection)


def _other_source(
    source: object, fps: float | None, paced: bool, split: str | None, clock: Callable[[], float]
) -> Source:
    from edgeseg.runtime.file_sources import FolderSource, VideoFileSource
    from edgeseg.runtime.frame_iterator import IteratorSource

    if isinstance(source, Source):
        return source
    if isinstance(source, Video):
        return VideoSource(source, fps=fps, paced=paced)
    if isinstance(source, Iterable) and not isinstance(source, str):
        return IteratorSource(source, fps=fps, paced=paced, clock=clock)
    if not isinstance(source, (str, Path)):
        raise InputError(
            f"a {type(source).__name__} is no source | expected a camera index, a file, a folder, a URL, a Video, a "
            "Source or an iterator of (seconds, frame) | or call Session.step on each frame"
        )
    if is_simulator(source):
        return _street_source(str(source), fps, split or "val", paced)
    path = Path(unquote(str(source).removeprefix("file://"))) if str(source).startswith("file://") else Path(source)
    path = path.expanduser()
    if path.is_dir():
        try:
            return _dataset_source(path, split, fps, paced)
        except InputError as error:
            if split is not None or not image_files(path):
                raise SourceError(f"{path} cannot be played | {error}") from error
        return FolderSource(path, fps=fps, paced=paced)
    if split is not None and path.exists():
        raise _no_splits(path)
    return VideoFileSource(path, fps=fps, paced=paced)


def _no_splits(source: object) -> InputError:
    shown = source if isinstance(source, (int, str, Path)) else f"a {type(source).__name__}"
    return InputError(f"--split names a part of a data set | got {shown}: leave it out")


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
