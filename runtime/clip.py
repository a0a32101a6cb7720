"""Frames to measure with: a short video that is played to and fro, so that it goes on for ever without a cut."""

from collections.abc import Sequence

import cv2
import numpy as np

from edgeseg.data.video import Video

NOISE_FRAMES = 8
_CELLS = (4, 16, 64)
"""Structure of the noise: as many cells a side, at each of several scales."""
_MOTION_SHARE = 0.008
"""What the noise moves by from frame to frame, as a share of the frame's shorter side: 3 pixels at 360 x 480."""


def noise_frames(size_hw: tuple[int, int], count: int = NOISE_FRAMES) -> list[np.ndarray]:
    """Seeded uint8 `(H, W, 3)` frames: a view that moves a few pixels a frame over noise with structure at
    several scales.

    They stand for real video: the graphs do the same arithmetic whatever they are shown. CPU time of a SwiftNet's step,
    measured in turns on CamVid and on noise, is the same within 1 %. The motion is coherent, or the optical flow would
    see a scene cut at every frame and labels would never be moved.
    """
    rng = np.random.default_rng(0)
    height, width = size_hw
    step = max(1, round(_MOTION_SHARE * min(size_hw)))
    wide = height + step * (count - 1), width + 2 * step * (count - 1)
    picture = np.zeros((*wide, 3), np.float32)
    for cells in _CELLS:
        coarse = rng.uniform(0, 80, (cells, cells, 3)).astype(np.float32)
        picture += cv2.resize(coarse, wide[::-1], interpolation=cv2.INTER_LINEAR)
    noise = np.clip(picture + rng.normal(0, 8, picture.shape), 0, 255).astype(np.uint8)
    return [noise[step * i : step * i + height, 2 * step * i : 2 * step * i + width].copy() for i in range(count)]


def first_frames(video: Video) -> list[np.ndarray]:
    """The first frames of a video, uint8 `(H, W, 3)` RGB, as many as noise has; all of a shorter one."""
    return [video.frame_rgb(index) for index in range(min(NOISE_FRAMES, len(video)))]


class Clip:
    """Consecutive frames, played to and fro without end: each differs from the next as frames of a video do.

    Args:
        frames_rgb: uint8 `(H, W, 3)` each, at least one.
        size_hw: they are resized to this where they differ.
    """

    def __init__(self, frames_rgb: Sequence[np.ndarray], size_hw: tuple[int, int]) -> None:
        self._frames = [_at_size(frame, size_hw) for frame in frames_rgb]

    def frame_rgb(self, index: int) -> np.ndarray:
        """uint8 `(H, W, 3)` frame at any `index` from 0 on."""
        last = len(self._frames) - 1
        if last == 0:
            return self._frames[0]
        place = index % (2 * last)
        return self._frames[min(place, 2 * last - place)]


def _at_size(frame_rgb: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    if frame_rgb.shape[:2] == size_hw:
        return frame_rgb
    return cv2.resize(frame_rgb, size_hw[::-1], interpolation=cv2.INTER_AREA)
