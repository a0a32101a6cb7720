"""Videos whose frames tell which they are, and files of them."""

import threading
from pathlib import Path

import cv2
import numpy as np

from edgeseg.data.video import Video
from edgeseg.runtime.source import Frame, Source


class NumberedVideo(Video):
    """Frame i is i everywhere, at 100 frames/s."""

    name, fps, size_hw = "numbered", 100.0, (32, 48)

    def __init__(self, frames: int) -> None:
        self._frames = frames

    def __len__(self) -> int:
        return self._frames

    def frame_rgb(self, index: int) -> np.ndarray:
        return np.full((32, 48, 3), index, np.uint8)

    def labels(self, index: int) -> np.ndarray:
        return np.zeros((32, 48), np.uint8)


def write_video(path: Path, frames: int = 12, size_hw: tuple[int, int] = (48, 64)) -> None:
    """A file at 10 frames/s whose frame i is 20 i in red, up to 250, and 250 in blue."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, size_hw[::-1])
    assert writer.isOpened()
    for index in range(frames):
        frame_bgr = np.zeros((*size_hw, 3), np.uint8)
        frame_bgr[..., 0] = 250
        frame_bgr[..., 2] = min(20 * index, 250)
        writer.write(frame_bgr)
    writer.release()


def read_all(source: Source) -> list[Frame]:
    """The frames that are left of a source."""
    stop, frames = threading.Event(), []
    while (frame := source.read(stop)) is not None:
        frames.append(frame)
    return frames
