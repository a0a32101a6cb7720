"""What overlay videos of every format share: which picture is shown, and how long."""

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from edgeseg.atomic import check_writable
from edgeseg.classes import ClassSet
from edgeseg.errors import InputError
from edgeseg.runtime.overlay import overlay
from edgeseg.runtime.sinks.base import FileSink

if TYPE_CHECKING:
    from edgeseg.runtime.result import Result

PARTED_S = 0.1
"""So far the frames' numbers may be from the capture's clock: pictures by network come in bursts."""


class OverlayVideo(FileSink):
    """Labels over their frames, at the source's frame rate and by its clock.

    Each result is shown until the next one's frame. The video's clock is that of the frames' numbers as long as it
    stays beside that of the capture, and follows the latter where they part: while a camera was away, its last picture
    stands.

    Args:
        path: `.mp4`.
        fps: frames per second.
        size_hw: of the video; other frames are resized.
        classes: colours.
        time_of: seconds of a result in the recording.  [default: when it was captured]
        overwrite: replace a file that is there.

    Raises:
        InputError: the name does not end with `.mp4`.
    """

    def __init__(
        self,
        path: Path | str,
        fps: float,
        size_hw: tuple[int, int],
        classes: ClassSet,
        *,
        time_of: "Callable[[Result], float] | None" = None,
        overwrite: bool = False,
    ) -> None:
        self.path, self._fps, self._size_hw, self._classes = Path(path).expanduser(), fps, size_hw, classes
        self._time_of = time_of or _captured_at
        self._overwrite = overwrite
        self._last: Result | None = None
        self._began_s = 0.0
        self._position = 0
        self.name = str(path)
        if self.path.suffix.lower() != ".mp4":
            raise InputError(f"videos are written as .mp4 | got {self.path.name}")

    @property
    def is_taken(self) -> bool:
        return not self._overwrite and self.path.is_file() and self.path.stat().st_size > 0

    def check(self) -> None:
        self.refuse_taken()
        check_writable(self.path)

    def write(self, result: "Result") -> None:
        last = self._last
        if last is None:
            self._began_s = self._time_of(result)
        elif result.frame_index > last.frame_index:
            position = self._position_of(result, last)
            if position > self._position:
                # Labels that were moved to the next frame are shown over it.
                is_ahead = result.frame_index == last.frame_index + 1 and last.stands_for > last.captured_at
                picture = self._overlaid(result.frame_rgb if is_ahead else last.frame_rgb, last.labels)
                self._show(picture, position - self._position)
                self._position = position
        self._last = result

    def _position_of(self, result: "Result", last: "Result") -> int:
        """The result's picture in the video, counted from 0."""
        by_number = self._position + result.frame_index - last.frame_index
        by_time = (self._time_of(result) - self._began_s) * self._fps
        return by_number if abs(by_time - by_number) <= max(1.0, PARTED_S * self._fps) else round(by_time)

    def _show_last(self) -> None:
        if self._last is not None:
            last, self._last = self._last, None
            self._show(self._overlaid(last.frame_rgb, last.labels), 1)

    def _overlaid(self, frame_rgb: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Labels over a frame, at the video's size: a source may change its frames' size in the middle."""
        height, width = self._size_hw
        if frame_rgb.shape[:2] != self._size_hw:
            is_smaller = height <= frame_rgb.shape[0] and width <= frame_rgb.shape[1]
            frame_rgb = cv2.resize(
                frame_rgb, (width, height), interpolation=cv2.INTER_AREA if is_smaller else cv2.INTER_LINEAR
            )
        return overlay(frame_rgb, labels, self._classes)

    @abstractmethod
    def _show(self, picture_rgb: np.ndarray, times: int) -> None:
        """Write a picture, uint8 `(H, W, 3)` RGB of the video's size, for so many frames."""


def _captured_at(result: "Result") -> float:
    return result.captured_at
