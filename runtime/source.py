"""Where frames come from, each with the time at which it was captured: cameras, video files, image folders, data sets.

A recorded source behaves as the camera did: frame i exists from `start + i / fps` on and not before, and frames whose
time has passed while nobody took them are skipped. With `paced=False` every frame is given as fast as it is asked for.
"""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

import numpy as np

from edgeseg.classes import ClassSet
from edgeseg.data.video import Video
from edgeseg.errors import InputError


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
