"""The overlay video in the best format that is there."""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeseg.classes import ClassSet
from edgeseg.runtime.overlay import VideoWriter, video_writer
from edgeseg.runtime.sinks.h264 import H264Video, usable_encoder
from edgeseg.runtime.sinks.overlay_frames import OverlayVideo

if TYPE_CHECKING:
    from edgeseg.runtime.result import Result

HELD_S = 10.0
"""MPEG-4 knows no gaps: a result that is not followed by another is shown so long at most."""
_log = logging.getLogger(__name__)


class Mpeg4Video(OverlayVideo):
    """MPEG-4 by OpenCV: the file appears when it is closed well, and not at all otherwise."""

    def open(self) -> None:
        self.refuse_taken()
        self._stack = ExitStack()
        self._writer: VideoWriter = self._stack.enter_context(video_writer(self.path, self._fps, self._size_hw))

    def close(self, error: BaseException | None = None) -> None:
        with self._stack:
            if error is not None:
                # The writer tells what a full disk is, and leaves nothing behind.
                raise error
            self._show_last()

    def _show(self, picture_rgb: np.ndarray, times: int) -> None:
        self._writer.write(picture_rgb, times=min(times, max(1, round(HELD_S * self._fps))))


def video_format() -> type[OverlayVideo]:
    """H.264 that survives a `kill -9` where the extra `video` is installed, else MPEG-4."""
    return H264Video if usable_encoder() is not None else Mpeg4Video


def overlay_video(
    path: Path | str,
    fps: float,
    size_hw: tuple[int, int],
    classes: ClassSet,
    *,
    time_of: "Callable[[Result], float] | None" = None,
    overwrite: bool = False,
) -> OverlayVideo:
    """The overlay video in the `video_format` that is there, with a warning where it is MPEG-4.

    Takes and raises what `OverlayVideo` does.
    """
    warn_of_mpeg_4(path)
    return video_format()(path, fps, size_hw, classes, time_of=time_of, overwrite=overwrite)


def warn_of_mpeg_4(name: Path | str) -> None:
    """Log a warning where a video that is being made would be lost with its process."""
    if video_format() is Mpeg4Video:
        _log.warning(
            "%s is MPEG-4 and there when the run ends well, else not at all | H.264 plays whatever ends the run: "
            "pip install 'edgeseg[video]'",
            name,
        )
